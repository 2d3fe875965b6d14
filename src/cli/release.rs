//! `plainfold release`: deletes what the brake on mass deletion holds back, by the process that works
//! on the mirror, or, where none does, by the next one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::StatusCode;

use super::exit::{self, Exit, Usage};
use super::output::{Lines, Stream, many};
use super::process::Process;
use crate::checkpoint::Bounds;
use crate::config::open_state;
use crate::document::CollectionName;
use crate::mirror::{Mirror, Ours};
use crate::runner::Release;
use crate::tree::{Holder, MirrorError};

/// What `plainfold release` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// The name of the collection whose deletions are held back
    #[arg(value_name = "COLLECTION")]
    collection: String,
}

/// Releases.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let Options { directory, collection } = options;
    let name = CollectionName::from(&*collection);
    let released = match Ours::find(&directory)?.holder()? {
        None => at_rest(&directory, &name)?,
        Some(holder) => {
            let process = Process::new(&directory, holder);
            match process.holder().socket.clone() {
                Some(socket) => ask(&process, &socket, &collection).await?,
                None if process.stopped().is_some() => return Err(process.unanswered("").into()),
                None => {
                    let holder = process.holder().clone();
                    return Err(MirrorError::Locked { path: directory, holder }.into());
                }
            }
        }
    };
    let released =
        released.ok_or_else(|| Usage(format!("the mirror has no collection `{collection}`")))?;
    let Release { held_back, left } = released;
    let text = match (held_back, left) {
        (0, _) => format!("{collection}: no deletions are held back"),
        (_, 0) => format!("{collection}: applied {}", many(held_back, "deletion")),
        (held_back, left) => {
            let those = if left == held_back { "them" } else { &format!("{left} of them") };
            let released = many(held_back, "deletion");
            format!(
                "{collection}: released {released}; the next `plainfold mirror` applies {those}"
            )
        }
    };
    Stream::Stdout.report("what was released", &Lines::of(&text))?;
    Ok(Exit::Done)
}

fn at_rest(directory: &Path, name: &CollectionName) -> anyhow::Result<Option<Release>> {
    let mirror = Mirror::open_existing(directory, &Holder::this_process("release"))?;
    let state = open_state(&mirror, Bounds::DEFAULT)?;
    Ok(Release::at_rest(&state, name)?)
}

async fn ask(
    process: &Process,
    socket: &Path,
    collection: &str,
) -> anyhow::Result<Option<Release>> {
    /// The process answers when the deletions are made, or after 5 s.
    const PATIENCE: Duration = Duration::from_secs(15);
    let mut url = url::Url::parse("http://mirror/release")?;
    url.query_pairs_mut().append_pair("collection", collection);
    let garbled = |error: reqwest::Error| {
        let error = exit::text(&error.into());
        process.unanswered(&format!("at {} as it should ({error})", socket.display()))
    };
    let answer = process.ask(socket, PATIENCE, |to| to.post(url)).await?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let answer = answer.error_for_status().map_err(garbled)?;
    Ok(Some(answer.json().await.map_err(garbled)?))
}

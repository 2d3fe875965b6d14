//! `plainfold release`: deletes what the brake on mass deletion holds back, by the process that works
//! on the mirror, or, where none does, by the next one.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use reqwest::StatusCode;

use super::exit::{Exit, Usage};
use crate::agent::Release;
use crate::api::socket::Reach;
use crate::checkpoint::{Bounds, Checkpoints};
use crate::document::CollectionName;
use crate::mirror::{Holder, Mirror, MirrorError, Ours};

/// What `plainfold release` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// The collection, by its name, whose deletions are held back
    #[arg(value_name = "COLLECTION")]
    collection: String,
}

/// Releases.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let Options { directory, collection } = options;
    let name = CollectionName::from(&*collection);
    let released = match Ours::find(&directory)?.holder()? {
        None => at_rest(&directory, &name)?,
        Some(Holder { socket: Some(socket), .. }) => ask(&socket, &collection).await?,
        Some(holder) => return Err(MirrorError::Locked { path: directory, holder }.into()),
    };
    let released =
        released.ok_or_else(|| Usage(format!("the mirror has no collection `{collection}`")))?;
    let Release { held_back, left } = released;
    let text = match (held_back, left) {
        (0, _) => format!("{collection}: no deletions are held back"),
        (_, 0) => format!("{collection}: {held_back} deletions were made"),
        (_, left) => format!(
            "{collection}: {held_back} deletions are released; {left} of them are made when \
             `plainfold mirror` comes to it"
        ),
    };
    // A reader that has closed has read enough.
    let _closed = writeln!(std::io::stdout(), "{text}");
    Ok(Exit::Done)
}

fn at_rest(directory: &Path, name: &CollectionName) -> anyhow::Result<Option<Release>> {
    let mirror = Mirror::open_existing(directory, &Holder::this_process("release"))?;
    let state = Checkpoints::open(&mirror.state_path(), Bounds::DEFAULT)?.state;
    Ok(Release::at_rest(&state, name)?)
}

async fn ask(socket: &Path, collection: &str) -> anyhow::Result<Option<Release>> {
    let reach = Reach::to(socket)?;
    let client = reqwest::Client::builder().unix_socket(reach.path()).build()?;
    let mut url = url::Url::parse("http://mirror/release")?;
    url.query_pairs_mut().append_pair("collection", collection);
    let silent = || format!("the mirror's process does not answer at {}", socket.display());
    let answer = client.post(url).send().await.with_context(silent)?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let answer = answer.error_for_status().with_context(silent)?;
    Ok(Some(answer.json().await.with_context(silent)?))
}

//! `plainfold release`: applies deletions that the protection against mass deletion holds back.

use std::path::PathBuf;

use clap::Args;

use super::exit::{Exit, Usage};
use super::help::SAFETY;
use super::output::{Lines, Stream, many};
use crate::api::client::Door;
use crate::document::CollectionName;
use crate::runner::Release;

/// What `plainfold release` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory, or its name in the config of `plainfold run`
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// The name of the collection whose deletions are held back
    #[arg(value_name = "COLLECTION")]
    collection: String,

    /// Take the mirror over although another process holds its lock, and do not ask that process
    #[arg(long, help_heading = SAFETY)]
    take_over: bool,
}

/// Releases.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let Options { directory, collection, take_over } = options;
    let name = CollectionName::from(&*collection);
    let door = Door::find(&directory)?;
    let released = match take_over {
        true => door.release_by_force(&name, "release")?,
        false => door.release(&name, "release").await?,
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

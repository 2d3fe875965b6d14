//! `plainfold tail`: write events as they are committed, those missed first.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use serde_json::Value;

use super::exit::{Exit, Usage};
use crate::agent::{Notice, Status, Subscription};
use crate::api::socket::Reach;
use crate::checkpoint::{Bounds, Checkpoints};
use crate::document::{CollectionName, Pattern};
use crate::mirror::{Holder, Mirror, Ours};

/// What `plainfold tail` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Begin after the event with this number, from the journal [default: with the next event; all
    /// of the journal where nobody mirrors right now]
    #[arg(long, value_name = "N")]
    since: Option<u64>,

    /// Only events of this collection
    #[arg(long, value_name = "NAME")]
    collection: Option<String>,

    /// JSON, one event a line; or text
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Text,
}

/// Prints events until the mirror's process ends, the reader closes, or a signal.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let printed = match socket(&Ours::find(&options.directory)?).await? {
        Some(socket) => follow(&options, &socket).await,
        None => replay(&options).await,
    };
    match printed {
        // Whoever read us has read enough.
        Err(error) if is_closed_pipe(&error) => Ok(Exit::Done),
        other => other,
    }
}

/// Where the process that mirrors answers, if there is one. One that has just begun says so a moment
/// after it has taken the lock.
async fn socket(ours: &Ours) -> anyhow::Result<Option<PathBuf>> {
    const MOMENT: Duration = Duration::from_millis(50);
    const MOMENTS: usize = 100;
    for _ in 0..MOMENTS {
        match ours.holder()? {
            Some(holder) if holder.command == "mirror" && holder.socket.is_none() => {
                tokio::time::sleep(MOMENT).await;
            }
            holder => return Ok(holder.and_then(|holder| holder.socket)),
        }
    }
    Ok(None)
}

/// Asks the process that mirrors.
async fn follow(options: &Options, socket: &std::path::Path) -> anyhow::Result<Exit> {
    let reach = Reach::to(socket)?;
    let client = reqwest::Client::builder().unix_socket(reach.path()).build()?;
    let mut query = Vec::new();
    if let Some(since) = options.since {
        query.push(("since", since.to_string()));
    }
    if let Some(collection) = &options.collection {
        refuse_unknown(&client, collection).await?;
        query.push(("collection", collection.clone()));
    }
    let mut url = url::Url::parse("http://mirror/events")?;
    url.query_pairs_mut().extend_pairs(query);
    let answer =
        client.get(url).send().await.and_then(reqwest::Response::error_for_status).with_context(
            || format!("the mirror's process does not answer at {}", socket.display()),
        )?;
    let mut pieces = answer.bytes_stream();
    let mut line = Vec::new();
    while let Some(piece) = pieces.next().await {
        // The process ended, perhaps by force; what it had committed was told.
        let Ok(piece) = piece else { break };
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.ends_with(b"\n") {
                print(options.format, &line)?;
                line.clear();
            }
        }
    }
    tracing::info!(
        "the mirror's process has ended; continue with --since and the last event's number"
    );
    Ok(Exit::Done)
}

/// Refuses a collection that the process that mirrors does not know. One that has just begun learns
/// the names of its collections until it has caught up.
async fn refuse_unknown(client: &reqwest::Client, wanted: &str) -> anyhow::Result<()> {
    const MOMENT: Duration = Duration::from_millis(100);
    const MOMENTS: usize = 50;
    let mut names = Vec::new();
    for _ in 0..MOMENTS {
        let answer = client.get("http://mirror/status").send().await;
        // One of another version may not answer this; events are still worth reading.
        let Ok(answer) = answer.and_then(reqwest::Response::error_for_status) else {
            return Ok(());
        };
        let Ok(status) = answer.json::<Status>().await else { return Ok(()) };
        names = status.collections.into_iter().map(|one| one.report.collection).collect();
        if names.iter().any(|name: &CollectionName| name.as_str() == wanted) {
            return Ok(());
        }
        if status.caught_up {
            break;
        }
        tokio::time::sleep(MOMENT).await;
    }
    refuse(wanted, &names)
}

fn refuse(wanted: &str, names: &[CollectionName]) -> anyhow::Result<()> {
    // A collection is asked for by its name: no glob is meant.
    let pattern = Pattern::new(wanted).map_err(|error| Usage(error.to_string()))?;
    Err(Usage(pattern.as_name().no_match(names)).into())
}

/// Reads the journal of a mirror that nobody works on.
async fn replay(options: &Options) -> anyhow::Result<Exit> {
    let mirror = Mirror::open_existing(&options.directory, &Holder::this_process("tail"))?;
    let state = Arc::new(Checkpoints::open(&mirror.state_path(), Bounds::DEFAULT)?.state);
    if let Some(wanted) = &options.collection {
        let mut names = state.collections()?;
        names.extend(mirror.followed()?.into_iter().map(|(name, _)| name));
        names.sort();
        names.dedup();
        if !names.iter().any(|name| name.as_str() == wanted) {
            refuse(wanted, &names)?;
        }
    }
    let mut events = Subscription::of_journal(&state, options.since.unwrap_or(0));
    while let Some(notice) = events.next().await? {
        let wanted = |name: &String| match &notice {
            Notice::Event(event) => event.collection.as_str() == name,
            Notice::Lagged(_) | Notice::Expired(..) => true,
        };
        if options.collection.as_ref().is_none_or(wanted) {
            print(options.format, notice.line().as_bytes())?;
        }
    }
    tracing::info!("no process mirrors into this directory; that was all");
    Ok(Exit::Done)
}

fn print(format: Format, line: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => out.write_all(line)?,
        Format::Text => out.write_all(text(line)?.as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

/// An event as people read it: number, time, what happened to which document, how many files.
fn text(line: &[u8]) -> anyhow::Result<String> {
    let notice: Value = serde_json::from_slice(line)
        .map_err(|error| Usage(format!("the mirror's process answers no events: {error}")))?;
    if let Some(count) = notice.get("lagged") {
        return Ok(format!("lagged by {count} events, which follow from the journal\n"));
    }
    if let Some(gap) = notice.get("expired") {
        let (first, last) = (&gap["first"], &gap["last"]);
        return Ok(format!("events {first} to {last} are not in the journal any more\n"));
    }
    let word = |key: &str| notice[key].as_str().unwrap_or_default().escape_debug().to_string();
    let files = notice["files"].as_array().map_or(0, Vec::len);
    let what = match notice["deleted"].as_bool() {
        Some(true) => "deleted".to_owned(),
        _ if files == 1 => "wrote 1 file".to_owned(),
        _ => format!("wrote {files} files"),
    };
    Ok(format!(
        "{} {} {}/{} {} {what}\n",
        notice["event"],
        word("at"),
        word("collectionName"),
        word("documentId"),
        word("revision"),
    ))
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

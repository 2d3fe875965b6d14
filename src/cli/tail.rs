//! `plainfold tail`: write events as they are committed, those missed first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::exit::{self, Exit, Usage};
use super::help::OUTPUT;
use super::output::{Lines, OutputError, Stream};
use super::process::Process;
use crate::checkpoint::Copied;
use crate::document::{CollectionName, Pattern};
use crate::mirror::Ours;
use crate::runner::{Notice, Status, Subscription};
use crate::tree::{MirrorError, SharedLock};

/// How long the beginning of an answer is awaited.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `plainfold tail` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Begin after the event with this number, from the journal.
    ///
    /// By default, `tail` begins with the next event or, if no process mirrors, prints the whole
    /// journal.
    #[arg(long, value_name = "N", help_heading = OUTPUT)]
    since: Option<u64>,

    /// Print only events of this collection
    #[arg(long, value_name = "NAME", help_heading = OUTPUT)]
    collection: Option<String>,

    /// How events are printed: JSON, one event per line; or text
    #[arg(long, value_enum, value_name = "FORM", default_value = "json", help_heading = OUTPUT)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Text,
}

/// Prints events until the mirror's process ends, the reader closes, or a signal.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let ours = Ours::find(&options.directory)?;
    let printed = match process(&options.directory, &ours).await? {
        Found::Mirroring(process, socket) => follow(&options, &process, &socket).await,
        Found::Busy(process) => Err(busy(&options.directory, &process)),
        Found::AtRest(lock) => replay(&options, &ours, lock).await,
    };
    match printed {
        // The reader has read enough.
        Err(error) if is_closed_pipe(&error) => Ok(Exit::Done),
        other => other,
    }
}

/// Who works on the mirror.
enum Found {
    /// A process that answers at this socket.
    Mirroring(Process, PathBuf),
    /// A process that does not offer to answer.
    Busy(Process),
    /// No process.
    AtRest(SharedLock),
}

/// Looks who works on the mirror. A process that has just begun says where it answers a moment after it
/// has taken the lock.
async fn process(directory: &Path, ours: &Ours) -> anyhow::Result<Found> {
    const MOMENT: Duration = Duration::from_millis(50);
    const MOMENTS: usize = 100;
    let mut moments = 0;
    loop {
        let process = match ours.share()? {
            Ok(lock) => return Ok(Found::AtRest(lock)),
            Err(holder) => Process::new(directory, holder),
        };
        moments += 1;
        match process.holder().socket.clone() {
            Some(socket) => return Ok(Found::Mirroring(process, socket)),
            None if moments < MOMENTS && process.stopped().is_none() => {
                tokio::time::sleep(MOMENT).await;
            }
            None => return Ok(Found::Busy(process)),
        }
    }
}

fn busy(directory: &Path, process: &Process) -> anyhow::Error {
    if process.stopped().is_some() {
        return process.unanswered("").into();
    }
    MirrorError::Locked { path: directory.to_owned(), holder: process.holder().clone() }.into()
}

/// Asks the process that mirrors.
async fn follow(options: &Options, process: &Process, socket: &Path) -> anyhow::Result<Exit> {
    let mut query = Vec::new();
    if let Some(since) = options.since {
        query.push(("since", since.to_string()));
    }
    if let Some(collection) = &options.collection {
        refuse_unknown(process, socket, collection).await?;
        query.push(("collection", collection.clone()));
    }
    let mut url = url::Url::parse("http://mirror/events")?;
    url.query_pairs_mut().extend_pairs(query);
    let answer = process.ask(socket, PATIENCE, |to| to.get(url)).await?;
    let answer = answer.error_for_status().map_err(|error| {
        let error = exit::text(&error.into());
        process.unanswered(&format!("at {} as it should ({error})", socket.display()))
    })?;
    let mut pieces = answer.bytes_stream();
    let mut line = Vec::new();
    while let Some(piece) = pieces.next().await {
        // The process ended, perhaps by force; what it had committed was emitted.
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

/// Refuses a collection that the process that mirrors does not know. A process that has just
/// started does not know all names of its collections before it has caught up.
async fn refuse_unknown(process: &Process, socket: &Path, wanted: &str) -> anyhow::Result<()> {
    const MOMENT: Duration = Duration::from_millis(100);
    const MOMENTS: usize = 50;
    let mut names = Vec::new();
    for _ in 0..MOMENTS {
        let answer = process.ask(socket, PATIENCE, |to| to.get("http://mirror/status")).await?;
        // One of another version may not answer this; events are still worth reading.
        let Ok(answer) = answer.error_for_status() else { return Ok(()) };
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
async fn replay(options: &Options, ours: &Ours, lock: SharedLock) -> anyhow::Result<Exit> {
    let Copied { state, damaged, .. } = &mut Copied::open(&ours.state_path())?;
    drop(lock);
    if let Some(damaged) = damaged {
        tracing::warn!(
            "the state cannot be read ({}): its events are lost, and numbers continue with a gap",
            damaged.reason
        );
    }
    if let Some(wanted) = &options.collection {
        let mut names = state.collections()?;
        names.extend(ours.collections()?);
        names.sort();
        names.dedup();
        if !names.iter().any(|name| name.as_str() == wanted) {
            refuse(wanted, &names)?;
        }
    }
    let mut events = Subscription::of_journal(state, options.since.unwrap_or(0));
    while let Some(notice) = events.next().await? {
        let wanted = |name: &String| match &notice {
            Notice::Event(event) => event.collection.as_str() == name,
            Notice::Lagged(_) | Notice::Expired(..) => true,
        };
        if options.collection.as_ref().is_none_or(wanted) {
            print(options.format, &notice.line())?;
        }
    }
    tracing::info!("no process mirrors into this directory, so no more events will come");
    Ok(Exit::Done)
}

fn print(format: Format, line: &[u8]) -> anyhow::Result<()> {
    const WHAT: &str = "an event";
    match format {
        Format::Json => {
            Stream::Stdout.write(WHAT, &Lines::raw_json(read::<&RawValue>(line)?.get()))?
        }
        Format::Text => Stream::Stdout.write(WHAT, &Lines::of(&text(&read(line)?)))?,
    }
    Ok(())
}

/// What a line says. What is not JSON would not be one line.
fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, Usage> {
    serde_json::from_slice(line)
        .map_err(|error| Usage(format!("the mirror's process answers no events: {error}")))
}

/// An event as people read it: number, time, what happened to which document, how many files.
fn text(notice: &Value) -> String {
    if let Some(count) = notice.get("lagged") {
        return format!("lagged; events that follow from the journal: {count}");
    }
    if let Some(gap) = notice.get("expired") {
        let (first, last) = (&gap["first"], &gap["last"]);
        return format!("events {first} to {last} are not in the journal any more");
    }
    let word = |key: &str| notice[key].as_str().unwrap_or_default();
    let files = notice["files"].as_array().map_or(0, Vec::len);
    let what = match notice["deleted"].as_bool() {
        Some(true) => "deleted".to_owned(),
        _ if files == 1 => "wrote 1 file".to_owned(),
        _ => format!("wrote {files} files"),
    };
    format!(
        "{} {} {}/{} {} {what}",
        notice["event"],
        word("at"),
        word("collectionName"),
        word("documentId"),
        word("revision"),
    )
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<OutputError>().is_some_and(OutputError::is_closed_pipe)
}

//! `plainfold tail`: write events as they are committed, those missed first.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::exit::{Exit, Usage};
use super::help::OUTPUT;
use super::output::{Lines, OutputError, Stream};
use crate::api::client::{Acknowledged, Door};
use crate::checkpoint::JournalRange;
use crate::document::{CollectionName, CursorName};

/// What `plainfold tail` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory, or its name in the config of `plainfold run`
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Begin after the event with this number, from the journal.
    ///
    /// By default, `tail` begins with the next event or, if no process mirrors, prints the whole
    /// journal.
    #[arg(long, value_name = "N", help_heading = OUTPUT)]
    since: Option<u64>,

    /// Begin after the last event that was acknowledged under this name, and
    /// acknowledge what is printed.
    ///
    /// The process that mirrors remembers cursors. One that does not exist
    /// is created, and begins with the next event.
    #[arg(long, value_name = "NAME", conflicts_with = "since", help_heading = OUTPUT)]
    cursor: Option<CursorName>,

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
    let Options { directory, since, cursor, collection, format } = options;
    let (door, collection) = (Door::find(&directory)?, collection.map(CollectionName::from));
    if let Some(cursor) = cursor {
        return acknowledged(door.cursor(&cursor, collection).await?, format).await;
    }
    let mut events = door.events(since, collection).await?;
    while let Some(line) = events.next().await? {
        match print(format, &line) {
            // The reader has read enough.
            Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
            printed => printed?,
        }
    }
    tracing::info!(
        "{}",
        match events.are_live() {
            true =>
                "the mirror's process has ended; continue with --since and the last event's number",
            false => "no process mirrors into this directory, so no more events will come",
        }
    );
    Ok(Exit::Done)
}

/// Prints the events of a cursor, and acknowledges those that were written.
async fn acknowledged(mut events: Acknowledged, format: Format) -> anyhow::Result<Exit> {
    /// An event is acknowledged after this time, together with those that came meanwhile.
    const EVERY: Duration = Duration::from_millis(500);
    let (mut printed, mut due) = (None, Instant::now());
    loop {
        let next = tokio::select! {
            biased;
            () = tokio::time::sleep_until(due), if printed.is_some() => None,
            next = events.next() => Some(next?),
        };
        if let Some(Some(line)) = next {
            match print(format, &line) {
                Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
                written => written?,
            }
            if let Some(number) = read::<Numbered>(&line)?.number() {
                due = if printed.is_some() { due } else { Instant::now() + EVERY };
                printed = Some(number);
            }
            continue;
        }
        let has_ended = next.is_some();
        if let Some(number) = printed.take() {
            match events.acknowledge(number).await {
                // The process is ending: these events come again.
                Err(error) if has_ended => tracing::warn!("not acknowledged: {error}"),
                acknowledged => acknowledged?,
            }
        }
        if has_ended {
            tracing::info!("the mirror's process has ended; the same cursor continues from here");
            return Ok(Exit::Done);
        }
    }
}

/// The numbers of a line.
#[derive(Deserialize)]
struct Numbered {
    event: Option<u64>,
    passed: Option<u64>,
    expired: Option<JournalRange>,
}

impl Numbered {
    /// The number up to which nothing more comes.
    fn number(&self) -> Option<u64> {
        self.event.or(self.passed).or(self.expired.map(|gap| gap.last))
    }
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
    if let Some(number) = notice.get("passed") {
        return format!("no events of this cursor up to number {number}");
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

//! `plainfold status`: how a mirror stands, asked of the process that works on it or of its state.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::exit::{self, Exit};
use crate::agent::{CollectionStatus, Keeps, Status};
use crate::api::socket::Reach;
use crate::checkpoint::{Bounds, Checkpoints};
use crate::mirror::{Deleted, Holder, JsonStyle, Mirror, Ours, Remembered};

/// What `plainfold status` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Text, or JSON
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Prints the status.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let (status, code) = match find(&options.directory).await {
        Err(error) if exit::is_disk(&error) => {
            (closed(&options.directory, &error), exit::of(&error))
        }
        found => (found?, Exit::Done),
    };
    let text = match options.format {
        Format::Json => serde_json::to_string_pretty(&status)? + "\n",
        Format::Text => text(&status),
    };
    // A reader that has closed has read enough.
    let _closed = std::io::stdout().write_all(text.as_bytes());
    Ok(code)
}

/// What is to be said where not even the state can be opened.
fn closed(directory: &Path, error: &anyhow::Error) -> Status {
    let trouble = format!(
        "{}: the disk is full, read-only or failing. Every document is whole, and the checkpoint \
         stands where it was; make room, and start the mirror again",
        exit::text(error),
    );
    Status::closed(directory, trouble)
}

async fn find(directory: &Path) -> anyhow::Result<Status> {
    let Some(holder) = Ours::find(directory)?.holder()? else { return at_rest(directory).await };
    match &holder.socket {
        Some(socket) => ask(socket).await,
        None => Ok(Status::silent(directory, &holder)),
    }
}

async fn ask(socket: &Path) -> anyhow::Result<Status> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let reach = Reach::to(socket)?;
    let client = reqwest::Client::builder().unix_socket(reach.path()).timeout(PATIENCE).build()?;
    let answer = client.get("http://mirror/status").send().await;
    let answer = answer.and_then(reqwest::Response::error_for_status);
    let silent = || format!("the mirror's process does not answer at {}", socket.display());
    answer.with_context(silent)?.json().await.with_context(silent)
}

async fn at_rest(directory: &Path) -> anyhow::Result<Status> {
    let mirror = Mirror::open_existing(directory, &Holder::this_process("status"))?;
    let state = Checkpoints::open(&mirror.state_path(), Bounds::DEFAULT)?.state;
    Ok(Status::at_rest(&mirror, &state)?)
}

fn text(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = write_text(&mut text, status);
    text
}

fn write_text(out: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(out, "mirror      {}", status.mirror)?;
    match (status.running, status.pid) {
        (true, Some(pid)) => writeln!(out, "process     {pid}, {}", uptime(status))?,
        _ => writeln!(out, "process     none")?,
    }
    if let Some(trouble) = &status.trouble {
        writeln!(out, "trouble     {trouble}")?;
        return Ok(());
    }
    if let Some(source) = &status.source {
        writeln!(out, "source      {source}")?;
    }
    if let Some(options) = &status.options {
        write_options(out, options)?;
    }
    match status.events {
        Some(range) => {
            writeln!(out, "events      {} to {} in the journal", range.first, range.last)?
        }
        None => writeln!(out, "events      none in the journal")?,
    }
    for collection in &status.collections {
        writeln!(out)?;
        write_collection(out, collection, status.running)?;
    }
    Ok(())
}

/// Writes the options in the words of the command line, so that they can be given again.
fn write_options(out: &mut String, options: &Remembered) -> std::fmt::Result {
    let deleted = match options.deleted {
        Deleted::Remove => "remove",
        Deleted::Keep => "keep",
    };
    let json = match options.json {
        JsonStyle::AsSent => "as-sent",
        JsonStyle::Pretty => "pretty",
    };
    let Remembered { revisions, attachments, max_delete, trash, reserve, .. } = options;
    writeln!(
        out,
        "options     --revisions={revisions} --deleted {deleted} --attachments {attachments} --json \
         {json} --max-delete {max_delete} --trash {trash} --reserve {reserve}"
    )?;
    for (source, globs) in &options.collections {
        let (source, globs) = (source.escape_debug(), globs.join(","));
        writeln!(out, "            --collections {} of {source}", globs.escape_debug())?;
    }
    Ok(())
}

fn write_collection(
    out: &mut String,
    collection: &CollectionStatus,
    running: bool,
) -> std::fmt::Result {
    let report = &collection.report;
    let phase = serde_json::to_value(report.phase).ok();
    let phase = phase.as_ref().and_then(|phase| phase.as_str()).unwrap_or("unknown");
    writeln!(out, "{}", report.collection.as_str().escape_debug())?;
    writeln!(out, "  phase       {}", if running { phase } else { "not running" })?;
    writeln!(
        out,
        "  position    {}",
        report.position.as_ref().map_or("none".to_owned(), Value::to_string)
    )?;
    if let Some(at) = collection.checkpoint_at {
        writeln!(out, "  checkpoint  {at}")?;
    }
    if let Some(Keeps { attachments, revisions, deleted }) = collection.keeps {
        let parts =
            [(attachments, "attachments"), (revisions, "revisions"), (deleted, "tombstones")];
        let kept = parts.iter().filter(|(kept, _)| *kept).map(|(_, part)| format!(", {part}"));
        writeln!(out, "  holds       documents{}", kept.collect::<String>())?;
    }
    if let Some(lag) = collection.lag_seconds {
        writeln!(out, "  lag         {lag:.1} s")?;
    }
    if let Some(trouble) = &report.trouble {
        writeln!(out, "  trouble     {trouble}")?;
    }
    if let Some(trouble) = &report.security_trouble {
        writeln!(out, "  security    not mirrored: {trouble}")?;
    }
    if running {
        writeln!(
            out,
            "  this run    {} written, {} deleted, {} unchanged, {} attachments, {} bytes",
            report.documents, report.deletions, report.unchanged, report.attachments, report.bytes,
        )?;
    }
    if report.held_back > 0 {
        writeln!(out, "  held back   {} deletions, see `plainfold release`", report.held_back)?;
    }
    writeln!(out, "  failures    {}", report.failures)?;
    for failure in &collection.failed {
        writeln!(out, "    {}: {}", failure.place, failure.reason)?;
        writeln!(
            out,
            "      tried {} times since {}, last at {}",
            failure.attempts, failure.since, failure.at,
        )?;
    }
    Ok(())
}

fn uptime(status: &Status) -> String {
    match status.started_at {
        Some(at) => format!("running since {at}"),
        None => "running".to_owned(),
    }
}

//! `plainfold status`: the state of a mirror, for people or as JSON.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::help::OUTPUT;
use super::output::{Lines, Stream, many};
use super::verify::ReportFormat;
use crate::api::client::Door;
use crate::mirror::{Deleted, JsonStyle, Remembered};
use crate::runner::{CollectionStatus, Keeps, Status};

/// The text names at most this number of failures of a collection.
const SHOWN: usize = 100;

/// What `plainfold status` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory, or its name in the config of `plainfold run`
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// How the state is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

/// Prints the status.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let (status, is_usable) = Door::find(&options.directory)?.status().await?;
    let text = match options.format {
        ReportFormat::Json => Lines::pretty(&status)?,
        ReportFormat::Text => text(&status)?,
    };
    Stream::Stdout.report("the status", &text)?;
    Ok(if is_usable { Exit::Done } else { Exit::MirrorUnusable })
}

fn text(status: &Status) -> Result<Lines, std::fmt::Error> {
    let mut text = Lines::default();
    write_text(&mut text, status)?;
    Ok(text)
}

fn write_text(out: &mut Lines, status: &Status) -> std::fmt::Result {
    writeln!(out, "mirror      {}", status.mirror)?;
    match (status.running, status.pid) {
        (true, Some(pid)) => writeln!(out, "process     {pid}, {}", uptime(status))?,
        _ => writeln!(out, "process     none")?,
    }
    if let Some(trouble) = &status.trouble {
        writeln!(out, "trouble     {}", trouble)?;
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
    if status.unremovable > 0 {
        let parts = many(status.unremovable, "part");
        writeln!(out, "unremovable {parts} of earlier versions, in .plainfold/unremovable")?;
    }
    for collection in &status.collections {
        writeln!(out)?;
        write_collection(out, collection, status.running)?;
    }
    Ok(())
}

/// Writes the options in the words of the command line, so that they can be given again.
fn write_options(out: &mut Lines, options: &Remembered) -> std::fmt::Result {
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
    if let Some(mode) = options.mode {
        writeln!(out, "            --mode {mode}")?;
    }
    for (source, globs) in &options.collections {
        writeln!(out, "            --collections {} of {source}", globs.join(","))?;
    }
    Ok(())
}

fn write_collection(
    out: &mut Lines,
    collection: &CollectionStatus,
    running: bool,
) -> std::fmt::Result {
    let report = &collection.report;
    let phase = serde_json::to_value(report.phase).ok();
    let phase = phase.as_ref().and_then(|phase| phase.as_str()).unwrap_or("unknown");
    writeln!(out, "{}", report.collection)?;
    writeln!(out, "  phase       {}", if running { phase } else { "not running" })?;
    writeln!(
        out,
        "  position    {}",
        report.position.as_ref().map_or("none".to_owned(), ToString::to_string)
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
        writeln!(out, "  trouble     {}", trouble)?;
    }
    if let Some(at) = &report.retry_at {
        writeln!(out, "  next try    {at:.0}")?;
    }
    if let Some(trouble) = &report.count_trouble {
        writeln!(out, "  counts      {}", trouble)?;
    }
    if let Some(trouble) = &report.security_trouble {
        writeln!(out, "  security    not mirrored: {}", trouble)?;
    }
    if running {
        writeln!(
            out,
            "  this run    {} written, {} deleted, {} unchanged, {}, {}",
            report.documents,
            report.deletions,
            report.unchanged,
            many(report.attachments, "attachment"),
            many(report.bytes, "byte"),
        )?;
    }
    if report.held_back > 0 {
        let held = many(report.held_back, "deletion");
        writeln!(out, "  held back   {held}, see `plainfold release`")?;
    }
    if report.in_flight > 0 {
        let what = many(report.in_flight, "document");
        writeln!(out, "  in flight   {what}, fetched beside the feed")?;
    }
    writeln!(out, "  failures    {}", report.failures)?;
    for failure in collection.failed.iter().take(SHOWN) {
        writeln!(out, "    {}: {}", failure.place, failure.reason)?;
        writeln!(
            out,
            "      tried {} since {}, last at {}",
            many(failure.attempts, "time"),
            failure.since,
            failure.at,
        )?;
    }
    let more = collection.failed.len().saturating_sub(SHOWN);
    if more > 0 {
        writeln!(out, "    … and {more} more; --format json lists all")?;
    }
    Ok(())
}

fn uptime(status: &Status) -> String {
    match status.started_at {
        Some(at) => format!("running since {at}"),
        None => "running".to_owned(),
    }
}

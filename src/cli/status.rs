//! `plainfold status`: the state of a mirror, for people or as JSON.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::help::OUTPUT;
use super::output::{Lines, Stream, many};
use super::verify::ReportFormat;
use crate::api::client::Door;
use crate::mirror::{Deleted, JsonStyle, Remembered};
use crate::runner::{CollectionStatus, Keeps, Lag, Status};
use crate::source::Behind;

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
    write_lag(out, &collection.lag)?;
    if let Some(trouble) = &report.trouble {
        writeln!(out, "  trouble     {}", trouble)?;
    }
    if let Some(at) = &report.retry_at {
        writeln!(out, "  next try    {at:.0}")?;
    }
    if let Some(at) = &report.verified_at {
        writeln!(out, "  verified    {at:.0}")?;
    }
    if report.watched {
        writeln!(out, "  watched     changes by others are noticed at once")?;
    }
    if report.damaged > 0 {
        let documents = many(report.damaged, "document");
        writeln!(
            out,
            "  damaged     {documents}: {}",
            report.damage.as_deref().unwrap_or("unknown")
        )?;
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

/// Writes how old the copy is.
fn write_lag(out: &mut Lines, lag: &Lag) -> std::fmt::Result {
    if let Some(seconds) = lag.seconds {
        let clock = if lag.by_wall_clock { " (by the wall clock)" } else { "" };
        writeln!(out, "  lag         {}{clock}", span(seconds))?;
    }
    if let Some((behind, seconds)) = lag.behind.zip(lag.behind_seconds) {
        let behind = match behind {
            Behind::Changes(changes) => many(changes, "change"),
            Behind::Bytes(bytes) => many(bytes, "byte"),
        };
        writeln!(out, "  behind      {behind}, as the source said {} ago", span(seconds))?;
    }
    if let Some(seconds) = lag.heard_seconds {
        writeln!(out, "  heard       {} ago", span(seconds))?;
    }
    if let Some(seconds) = lag.committed_seconds {
        writeln!(out, "  committed   {} ago", span(seconds))?;
    }
    match lag.changed_at {
        Some(at) => writeln!(out, "  changed     {at:.0}"),
        None => Ok(()),
    }
}

/// A length of time for people.
fn span(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    match seconds {
        _ if seconds < 2.0 * MINUTE => format!("{seconds:.1} s"),
        _ if seconds < 2.0 * HOUR => format!("{:.0} min", seconds / MINUTE),
        _ if seconds < 2.0 * DAY => format!("{:.1} h", seconds / HOUR),
        _ => format!("{:.1} days", seconds / DAY),
    }
}

fn uptime(status: &Status) -> String {
    match status.started_at {
        Some(at) => format!("running since {at}"),
        None => "running".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_old_a_copy_is_is_said_in_plain_words() {
        let lag = Lag {
            seconds: Some(3.25),
            behind: Some(Behind::Changes(1)),
            behind_seconds: Some(0.5),
            heard_seconds: Some(600.0),
            committed_seconds: Some(3.0 * 86_400.0),
            changed_at: Some("2026-11-27T10:00:00.25Z".parse().unwrap()),
            by_wall_clock: true,
        };
        let mut text = Lines::default();
        write_lag(&mut text, &lag).unwrap();
        let lines = [
            "  lag         3.2 s (by the wall clock)",
            "  behind      1 change, as the source said 0.5 s ago",
            "  heard       10 min ago",
            "  committed   3.0 days ago",
            "  changed     2026-11-27T10:00:00Z",
        ];
        assert_eq!(text.as_str().lines().collect::<Vec<_>>(), lines);
        assert_eq!(span(4.0 * 3600.0), "4.0 h");
        let mut text = Lines::default();
        write_lag(&mut text, &Lag::default()).unwrap();
        assert_eq!(text.as_str(), "");
    }
}

//! `plainfold mirrors`: what `plainfold run` is doing, a line for each mirror.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::timeout;

use super::config::ConfigFile;
use super::exit::{self, Exit};
use super::help::OUTPUT;
use super::name::{self, Asked};
use super::output::{Lines, Stream, many};
use crate::agent::{MirrorState, MirrorSummary};
use crate::api::mirrors::{MirrorList, ask_agent};
use crate::config::file::AgentConfig;
use crate::document::MirrorName;

/// How long names wait for an agent: somebody has pressed a key in a shell.
const PATIENCE: Duration = Duration::from_millis(500);

/// How the mirrors are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MirrorsFormat {
    /// A table, for people
    Text,
    /// One JSON object
    Json,
    /// The names alone, whether or not a process runs; never an error
    Names,
}

/// What `plainfold mirrors` takes.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    file: ConfigFile,

    /// How the mirrors are printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: MirrorsFormat,
}

/// Prints the mirrors.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    if options.format == MirrorsFormat::Names {
        let mut lines = Lines::default();
        names(&options.file.path).await.iter().for_each(|name| lines.push(name.as_str()));
        Stream::Stdout.report("the names", &lines)?;
        return Ok(Exit::Done);
    }
    let path = &options.file.path;
    match name::agent(path).await {
        Asked::Ours(list) => return print(&list, options.format),
        Asked::Other(socket, list) => exit::say(&format!(
            "at {}, the agent of {other} answers, and not that of {}: name {other} with --config, or give your config \
             another `[api] listen` and start it with `plainfold run`",
            socket.display(),
            path.display(),
            other = list.config
        )),
        Asked::Nobody => return silent(path, options.format),
    }
    Ok(Exit::MirrorUnusable)
}

fn print(list: &MirrorList, format: MirrorsFormat) -> anyhow::Result<Exit> {
    let printed = match format {
        MirrorsFormat::Json => Lines::pretty(list)?,
        _ => text(list),
    };
    Stream::Stdout.report("the mirrors", &printed)?;
    let troubled = list.mirrors.iter().any(|mirror| trouble(mirror).is_some());
    Ok(match troubled || list.config_trouble.is_some() {
        true => Exit::DocumentsFailed,
        false => Exit::Done,
    })
}

/// Says that no agent answers, with the mirrors that the config has.
fn silent(path: &Path, format: MirrorsFormat) -> anyhow::Result<Exit> {
    let sockets = name::own_sockets(path);
    if let Some(socket) = sockets.iter().find(|path| name::is_listening(path)) {
        exit::say(&format!(
            "an agent listens at {}, and does not answer: look at its log, or end it and start it again",
            socket.display()
        ));
        return Ok(Exit::MirrorUnusable);
    }
    let config = AgentConfig::read(path)?;
    let state = if sockets.is_empty() { "unknown" } else { "not running" };
    if format == MirrorsFormat::Text {
        let rows = config.mirrors.iter().map(|entry| {
            [entry.name.to_string(), state.to_owned(), entry.directory.display().to_string()]
        });
        Stream::Stdout.report("the mirrors", &aligned(rows.collect()))?;
    }
    let path = path.display();
    exit::say(&match sockets.is_empty() {
        true => format!(
            "an agent of the config {path} answers at no socket, so nobody can say what it does: name a socket, such \
             as \"./plainfold.sock\", in `[api] listen`, and start the agent again"
        ),
        false => format!(
            "no `plainfold run` answers for the config {path}: start it with `plainfold run` or `systemctl start \
             plainfold`"
        ),
    });
    Ok(Exit::MirrorUnusable)
}

/// The names that commands take: those of the config, and those of an agent that answers. What is wrong with
/// either is not said here, as a shell that completes a word has no place for it.
async fn names(config: &Path) -> BTreeSet<MirrorName> {
    let kept = async {
        if config != name::path() {
            return match name::agent(config).await {
                Asked::Ours(list) => list.mirrors,
                Asked::Other(..) | Asked::Nobody => Vec::new(),
            };
        }
        // The same as commands do with a name.
        for socket in name::sockets(config) {
            if let Some(list) = ask_agent(&socket).await {
                return list.mirrors;
            }
        }
        Vec::new()
    };
    let kept = timeout(PATIENCE, kept).await.unwrap_or_default();
    let written = AgentConfig::read(config).map(|config| config.mirrors).unwrap_or_default();
    let kept = kept.into_iter().map(|mirror| mirror.name);
    kept.chain(written.into_iter().map(|entry| entry.name)).collect()
}

fn text(list: &MirrorList) -> Lines {
    let head = ["NAME", "STATE", "COLLECTIONS", "DOCUMENTS", "LAG OR NEXT RUN", ""];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(list.mirrors.iter().map(row));
    let mut lines = aligned(rows);
    if let Some(trouble) = &list.config_trouble {
        lines.push(&format!("the config on disk is not in force: {trouble}"));
    }
    lines
}

fn row(mirror: &MirrorSummary) -> [String; 6] {
    let count = |count: Option<String>| count.unwrap_or_else(|| "-".to_owned());
    let when = match (&mirror.state, mirror.lag_seconds) {
        (MirrorState::Running { .. }, Some(lag)) => format!("{lag:.1} s"),
        (state, _) => count(state.next().map(|next| format!("{next:.0}"))),
    };
    [
        mirror.name.to_string(),
        mirror.state.word().to_owned(),
        count(mirror.collections.map(|count| count.to_string())),
        count(mirror.documents.map(|count| count.to_string())),
        when,
        trouble(mirror).unwrap_or_default(),
    ]
}

/// What is wrong with a mirror, and what to do.
fn trouble(mirror: &MirrorSummary) -> Option<String> {
    match (&mirror.state, &mirror.trouble, &mirror.last_run) {
        (MirrorState::Parked { error, remedy }, ..) => Some(format!("{error}; {remedy}")),
        (MirrorState::Failed { error, .. }, ..) => Some(error.clone()),
        (_, Some(trouble), _) => {
            let parts: Vec<_> = [trouble.clone()].into_iter().chain(incomplete(mirror)).collect();
            Some(parts.join("; "))
        }
        (MirrorState::Waiting { .. }, None, Some(last)) => last.trouble.clone(),
        _ => incomplete(mirror),
    }
}

/// What is wrong with single documents of a mirror that runs, and what to do.
fn incomplete(mirror: &MirrorSummary) -> Option<String> {
    let name = &mirror.name;
    let mut parts = Vec::new();
    if let Some(damaged @ 1..) = mirror.damaged {
        let is = if damaged == 1 { "is" } else { "are" };
        let damaged = many(damaged, "document");
        parts.push(format!(
            "{damaged} {is} damaged on the disk: run `plainfold verify {name} --repair`"
        ));
    }
    let failed = mirror.failures.filter(|failures| *failures > 0);
    let held = mirror.held_back.filter(|held| *held > 0);
    let failed = failed.map(|count| format!("{} failed", many(count, "document")));
    let held = held.map(|count| format!("{} held back", many(count, "deletion")));
    let listed: Vec<_> = failed.into_iter().chain(held).collect();
    if !listed.is_empty() {
        parts.push(format!("{}: see `plainfold status {name}`", listed.join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The rows with their columns below each other.
fn aligned<const N: usize>(rows: Vec<[String; N]>) -> Lines {
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = Lines::default();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn running(counts: serde_json::Value) -> MirrorSummary {
        let mut summary = json!({
            "name": "books", "directory": "/srv/books", "source": "feed:f", "schedule": "live",
            "state": "running", "since": "2026-11-27T10:00:00Z", "starts": 1, "last_run": null,
            "collections": 1, "documents": 9, "failures": 0, "held_back": 0, "damaged": 0,
            "caught_up": true, "lag_seconds": 0.0, "trouble": null
        });
        for (key, value) in counts.as_object().unwrap() {
            summary[key] = value.clone();
        }
        serde_json::from_value(summary).unwrap()
    }

    #[test]
    fn what_is_wrong_with_documents_is_said_without_zeros_and_by_the_name_of_the_mirror() {
        let said = |counts| trouble(&running(counts));
        assert_eq!(said(json!({})), None);
        let damaged = "1 document is damaged on the disk: run `plainfold verify books --repair`";
        assert_eq!(said(json!({"damaged": 1})).as_deref(), Some(damaged));
        let held = "30 deletions held back: see `plainfold status books`";
        assert_eq!(said(json!({"held_back": 30})).as_deref(), Some(held));
        let all = said(json!({"damaged": 2, "failures": 1, "held_back": 1})).unwrap();
        let both = "1 document failed, 1 deletion held back: see `plainfold status books`";
        assert!(all.starts_with("2 documents are damaged on the disk: "), "{all}");
        assert!(all.ends_with(both), "{all}");
    }
}

//! `plainfold mirrors`: what `plainfold run` is doing, a line for each mirror.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::timeout;

use super::config::ConfigFile;
use super::exit::{self, Exit};
use super::help::OUTPUT;
use super::name;
use super::output::{Lines, Stream};
use crate::agent::{MirrorState, MirrorSummary};
use crate::api::mirrors::{MirrorList, ask_agent};
use crate::config::file::AgentConfig;
use crate::document::{MirrorName, plain};

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
    let sockets = name::sockets(&options.file.path);
    for socket in &sockets {
        if let Some(list) = ask_agent(socket).await {
            let text = match options.format {
                MirrorsFormat::Json => Lines::pretty(&list)?,
                _ => text(&list),
            };
            Stream::Stdout.report("the mirrors", &text)?;
            let troubled = list.mirrors.iter().any(|mirror| trouble(mirror).is_some());
            return Ok(match troubled || list.config_trouble.is_some() {
                true => Exit::DocumentsFailed,
                false => Exit::Done,
            });
        }
    }
    if let Some(socket) = sockets.iter().find(|path| name::is_listening(path)) {
        exit::say(&format!(
            "an agent listens at {}, and does not answer: look at its log, or end it and start it again",
            socket.display()
        ));
        return Ok(Exit::MirrorUnusable);
    }
    let config = AgentConfig::read(&options.file.path)?;
    if options.format == MirrorsFormat::Text {
        let rows = config.mirrors.iter().map(|entry| {
            [
                entry.name.to_string(),
                "not running".to_owned(),
                entry.directory.display().to_string(),
            ]
        });
        Stream::Stdout.report("the mirrors", &aligned(rows.collect()))?;
    }
    exit::say(&format!(
        "no `plainfold run` answers for the config {}: start it with `plainfold run` or `systemctl start \
         plainfold`",
        options.file.path.display()
    ));
    Ok(Exit::MirrorUnusable)
}

/// The names that commands take: those of the config, and those of an agent that answers. What is wrong with
/// either is not said here, as a shell that completes a word has no place for it.
async fn names(config: &Path) -> BTreeSet<MirrorName> {
    let kept = async {
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
    let (failures, held) = (mirror.failures.unwrap_or(0), mirror.held_back.unwrap_or(0));
    match (&mirror.state, &mirror.trouble, &mirror.last_run) {
        (MirrorState::Parked { error, remedy }, ..) => Some(format!("{error}; {remedy}")),
        (MirrorState::Failed { error, .. }, ..) => Some(error.clone()),
        (_, Some(trouble), _) => Some(trouble.clone()),
        (MirrorState::Waiting { .. }, None, Some(last)) => last.trouble.clone(),
        _ if failures + held > 0 => Some(format!(
            "documents that failed: {failures}, deletions held back: {held}; see `plainfold status {}`",
            plain::quoted(&mirror.directory.to_string_lossy())
        )),
        _ => None,
    }
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

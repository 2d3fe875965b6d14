//! `plainfold config check`: what works of a config, and what does not.

use std::path::Path;

use clap::Args;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use serde::Serialize;

use super::{ConfigFile, refused, sockets};
use crate::cli::exit::{self, Exit};
use crate::cli::help::{CONNECTION, OUTPUT};
use crate::cli::listeners::admissible;
use crate::cli::name::{self, Asked};
use crate::cli::output::{Lines, Stream, many};
use crate::cli::verify::ReportFormat;
use crate::config::file::{AgentConfig, Aspect, FileError, FileProblem, Finding};
use crate::document::{MirrorName, plain};

/// The number of mirrors that are checked at the same time.
const AT_ONCE: usize = 16;

/// What `plainfold config check` takes.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    file: ConfigFile,

    /// Do not ask the sources; everything else is checked
    #[arg(long, help_heading = CONNECTION)]
    offline: bool,

    /// How the result is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

/// The result, for programs.
#[derive(Serialize)]
struct Report {
    /// Whether all of it works.
    ok: bool,
    /// What is wrong with the file. If anything is, no mirror was checked.
    problems: Vec<Mistake>,
    /// Where the agent answers.
    api: Vec<Listening>,
    mirrors: Vec<Checked>,
}

#[derive(Serialize)]
struct Mistake {
    line: Option<usize>,
    text: String,
}

/// A socket or an address of the API.
#[derive(Serialize)]
struct Listening {
    ok: bool,
    text: String,
}

#[derive(Serialize)]
struct Checked {
    name: MirrorName,
    ok: bool,
    checks: Vec<Check>,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Serialize)]
struct Check {
    check: Aspect,
    ok: bool,
    text: String,
    #[serde(skip)]
    exit: Exit,
}

/// Checks the config and its mirrors.
pub async fn run(options: &Options) -> anyhow::Result<Exit> {
    let path = options.file.path.clone();
    let read = move || admissible(AgentConfig::read(&path)?, &path);
    let read = tokio::task::spawn_blocking(read).await?;
    let config = match (read, options.format) {
        (Ok(config), _) => config,
        (Err(FileError::Wrong { problems, .. }), ReportFormat::Json) => {
            return print_mistakes(problems);
        }
        (Err(error), _) => return refused(error),
    };
    let (agent, now) = (agent(&options.file.path).await, Timestamp::now());
    let api = sockets::check(&options.file.path, &config.api, agent).await;
    let api: Vec<_> = api.into_iter().map(Listening::of).collect();
    let checks = config.mirrors.iter().map(|entry| async move {
        Checked::of(&entry.name, entry.check(agent, options.offline, now).await)
    });
    let mirrors: Vec<_> = stream::iter(checks).buffered(AT_ONCE).collect().await;
    // The greatest code is the worst, as where a mirror ends for several reasons.
    let of_api = api.iter().any(|one| !one.ok).then_some(Exit::Usage);
    let worst = mirrors.iter().map(|one| one.exit).chain(of_api).max();
    let text = match options.format {
        ReportFormat::Json => {
            let ok = mirrors.iter().all(|one| one.ok) && of_api.is_none();
            Lines::pretty(&Report { ok, problems: Vec::new(), api, mirrors })?
        }
        ReportFormat::Text => lines(&api, &mirrors)?,
    };
    Stream::Stdout.report("the result", &text)?;
    Ok(worst.unwrap_or(Exit::Done))
}

/// The process id of the agent of a config, if it answers. Its socket may be systemd's, so only the agent
/// itself can say it.
async fn agent(config: &Path) -> Option<u32> {
    match name::agent(config).await {
        Asked::Ours(list) => Some(list.pid),
        Asked::Other(..) | Asked::Nobody => None,
    }
}

fn print_mistakes(problems: Vec<FileProblem>) -> anyhow::Result<Exit> {
    let mistake = |FileProblem { line, text }| Mistake { line, text };
    let problems = problems.into_iter().map(mistake).collect();
    let report = Report { ok: false, problems, api: Vec::new(), mirrors: Vec::new() };
    Stream::Stdout.report("the result", &Lines::pretty(&report)?)?;
    Ok(Exit::Usage)
}

fn lines(api: &[Listening], mirrors: &[Checked]) -> anyhow::Result<Lines> {
    let mut lines = Lines::default();
    let word = |ok| if ok { "ok   " } else { "wrong" };
    writeln!(lines, "[api]")?;
    for Listening { ok, text } in api {
        writeln!(lines, "  {}  listen: {text}", word(*ok))?;
    }
    for mirror in mirrors {
        writeln!(lines, "{}", mirror.name)?;
        for Check { check, ok, text, .. } in &mirror.checks {
            writeln!(lines, "  {}  {check}: {text}", word(*ok))?;
        }
    }
    let wrong = mirrors.iter().filter(|one| !one.ok).count();
    let all = many(mirrors.len() as u64, "mirror");
    match wrong {
        0 if api.iter().any(|one| !one.ok) => {
            writeln!(lines, "{all}: the agent cannot answer as [api] says")?;
        }
        0 => writeln!(lines, "{all}: everything works")?,
        1 if mirrors.len() == 1 => writeln!(lines, "{all}: it cannot run as configured")?,
        wrong => writeln!(lines, "{all}, of which {wrong} cannot run as configured")?,
    }
    Ok(lines)
}

impl Listening {
    fn of(found: Result<String, String>) -> Self {
        let ok = found.is_ok();
        let (Ok(text) | Err(text)) = found;
        Self { ok, text }
    }
}

impl Checked {
    fn of(name: &MirrorName, findings: Vec<Finding>) -> Self {
        let checks: Vec<_> = findings.into_iter().map(Check::of).collect();
        let exit = checks.iter().map(|check| check.exit).max().unwrap_or(Exit::Done);
        Self { name: name.clone(), ok: exit == Exit::Done, checks, exit }
    }
}

impl Check {
    fn of(finding: Finding) -> Self {
        let (exit, text) = match finding.found {
            Ok(text) => (Exit::Done, text),
            Err(error) => (exit::of_check(&error), plain::with_causes(&error)),
        };
        Self { check: finding.aspect, ok: exit == Exit::Done, text, exit }
    }
}

//! `plainfold diff`: which documents a mirror and a source, or two mirrors, do not hold alike.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::exit::{self, Exit, Usage};
use super::help::{COPY, OUTPUT};
use super::output::{Lines, Stream, many};
use super::progress::{Bars, When};
use super::verify::{ReportFormat, read};
use super::{access, certificate, compare, logging};
use crate::archive::{self, Problem};
use crate::client::couchdb::Address;
use crate::config::{self, Access, OpenedSource};
use crate::document::{Kept, Selection};
use crate::verify::{self, Certificate};

/// What `plainfold diff` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory or its name in the config, or a directory of RxDB's backup plugin
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// A source, or the directory of another mirror.
    ///
    /// If it begins with http://, https://, http+unix:// or feed:, it is a source.
    #[arg(value_name = "SOURCE|DIR")]
    other: String,

    /// Compare only these collections, by name or glob
    #[arg(long, value_name = "GLOB,…", value_delimiter = ',', help_heading = COPY)]
    collections: Vec<String>,

    #[command(flatten)]
    access: access::Options,

    // Behind the connection, because `--limit` is about the output.
    #[command(flatten)]
    compared: compare::Options,

    /// When progress bars are shown; `auto` means on a terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = OUTPUT)]
    progress: When,

    /// How differences are printed: text, one per line and a summary; or one JSON object
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

#[derive(serde::Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    certificate: &'a Certificate,
    problems: &'a [Problem],
}

/// Compares.
pub async fn run(options: Options, logging: &logging::Options) -> anyhow::Result<Exit> {
    let bars = Bars::wanted(options.progress).filter(|_| !logging.is_quiet());
    logging.start(bars.as_ref().map(Bars::footer))?;
    // A URL that is mistyped is not looked for as a folder: the message would repeat its password.
    let is_source = config::feed(&options.other).is_some()
        || ((Address::is_url_like(&options.other) || config::meant(&options.other).is_some())
            && !Path::new(&options.other).exists());
    // Before bars are drawn, because a password may be asked for.
    let access = match is_source {
        true => Some(options.access.lower(&options.other, access::ServerRole::Source)?),
        false => None,
    };
    let progress = Arc::new(verify::VerifyProgress::default());
    let drawing = bars.map(|bars| bars.of_verification(&progress));
    let progress = drawing.is_some().then_some(progress);
    let compared = match access {
        Some(access) => beside_source(&options, access, progress).await,
        None => beside_mirror(&options, progress).await,
    };
    if let Some(drawing) = drawing {
        drawing.end().await;
    }
    let (certificate, problems) = compared?;
    let text = match options.format {
        ReportFormat::Json => {
            let whole = Whole { certificate: &certificate, problems: &problems };
            Lines::pretty(&whole)?
        }
        ReportFormat::Text => {
            let mut text = Lines::default();
            certificate::write_differences(&mut text, &certificate, options.compared.limit())?;
            certificate::write_summary(&mut text, &certificate)?;
            text
        }
    };
    if options.format == ReportFormat::Text {
        warn_of(&problems, options.compared.limit());
    }
    let is_silent = logging.is_quiet() && certificate.equal && options.format == ReportFormat::Text;
    if !is_silent {
        Stream::Stdout.report("the differences", &text)?;
    }
    if certificate.collections.is_empty() {
        exit::say(
            "nothing was compared: the two sides have no collection in common. See \
                   --collections and --as",
        );
        return Ok(Exit::DocumentsFailed);
    }
    Ok(if certificate.equal { Exit::Done } else { Exit::DocumentsFailed })
}

async fn beside_source(
    options: &Options,
    access: Access,
    progress: Option<Arc<verify::VerifyProgress>>,
) -> anyhow::Result<(Certificate, Vec<Problem>)> {
    let globs = options.compared.of_source(&options.collections);
    let source = OpenedSource::open(&options.other, &globs, access, Kept::default()).await?;
    let how = options.compared.lower(source.only)?;
    let wanted = verify::Options { progress, ..wanted(&options.collections)? };
    let here = read(options.directory.clone(), wanted).await?;
    let certificate = here.against(source.store, &how).await?;
    Ok((certificate, here.report.problems))
}

async fn beside_mirror(
    options: &Options,
    progress: Option<Arc<verify::VerifyProgress>>,
) -> anyhow::Result<(Certificate, Vec<Problem>)> {
    let how = options.compared.lower(None)?;
    let other = Path::new(&options.other);
    // A folder that is not a mirror is refused before the other one is read.
    let has_names = archive::open(other)?.has_names();
    let wanted = verify::Options { progress, ..wanted(&options.collections)? };
    let here = read(options.directory.clone(), wanted).await?;
    let collections = if has_names { here.wanted_of(&how)? } else { None };
    let read_there = verify::Options { collections, allow_empty: true, ..Default::default() };
    let there = read(other.to_owned(), read_there).await?;
    let mut problems = here.report.problems.clone();
    let under = |problem: &Problem| Problem {
        path: format!("{}/{}", options.other, problem.path),
        ..problem.clone()
    };
    problems.extend(there.report.problems.iter().map(under));
    Ok((here.beside(&there, &how)?, problems))
}

fn wanted(globs: &[String]) -> Result<verify::Options, Usage> {
    let collections = match globs {
        [] => None,
        globs => Some(Selection::new(globs).map_err(|bad| Usage(bad.to_string()))?),
    };
    Ok(verify::Options { collections, ..verify::Options::default() })
}

fn warn_of(problems: &[Problem], limit: usize) {
    for problem in problems.iter().take(limit) {
        tracing::warn!("{}: {}", problem.path, problem.reason);
    }
    if let Some(more) = problems.len().checked_sub(limit).filter(|more| *more > 0) {
        let more = many(more, "problem");
        tracing::warn!("… and {more}: `plainfold verify` counts them, and --format json lists all");
    }
}

//! `plainfold diff`: which documents a mirror and a source, or two mirrors, do not hold alike.

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::output::Stream;
use super::verify::{Format, password_for, read, write_differences};
use crate::client::couchdb::Address;
use crate::config::OpenedSource;
use crate::document::Kept;
use crate::mirror::read::Problem;
use crate::verify::{self, Certificate};

/// What `plainfold diff` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory, or one that RxDB's backup plugin wrote
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// A source (http://…, https://…, http+unix://…, feed:FILE), or the directory of another mirror
    #[arg(value_name = "SOURCE|DIR")]
    other: String,

    /// A file that holds the password of the user named in SOURCE. PLAINFOLD_SOURCE_PASSWORD may
    /// hold the password itself
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Text, one difference a line; or one JSON object
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(serde::Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    certificate: &'a Certificate,
    problems: &'a [Problem],
}

/// Compares.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    let is_source = options.other.starts_with("feed:") || Address::is_meant(&options.other);
    let (certificate, problems) = if is_source {
        let password = password_for(&options.other, options.password_file.as_deref())?;
        let source = OpenedSource::open(&options.other, &[] as &[&str], password, Kept::default())?;
        let here = read(options.directory, verify::Options::default()).await?;
        let certificate = here.against(source.store, source.only.as_ref()).await?;
        (certificate, here.report.problems)
    } else {
        let here = read(options.directory, verify::Options::default()).await?;
        let there = read(PathBuf::from(&options.other), verify::Options::default()).await?;
        let mut problems = here.report.problems.clone();
        let under = |problem: &Problem| Problem {
            path: format!("{}/{}", options.other, problem.path),
            ..problem.clone()
        };
        problems.extend(there.report.problems.iter().map(under));
        (here.beside(&there)?, problems)
    };
    let text = match options.format {
        Format::Json => {
            let whole = Whole { certificate: &certificate, problems: &problems };
            serde_json::to_string_pretty(&whole)? + "\n"
        }
        Format::Text => {
            let mut text = String::new();
            write_differences(&mut text, &certificate)?;
            text
        }
    };
    if options.format == Format::Text {
        for problem in &problems {
            tracing::warn!("{}: {}", problem.path, problem.reason);
        }
    }
    Stream::Stdout.report("the differences", &text)?;
    Ok(if certificate.equal { Exit::Done } else { Exit::DocumentsFailed })
}

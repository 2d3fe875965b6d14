//! `plainfold path`: where a document lies in a mirror.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::exit::{self, Exit, Usage};
use super::help::OUTPUT;
use super::output::{Lines, Stream};
use super::verify::ReportFormat;
use crate::archive;
use crate::archive::locate::{LocateError, Located, locate};

/// What `plainfold path` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory or its name in the config, or a directory of RxDB's backup plugin
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// The collection's name
    #[arg(value_name = "COLLECTION")]
    collection: String,

    /// The document's id; write `--` before an id that begins with a hyphen
    #[arg(value_name = "ID")]
    id: String,

    /// How the path is printed: text, the path alone; or a JSON object
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

/// A document and its place, for JSON.
#[derive(Serialize)]
pub struct DocumentPlace<'a> {
    /// The document's collection.
    pub collection: &'a str,
    /// The document's id.
    pub id: &'a str,
    /// The document's folder, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    /// What the folder holds.
    pub state: &'static str,
}

/// Prints the path.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let (collection, id) = (options.collection.as_str(), options.id.as_str());
    let archive = archive::open(&options.directory)?;
    let there = locate(&*archive, &collection.into(), &id.into()).map_err(lowered)?;
    let path = options.directory.join(&there.path);
    match options.format {
        ReportFormat::Text => {
            let line = [path.as_os_str().as_bytes(), b"\n"].concat();
            Stream::Stdout.report_bytes("the path", &line)?;
        }
        ReportFormat::Json => {
            let path = path.to_str().ok_or_else(|| {
                Usage("the path is not valid UTF-8, so JSON cannot hold it".to_owned())
            })?;
            let place =
                DocumentPlace { collection, id, path: Some(path), state: state(&there.found) };
            Stream::Stdout.report("the path", &Lines::json(&place)?)?;
        }
    }
    Ok(judge(&there.found, collection, id))
}

/// An error by what the user can do about it.
pub fn lowered(error: LocateError) -> anyhow::Error {
    match error {
        LocateError::Mirror(error) => error.into(),
        other => Usage(other.to_string()).into(),
    }
}

/// What a mirror holds in a document's place, in a word.
pub fn state(found: &Located) -> &'static str {
    match found {
        Located::Document => "present",
        Located::Tombstone => "deleted",
        Located::Damaged(_) => "damaged",
        Located::Nothing => "absent",
    }
}

/// Says what is wrong, if anything is.
pub fn judge(found: &Located, collection: &str, id: &str) -> Exit {
    match found {
        Located::Document | Located::Tombstone => return Exit::Done,
        Located::Damaged(problem) => exit::say(&format!("{}: {}", problem.path, problem.reason)),
        Located::Nothing => {
            exit::say(&format!("the mirror does not hold a document `{id}` in `{collection}`"));
        }
    }
    Exit::DocumentsFailed
}

//! `plainfold id`: which document a path of a mirror belongs to.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{self, Exit};
use super::help::OUTPUT;
use super::output::{Lines, OutputError, Stream};
use super::path::{DocumentPlace, judge, lowered, state};
use super::verify::ReportFormat;
use crate::archive::locate;

/// What `plainfold id` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder of a document, or anything in it; may be given more than once.
    ///
    /// The mirror is the nearest folder above it that holds .plainfold.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// How the id is printed: text, COLLECTION, a tab and ID; or a JSON object
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

/// Prints the collection and the id for each path. A path that fails does not stop the others.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let mut worst = Exit::Done;
    for path in &options.paths {
        let code = match print(path, options.format) {
            Ok(code) => code,
            Err(error) if error.is::<OutputError>() => return Err(error),
            Err(error) => {
                exit::say_error(&error);
                exit::of(&error)
            }
        };
        worst = if code as u8 > worst as u8 { code } else { worst };
    }
    Ok(worst)
}

fn print(path: &Path, format: ReportFormat) -> anyhow::Result<Exit> {
    let (archive, within) = locate::around(path).map_err(lowered)?;
    let there = archive.identify(&within).map_err(|error| lowered(error.about(path)))?;
    let (collection, id) = (there.collection.as_str(), there.id.as_str());
    let text = match format {
        ReportFormat::Text => {
            let mut text = Lines::default();
            text.push_fields(&[collection, id]);
            text
        }
        ReportFormat::Json => {
            let place = DocumentPlace { collection, id, path: None, state: state(&there.found) };
            Lines::json(&place)?
        }
    };
    Stream::Stdout.report("the id", &text)?;
    Ok(judge(&there.found, collection, id))
}

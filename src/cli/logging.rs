//! Log lines on standard error, plain or JSON, that step aside for progress bars. What they quote
//! may be foreign, so all fields of an event are escaped here.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use clap::{Args, ValueEnum};
use indicatif::MultiProgress;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use super::exit::Usage;
use crate::document::plain;

/// What is logged, and how.
#[derive(Debug, Args)]
pub struct Options {
    /// How log lines are written
    #[arg(long, value_enum, default_value = "text", global = true)]
    log_format: Format,

    /// What is logged: error, warn, info, debug, trace, or a filter such as `plainfold=debug`
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "PLAINFOLD_LOG",
        global = true
    )]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Options {
    /// Whether lines are written as JSON.
    pub fn is_json(&self) -> bool {
        self.log_format == Format::Json
    }

    /// Starts logging. With `bars`, lines are written above them.
    pub fn start(&self, bars: Option<MultiProgress>) -> Result<(), Usage> {
        // sled logs its own housekeeping at levels that mean something else to our users.
        let filter =
            EnvFilter::try_new(format!("{},sled=warn", self.log_level)).map_err(|error| {
                Usage(format!("`{}` is not a log level or filter: {error}", self.log_level))
            })?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(AboveBars { bars, json: self.is_json() });
        match self.log_format {
            Format::Text => lines.fmt_fields(debug_fn(field).delimited(" ")).init(),
            Format::Json => lines.json().flatten_event(true).init(),
        }
        Ok(())
    }
}

/// Writes a field of an event as a part of its line.
fn field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = plain::text(&value);
    match (field.name(), to.has_ansi_escapes()) {
        ("message", _) => to.write_str(&value),
        (name, true) => write!(to, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
        (name, false) => write!(to, "{name}={value}"),
    }
}

/// Standard error, above the bars if there are any.
struct AboveBars {
    bars: Option<MultiProgress>,
    json: bool,
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { bars: self.bars.clone(), json: self.json, text: Vec::new() }
    }
}

/// One log line, written whole when it is complete.
struct Line {
    bars: Option<MultiProgress>,
    json: bool,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        let text = if self.json { plain::json(&text) } else { text };
        let write = || io::stderr().write_all(text.as_bytes());
        // A closed standard error is nobody's to be told.
        let _closed = match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        };
    }
}

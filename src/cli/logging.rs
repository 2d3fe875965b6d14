//! Log lines on standard error, plain or JSON, that step aside for progress bars. What they quote
//! may be foreign, so all fields of an event are escaped here.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use super::exit::Usage;
use super::footer::Footer;
use super::help::OUTPUT;
use super::output::Stream;
use super::variables::{set, wants_colour};
use crate::agent::MIRROR;
use crate::document::plain;
use crate::pipeline::{ENDED, FAILED};

/// The variable that is read if no option says what is logged.
const VARIABLE: &str = "PLAINFOLD_LOG";

/// These options come after those of a command.
const LAST: usize = 900;

/// What is logged, and how.
#[derive(Debug, Args)]
pub struct Options {
    /// Print errors and warnings only: no progress bars, and no summary of a run that succeeded
    #[arg(short, long, global = true, display_order = LAST, help_heading = OUTPUT)]
    quiet: bool,

    /// Log the details of each step too
    #[arg(short, long, global = true, display_order = LAST, help_heading = OUTPUT)]
    verbose: bool,

    /// What is logged: error, warn, info, debug, trace, or a filter such as `plainfold=debug`.
    ///
    /// The default is PLAINFOLD_LOG or, without it, info.
    #[arg(
        long,
        value_name = "LEVEL",
        global = true,
        display_order = LAST,
        help_heading = OUTPUT
    )]
    log_level: Option<String>,

    /// How log lines and the summary are written: text, or one JSON object per line
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        default_value = "text",
        global = true,
        display_order = LAST,
        help_heading = OUTPUT
    )]
    log_format: Format,
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

    /// Whether nothing but errors and warnings is printed.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// What is logged. An option takes precedence over the variable.
    fn level(&self) -> Result<String, Usage> {
        match (&self.log_level, self.quiet, self.verbose) {
            (Some(level), false, false) => Ok(level.clone()),
            (None, true, false) => Ok("warn".to_owned()),
            // The libraries' own details are of use to nobody but their authors.
            (None, false, true) => Ok("info,plainfold=debug".to_owned()),
            (None, false, false) => match set(VARIABLE) {
                Some(level) => {
                    level.into_string().map_err(|_| Usage(format!("{VARIABLE} is not valid UTF-8")))
                }
                None => Ok("info".to_owned()),
            },
            _ => Err(Usage("give only one of --quiet, --verbose and --log-level".to_owned())),
        }
    }

    /// Starts logging. With `bars`, lines are written above them.
    pub fn start(&self, bars: Option<Footer>) -> Result<(), Usage> {
        self.start_with(bars, false)
    }

    /// The same for a command that `sums_up` in JSON what ended it, so that the log does not report it
    /// too.
    pub fn start_with(&self, bars: Option<Footer>, sums_up: bool) -> Result<(), Usage> {
        let level = self.level()?;
        let is_left = self.is_json() && sums_up && !Stream::Stdout.is_nowhere();
        let left = if is_left { format!(",{ENDED}=off") } else { String::new() };
        // sled logs its own housekeeping at levels that mean something else to our users.
        let filter = EnvFilter::try_new(format!("{level},sled=warn,{MIRROR}=error{left}"))
            .map_err(|error| Usage(format!("`{level}` is not a log level or filter: {error}")))?;
        let is_terminal = is_on_terminal();
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_target(false)
            .with_ansi(is_terminal && wants_colour())
            .with_writer(AboveBars { bars, json: self.is_json() });
        match self.log_format {
            Format::Text if is_terminal => {
                let lines = lines.fmt_fields(debug_fn(field).delimited(" "));
                lines.event_format(ForPeople).init();
            }
            Format::Text => {
                lines.with_timer(Seconds).fmt_fields(debug_fn(field).delimited(" ")).init();
            }
            Format::Json => {
                let lines = lines.json().flatten_event(true).with_span_list(false);
                let lines = lines.with_current_span(false);
                lines.map_event_format(Named).init();
            }
        }
        Ok(())
    }
}

/// The time of a line: RFC 3339, in whole seconds.
struct Seconds;

impl FormatTime for Seconds {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        let now = Timestamp::now();
        write!(to, "{}", Timestamp::from_second(now.as_second()).unwrap_or(now))
    }
}

/// Lines for somebody who watches: no time, a word for warnings and errors only, and the collection
/// first.
struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (word, colour) = match *event.metadata().level() {
            Level::ERROR => ("error", "31"),
            Level::WARN => ("warning", "33"),
            Level::INFO => ("", ""),
            Level::DEBUG => ("debug", "2"),
            Level::TRACE => ("trace", "2"),
        };
        match (word, to.has_ansi_escapes()) {
            ("", _) => {}
            (_, true) => write!(to, "\x1b[{colour}m{word}:\x1b[0m ")?,
            (_, false) => write!(to, "{word}: ")?,
        }
        let mut parts = Parts::default();
        event.record(&mut parts);
        let mirror =
            mirror(context).map(|field| format!("{}: ", field.trim_start_matches("mirror=")));
        let mirror = mirror.unwrap_or_default();
        writeln!(to, "{mirror}{}{}{}", parts.collection, parts.message, parts.others)
    }
}

/// JSON with the name of the mirror among the fields, where there are several mirrors.
struct Named<F>(F);

impl<S, N, F> FormatEvent<S, N> for Named<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        match (mirror(context), line.strip_prefix('{')) {
            (Some(mirror), Some(rest)) => {
                let mirror = mirror.trim_start_matches('{').trim_end_matches('}');
                write!(to, "{{{mirror},{rest}")
            }
            _ => to.write_str(&line),
        }
    }
}

/// The field that names the mirror, as the log writes it.
fn mirror<S, N>(context: &FmtContext<'_, S, N>) -> Option<String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let is_mirror = |span: &SpanRef<'_, S>| span.metadata().target() == MIRROR;
    let span = context.event_scope()?.find(is_mirror)?;
    let extensions = span.extensions();
    Some(extensions.get::<FormattedFields<N>>()?.fields.clone())
}

/// The fields of an event, each escaped.
#[derive(Default)]
struct Parts {
    message: String,
    collection: String,
    others: String,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        let value = plain::text(&value);
        match field.name() {
            "message" => self.message = value.into_owned(),
            "collection" => self.collection = format!("{value}: "),
            name => self.others.push_str(&format!(" {name}={value}")),
        }
    }
}

/// Whether somebody watches the log on a terminal.
pub fn is_on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// What the log of a run has named.
#[derive(Clone, Copy, Debug)]
pub struct Logged {
    /// The documents that failed, what is missing, and what ended the run.
    pub errors: bool,
    /// Deletions that are held back, security objects that failed, and why a collection is behind.
    pub warnings: bool,
}

impl Logged {
    /// What the level of the log lets it name.
    pub fn by_level() -> Self {
        Self {
            errors: tracing::enabled!(target: FAILED, Level::ERROR),
            warnings: tracing::enabled!(target: FAILED, Level::WARN),
        }
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
    bars: Option<Footer>,
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
    bars: Option<Footer>,
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
            Some(bars) => bars.above(write),
            None => write(),
        };
    }
}

//! `plainfold config`: the config file of the agent, written, checked and explained.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::{self, Exit};
use super::help::{self, COPY, OUTPUT};
use super::output::{Lines, Stream};
use super::verify::ReportFormat;
use crate::config::file::{FileError, ShownConfig};

mod check;
mod init;
mod sockets;

/// Where the config is, if nothing else was said.
pub const DEFAULT: &str = "/etc/plainfold/plainfold.toml";

/// What `plainfold config` takes.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a config with comments, which can be used as it is.
    ///
    /// Without --source, the config mirrors a small sample library, which is written beside it. A file
    /// that exists is never overwritten.
    #[command(after_help = help::CONFIG_INIT)]
    Init(init::Options),
    /// Say what works of a config, and what does not.
    ///
    /// Reads the config, asks each source, and looks at each directory. Writes nothing.
    #[command(after_help = help::CONFIG_CHECK)]
    Check(check::Options),
    /// Print every key of every mirror, with its value and where that comes from.
    ///
    /// What is printed is a config of the same meaning. Secrets are not printed.
    #[command(after_help = help::CONFIG_SHOW)]
    Show(ShowOptions),
}

/// Which config file.
#[derive(Debug, Args)]
#[group(skip)]
pub struct ConfigFile {
    /// The config file. PLAINFOLD_CONFIG may name it too
    #[arg(
        long = "config",
        value_name = "PATH",
        env = "PLAINFOLD_CONFIG",
        hide_env = true,
        default_value = DEFAULT,
        help_heading = COPY
    )]
    pub path: PathBuf,
}

/// What `plainfold config show` takes.
#[derive(Debug, Args)]
struct ShowOptions {
    #[command(flatten)]
    file: ConfigFile,

    /// How the config is printed: as TOML, or as JSON for programs
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

/// Does what was asked for.
pub async fn run(options: Options) -> anyhow::Result<Exit> {
    match options.command {
        Command::Init(options) => init::run(&options),
        Command::Check(options) => check::run(&options).await,
        Command::Show(options) => show(&options),
    }
}

fn show(options: &ShowOptions) -> anyhow::Result<Exit> {
    let path = &options.file.path;
    let shown = match ShownConfig::read(path) {
        Ok(shown) => shown,
        Err(error) => return refused(error),
    };
    let text = match options.format {
        ReportFormat::Json => Lines::pretty(&shown)?,
        ReportFormat::Text => {
            let mut lines = Lines::default();
            writeln!(lines, "# {}, with all defaults", path.display())?;
            writeln!(lines, "[api]")?;
            shown.api.iter().for_each(|key| lines.push(&key.line()));
            writeln!(lines)?;
            writeln!(lines, "[alerts]")?;
            shown.alerts.iter().for_each(|key| lines.push(&key.line()));
            for mirror in &shown.mirrors {
                writeln!(lines)?;
                writeln!(lines, "[[mirror]]")?;
                mirror.iter().for_each(|key| lines.push(&key.line()));
            }
            lines
        }
    };
    Stream::Stdout.report("the config", &text)?;
    Ok(Exit::Done)
}

/// Says why a config cannot be used; each mistake in it has a line of its own.
pub fn refused(error: FileError) -> anyhow::Result<Exit> {
    let FileError::Wrong { path, problems } = error else { return Err(error.into()) };
    for problem in problems {
        let line = problem.line.map(|line| format!("{line}:")).unwrap_or_default();
        exit::say(&format!("{}:{line} {}", path.display(), problem.text));
    }
    Ok(Exit::Usage)
}

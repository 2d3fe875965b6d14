//! `plainfold completions`: a script that completes commands and options in a shell.

use clap::Args;
use clap_complete::Shell;

use super::exit::Exit;
use super::output::Stream;

/// What `plainfold completions` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script for this parser.
pub fn run(options: &Options, parser: &mut clap::Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, parser, "plainfold", &mut script);
    Stream::Stdout.report_bytes("the script", &script)?;
    Ok(Exit::Done)
}

//! The commands: what the user typed, lowered to what it means. One file per command.
//!
//! This is the only place that reads arguments, the environment and signals, and that writes to the
//! terminal. It must not know sled or the names on disk.

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod access;
mod certificate;
mod compare;
mod diff;
mod exit;
mod files;
mod logging;
mod mirror;
mod output;
mod panics;
mod privacy;
mod process;
mod progress;
mod release;
mod repair;
mod restore;
mod service;
mod signals;
mod status;
mod summary;
mod tail;
mod undelete;
mod verify;

use exit::Exit;

use crate::client::couchdb::Address;

/// Keeps a live copy of a document database as plain folders.
///
/// Each document's JSON and attachments are ordinary files in a folder of its own.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = exit::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    logging: logging::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mirror a database, a server or a recorded feed into a directory
    Mirror(mirror::Options),
    /// Put a mirror back into a server, or into a recorded feed
    Restore(restore::Options),
    /// Read every byte of a mirror, and say what is damaged; or prove that it equals its source
    Verify(verify::Options),
    /// List the documents that differ from a source, or from another mirror
    Diff(diff::Options),
    /// Print the write events of a mirror, those missed first
    Tail(tail::Options),
    /// Print how a mirror stands
    Status(status::Options),
    /// Make the deletions that the brake on mass deletion holds back
    Release(release::Options),
}

impl Command {
    /// The mirror's directory.
    fn directory(&self) -> &Path {
        match self {
            Self::Mirror(options) => &options.directory,
            Self::Restore(options) => &options.directory,
            Self::Verify(options) => &options.directory,
            Self::Diff(options) => &options.directory,
            Self::Tail(options) => &options.directory,
            Self::Status(options) => &options.directory,
            Self::Release(options) => &options.directory,
        }
    }
}

impl Command {
    /// The order of its arguments.
    fn order(&self) -> &'static str {
        match self {
            Self::Mirror(_) => "mirror SOURCE DIR",
            Self::Restore(_) => "restore DIR TARGET",
            Self::Verify(_) => "verify DIR",
            Self::Diff(_) => "diff DIR OTHER",
            Self::Tail(_) => "tail DIR",
            Self::Status(_) => "status DIR",
            Self::Release(_) => "release DIR",
        }
    }
}

/// A message without the user parts of the URLs that it repeats, if it repeats any.
fn hidden(text: &str) -> Option<String> {
    let is_url = |word: &str| word.contains('@') && Address::is_url_like(word.trim_matches('\''));
    let words = text.split_inclusive(char::is_whitespace);
    let hide = |word| if is_url(word) { Address::hidden(word) } else { word.to_owned() };
    text.contains('@').then(|| words.map(hide).collect())
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            if error.use_stderr() {
                // The exit code says it too.
                let _unwritten = match hidden(&error.to_string()) {
                    Some(text) => output::Stream::Stderr
                        .report("what is wrong", &output::Lines::laid_out(&text)),
                    None => output::print_usage(&error),
                };
                return Exit::Usage.into();
            }
            return match output::print_usage(&error) {
                Ok(()) => Exit::Done.into(),
                Err(error) => {
                    exit::say(&error.to_string());
                    Exit::OutputFailed.into()
                }
            };
        }
    };
    let (mirror, mode) = match &arguments.command {
        Command::Mirror(options) => (Some(options.directory()), options.mode()),
        Command::Verify(options) => (Some(options.directory()), None),
        Command::Release(options) => (Some(options.directory()), None),
        // These write nothing into the mirror.
        Command::Restore(_) | Command::Diff(_) | Command::Tail(_) | Command::Status(_) => {
            (None, None)
        }
    };
    privacy::apply(mirror, mode);
    panics::caught(|| run(arguments)).into()
}

fn run(arguments: Arguments) -> Exit {
    // One provider of cryptography for everything; a second call would only say that it is set.
    let _set = rustls::crypto::aws_lc_rs::default_provider().install_default();
    files::raise_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            exit::say(&format!("the runtime cannot be started: {error}"));
            return Exit::Failure;
        }
    };
    let Arguments { command, logging } = arguments;
    let directory = command.directory();
    if directory.to_str().is_some_and(Address::is_url_like) && !directory.exists() {
        // A message about a missing folder would repeat the password of a URL in the wrong place.
        let given = Address::hidden(&directory.to_string_lossy());
        exit::say(&format!(
            "DIR must be a directory, but `{given}` looks like a URL: the order is `plainfold {}`",
            command.order()
        ));
        return Exit::Usage;
    }
    let code = runtime.block_on(async {
        files::survive_size_limit();
        match command {
            Command::Mirror(options) => mirror::run(options, &logging).await,
            Command::Restore(options) => restore::run(options, &logging).await,
            Command::Verify(options) => {
                logging.start(None)?;
                verify::run(options).await
            }
            Command::Diff(options) => {
                logging.start(None)?;
                diff::run(options).await
            }
            Command::Tail(options) => {
                logging.start(None)?;
                tail::run(options).await
            }
            Command::Status(options) => {
                logging.start(None)?;
                status::run(options).await
            }
            Command::Release(options) => {
                logging.start(None)?;
                release::run(options).await
            }
        }
    });
    // A read of standard input cannot be interrupted; the process does not wait for it.
    runtime.shutdown_background();
    match code {
        Ok(code) => code,
        Err(error) => {
            exit::say_error(&error);
            exit::of(&error)
        }
    }
}

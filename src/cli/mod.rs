//! The commands: what the user typed, lowered to what it means. One file per command.
//!
//! This is the only place that reads arguments and signals, and that writes to the terminal. It reads
//! the environment too, but for the variables that a config names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod access;
mod bar;
mod certificate;
mod compare;
mod completions;
mod config;
mod diff;
mod errand;
mod exit;
mod files;
mod footer;
mod help;
mod id;
mod journal;
mod listeners;
mod logging;
mod man;
mod mirror;
mod mirrors;
mod name;
mod order;
mod output;
mod panics;
mod path;
mod privacy;
mod progress;
mod prompt;
mod release;
mod repair;
mod restore;
mod run;
mod service;
mod shown;
mod signals;
mod status;
mod summary;
mod tail;
mod token;
mod undelete;
mod variables;
mod verify;

use exit::Exit;

use crate::client::couchdb::Address;
use crate::config::feed;
use crate::runner::Action;

/// Keep live copies of document databases as plain folders.
///
/// Plainfold copies databases of CouchDB, PouchDB Server, Cloudant and RxDB, and recorded feeds.
/// Each document becomes a folder with its JSON and its attachments as ordinary files. With --live,
/// the copy follows every change.
#[derive(Debug, Parser)]
#[command(
    version = env!("PLAINFOLD_VERSION"),
    propagate_version = true,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = help::PLAINFOLD,
    after_long_help = help::PLAINFOLD_LONG
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    logging: logging::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mirror a server, a database or a recorded feed into a directory.
    ///
    /// The first run copies everything. Later runs write only what has changed. A mirror remembers
    /// the options that are marked as remembered.
    #[command(after_help = help::MIRROR)]
    Mirror(mirror::Options),
    /// Restore a mirror into a server or a recorded feed.
    ///
    /// If the target holds other documents, nothing is written unless --on-existing allows it.
    #[command(after_help = help::RESTORE)]
    Restore(restore::Options),
    /// Check every file of a mirror, and compare it with its source.
    ///
    /// Reads every file of the mirror and prints what is missing, altered or extra. With --against,
    /// also compares the mirror with a source and prints a certificate.
    #[command(after_help = help::VERIFY)]
    Verify(verify::Options),
    /// List the documents that differ between a mirror and a source or another mirror.
    ///
    /// Prints one difference per line, then a summary. Two mirrors are always compared byte by
    /// byte.
    #[command(after_help = help::DIFF)]
    Diff(diff::Options),
    /// Print the write events of a mirror.
    ///
    /// There is an event for each document that is written or removed. While `plainfold mirror`
    /// runs, `tail` prints new events as they come. Otherwise it prints the journal.
    #[command(after_help = help::TAIL)]
    Tail(tail::Options),
    /// Print the state of a mirror.
    ///
    /// Prints its collections, the documents that failed, the number of deletions that are held
    /// back, and the options that the mirror remembers.
    #[command(after_help = help::STATUS)]
    Status(status::Options),
    /// Apply deletions that are held back.
    ///
    /// The protection against mass deletion (`plainfold mirror --max-delete`) holds them back. A
    /// running `plainfold mirror` applies them at once; otherwise the next run does.
    #[command(after_help = help::RELEASE)]
    Release(release::Options),
    /// Pause a collection, or all.
    ///
    /// The running `plainfold mirror` finishes the batches in flight, and then leaves the source
    /// alone until `plainfold resume`. A pause ends with the process: the next `plainfold mirror`
    /// does not know it.
    #[command(after_help = help::PAUSE)]
    Pause(order::Options),
    /// Resume a collection that is paused, or all.
    #[command(after_help = help::RESUME)]
    Resume(order::Options),
    /// Catch up with a collection now, or with all.
    ///
    /// The running `plainfold mirror` asks the source at once, without the rest of a pause after an
    /// error.
    #[command(after_help = help::CATCH_UP)]
    CatchUp(order::Options),
    /// Compare a collection, or all, with the whole source.
    ///
    /// Makes a full scan, which reads the source from its beginning and writes what differs. A
    /// running `plainfold mirror` begins it at once; otherwise the next run makes it.
    #[command(after_help = help::RESCAN)]
    Rescan(order::Options),
    /// Print the path of a document.
    ///
    /// Prints the path of the document's folder, whether or not it exists. Exits with 1 if the
    /// mirror does not hold the document.
    #[command(after_help = help::PATH)]
    Path(path::Options),
    /// Print the collection and the id of the document that a path belongs to.
    ///
    /// Exits with 1 if the mirror does not hold the document, and with 2 if the path does not
    /// belong to a document.
    #[command(after_help = help::ID)]
    Id(id::Options),
    /// Keep every mirror of a config, until SIGINT or SIGTERM.
    ///
    /// Each mirror follows its source or catches up by its schedule. One that fails starts again after
    /// a pause, and does not disturb the others.
    #[command(after_help = help::RUN)]
    Run(run::Options),
    /// Print what `plainfold run` is doing, a line for each mirror.
    #[command(after_help = help::MIRRORS)]
    Mirrors(mirrors::Options),
    /// Write, check or explain the config of many mirrors.
    #[command(after_help = help::CONFIG)]
    Config(config::Options),
    /// Make, list or remove tokens for the agent's API.
    ///
    /// Requests to an address of `[api] listen` need a token. Who can open the agent's Unix socket
    /// needs none.
    #[command(after_help = help::TOKEN)]
    Token(token::Options),
    /// Print a completion script for a shell.
    #[command(after_help = help::COMPLETIONS)]
    Completions(completions::Options),
    /// Write the manual pages into a directory.
    ///
    /// Writes plainfold.1 and one page for each command. Pages that exist are replaced.
    #[command(after_help = help::MAN)]
    Man(man::Options),
    /// Print the help of a command.
    #[command(after_help = help::HELP)]
    Help(help::Options),
}

impl Command {
    /// The directory that the command works on, if there is one.
    fn directory(&self) -> Option<&Path> {
        Some(match self {
            Self::Mirror(options) => &options.directory,
            Self::Restore(options) => &options.directory,
            Self::Verify(options) => &options.directory,
            Self::Diff(options) => &options.directory,
            Self::Tail(options) => &options.directory,
            Self::Status(options) => &options.directory,
            Self::Release(options) => &options.directory,
            Self::Pause(options)
            | Self::Resume(options)
            | Self::CatchUp(options)
            | Self::Rescan(options) => &options.directory,
            Self::Path(options) => &options.directory,
            Self::Id(options) => return options.paths.first().map(PathBuf::as_path),
            Self::Man(options) => &options.directory,
            Self::Run(_)
            | Self::Mirrors(_)
            | Self::Config(_)
            | Self::Token(_)
            | Self::Completions(_)
            | Self::Help(_) => return None,
        })
    }

    /// Lets others read nothing of what the command creates, but what the mirror lets them.
    fn apply_privacy(&self) {
        match self {
            Self::Mirror(options) => privacy::apply(Some(&options.directory), options.mode()),
            Self::Verify(verify::Options { directory, .. })
            | Self::Release(release::Options { directory, .. })
            | Self::Rescan(order::Options { directory, .. }) => {
                privacy::apply(Some(directory), None);
            }
            // These write nothing into the mirror.
            Self::Restore(_)
            | Self::Diff(_)
            | Self::Tail(_)
            | Self::Status(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::CatchUp(_)
            | Self::Path(_)
            | Self::Id(_)
            | Self::Run(_)
            | Self::Mirrors(_)
            | Self::Config(_)
            | Self::Token(_) => privacy::apply(None, None),
            // Everybody may read what these write.
            Self::Completions(_) | Self::Man(_) | Self::Help(_) => {}
        }
    }

    /// Where a mirror may be named as in a config, instead of its directory.
    fn named(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Restore(restore::Options { directory, .. })
            | Self::Verify(verify::Options { directory, .. })
            | Self::Diff(diff::Options { directory, .. })
            | Self::Tail(tail::Options { directory, .. })
            | Self::Status(status::Options { directory, .. })
            | Self::Release(release::Options { directory, .. })
            | Self::Pause(order::Options { directory, .. })
            | Self::Resume(order::Options { directory, .. })
            | Self::CatchUp(order::Options { directory, .. })
            | Self::Rescan(order::Options { directory, .. })
            | Self::Path(path::Options { directory, .. }) => Some(directory),
            _ => None,
        }
    }

    /// The order of the command's arguments.
    fn order(&self) -> &'static str {
        match self {
            Self::Mirror(_) => "mirror SOURCE DIR",
            Self::Restore(_) => "restore DIR TARGET",
            Self::Verify(_) => "verify DIR",
            Self::Diff(_) => "diff DIR SOURCE|DIR",
            Self::Tail(_) => "tail DIR",
            Self::Status(_) => "status DIR",
            Self::Release(_) => "release DIR COLLECTION",
            Self::Pause(_) => "pause DIR",
            Self::Resume(_) => "resume DIR",
            Self::CatchUp(_) => "catch-up DIR",
            Self::Rescan(_) => "rescan DIR",
            Self::Path(_) => "path DIR COLLECTION ID",
            Self::Id(_) => "id PATH",
            Self::Run(_) => "run",
            Self::Mirrors(_) => "mirrors",
            Self::Config(_) => "config COMMAND",
            Self::Token(_) => "token COMMAND",
            Self::Completions(_) => "completions SHELL",
            Self::Man(_) => "man DIR",
            Self::Help(_) => "help COMMAND",
        }
    }
}

/// The parser of all commands.
fn parser() -> clap::Command {
    help::laid_out(Arguments::command())
}

/// Reads what was typed, the name of the program first.
fn parse(typed: impl Iterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let mut parser = parser();
    let matches = parser.try_get_matches_from_mut(help::asked(typed, &Arguments::command()));
    let matches = matches.map_err(advised)?;
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut parser))
}

/// With the advice for a source that was given to `verify` without its option.
fn advised(mut error: clap::Error) -> clap::Error {
    let text = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let (given, usage) = (text(ContextKind::InvalidArg), text(ContextKind::Usage));
    let is_source = Address::is_url_like(&given) || feed(&given).is_some();
    if error.kind() == ErrorKind::UnknownArgument && is_source && usage.contains("plainfold verify")
    {
        let tip = "to compare with a source, write `--against SOURCE`";
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

/// A message without the passwords and queries of the URLs that it repeats, if it repeats any. Help
/// repeats nothing that was typed.
fn repeated(error: &clap::Error) -> Option<String> {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return None;
    }
    let text = error.to_string();
    let is_url =
        |word: &str| word.contains(['@', '?']) && Address::is_url_like(word.trim_matches('\''));
    let words = text.split_inclusive(char::is_whitespace);
    let hide = |word: &str| match word.trim_end_matches(|c: char| c == '\'' || c.is_whitespace()) {
        url if is_url(word) => Address::hidden(url) + &word[url.len()..],
        _ => word.to_owned(),
    };
    words.clone().any(is_url).then(|| words.map(hide).collect())
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            if error.use_stderr() {
                // The exit code says it too.
                let _unwritten = match repeated(&error) {
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
    arguments.command.apply_privacy();
    panics::caught(|| run(arguments)).into()
}

fn run(arguments: Arguments) -> Exit {
    // One provider of cryptography for everything; a second call would only say that it is set.
    let _set = rustls::crypto::aws_lc_rs::default_provider().install_default();
    files::raise_limit();
    let passed = match &arguments.command {
        Command::Run(_) => listeners::passed(),
        _ => Ok(Vec::new()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            exit::say(&format!("the runtime cannot be started: {error}"));
            return Exit::Failure;
        }
    };
    let Arguments { mut command, logging } = arguments;
    if let Some(directory) = command.directory()
        && directory.to_str().is_some_and(Address::is_url_like)
        && !directory.exists()
    {
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
        if let Some(typed) = command.named()
            && let Some(directory) = name::directory(typed).await?
        {
            *typed = directory;
            command.apply_privacy();
        }
        match command {
            Command::Mirror(options) => mirror::run(options, &logging).await,
            Command::Restore(options) => restore::run(options, &logging).await,
            Command::Verify(options) => verify::run(options, &logging).await,
            Command::Diff(options) => diff::run(options, &logging).await,
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
            Command::Pause(options) => {
                logging.start(None)?;
                order::run(Action::Pause, options).await
            }
            Command::Resume(options) => {
                logging.start(None)?;
                order::run(Action::Resume, options).await
            }
            Command::CatchUp(options) => {
                logging.start(None)?;
                order::run(Action::CatchUp, options).await
            }
            Command::Rescan(options) => {
                logging.start(None)?;
                order::run(Action::Rescan, options).await
            }
            Command::Path(options) => {
                logging.start(None)?;
                path::run(&options)
            }
            Command::Id(options) => {
                logging.start(None)?;
                id::run(&options)
            }
            Command::Run(options) => run::run(options, passed?, &logging).await,
            Command::Mirrors(options) => {
                logging.start(None)?;
                mirrors::run(options).await
            }
            Command::Config(options) => {
                logging.start(None)?;
                config::run(options).await
            }
            Command::Token(options) => {
                logging.start(None)?;
                tokio::task::spawn_blocking(move || token::run(options)).await?
            }
            Command::Completions(options) => completions::run(&options, parser()),
            Command::Man(options) => man::run(&options, parser()),
            Command::Help(options) => help::run(&options, parser()),
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

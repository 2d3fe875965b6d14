//! What `--help` says below the options, and how all of it is laid out; `plainfold help COMMAND`.
//!
//! A test parses every example.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Args;
use clap::builder::StyledStr;
use clap::error::ErrorKind;

use super::exit::Exit;
use super::output;

/// The heading of options that select what is copied, verified or compared.
pub const COPY: &str = "What to copy";
/// The heading of options that protect data.
pub const SAFETY: &str = "Safety";
/// The heading of options about the way to a server.
pub const CONNECTION: &str = "Connection";
/// The heading of options about what is printed.
pub const OUTPUT: &str = "Output";

/// The end of `plainfold -h`.
pub const PLAINFOLD: &str = "\
Examples:
  plainfold mirror http://admin@localhost:5984/books backup
  plainfold restore backup http://admin@localhost:5984/books

`plainfold COMMAND --help` lists all options of a command.";

/// The end of `plainfold --help`.
pub const PLAINFOLD_LONG: &str = "\
Examples:
  Copy a database, then follow it:
    plainfold mirror http://admin@localhost:5984/books backup --live
  Restore it:
    plainfold restore backup http://admin@localhost:5984/books

Exit codes:
    0  success; with --live, stopped by SIGINT or SIGTERM
    1  documents failed, deletions are held back, or something is damaged,
       different or missing
    2  bad usage, a name that does not exist, or the target of a restore holds
       other documents
    3  the source or target cannot be reached, or has no such database
    4  the source or target refused the credentials
    5  the mirror cannot be used: locked, process not answering, newer format,
       or failing disk
    6  another process has taken the mirror over
   70  internal error (a bug in Plainfold)
   74  output cannot be written: standard output, a manifest or the file of a
       feed
  130  interrupted before it was done

`plainfold COMMAND --help` lists all options of a command.
Read more: README.md, docs/configuration.md, docs/operations.md";

/// The end of each command's help.
pub const MIRROR: &str = "\
Examples:
  Copy one database once; Plainfold asks for the password:
    plainfold mirror http://admin@localhost:5984/books backup
  Follow all databases of a server, and keep deleted documents for 30 days:
    plainfold mirror http://admin@localhost:5984 backup --live --trash 30 \\
      --password-file password

Read more: docs/configuration.md, docs/operations.md";

/// See [`MIRROR`].
pub const RESTORE: &str = "\
Examples:
  See what a restore would do, then do it:
    plainfold restore backup http://admin@localhost:5984 --dry-run
    plainfold restore backup http://admin@localhost:5984
  Restore one document as it is in the mirror:
    plainfold restore backup http://admin@localhost:5984/books \\
      --collections books --ids book-1 --on-existing overwrite

Read more: docs/configuration.md, docs/restore.md";

/// See [`MIRROR`].
pub const VERIFY: &str = "\
Examples:
  Check every file:
    plainfold verify backup
  Compare with the source too, and fetch documents with problems again:
    plainfold verify backup --against http://admin@localhost:5984 --repair

Read more: docs/verify.md, docs/configuration.md";

/// See [`MIRROR`].
pub const DIFF: &str = "\
Examples:
  Compare a mirror with its source:
    plainfold diff backup http://admin@localhost:5984
  Compare two mirrors:
    plainfold diff backup /mnt/other/backup

Read more: docs/configuration.md";

/// See [`MIRROR`].
pub const TAIL: &str = "\
Examples:
  Follow the events of one collection:
    plainfold tail backup --collection books
  Print all events after number 1041, for people:
    plainfold tail backup --since 1041 --format text
  Follow where the last `tail` of this name has ended:
    plainfold tail backup --cursor indexer

Read more: docs/events.md, docs/configuration.md";

/// See [`MIRROR`].
pub const STATUS: &str = "\
Examples:
  Print the state for people:
    plainfold status backup
  Print it for a monitoring system:
    plainfold status backup --format json

Read more: docs/operations.md, docs/configuration.md";

/// See [`MIRROR`].
pub const RELEASE: &str = "\
Examples:
  See how many deletions are held back, then apply them:
    plainfold status backup
    plainfold release backup books

Read more: docs/operations.md";

/// See [`MIRROR`].
pub const PAUSE: &str = "\
Examples:
  Pause one collection, and resume it:
    plainfold pause backup --collection books
    plainfold resume backup --collection books
  Pause all collections:
    plainfold pause backup

Read more: docs/operations.md";

/// See [`MIRROR`].
pub const RESUME: &str = "\
Examples:
  Resume all collections that are paused:
    plainfold resume backup
  Resume one of them:
    plainfold resume backup --collection books

Read more: docs/operations.md";

/// See [`MIRROR`].
pub const CATCH_UP: &str = "\
Examples:
  Do not wait for the next try after the source was repaired:
    plainfold catch-up backup --collection books
  Do so for all collections:
    plainfold catch-up backup

Read more: docs/operations.md";

/// See [`MIRROR`].
pub const RESCAN: &str = "\
Examples:
  Compare a collection with its whole source:
    plainfold rescan backup --collection books
  Do so for all collections:
    plainfold rescan backup

Read more: docs/operations.md";

/// See [`MIRROR`].
pub const PATH: &str = "\
Examples:
  Print the document `loan/2024-0117` of the collection `loans`:
    cat \"$(plainfold path backup loans loan/2024-0117)/document.json\"
  Print a path whose id begins with a hyphen:
    plainfold path backup loans -- -17

Read more: docs/format.md";

/// See [`MIRROR`].
pub const ID: &str = "\
Examples:
  Print the collection and the id of a folder or a file:
    plainfold id backup/loans/loan%2F2024-0117
    plainfold id backup/loans/loan%2F2024-0117/document.json --format json

Read more: docs/format.md";

/// See [`MIRROR`].
pub const RUN: &str = "\
Examples:
  Keep all mirrors of the config of the service:
    plainfold run
  Keep those of another one:
    plainfold run --config plainfold.toml

SIGHUP, or a change of the config, reloads it.

Read more: docs/agent.md";

/// See [`MIRROR`].
pub const MIRRORS: &str = "\
Examples:
  Print what each mirror is doing:
    plainfold mirrors
  Print it for a monitoring system:
    plainfold mirrors --format json

Exit codes: 0 if all mirrors are well, 1 if something is wrong, 5 if no
`plainfold run` answers.

Read more: docs/agent.md";

/// See [`MIRROR`].
pub const CONFIG: &str = "\
Examples:
  Write a config, and check it:
    plainfold config init plainfold.toml
    plainfold config check --config plainfold.toml

Read more: docs/agent.md";

/// See [`MIRROR`].
pub const CONFIG_INIT: &str = "\
Examples:
  Write a config that mirrors a small sample library:
    plainfold config init plainfold.toml
  Write one for a server:
    plainfold config init --source http://admin@localhost:5984 plainfold.toml

Read more: docs/agent.md";

/// See [`MIRROR`].
pub const CONFIG_CHECK: &str = "\
Examples:
  Check the config of the service:
    plainfold config check
  Check another one without asking its sources:
    plainfold config check --config plainfold.toml --offline

Exit codes: 0 if all mirrors can run. Otherwise the greatest of the codes with
which their mirrors would end; see `plainfold --help`.

Read more: docs/agent.md";

/// See [`MIRROR`].
pub const CONFIG_SHOW: &str = "\
Examples:
  Print what the config of the service means:
    plainfold config show
    plainfold config show --format json

Read more: docs/agent.md";

/// See [`MIRROR`].
pub const TOKEN: &str = "\
Examples:
  Make a token for a monitoring system:
    plainfold token add prometheus --role read
  List all tokens:
    plainfold token list

Read more: docs/api.md";

/// See [`MIRROR`].
pub const TOKEN_ADD: &str = "\
Examples:
  Make a token that reads everything, and keep it in a file:
    plainfold token add prometheus --role read > prometheus.token
  Make a token that gives orders, for the agent of another config:
    plainfold token add alice --role operate --config plainfold.toml

Read more: docs/api.md";

/// See [`MIRROR`].
pub const TOKEN_LIST: &str = "\
Examples:
  List the tokens for people, and for programs:
    plainfold token list
    plainfold token list --format json

Read more: docs/api.md";

/// See [`MIRROR`].
pub const TOKEN_REMOVE: &str = "\
Examples:
  Remove a token that somebody else has seen, and make another one:
    plainfold token remove prometheus
    plainfold token add prometheus --role read

Read more: docs/api.md";

/// See [`MIRROR`].
pub const COMPLETIONS: &str = "\
Examples:
  For bash:
    plainfold completions bash \\
      > ~/.local/share/bash-completion/completions/plainfold
  For fish:
    plainfold completions fish > ~/.config/fish/completions/plainfold.fish";

/// See [`MIRROR`].
pub const MAN: &str = "\
Examples:
  Install the pages for one user, or for all:
    plainfold man ~/.local/share/man/man1
    plainfold man /usr/local/share/man/man1";

/// See [`MIRROR`].
pub const HELP: &str = "\
Examples:
    plainfold help
    plainfold help mirror";

/// What `plainfold help` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The command; without it, the help of plainfold is printed
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

/// Prints the help of a command of this parser.
pub fn run(options: &Options, mut parser: clap::Command) -> anyhow::Result<Exit> {
    let command = options.command.as_deref();
    let typed = ["plainfold"].into_iter().chain(command).chain(["--help"]);
    match parser.try_get_matches_from_mut(typed) {
        Err(error) if error.kind() == ErrorKind::DisplayHelp => output::print_usage(&error)?,
        Err(error) => {
            output::print_usage(&error)?;
            return Ok(Exit::Usage);
        }
        Ok(_) => {}
    }
    Ok(Exit::Done)
}

/// `plainfold COMMAND help` as what it means, unless something of that name exists: then it may be
/// meant.
pub fn asked(
    typed: impl Iterator<Item = OsString>,
    parser: &clap::Command,
) -> impl Iterator<Item = OsString> {
    let mut typed: Vec<_> = typed.collect();
    if let [_, command, help] = &mut typed[..]
        && help == OsStr::new("help")
        && parser.find_subcommand(&command).is_some()
        && !Path::new(help).exists()
    {
        *help = "--help".into();
    }
    typed.into_iter()
}

/// A parser whose help has one paragraph for each option: the first sentence, which `-h` prints alone,
/// and what `--help` adds.
pub fn laid_out(parser: clap::Command) -> clap::Command {
    let one_paragraph = |argument: clap::Arg| match argument.get_long_help() {
        Some(text) => {
            let text = text.to_string().replace("\n\n", " ");
            argument.long_help(StyledStr::from(text))
        }
        None => argument,
    };
    // A command's own version is that of the program.
    parser.display_name("plainfold").mut_args(one_paragraph).mut_subcommands(laid_out)
}

#[cfg(test)]
mod tests {
    use super::super::{parse, parser};
    use super::*;

    /// The examples at the end of a help: commands, with lines that continue them.
    fn examples(text: &str) -> Vec<String> {
        let (_, text) = text.split_once("Examples:\n").expect("examples");
        let text = text.replace("\\\n", " ");
        let lines = text.split("\n\n").next().unwrap_or_default().lines().map(str::trim);
        let command = |line: &str| line.find("plainfold ").map(|at| line[at..].to_owned());
        lines.filter(|line| !line.ends_with(':')).filter_map(command).collect()
    }

    /// The words of a command, as a shell splits those that stand in our examples.
    fn words(command: &str) -> Vec<OsString> {
        let end = command.find([')', '>', '|']).unwrap_or(command.len());
        command[..end].split_whitespace().map(OsString::from).collect()
    }

    /// The commands, and those below them, each with all its words.
    fn commands(parser: &clap::Command, above: &str) -> Vec<(String, clap::Command)> {
        let below = parser.get_subcommands().flat_map(|command| {
            let name = format!("{above}{}", command.get_name());
            let below = commands(command, &format!("{name} "));
            std::iter::once((name, command.clone())).chain(below)
        });
        below.collect()
    }

    #[test]
    fn every_command_has_two_examples_that_parse() {
        for (name, command) in commands(&parser(), "") {
            let help = command.get_after_help().expect(&name).to_string();
            assert!(help.lines().all(|line| line.len() < 80), "{name}: {help}");
            let examples = examples(&help);
            assert!(examples.len() >= 2, "{name}: {examples:?}");
            let is_own = |line: &&String| line.starts_with(&format!("plainfold {name}"));
            let own = examples.iter().filter(is_own);
            assert!(own.count() >= 1, "{name}: {examples:?}");
            for example in examples {
                assert!(parse(words(&example).into_iter()).is_ok(), "{example}");
            }
        }
        for help in [PLAINFOLD, PLAINFOLD_LONG] {
            assert!(help.lines().all(|line| line.len() < 80), "{help}");
            for example in examples(help) {
                assert!(parse(words(&example).into_iter()).is_ok(), "{example}");
            }
        }
    }

    #[test]
    fn options_have_known_headings_and_one_layout() {
        let mut parser = parser();
        parser.build();
        for (_, command) in commands(&parser, "") {
            assert!(command.get_long_about().or(command.get_about()).is_some(), "{command}");
            let known = [COPY, SAFETY, CONNECTION, OUTPUT];
            let mut headings = Vec::new();
            for heading in command.get_arguments().filter_map(clap::Arg::get_help_heading) {
                if !headings.contains(&heading) {
                    headings.push(heading);
                }
            }
            let in_order = known.into_iter().filter(|heading| headings.contains(heading));
            assert_eq!(headings, in_order.collect::<Vec<_>>(), "{command}");
            for argument in command.get_arguments() {
                let id = format!("{command} {argument}");
                let bare = argument.is_positional()
                    || ["help", "version"].contains(&argument.get_id().as_str());
                match argument.get_help_heading() {
                    Some(heading) => assert!(!bare && known.contains(&heading), "{id}: {heading}"),
                    None => assert!(bare, "{id}"),
                }
                let short = argument.get_help().expect(&id).to_string();
                assert!(!short.ends_with('.') && short.len() <= 120, "{id}: {short}");
                let long = argument.get_long_help().map(ToString::to_string).unwrap_or_default();
                assert!(!long.contains('\n'), "{id}: {long}");
            }
        }
    }

    #[test]
    fn help_is_given_however_it_is_asked_for() {
        let kind = |typed: &[&str]| {
            parse(["plainfold"].iter().chain(typed).map(OsString::from)).map_err(|e| e.kind()).err()
        };
        for typed in [
            &["--help"][..],
            &["-h"],
            &["mirror", "--help"],
            &["mirror", "help"],
            &["status", "help"],
            &["help", "--help"],
            &["help", "help"],
        ] {
            assert_eq!(kind(typed), Some(ErrorKind::DisplayHelp), "{typed:?}");
        }
        for typed in [
            &["-V"][..],
            &["--version"],
            &["mirror", "-V"],
            &["path", "--version"],
            &["help", "-V"],
        ] {
            assert_eq!(kind(typed), Some(ErrorKind::DisplayVersion), "{typed:?}");
        }
        assert_eq!(kind(&["help", "mirror"]), None);
        assert_eq!(kind(&["help"]), None);
    }
}

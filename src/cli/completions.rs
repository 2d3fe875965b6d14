//! `plainfold completions`: a script that completes commands, options and, in bash, zsh and fish, the names
//! of mirrors.
//!
//! The names come from `plainfold mirrors --format names` at the moment of completion.

use std::collections::BTreeSet;

use clap::{Args, ValueHint};
use clap_complete::Shell;

use super::exit::Exit;
use super::output::Stream;

/// The commands whose first argument may be the name of a mirror.
const NAMING: [&str; 11] = [
    "restore", "verify", "diff", "tail", "status", "release", "pause", "resume", "catch-up",
    "rescan", "path",
];

/// How clap's script registers its function in bash, and what bash calls instead.
const BASH: (&str, &str) = ("complete -F _plainfold ", "complete -F _plainfold_or_mirror ");

/// A command that takes names gets those, and folders. `@NAMING@` are the commands, and `@VALUED@` the
/// options that take the next word as their value.
const BASH_NAMES: &str = r#"
_plainfold_or_mirror() {
    _plainfold "$@"
    local current="$2" command="" value="" word
    if [[ $current == -* ]]; then return 0; fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ -n $value ]]; then
            [[ $word == "=" ]] || value=""
        elif [[ " @VALUED@ " == *" $word "* ]]; then
            value=yes
        elif [[ $word == -* ]]; then
            continue
        elif [[ -z $command && " @NAMING@ " == *" $word "* ]]; then
            command=$word
        else
            return 0
        fi
    done
    if [[ -z $command || -n $value ]]; then return 0; fi
    local names
    names=$("$1" mirrors --format names 2>/dev/null </dev/null)
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$current"; compgen -d -- "$current")
    compopt -o filenames 2>/dev/null
    return 0
}

"#;

/// A hint that no other argument has: it marks where a name may be.
const MARK: ValueHint = ValueHint::Username;

/// What clap's script for zsh calls for the mark, and what completes a name instead.
const ZSH: (&str, &str) = (":_users'", ":_plainfold_mirrors'");

const ZSH_NAMES: &str = r#"
_plainfold_mirrors() {
    local -a names
    names=(${(f)"$(plainfold mirrors --format names 2>/dev/null </dev/null)"})
    _alternative "mirrors:mirror:($names)" 'directories:directory:_files -/'
}
"#;

/// The first word after the command gets names too.
const FISH_NAMES: &str = r#"
complete -c plainfold -n "__fish_plainfold_using_subcommand @NAMING@; and __fish_is_nth_token 2" -x -a "(plainfold mirrors --format names 2>/dev/null </dev/null; __fish_complete_directories (commandline -ct))"
"#;

/// What `plainfold completions` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script for this parser.
pub fn run(options: &Options, parser: clap::Command) -> anyhow::Result<Exit> {
    Stream::Stdout.report_bytes("the script", script(options.shell, parser).as_bytes())?;
    Ok(Exit::Done)
}

/// The script of a shell.
fn script(shell: Shell, mut parser: clap::Command) -> String {
    parser = parser.mut_subcommands(|command| match NAMING.contains(&command.get_name()) {
        // Not `mut_arg`, which moves the argument behind the others.
        true => command.mut_args(|argument| match argument.get_id() == "directory" {
            true => argument.value_hint(MARK),
            false => argument,
        }),
        false => command,
    });
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut parser, "plainfold", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let naming = NAMING.join(" ");
    match shell {
        Shell::Bash => {
            let (from, to) = BASH;
            let names = BASH_NAMES.replace("@NAMING@", &naming);
            let names = names.replace("@VALUED@", &valued(&parser).join(" "));
            names + &script.replace(from, to)
        }
        Shell::Zsh => {
            let (from, to) = ZSH;
            let (head, rest) = script.split_once("\n\n").unwrap_or((&script, ""));
            format!("{head}\n{ZSH_NAMES}\n{}", rest.replace(from, to))
        }
        Shell::Fish => script + &FISH_NAMES.replace("@NAMING@", &naming),
        _ => script,
    }
}

/// The options that take the next word as their value, of the commands that take names.
fn valued(parser: &clap::Command) -> Vec<String> {
    let naming = parser.get_subcommands().filter(|one| NAMING.contains(&one.get_name()));
    let options =
        naming.chain([parser]).flat_map(clap::Command::get_arguments).filter(|argument| {
            let takes = argument.get_num_args().is_none_or(|count| count.min_values() > 0);
            !argument.is_positional() && takes && argument.get_action().takes_values()
        });
    let mut words = BTreeSet::new();
    for option in options {
        words.extend(option.get_long().map(|long| format!("--{long}")));
        words.extend(option.get_short().map(|short| format!("-{short}")));
    }
    words.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::{parse, parser};
    use super::*;

    #[test]
    fn a_name_is_completed_in_each_command_that_takes_one() {
        let rest = |command: &str| match command {
            "restore" | "diff" => vec!["feed:-"],
            "release" => vec!["books"],
            "path" => vec!["books", "id"],
            _ => vec![],
        };
        for command in parser().get_subcommands().map(clap::Command::get_name) {
            let words = ["plainfold", command, "shop"].into_iter().chain(rest(command));
            let parsed = parse(words.map(Into::into));
            let takes = parsed.is_ok_and(|mut parsed| parsed.command.named().is_some());
            assert_eq!(takes, NAMING.contains(&command), "{command}");
        }
    }

    #[test]
    fn the_scripts_of_three_shells_ask_for_names() {
        let bash = script(Shell::Bash, parser());
        assert!(bash.contains("complete -F _plainfold_or_mirror -o nosort"));
        assert!(!bash.contains("complete -F _plainfold ") && bash.contains(" --since "));
        let zsh = script(Shell::Zsh, parser());
        assert!(zsh.starts_with("#compdef plainfold\n"));
        assert_eq!(zsh.matches(":_plainfold_mirrors' ").count(), NAMING.len());
        let release = zsh.split("(release)").nth(1).unwrap();
        assert!(release.find("':directory") < release.find("':collection"), "in their order");
        let fish = script(Shell::Fish, parser());
        assert!(fish.contains("using_subcommand restore verify diff"));
        for script in [bash, zsh, fish] {
            assert!(script.contains("mirrors --format names 2>/dev/null"));
            assert!(!script.contains("@NAMING@") && !script.contains("@VALUED@"));
        }
    }
}

//! Shells complete commands, options and the names of mirrors, with the scripts that the program prints.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::env::{Place, plainfold};

const CONFIG: &str = "
[[mirror]]
name = 'shop'
source = 'feed:shop.ndjson'
directory = 'mirrors/shop'

[[mirror]]
name = 'shelves'
source = 'feed:shelves.ndjson'
directory = 'mirrors/shelves'
";

/// Presses the tab key in bash after these words, as bash does it: it calls the function that the script
/// has registered.
const TAB: &str = r#"
set -u
source <("$PLAINFOLD" completions bash)
[[ $(complete -p plainfold) == *"-F _plainfold_or_mirror "* ]] || exit 9
COMP_WORDS=("$PLAINFOLD" "$@")
COMP_CWORD=$#
COMP_LINE="plainfold $*"
COMP_POINT=${#COMP_LINE}
_plainfold_or_mirror "$PLAINFOLD" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
if ((${#COMPREPLY[@]})); then printf '%s\n' "${COMPREPLY[@]}"; fi
"#;

fn shell(name: &str, script: &str, config: &Path) -> Command {
    let mut shell = Command::new(name);
    shell.args(["-c", script]).env("PLAINFOLD", env!("CARGO_BIN_EXE_plainfold"));
    shell.env("PLAINFOLD_CONFIG", config).env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
    shell.current_dir(config.parent().unwrap());
    shell
}

/// What bash offers, and that nothing is printed as an error.
fn offered(words: &[&str], config: &Path) -> Vec<String> {
    let output = shell("bash", TAB, config).arg("bash").args(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_names() {
    let place = Place::new();
    let config = place.join("plainfold.toml");
    fs::write(&config, CONFIG).unwrap();
    fs::create_dir(place.join("shop windows")).unwrap();
    let offered = |words: &[&str]| offered(words, &config);
    assert_eq!(offered(&["sta"]), ["status"]);
    assert_eq!(offered(&["status", "--form"]), ["--format"]);
    assert_eq!(offered(&["status", "--format", "j"]), ["json"]);
    assert_eq!(offered(&["status", ""]), ["shelves", "shop", "shop windows"]);
    assert_eq!(offered(&["status", "--format", "json", "shop"]), ["shop", "shop windows"]);
    assert_eq!(offered(&["-v", "tail", "--since", "=", "3", "she"]), ["shelves"]);
    // The second argument is not a mirror, and `mirror` takes no name.
    assert!(!offered(&["release", "shop", "she"]).contains(&"shelves".to_owned()));
    assert!(!offered(&["mirror", "she"]).contains(&"shelves".to_owned()));
}

#[test]
fn whatever_is_wrong_a_shell_is_neither_held_up_nor_told() {
    let place = Place::new();
    let config = place.join("plainfold.toml");
    assert!(offered(&["status", "s"], &config).is_empty(), "there is no config");
    fs::write(&config, "[[mirror").unwrap();
    assert!(offered(&["status", "s"], &config).is_empty(), "the config is wrong");
    // Somebody listens at the agent's socket, and never answers.
    let socket = UnixListener::bind(place.join("silent.sock")).unwrap();
    socket.set_nonblocking(true).unwrap();
    fs::write(&config, format!("[api]\nlisten = './silent.sock'\n{CONFIG}")).unwrap();
    assert_eq!(offered(&["status", "sho"], &config), ["shop"]);
    assert!(socket.accept().is_ok(), "it was asked");
}

#[test]
fn names_are_printed_one_a_line() {
    let place = Place::new();
    let config = place.join("plainfold.toml");
    fs::write(&config, CONFIG).unwrap();
    let config = config.to_str().unwrap();
    let names = plainfold::run(["mirrors", "--format", "names", "--config", config]);
    let names = names.assert_code(0);
    assert_eq!((names.stdout.as_str(), names.stderr.as_str()), ("shelves\nshop", ""));
}

#[test]
fn fish_and_zsh_take_their_scripts() {
    let place = Place::new();
    let config = place.join("plainfold.toml");
    fs::write(&config, CONFIG).unwrap();
    let fish = r#"
        function plainfold; $PLAINFOLD $argv; end
        $PLAINFOLD completions fish | source
        complete -C 'plainfold status s'; complete -C 'plainfold stat'
    "#;
    let zsh = r#"$PLAINFOLD completions zsh > _plainfold && zsh -n _plainfold && echo shop shelves status"#;
    for (name, script) in [("fish", fish), ("zsh", zsh)] {
        let mut command = shell(name, script, &config);
        command.env("HOME", place.path());
        let Ok(output) = command.output() else {
            eprintln!("NOT RUN, as {name} is not installed");
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && errors.is_empty(), "{name}: {errors}");
        for word in ["shop", "shelves", "status"] {
            assert!(text.contains(word), "{name}: {text}");
        }
    }
}

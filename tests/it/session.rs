//! The session that README shows: its commands are run, and what they print is compared. To update what
//! README prints, take it from the message of the failed test.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::env::{plainfold, root};
use crate::pages::scene::Scene;

/// The server as README names it.
const SERVER: &str = "localhost:5984";

/// The block of README that holds the session.
fn session() -> String {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```console\n$ ").expect("README has a session");
    let (session, _) = rest.split_once("```").unwrap();
    format!("$ {session}")
}

/// What a command prints on a terminal: both streams, without the log's ordinary lines.
fn run(command: &str, scene: &Scene) -> String {
    let address = scene.server.address().to_string();
    let mut shell = Command::new("sh");
    let command = format!("exec 2>&1\n{}", command.replace(SERVER, &address));
    shell.args(["-c", &command]).current_dir(scene.place.path()).env("PLAINFOLD_LOG", "warn");
    let binaries = Path::new(env!("CARGO_BIN_EXE_plainfold")).parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    shell.env("PATH", format!("{}:{path}", binaries.display()));
    let outcome = plainfold::run_command(shell).assert_code(0);
    outcome.stdout.trim_end().replace(&address, SERVER)
}

/// A text in which every duration is the same.
fn timeless(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for at in 1..words.len() {
        let unit = words[at].trim_end_matches([',', ')']);
        let is_number = |word: &str| word.parse::<f64>().is_ok();
        if matches!(unit, "s" | "ms") && is_number(words[at - 1].trim_start_matches('(')) {
            words[at - 1] = "N";
        }
    }
    words.join(" ")
}

#[test]
fn the_session_in_readme_prints_what_it_shows() {
    let shown = session();
    let scene = Scene::new();
    let mut printed = String::new();
    for command in shown.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let said = run(command, &scene);
        printed += &format!("$ {command}\n{said}\n");
    }
    assert!(printed.contains("plainfold restore"), "the session ends with a restore:\n{printed}");
    let pairs = shown.lines().map(timeless).zip(printed.lines().map(timeless));
    let differs = pairs.clone().find(|(shown, printed)| shown != printed);
    let equal = differs.is_none() && shown.lines().count() == printed.lines().count();
    assert!(equal, "README differs at {differs:?}. It has to show:\n{printed}");
}

#[test]
fn only_durations_are_left_out_of_the_comparison() {
    assert_eq!(timeless("read in 0.4 s, 12 documents"), "read in N s, 12 documents");
    assert_eq!(timeless("caught up (in 31 ms)"), "caught up (in N ms)");
    assert_eq!(timeless("12 sets"), "12 sets");
}

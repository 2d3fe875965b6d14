//! What every command has in common, and the commands that read no source: help, versions, completions,
//! manual pages, paths and ids.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::docs::{COMMANDS, CONFIG};
use crate::env::feed::{FeedFile, source};
use crate::env::plainfold::{self, Outcome};
use crate::env::tree::assert_nothing_written;
use crate::env::{Place, library, pty, root};

/// All commands, with the one that the pages need not describe.
fn commands() -> impl Iterator<Item = &'static str> {
    COMMANDS.into_iter().chain(["help"])
}

fn run(arguments: &[&str]) -> Outcome {
    plainfold::run(arguments)
}

#[test]
fn every_command_says_its_version_and_the_commit() {
    let version = run(&["--version"]).assert_code(0).stdout;
    let words: Vec<_> = version.split_whitespace().collect();
    assert_eq!(words[..2], ["plainfold", env!("CARGO_PKG_VERSION")]);
    if Command::new("git").arg("--version").output().is_ok() && Path::new(".git").exists() {
        let commit = words[2].trim_start_matches('(');
        assert!(commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{version}");
        let date = words[3].trim_end_matches(')');
        assert!(date.len() == 10 && date.matches('-').count() == 2, "{version}");
    }
    for command in commands() {
        for option in ["-V", "--version"] {
            assert_eq!(run(&[command, option]).assert_code(0).stdout, version, "{command}");
        }
    }
}

#[test]
fn every_way_of_asking_for_help_gives_it() {
    let all = run(&["--help"]).assert_code(0).stdout;
    for product in ["CouchDB", "PouchDB Server", "Cloudant", "RxDB", "feed"] {
        assert!(all.contains(product), "{product}");
    }
    assert_eq!(run(&["help"]).assert_code(0).stdout, all);
    for command in commands() {
        let help = run(&[command, "--help"]).assert_code(0).stdout;
        assert!(help.contains(&format!("Usage: plainfold {command}")), "{help}");
        assert_eq!(run(&["help", command]).assert_code(0).stdout, help);
        assert_eq!(run(&[command, "help"]).assert_code(0).stdout, help);
        let short = run(&[command, "-h"]).assert_code(0).stdout;
        assert!(short.lines().count() <= help.lines().count(), "{short}");
        assert!(short.contains("Examples:"), "{short}");
    }
    let unknown = run(&["help", "mirrow"]).assert_code(2);
    assert!(unknown.stderr.contains("mirrow") && unknown.stderr.contains("mirror"), "{unknown}");
}

#[test]
fn completions_name_the_options_and_a_shell_reads_them() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).assert_code(0).stdout;
        for word in ["mirror", "source-moved", "on-existing", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let path = place.join(shell);
        fs::write(&path, script).unwrap();
        if let Ok(output) = Command::new(shell).arg("-n").arg(&path).output()
            && shell != "powershell"
        {
            assert!(output.status.success(), "{shell}: {output:?}");
        }
    }
    run(&["completions", "tcsh"]).assert_code(2);
}

#[test]
fn manual_pages_hold_every_option_and_replace_older_ones() {
    let place = Place::new();
    let folder = place.join("share/man/man1");
    let asked = ["man", folder.to_str().unwrap()];
    run(&asked).assert_code(0);
    fs::write(folder.join("plainfold-mirror.1"), "old").unwrap();
    run(&asked).assert_code(0);
    let all: Vec<_> = commands().chain(CONFIG).collect();
    for command in &all {
        let page = command.replace(' ', "-");
        let path = folder.join(format!("plainfold-{page}.1"));
        let page = fs::read_to_string(&path).unwrap().replace('\\', "");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444, "{command}: everybody may read it");
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = run(&words).stdout;
        let options = help.lines().filter_map(|line| {
            let line = line.trim_start();
            line.starts_with('-')
                .then(|| line.split_whitespace().find(|word| word.starts_with("--")))
        });
        for option in options.flatten() {
            let name = option.trim_end_matches(',').split(['=', '[']).next().unwrap();
            assert!(page.contains(name), "{command}: {name}");
        }
    }
    assert!(fs::read_to_string(folder.join("plainfold.1")).unwrap().contains("CouchDB"));
    let names = fs::read_dir(&folder).unwrap().count();
    assert_eq!(names, all.len() + 1, "nothing else is left there");
    let file = place.join("file");
    fs::write(&file, "").unwrap();
    let refused = run(&["man", file.to_str().unwrap()]).assert_code(74);
    assert!(refused.stderr.contains(file.to_str().unwrap()), "{refused}");
}

/// A mirror of a feed with these ids in the collection `shelf`.
fn mirror_of(place: &Place, ids: &[&str], more: &[&str]) -> String {
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for id in ids {
        feed.put(id, json!({"n": 1}), &[("note.txt", b"text")]);
    }
    let mirror = place.mirror().display().to_string();
    let arguments = ["mirror", &feed.source(), &mirror].map(str::to_owned);
    plainfold::run(arguments.iter().map(String::as_str).chain(more.iter().copied())).assert_code(0);
    mirror
}

fn value_of(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

#[test]
fn a_path_and_an_id_lead_to_one_another() {
    let long = "x/".repeat(400);
    let ids =
        ["a", "A", "a/b", "..", "-v", "two\nlines\t\u{1b}[2J", "é", "\u{202e}", "con", "~", &long];
    for names in ["native", "portable"] {
        let place = Place::new();
        let mirror = mirror_of(&place, &ids, &["--names", names]);
        for id in ids {
            let path = run(&["path", &mirror, "shelf", "--", id]).assert_code(0);
            let path = path.stdout.as_str();
            let body = fs::read_to_string(format!("{path}/document.json")).unwrap();
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["_id"], id);
            for below in ["", "/document.json", "/attachments/note.txt"] {
                let told = run(&["id", &format!("{path}{below}"), "--format", "json"]);
                let expected = json!({"collection": "shelf", "id": id, "state": "present"});
                assert_eq!(value_of(&told.assert_code(0)), expected);
            }
            let text = run(&["id", path]).assert_code(0).stdout;
            assert_eq!((text.matches('\t').count(), text.lines().count()), (1, 1), "{text:?}");
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        }
        let place = run(&["path", &mirror, "shelf", "a", "--format", "json"]).assert_code(0);
        let expected = format!("{mirror}/shelf/a");
        assert_eq!(value_of(&place)["path"], expected.as_str());
    }
}

#[test]
fn what_the_mirror_does_not_hold_is_said_and_has_a_path_all_the_same() {
    let place = Place::new();
    let mirror = mirror_of(&place, &["a"], &[]);
    let absent = run(&["path", &mirror, "shelf", "b/c"]).assert_code(1);
    assert_eq!(absent.stdout, format!("{mirror}/shelf/b%2Fc"));
    assert!(absent.stderr.contains("b/c") && absent.stderr.contains("shelf"), "{absent}");
    let told = run(&["id", &format!("{mirror}/shelf/b%2Fc/document.json")]).assert_code(1);
    assert_eq!(told.stdout, "shelf\tb/c");
    let unknown = run(&["path", &mirror, "shelves", "a"]).assert_code(2);
    assert!(unknown.stderr.contains("shelves") && unknown.stdout.is_empty(), "{unknown}");
    let other = run(&["id", &format!("{mirror}/shelf")]).assert_code(2);
    assert!(other.stdout.is_empty(), "{other}");
    run(&["id", place.path().to_str().unwrap()]).assert_code(2);
    let (a, b) = (format!("{mirror}/shelf/a"), format!("{mirror}/shelf"));
    let several = run(&["id", &b, &a, &format!("{a}/document.json")]).assert_code(2);
    assert_eq!(several.stdout, "shelf\ta\nshelf\ta", "one that fails does not stop the others");
    for path in [mirror.clone(), format!("{mirror}/shelf")] {
        let refused = run(&["id", &path]).assert_code(2);
        assert!(refused.stderr.contains(&format!(" {path} does not belong")), "{refused}");
    }
    run(&["path", place.join("no").to_str().unwrap(), "shelf", "a"]).assert_code(5);
}

#[test]
fn what_the_plugin_of_rxdb_wrote_has_paths_and_ids_too() {
    let tree = root().join("fixtures/rxdb-backup-17.6.0/one");
    let folder = tree.to_str().unwrap();
    let bodies = walkdir::WalkDir::new(&tree).into_iter().filter_map(Result::ok);
    let mut found = 0;
    for body in bodies.filter(|entry| entry.file_name() == "document.json") {
        let told = run(&["id", body.path().to_str().unwrap(), "--format", "json"]);
        if told.status.code() != Some(0) {
            continue;
        }
        let told = value_of(&told);
        let (collection, id) = (told["collection"].as_str().unwrap(), told["id"].as_str().unwrap());
        let path = run(&["path", folder, collection, "--", id]).assert_code(0).stdout;
        assert_eq!(Path::new(&path), body.path().parent().unwrap(), "{id}");
        found += 1;
    }
    assert!(found >= 3, "{found}");
    run(&["path", folder, "shelf", "no-such"]).assert_code(1);
    run(&["id", tree.join("backup_meta.json").to_str().unwrap()]).assert_code(2);
}

#[test]
fn paths_and_ids_are_found_beside_a_running_mirror_and_nothing_is_written() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("a", json!({"n": 1}), &[]);
    let running = plainfold::live(&feed.source(), &place.mirror());
    let mirror = place.mirror().display().to_string();
    let path = run(&["path", &mirror, "shelf", "a"]).assert_code(0);
    assert_eq!(run(&["id", &path.stdout]).assert_code(0).stdout, "shelf\ta");
    running.terminate();
    running.wait().assert_code(0);
    // A clone without the state, that nobody may write to.
    fs::remove_dir_all(place.mirror().join(".plainfold/state")).unwrap();
    assert_nothing_written(&place.mirror(), || {
        let path = run(&["path", &mirror, "shelf", "a"]).assert_code(0);
        run(&["id", &path.stdout]).assert_code(0);
    });
}

#[test]
fn quiet_prints_nothing_of_a_run_that_succeeds_and_errors_all_the_same() {
    let place = Place::new();
    let mirror = place.mirror().display().to_string();
    let feed = source(&library());
    let done = run(&["mirror", &feed, &mirror, "-q"]).assert_code(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    let copy = source(&place.join("copy.ndjson"));
    let done = run(&["-q", "restore", &mirror, &copy]).assert_code(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    let done = run(&["-q", "diff", &mirror, &feed]).assert_code(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    let failed = run(&["mirror", "feed:/no/such", &mirror, "--quiet"]);
    assert!(failed.status.code() != Some(0) && failed.stderr.contains("/no/such"), "{failed}");
    let detailed = run(&["mirror", &feed, &mirror, "-v"]).assert_code(0);
    let plain = run(&["mirror", &feed, &mirror]).assert_code(0);
    assert!(detailed.stderr.lines().count() >= plain.stderr.lines().count(), "{detailed}");
    for both in [["-q", "-v"], ["-q", "--log-level=info"], ["-v", "--log-level=warn"]] {
        let refused = run(&["mirror", &feed, &mirror, both[0], both[1]]).assert_code(2);
        assert!(refused.stderr.contains("--log-level"), "{refused}");
    }
}

#[test]
fn the_help_shows_its_examples_as_they_are_typed() {
    let bare = run(&[]).assert_code(2);
    assert!(bare.stderr.contains("http://admin@localhost"), "{bare}");
    let wrong = run(&["mirror", "x", "y", "http://me:s3cret@host"]).assert_code(2);
    assert!(!wrong.stderr.contains("s3cret"), "{wrong}");
}

#[test]
fn a_source_without_its_option_is_advised() {
    for source in ["http://me:s3cret@host/books", "feed:books.ndjson"] {
        let refused = run(&["verify", "mirror", source]).assert_code(2);
        assert!(refused.stderr.contains("--against"), "{refused}");
        assert!(!refused.stderr.contains("s3cret"), "{refused}");
    }
    let other = run(&["status", "mirror", "http://host/books"]).assert_code(2);
    assert!(!other.stderr.contains("--against"), "{other}");
}

#[test]
fn the_details_of_a_run_are_a_few_lines_for_each_collection() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..50 {
        feed.put(&format!("{number}"), json!({}), &[]);
    }
    let (source, mirror) = (feed.source(), place.mirror().display().to_string());
    let detailed = run(&["mirror", &source, &mirror, "-v"]).assert_code(0).stderr;
    for step in ["feed", "committed", "caught up"] {
        let is_step = |line: &str| line.contains("DEBUG") && line.contains(step);
        assert!(detailed.lines().any(is_step), "{step}: {detailed}");
    }
    assert!(detailed.lines().count() < 25, "{detailed}");
}

#[test]
fn a_directory_that_is_a_file_is_said() {
    let place = Place::new();
    let file = place.join("password");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    let library = source(&library());
    let commands: [&[&str]; 5] = [
        &["mirror", &library, file],
        &["verify", file],
        &["restore", file, "feed:-"],
        &["diff", file, &library],
        &["status", file],
    ];
    for arguments in commands {
        let refused = run(arguments).assert_code(5);
        assert!(refused.stderr.contains("is a file, not a directory"), "{arguments:?} {refused}");
    }
}

#[test]
fn no_colour_is_printed_where_none_is_wanted() {
    let place = Place::new();
    let mirror = place.mirror().display().to_string();
    let feed = source(&library());
    let commands: [&[&str]; 3] =
        [&["--help"], &["mirror", "--no-such"], &["mirror", &feed, &mirror, "--progress", "never"]];
    for arguments in commands {
        let coloured = pty::run(arguments, &[], &[]);
        for off in [("NO_COLOR", "1"), ("NO_COLOR", "0"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
            let shown = pty::run(arguments, &[], &[off]);
            assert!(!shown.text.contains('\u{1b}'), "{arguments:?} {off:?}: {}", shown.text);
        }
        if arguments[0] == "--help" {
            assert!(coloured.text.contains('\u{1b}'), "{}", coloured.text);
        }
        let empty = pty::run(arguments, &[], &[("NO_COLOR", "")]);
        assert_eq!(empty.text.contains('\u{1b}'), coloured.text.contains('\u{1b}'));
    }
}

//! `plainfold config`: a config is written, checked against real directories and a server, and shown.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::env::door::{Door, Reply, say};
use crate::env::plainfold::{self, Outcome};
use crate::env::tree::assert_nothing_written;
use crate::env::{Place, library};

fn config(command: &str, path: &Path, more: &[&str]) -> Outcome {
    let path = path.to_str().unwrap();
    let at = if command == "init" { vec![path] } else { vec!["--config", path] };
    plainfold::run(["config", command].iter().chain(&at).chain(more))
}

/// A `[[mirror]]`, whose directory has its name.
fn mirror(name: &str, source: &str, more: &str) -> String {
    format!("[[mirror]]\nname = '{name}'\nsource = '{source}'\ndirectory = '{name}'\n{more}\n")
}

/// The result of `config check` as JSON, and what it says about an aspect of a mirror.
fn checked(outcome: &Outcome) -> impl Fn(&str, &str) -> (bool, String) {
    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    move |name, aspect| {
        let find = |all: &Value, key: &str, wanted: &str| {
            let all = all.as_array().unwrap();
            all.iter().find(|one| one[key] == wanted).unwrap_or_else(|| panic!("{all:?}")).clone()
        };
        let check = find(&find(&result["mirrors"], "name", name)["checks"], "check", aspect);
        (check["ok"] == true, check["text"].as_str().unwrap().to_owned())
    }
}

#[test]
fn a_config_that_was_written_works_as_it_is_and_is_never_overwritten() {
    let place = Place::new();
    let path = place.join("etc/plainfold.toml");
    let outcome = config("init", &path, &[]).assert_code(0);
    assert!(outcome.stdout.contains("plainfold config check --config"), "{outcome}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    let sample = place.join("etc/sample");
    assert_eq!(fs::read(sample.join("library.ndjson")).unwrap(), fs::read(library()).unwrap());
    // The sample is whole: nothing of it fails.
    let source = format!("feed:{}", sample.join("library.ndjson").display());
    plainfold::mirror(&source, &place.mirror()).assert_code(0);
    let written = fs::read(&path).unwrap();
    let outcome = config("check", &path, &[]).assert_code(0);
    assert!(outcome.stdout.contains("1 mirror: everything works"), "{outcome}");
    let outcome = config("init", &path, &["--source", "http://other"]).assert_code(2);
    assert!(outcome.stderr.contains("exists already"), "{outcome}");
    assert_eq!(fs::read(&path).unwrap(), written);
    let shown = config("show", &path, &[]).assert_code(0).stdout;
    let again = place.join("etc/again.toml");
    fs::write(&again, &shown).unwrap();
    config("check", &again, &[]).assert_code(0);
    let names: Vec<_> = fs::read_dir(place.join("etc")).unwrap().collect();
    assert_eq!(names.len(), 3, "no mirror was made, and nothing was left: {names:?}");
}

#[test]
fn a_config_for_a_server_names_a_file_for_the_password_and_holds_none() {
    let place = Place::new();
    let door = Door::start(&["books"], |asked| match asked.header("authorization") {
        "Basic bWU6cmlnaHQ=" => Reply::Honest,
        _ => say("401 Unauthorized", r#"{"error":"unauthorized","reason":"no"}"#),
    });
    let path = place.join("plainfold.toml");
    let with_password = door.url("me:right@", "books");
    let outcome = config("init", &path, &["--source", &with_password]).assert_code(2);
    assert!(!outcome.stderr.contains("right") && !path.exists(), "{outcome}");
    let outcome = config("init", &path, &["--source", &door.url("me@", "books")]).assert_code(0);
    assert!(outcome.stdout.contains("books.password"), "{outcome}");
    let outcome = config("check", &path, &[]).assert_code(2);
    assert!(outcome.stdout.contains("books.password cannot be read"), "{outcome}");
    fs::write(place.join("books.password"), "wrong\n").unwrap();
    let outcome = config("check", &path, &[]).assert_code(4);
    assert!(!outcome.stdout.contains("wrong\n"), "{outcome}");
    fs::write(place.join("books.password"), "right\n").unwrap();
    let outcome = config("check", &path, &[]).assert_code(0);
    assert!(outcome.stdout.contains("1 collection can be read: books"), "{outcome}");
    for bad in ["ftp://h", "feed:-", "feed:", "", "http://h/a?b"] {
        config("init", &place.join("bad.toml"), &["--source", bad]).assert_code(2);
        assert!(!place.join("bad.toml").exists(), "{bad}");
    }
}

#[test]
fn each_mirror_is_checked_alone_and_what_does_not_work_is_named() {
    let place = Place::new();
    let door = Door::start(&["books", "loans"], |asked| match asked.line.contains("/loans") {
        true => say(
            "403 Forbidden",
            r#"{"error":"forbidden","reason":"You are not allowed to access this db."}"#,
        ),
        false => Reply::Honest,
    });
    let feed = format!("feed:{}", library().display());
    plainfold::mirror(&feed, &place.join("ours")).assert_code(0);
    plainfold::mirror(&door.url("", "books"), &place.join("other")).assert_code(0);
    let kept = place.join("kept");
    let thorough = ["mirror", &door.url("", "books"), kept.to_str().unwrap(), "--revisions"];
    plainfold::run(thorough).assert_code(0);
    fs::create_dir(place.join("foreign")).unwrap();
    fs::write(place.join("foreign/thesis.tex"), "x").unwrap();
    fs::write(place.join("file"), "x").unwrap();
    let url = |path| door.url("", path);
    let text = [
        mirror("fine", &url("books"), ""),
        mirror("ours", &feed, "schedule = { cron = '0 3 * * *' }"),
        mirror("forbidden", &url("loans"), ""),
        mirror("dead", "http://127.0.0.1:1/x", ""),
        mirror("gone", &url(""), "collections = ['books', 'bokos']"),
        mirror("nothing", &url(""), "collections = ['x*']"),
        mirror("allowed", &url(""), "collections = ['x*']\nallow_empty = true"),
        mirror("without", &url(""), "exclude = ['loans']"),
        mirror("foreign", &feed, ""),
        mirror("file", &feed, ""),
        mirror("missing", &feed, "existing = true"),
        mirror("full", &feed, "reserve = '1000TiB'"),
        mirror("other", &url("books").replace("127.0.0.1", "localhost"), ""),
        mirror("kept", &url("books"), ""),
        mirror("no-feed", "feed:nowhere.ndjson", ""),
    ]
    .concat();
    let path = place.join("plainfold.toml");
    fs::write(&path, text).unwrap();
    let outcome = config("check", &path, &["--format", "json"]).assert_code(5);
    let check = checked(&outcome);
    for (name, aspect, ok, said) in [
        ("fine", "source", true, "1 collection can be read: books"),
        ("fine", "directory", true, "will be created"),
        ("fine", "space", true, "free"),
        ("fine", "schedule", true, "live"),
        ("ours", "source", true, "is a feed"),
        ("ours", "directory", true, "is a mirror"),
        ("ours", "schedule", true, "T03:00:00Z"),
        ("forbidden", "source", false, "You are not allowed"),
        ("dead", "source", false, "refused the connection"),
        ("gone", "source", false, "/bokos; if that is right"),
        ("nothing", "source", false, "no collection matches `x*`"),
        ("allowed", "source", true, "has no collection yet"),
        ("without", "source", true, "1 collection can be read: books"),
        ("foreign", "directory", false, "foreign"),
        ("file", "directory", false, "file"),
        ("missing", "directory", false, "is not a mirror"),
        ("full", "space", false, "reserve"),
        ("other", "source", false, "in this mirror follows http://127.0.0.1"),
        ("kept", "directory", false, "--revisions=false would discard"),
        ("no-feed", "source", false, "nowhere.ndjson"),
    ] {
        let (is_ok, text) = check(name, aspect);
        assert!(is_ok == ok && text.contains(said), "{name} {aspect}: {text}");
    }
    assert!(!place.join("fine").exists(), "nothing is made");
    let text = config("check", &path, &[]).assert_code(5).stdout;
    assert!(text.contains("  wrong  source: ") && text.contains("  ok     source: "), "{text}");
    assert!(text.ends_with("15 mirrors, of which 11 cannot run as configured"), "{text}");
}

#[test]
fn a_check_changes_nothing_and_offline_it_asks_nobody() {
    let place = Place::new();
    let door = Door::start(&["books"], |_| Reply::Honest);
    let path = place.join("plainfold.toml");
    plainfold::mirror(&door.url("", "books"), &place.join("books")).assert_code(0);
    fs::write(&path, mirror("books", &door.url("", "books"), "")).unwrap();
    let asked = door.asked().len();
    assert_nothing_written(place.path(), || {
        let outcome = config("check", &path, &["--offline"]).assert_code(0);
        assert!(outcome.stdout.contains("(not asked)"), "{outcome}");
        assert_eq!(door.asked().len(), asked);
        config("check", &path, &[]).assert_code(0);
    });
    assert!(door.asked().len() > asked);
}

#[test]
fn a_mirror_on_which_another_process_works_is_named_with_it() {
    let place = Place::new();
    let feed = format!("feed:{}", library().display());
    let path = place.join("plainfold.toml");
    fs::write(&path, mirror("library", &feed, "")).unwrap();
    let live = plainfold::live(&feed, &place.join("library"));
    let outcome = config("check", &path, &[]).assert_code(5);
    let holder = format!("is in use by `plainfold mirror` (process {}", live.id());
    assert!(outcome.stdout.contains(&holder), "{outcome}");
    live.terminate();
    live.wait().assert_code(0);
    config("check", &path, &[]).assert_code(0);
}

#[test]
fn mistakes_have_a_line_each_and_no_terminal_obeys_them() {
    let place = Place::new();
    let path = place.join("plainfold.toml");
    let text = "[[mirror]]\nname = \"\\u001b[2J\"\nsource = 'http://h'\ndirectory = 'a'\n\"k\\u001b\" = 1\n";
    fs::write(&path, text).unwrap();
    for command in ["check", "show"] {
        let outcome = config(command, &path, &[]).assert_code(2);
        let lines: Vec<_> = outcome.stderr.lines().collect();
        assert!(lines.len() == 2 && !outcome.stderr.contains('\u{1b}'), "{outcome}");
        assert!(lines[0].contains("plainfold.toml:2: ") && lines[1].contains(":5: "), "{outcome}");
    }
    let outcome = config("check", &path, &["--format", "json"]).assert_code(2);
    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&result["ok"], &result["problems"][1]["line"]), (&false.into(), &5.into()));
    for bad in [place.join("nowhere.toml"), place.path().to_owned()] {
        let outcome = config("check", &bad, &[]).assert_code(2);
        assert!(outcome.stderr.contains(bad.to_str().unwrap()), "{outcome}");
    }
}

#[test]
fn a_secret_in_a_config_is_never_printed() {
    let place = Place::new();
    let path = place.join("plainfold.toml");
    let text = "allow_secrets = true\n".to_owned()
        + &mirror("a", "http://me:hunter2@127.0.0.1:1/a", "")
        + &mirror("b", "http://127.0.0.1:1/b", "credentials = { token = 'hunter2' }");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let outcome = config("check", &path, &[]).assert_code(2);
    assert!(outcome.stderr.contains("chmod 600"), "{outcome}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for more in [&["--format", "json"][..], &[]] {
        let check = config("check", &path, more).assert_code(3);
        let show = config("show", &path, more).assert_code(0);
        for said in [&check.stdout, &check.stderr, &show.stdout, &show.stderr] {
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert!(show.stdout.contains("(not shown)"), "{show}");
    }
}

#[test]
fn a_program_of_hooks_that_cannot_be_executed_is_found_before_it_is_needed() {
    let place = Place::new();
    let path = place.join("plainfold.toml");
    let source = format!("feed:{}", library().display());
    let hooks = |program: &str| format!("hooks = {{ after = ['{program}', 'argument'] }}");
    let file = library();
    let text = ["true", "/nowhere/é", file.to_str().unwrap(), "no-such-program"];
    let mirrors = ["exists", "path", "file", "name"].into_iter().zip(text);
    let mirrors = mirrors.map(|(name, program)| mirror(name, &source, &hooks(program)));
    fs::write(&path, mirrors.collect::<String>()).unwrap();
    let outcome = config("check", &path, &["--format", "json"]).assert_code(2);
    let found = checked(&outcome);
    assert_eq!(found("exists", "hooks"), (true, "true".to_owned()));
    for name in ["path", "file", "name"] {
        let (ok, text) = found(name, "hooks");
        assert!(!ok && text.contains("cannot be executed") && !text.contains("argument"), "{text}");
    }
    assert!(found("name", "source").0 && found("name", "directory").0, "{outcome}");
}

#[test]
fn a_check_says_where_the_agent_can_answer() {
    let place = Place::new();
    let feed = format!("feed:{}", library().display());
    let path = place.join("plainfold.toml");
    fs::write(place.join("file"), "precious").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let strange = std::os::unix::net::UnixListener::bind(place.join("strange.sock")).unwrap();
    let check = |listen: &str, code| {
        let text = format!("[api]\nlisten = [{listen}]\n{}", mirror("books", &feed, ""));
        fs::write(&path, text).unwrap();
        assert_nothing_written(place.path(), || {
            let text = config("check", &path, &[]).assert_code(code).stdout;
            let report = config("check", &path, &["--format", "json"]).assert_code(code).stdout;
            let report: Value = serde_json::from_str(&report).unwrap();
            assert_eq!(
                (&report["ok"], &report["api"][0]["ok"]),
                (&(code == 0).into(), &(code == 0).into())
            );
            assert!(text.contains(report["api"][0]["text"].as_str().unwrap()), "{text}");
            text
        })
    };
    for (listen, said) in [
        ("'./new.sock'", "new.sock: can be made"),
        ("'./deep/er/new.sock'", "can be made, with its folder"),
        ("'127.0.0.1:0'", "the system chooses a port"),
        ("", "nowhere"),
    ] {
        let text = check(listen, 0);
        assert!(text.contains("  ok     listen: ") && text.contains(said), "{text}");
        assert!(text.ends_with("1 mirror: everything works"), "{text}");
    }
    for (listen, said) in [
        ("'./file'", "a file that is not a socket has this name: give the config another"),
        ("'./file/new.sock'", "file is not a folder"),
        ("'./strange.sock'", "another `plainfold run` answers there"),
        (&format!("'{port}'"), "another process listens there"),
    ] {
        let text = check(listen, 2);
        assert!(text.contains("  wrong  listen: ") && text.contains(said), "{text}");
        assert!(text.ends_with("the agent cannot answer as [api] says"), "{text}");
    }
    drop((taken, strange));
}

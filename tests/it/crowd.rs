//! Servers of many databases: what a mirror of them costs the server, and that one database that
//! fails does not stop the others.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::env::door::{Asked, Door, Reply, say};
use crate::env::{DEADLINE, Place, plainfold};

/// This many names of databases.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("db-{number:04}")).collect()
}

/// A server of these databases.
fn serve(names: &[String], keeper: impl FnMut(&Asked) -> Reply + Send + 'static) -> Door {
    Door::start(&names.iter().map(String::as_str).collect::<Vec<_>>(), keeper)
}

#[test]
fn a_catch_up_of_many_databases_needs_few_connections() {
    let (place, names) = (Place::new(), names(300));
    let server = serve(&names, |_| Reply::Honest);
    plainfold::mirror(&server.url("", ""), &place.mirror()).assert_code(0);
    let mirrored = |name: &String| place.mirror().join(name).join("first/document.json").exists();
    assert!(names.iter().all(mirrored));
    assert!((1..=30).contains(&server.most_open()), "{}", server.most_open());
}

/// Waits until `status` says something of a collection.
#[track_caller]
fn wait_for_status(mirror: &Path, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = plainfold::status(mirror);
        let collections = status["collections"].as_array().unwrap();
        let found = collections.iter().find(|one| one["collection"] == name);
        if let Some(found) = found.filter(|one| wanted(one)) {
            return found.clone();
        }
        assert!(Instant::now() < deadline, "{status:#}");
    }
}

/// Answers every request for a database like this.
fn refusing(
    name: &str,
    status: &'static str,
    body: &'static str,
) -> impl Fn(&Asked) -> Reply + use<> {
    let (whole, parts) = (format!(" /{name}"), format!(" /{name}/"));
    move |asked: &Asked| {
        let target = asked.line.split('?').next().unwrap();
        match target.ends_with(&whole) || target.contains(&parts) {
            true => say(status, body),
            false => Reply::Honest,
        }
    }
}

/// Whether a collection waits, and `status` says why.
fn waits_for(why: &str) -> impl Fn(&Value) -> bool {
    move |one| one["phase"] == "waiting" && one["trouble"].as_str().unwrap_or("").contains(why)
}

#[test]
fn a_database_that_fails_does_not_stop_the_others() {
    let place = Place::new();
    let names = names(30);
    let keepers = [
        refusing(&names[3], "500 Internal Server Error", r#"{"error":"unknown_error"}"#),
        refusing(
            &names[5],
            "403 Forbidden",
            r#"{"error":"forbidden","reason":"You are not allowed"}"#,
        ),
        refusing(&names[11], "405 Method Not Allowed", "{}"),
    ];
    let server = serve(&names, move |asked| {
        let mut replies = keepers.iter().map(|keeper| keeper(asked));
        replies.find(|reply| !matches!(reply, Reply::Honest)).unwrap_or(Reply::Honest)
    });
    let mirror = place.mirror();
    let source = server.url("", "");
    let running = plainfold::spawn(["mirror", &source, mirror.to_str().unwrap(), "--live"]);
    wait_for_file(&mirror.join(&names[0]).join("first/document.json"));
    let others = |number: &usize| ![3, 5, 11].contains(number);
    for number in (0..names.len()).filter(others) {
        wait_for_status(&mirror, &names[number], |one| one["phase"] == "live");
    }
    wait_for_status(&mirror, &names[3], waits_for("500"));
    wait_for_status(&mirror, &names[5], waits_for("403"));
    let failing = wait_for_status(&mirror, &names[11], waits_for("405"));
    let next: Timestamp = failing["retry_at"].as_str().unwrap().parse().unwrap();
    assert!(next > Timestamp::now(), "{failing:#}");
    server.delete(&names[7]);
    wait_for_status(&mirror, &names[7], waits_for("exist"));
    server.put(&names[9], "later");
    wait_for_file(&mirror.join(&names[9]).join("later/document.json"));
    running.terminate();
    running.wait().assert_code(0);
}

/// Waits until a file exists.
#[track_caller]
fn wait_for_file(path: &Path) {
    let deadline = Instant::now() + DEADLINE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} does not exist", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_live_mirror_ends_if_every_database_fails_for_good() {
    let (place, names) = (Place::new(), names(3));
    let server = serve(&names, |asked| match asked.line.contains("db-") {
        true => say("405 Method Not Allowed", "{}"),
        false => Reply::Honest,
    });
    let (source, mirror) = (server.url("", ""), place.mirror());
    let outcome = plainfold::run(["mirror", &source, mirror.to_str().unwrap(), "--live"]);
    let outcome = outcome.assert_code(3);
    assert!(names.iter().all(|name| outcome.stderr.contains(name)), "{outcome}");
}

/// A live mirror with few connections.
fn limited(source: &str, mirror: &Path) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_plainfold"));
    let mirror = mirror.to_str().unwrap();
    plainfold::command_of(program, ["mirror", source, mirror, "--live", "--max-runs", "10"])
}

#[test]
fn a_live_mirror_of_many_databases_keeps_to_its_connections() {
    let (place, names) = (Place::new(), names(24));
    let server = serve(&names, |_| Reply::Honest);
    let (source, mirror) = (server.url("", ""), place.mirror());
    let running = plainfold::live_command(limited(&source, &mirror));
    server.wait_for(1, |asked| asked.line.starts_with("GET /_db_updates"));
    for name in &names {
        server.put(name, "later");
    }
    for name in &names {
        wait_for_file(&mirror.join(name).join("later/document.json"));
    }
    for name in names.iter().rev().take(20) {
        wait_for_status(&mirror, name, |one| one["phase"] == "live" && one["caught_up"] == true);
    }
    assert!(server.most_open() <= 10, "{} connections", server.most_open());
    running.terminate();
    running.wait().assert_code(0);
    plainfold::run(["verify", mirror.to_str().unwrap()]).assert_code(0);
}

//! Servers of many databases: what a mirror of them costs the server, and that one database that
//! fails does not stop the others.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

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

/// How many folders of a mirror's collections a process has open.
fn open_folders(process: u32, mirror: &Path) -> usize {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = open.filter_map(|one| std::fs::read_link(one.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(mirror) && target.is_dir()).count()
}

#[test]
fn a_catch_up_of_many_databases_opens_few_of_them_at_the_same_time() {
    let (place, names) = (Place::new(), names(200));
    let server = serve(&names, |asked| match asked.line.contains("/_changes") {
        true => Reply::Hang,
        false => Reply::Honest,
    });
    let (source, mirror) = (server.url("", ""), place.mirror());
    let mut running = plainfold::spawn(["mirror", &source, mirror.to_str().unwrap()]);
    server.wait_for(3, |asked| asked.line.contains("/_changes"));
    let last = wait_for_status(&mirror, names.last().unwrap(), |one| one["phase"] == "queued");
    assert_eq!(last["documents"], 0);
    let open = open_folders(running.id(), &mirror.canonicalize().unwrap());
    assert!((1..150).contains(&open), "{open} folders are open");
    running.kill();
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

/// The attachments of one database.
const FILES: usize = 12;

/// Answers requests for a database of documents with an attachment each.
fn with_files(name: &str) -> impl Fn(&Asked) -> Option<Reply> + use<> {
    let (whole, below) = (format!("GET /{name}"), format!("GET /{name}/"));
    let file = "f".repeat(100_000);
    let digest = format!("md5-{}", STANDARD.encode(Md5::digest(&file)));
    let stub = json!({ "stub": true, "content_type": "text/plain", "revpos": 1, "length": file.len(), "digest": digest });
    move |asked: &Asked| {
        let (path, query) = asked.line.split_once('?').unwrap_or((&asked.line, ""));
        let info = json!({
            "db_name": "files", "update_seq": format!("{FILES}-a"), "purge_seq": "0",
            "doc_count": FILES, "doc_del_count": 0, "instance_start_time": "1",
            "disk_format_version": 8, "props": {},
        });
        if path == whole {
            return Some(say("200 OK", &info.to_string()));
        }
        let rest = path.strip_prefix(&below)?;
        if rest == "_changes" && !query.contains("feed=continuous") {
            let row = |at| {
                let doc = json!({ "_id": format!("d{at}"), "_rev": "1-a", "_attachments": { "f": stub } });
                json!({ "seq": format!("{at}-a"), "id": format!("d{at}"), "changes": [{ "rev": "1-a" }], "doc": doc })
            };
            let rows: Vec<_> = (1..=FILES).map(|at| row(at).to_string()).collect();
            let end = format!(
                "{{\"results\":[\n{}\n],\n\"last_seq\":\"{FILES}-a\",\"pending\":0}}\n",
                rows.join(",\n")
            );
            return Some(say("200 OK", &end));
        }
        rest.ends_with("/f").then(|| say("200 OK", &file))
    }
}

/// How often a server refused something: sessions, requests, and a part of a database.
#[derive(Default)]
struct Refusals([AtomicUsize; 3]);

/// A server that lets its sessions expire, refuses a part of a database, and now and then a request.
fn moody(
    files: &str,
    refused: &str,
    refusals: &Arc<Refusals>,
) -> impl FnMut(&Asked) -> Reply + Send + use<> {
    let (with_files, refusals) = (with_files(files), Arc::clone(refusals));
    let refused = format!(" /{refused}/_security");
    let mut count = 0;
    move |asked| {
        count += 1;
        let refuse = |kind: usize, status, body| {
            refusals.0[kind].fetch_add(1, Ordering::Relaxed);
            say(status, body)
        };
        if asked.line == "POST /_session" {
            let status = format!("200 OK\r\nSet-Cookie: AuthSession=s{count}");
            return Reply::Say(status, r#"{"ok":true}"#.to_owned());
        }
        if asked.line.contains(&refused) {
            let why = r#"{"error":"forbidden","reason":"You are not allowed"}"#;
            return refuse(2, "403 Forbidden", why);
        }
        match count {
            _ if count % 25 == 0 => {
                refuse(0, "401 Unauthorized", r#"{"error":"unauthorized","reason":"expired"}"#)
            }
            _ if count % 20 == 0 => refuse(1, "429 Too Many Requests", "{}"),
            _ => with_files(asked).unwrap_or(Reply::Honest),
        }
    }
}

/// Follows this number of databases with at most this number of connections.
fn follow_a_moody_server(most: usize, count: usize) {
    let (place, names, refusals) = (Place::new(), names(count), Arc::default());
    let server = serve(&names, moody(&names[3], &names[2], &refusals));
    let (source, mirror, limit) = (server.url("me:secret@", ""), place.mirror(), most.to_string());
    let options = ["--live", "--auth", "session", "--max-runs", &limit];
    let command = ["mirror", &source, mirror.to_str().unwrap()];
    let running = plainfold::spawn(command.iter().chain(&options));
    for at in 1..=FILES {
        wait_for_file(&mirror.join(&names[3]).join(format!("d{at}/attachments/f")));
    }
    let others = || names.iter().filter(|name| **name != names[3]);
    server.wait_for(1, |asked| asked.line.starts_with("GET /_db_updates"));
    others().for_each(|name| wait_for_file(&mirror.join(name).join("first/document.json")));
    others().for_each(|name| server.put(name, "later"));
    others().for_each(|name| wait_for_file(&mirror.join(name).join("later/document.json")));
    server.wait_for(2, |asked| asked.line == "POST /_session");
    assert!(refusals.0.iter().all(|count| count.load(Ordering::Relaxed) > 0), "none was refused");
    assert!(server.most_open() <= most, "{} connections of {most}", server.most_open());
    running.terminate();
    running.wait().assert_code(0);
}

#[test]
fn whatever_a_server_refuses_a_live_mirror_keeps_to_its_connections() {
    follow_a_moody_server(12, 12);
}

#[test]
fn four_connections_are_enough_to_follow_a_server_and_no_more_are_opened() {
    follow_a_moody_server(4, 4);
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

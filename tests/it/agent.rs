//! `plainfold run`: the mirrors of a config side by side, reloaded, named, and ended.

use std::fs;
use std::io::BufRead as _;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::env::agent::{Setup, all_said, feed, hang_up, of, said};
use crate::env::door::{Door, Reply, say};
use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Stream};
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Fired, Proxy};
use crate::env::tree::{Tree, Written};
use crate::env::{DEADLINE, library, oracle};

#[test]
fn two_mirrors_are_kept_side_by_side_and_are_named_instead_of_their_directories() {
    let setup = Setup::new();
    let server = PouchServer::start();
    server.create_db("shelf");
    let shelf = format!("{}/shelf", server.url());
    let mut file = FeedFile::create(setup.place.join("feed.ndjson"));
    file.put("first", json!({"n": 1}), &[]);
    setup.write(&[setup.mirror("shelf", &shelf, ""), setup.mirror("file", &file.source(), "")]);
    let mut agent = setup.start();
    said(&mut agent, "file", "caught up with 1 collection");

    let mut tail = plainfold::spawn_command(setup.command(&["tail", "shelf", "--since", "0"]));
    server.put_doc("shelf", "book", &json!({"title": "One"}));
    tail.wait_for_event(|event| event["documentId"] == "book");
    let mut tail = plainfold::spawn_command(setup.command(&["tail", "file", "--since", "0"]));
    file.put("second", json!({"n": 2}), &[]);
    tail.wait_for_event(|event| event["documentId"] == "second");
    assert!(setup.place.join("shelf/shelf/book/document.json").is_file());

    let list = setup.mirrors(0);
    for name in ["shelf", "file"] {
        assert_eq!(of(&list, name)["state"], "running", "{list}");
        assert_eq!(of(&list, name)["collections"], 1, "{list}");
        let status = setup.status(name);
        assert_eq!(status["running"], true);
        assert_eq!(status["pid"], agent.id());
    }
    setup.run(&["pause", "shelf"]).assert_code(0);
    said(&mut agent, "shelf", "paused");
    setup.run(&["resume", "shelf"]).assert_code(0);
    let text = setup.run(&["mirrors"]).assert_code(0).stdout;
    assert_eq!(text.lines().count(), 3, "{text}");

    agent.terminate();
    let outcome = agent.wait().assert_code(0);
    assert!(outcome.stderr.contains("all mirrors have ended"), "{outcome}");
    assert!(!setup.place.join("agent.sock").exists());
    let outcome = setup.run(&["mirrors"]).assert_code(5);
    assert!(outcome.stdout.contains("shelf") && outcome.stderr.contains("no `plainfold run`"));
    assert_eq!(setup.status("file")["running"], false);
    setup.run(&["verify", "file"]).assert_code(0);
}

#[test]
fn the_socket_of_the_agent_answers_for_each_mirror_by_its_name() {
    let setup = Setup::new();
    let mut feeds = ["one.ndjson", "two.ndjson"].map(|name| {
        let mut file = FeedFile::create(setup.place.join(name));
        file.put("first", json!({"n": 1}), &[]);
        file
    });
    let mirrors = [("one", &feeds[0]), ("two", &feeds[1])];
    let mut mirrors = mirrors.map(|(name, feed)| setup.mirror(name, &feed.source(), "")).to_vec();
    let yearly = "schedule = { cron = '0 0 1 1 *' }";
    mirrors.push(setup.mirror("later", &feed(&library()), yearly));
    setup.write(&mirrors);
    let mut agent = setup.start();
    all_said(&mut agent, &["one", "two"], "caught up with");
    said(&mut agent, "later", "the mirror is complete");

    let (code, status) = setup.ask("GET /v1/mirrors/one/status");
    assert_eq!((code, &status["pid"]), (200, &agent.id().into()), "{status}");
    let (code, paused) = setup.ask("POST /v1/mirrors/one/pause");
    assert_eq!((code, paused.as_array().map(Vec::len)), (200, Some(1)), "{paused}");
    said(&mut agent, "one", "paused");
    let phase = |name: &str| {
        let (_, status) = setup.ask(&format!("GET /v1/mirrors/{name}/status"));
        status["collections"][0]["phase"].clone()
    };
    let is_paused = || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        phase("one") == "paused"
    };
    assert!((0..600).any(|_| is_paused()), "{}", phase("one"));
    assert_eq!(phase("two"), "live");
    let events = setup.request("GET /v1/mirrors/two/events");
    feeds[1].put("second", json!({"n": 2}), &[]);
    let mut events = events.lines().map(Result::unwrap);
    assert!(events.any(|line| line.contains("\"documentId\":\"second\"")));
    assert_eq!(setup.ask("POST /v1/mirrors/one/resume").0, 200);
    let events = setup.request("GET /v1/mirrors/one/events?since=0");
    feeds[0].put("second", json!({"n": 2}), &[]);
    let mut events = events.lines().map(Result::unwrap);
    assert!(events.any(|line| line.contains("\"documentId\":\"second\"")));

    let (code, problem) = setup.ask("GET /v1/mirrors/later/status");
    assert_eq!((code, &problem["mirror"]["state"]), (409, &json!("waiting")), "{problem}");
    assert_eq!(setup.ask("GET /v1/mirrors/none/status").0, 404);
    assert_eq!(setup.ask("GET /v1/mirrors/later").1["state"], "waiting");
    let (code, api) = setup.ask("GET /openapi.json");
    assert!(code == 200 && api["paths"]["/v1/mirrors/{name}/status"].is_object());
    agent.terminate();
    agent.wait().assert_code(0);
    // The stream ends with the session.
    events.for_each(drop);
}

#[test]
fn a_mirror_that_cannot_work_does_not_disturb_the_others() {
    let setup = Setup::new();
    let door = Door::start(&["books"], |_| {
        say(
            "401 Unauthorized",
            r#"{"error":"unauthorized","reason":"Name or password is incorrect."}"#,
        )
    });
    fs::write(setup.place.join("password"), "wrong\n").unwrap();
    plainfold::mirror(&feed(&library()), &setup.place.join("damaged")).assert_code(0);
    let format = setup.place.join("damaged/.plainfold/format.json");
    let intact = fs::read(&format).unwrap();
    fs::write(&format, "no JSON").unwrap();
    fs::create_dir(setup.place.join("foreign")).unwrap();
    fs::write(setup.place.join("foreign/thesis.tex"), "x").unwrap();
    let mut file = FeedFile::create(setup.place.join("feed.ndjson"));
    file.put("first", json!({"n": 1}), &[]);
    let password = "credentials = { password_file = 'password' }";
    setup.write(&[
        setup.mirror("dead", "http://127.0.0.1:1/x", ""),
        setup.mirror("damaged", &feed(&library()), ""),
        setup.mirror("refused", &door.url("me@", "books"), password),
        setup.mirror("foreign", &feed(&library()), "schedule = { every = '1h' }"),
        setup.mirror("fine", &file.source(), ""),
    ]);
    let mut agent = setup.start();
    let mut tail = plainfold::spawn_command(setup.command(&["tail", "fine", "--since", "0"]));
    file.put("second", json!({"n": 2}), &[]);
    tail.wait_for_event(|event| event["documentId"] == "second");
    door.wait_for(1, |_| true);

    let list = setup.mirrors(1);
    assert_eq!(of(&list, "fine")["state"], "running", "{list}");
    assert_eq!(of(&list, "damaged")["state"], "parked", "{list}");
    assert!(of(&list, "damaged")["error"].as_str().unwrap().contains("format.json"), "{list}");
    let remedy = of(&list, "damaged")["remedy"].as_str().unwrap();
    assert!(remedy.contains("plainfold catch-up damaged"), "{list}");
    assert_eq!(of(&list, "foreign")["state"], "parked", "{list}");
    // Between two tries it may be starting or stopping.
    let is_in_trouble = |name: &str| {
        let state = of(&list, name)["state"].as_str().unwrap();
        ["failed", "running", "starting", "stopping"].contains(&state)
    };
    assert!(is_in_trouble("refused"), "{list}");
    assert!(is_in_trouble("dead"), "{list}");
    assert!(!list.to_string().contains("wrong"), "{list}");
    let text = setup.run(&["mirrors"]).assert_code(1).stdout;
    assert!(text.contains("parked") && text.contains("thesis.tex"), "{text}");

    // A person mends one, and says so.
    fs::write(&format, intact).unwrap();
    setup.run(&["catch-up", "damaged"]).assert_code(0);
    said(&mut agent, "damaged", "caught up with");
    assert_eq!(of(&setup.mirrors(1), "damaged")["state"], "running");
    fs::remove_file(setup.place.join("foreign/thesis.tex")).unwrap();
    hang_up(&agent);
    said(&mut agent, "foreign", "the mirror is complete");
    agent.terminate();
    agent.wait().assert_code(0);
}

#[test]
fn a_reload_adds_removes_and_changes_mirrors_and_interrupts_no_other() {
    let setup = Setup::new();
    let door = Door::start(&["books"], |_| Reply::Honest);
    let stays = setup.mirror("stays", &door.url("", "books"), "");
    let library = feed(&library());
    let goes = setup.mirror("goes", &library, "");
    let changes = setup.mirror("changes", &library, "");
    setup.write(&[stays.clone(), goes.clone(), changes]);
    let mut agent = setup.start();
    all_said(&mut agent, &["stays", "goes", "changes"], "caught up with");
    let before = setup.status("stays");
    let starts = of(&setup.mirrors(0), "stays")["starts"].clone();
    let is_opening = |line: &str| line.contains("since=") || line.contains("_revs_limit");
    let asked = |door: &Door| door.asked().iter().filter(|asked| is_opening(&asked.line)).count();
    let asked_before = asked(&door);

    // What is wrong changes nothing.
    setup.write(&["[[mirror]]\nnam = 'x'\n".to_owned()]);
    let line = agent.wait_for_line(Stream::Stderr, |line| line.contains("stays in force"));
    assert!(line.contains("nam"), "{line}");
    let list = setup.mirrors(1);
    assert_eq!(list["mirrors"].as_array().unwrap().len(), 3);
    assert!(list["config_trouble"].as_str().unwrap().contains("nam"), "{list}");

    let changed = setup.mirror("changes", &library, "json = 'pretty'");
    let new = setup.mirror("new", &library, "schedule = { every = '1h' }");
    setup.write(&[stays.clone(), changed, new]);
    agent.wait_for_line(Stream::Stderr, |line| {
        line.contains("added new; removed goes; changed changes; 1 mirror not changed")
    });
    said(&mut agent, "new", "the mirror is complete");
    let list = setup.mirrors(0);
    let names: Vec<_> =
        list["mirrors"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["stays", "changes", "new"], "{list}");
    assert_eq!(of(&list, "new")["state"], "waiting");
    assert_eq!(of(&list, "new")["last_run"]["complete"], true);
    assert_eq!(list["config_trouble"], Value::Null);
    let after = setup.status("stays");
    assert_eq!(after["started_at"], before["started_at"]);
    assert_eq!(of(&list, "stays")["starts"], starts);
    assert_eq!(asked(&door), asked_before, "its source noticed the reload");

    // The directory of the removed one is free again, also for another name.
    let moved = goes.replace("name = 'goes'", "name = 'again'");
    setup.write(&[stays, moved]);
    said(&mut agent, "again", "caught up with");
    agent.terminate();
    agent.wait().assert_code(0);
}

#[test]
fn a_scheduled_mirror_runs_when_it_is_due_or_told_to_and_not_again_after_a_restart() {
    let setup = Setup::new();
    let mirror = setup.mirror("books", &feed(&library()), "schedule = { cron = '0 0 1 1 *' }");
    setup.write(&[mirror]);
    let mut agent = setup.start();
    said(&mut agent, "books", "the mirror is complete");
    setup.run(&["catch-up", "books"]).assert_code(0);
    said(&mut agent, "books", "the mirror is complete");
    agent.terminate();
    agent.wait().assert_code(0);

    let agent = setup.start();
    let list = setup.mirrors(0);
    assert_eq!(of(&list, "books")["state"], "waiting", "{list}");
    assert_eq!(of(&list, "books")["starts"], 0, "{list}");
    agent.terminate();
    let outcome = agent.wait().assert_code(0);
    assert!(!outcome.stderr.contains("mirroring"), "{outcome}");
}

#[test]
fn a_second_agent_is_refused() {
    let setup = Setup::new();
    let mirror = setup.mirror("books", &feed(&library()), "");
    setup.write(std::slice::from_ref(&mirror));
    let mut agent = setup.start();
    said(&mut agent, "books", "caught up with");
    let outcome = setup.run(&["run"]).assert_code(2);
    assert!(outcome.stderr.contains("another `plainfold run` answers there"), "{outcome}");

    // With another socket, the lock of the mirror is what it meets.
    let other = setup.place.join("other.toml");
    fs::write(&other, format!("[api]\nlisten = ['./other.sock']\n{mirror}")).unwrap();
    let mut second =
        plainfold::spawn_command(setup.command(&["run", "--config", other.to_str().unwrap()]));
    let line = said(&mut second, "books", "is in use by");
    assert!(line.contains(&agent.id().to_string()), "{line}");
    let config = setup.config().display().to_string();
    let remedy = |said: &str| {
        assert!(said.contains("is in use by `plainfold run` (process "), "{said}");
        assert!(said.contains(&format!("it is the mirror books of {config}")), "{said}");
        assert!(said.contains("plainfold catch-up books"), "{said}");
        assert!(said.contains("remove it from this config"), "{said}");
    };
    remedy(&line);
    let directory = setup.place.join("books");
    remedy(&plainfold::mirror(&feed(&library()), &directory).assert_code(5).stderr);
    second.terminate();
    second.wait().assert_code(0);
    assert_eq!(setup.status("books")["running"], true);
    agent.terminate();
    agent.wait().assert_code(0);
}

#[test]
fn without_a_config_nothing_runs() {
    let setup = Setup::new();
    setup.run(&["run"]).assert_code(2);
    setup.run(&["mirrors"]).assert_code(2);
    setup.replace("[[mirror]]\nnam = 'x'\n");
    let outcome = setup.run(&["run"]).assert_code(2);
    assert!(outcome.stderr.contains("line 2"), "{outcome}");
}

/// A server of 80 documents, whose feed the proxy stops after some of them.
struct Stalled {
    server: PouchServer,
    proxy: Proxy,
    fired: Fired,
}

impl Stalled {
    fn start(times: usize) -> Self {
        let server = PouchServer::start();
        server.create_db("shelf");
        for n in 0..80 {
            server.put_doc("shelf", &format!("book-{n}"), &json!({ "text": "x".repeat(2000) }));
        }
        let proxy = Proxy::start(server.address());
        let fired = proxy.inject("include_docs=true", Fault::StallAfter(60_000), times);
        Self { server, proxy, fired }
    }

    fn url(&self) -> String {
        format!("{}/shelf", self.server.url_through(self.proxy.address()))
    }

    /// Waits until documents of the stopped feed have arrived in a mirror.
    fn wait_for_some(&self, setup: &Setup, name: &str) -> u64 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let list = setup.mirrors(0);
            match of(&list, name)["documents"].as_u64() {
                Some(held @ 1..) => return held,
                _ => assert!(Instant::now() < deadline, "nothing arrived: {list}"),
            }
        }
    }

    fn assert_equals(&self, mirror: &Path) {
        let url = format!("{}/shelf", self.server.url());
        oracle::assert_equals_server(&url, mirror, "shelf");
    }
}

#[test]
fn a_reload_during_catch_ups_interrupts_only_that_of_the_mirror_that_changed() {
    let setup = Setup::new();
    let shelf = Stalled::start(2);
    let stays = setup.mirror("stays", &shelf.url(), "");
    setup.write(&[stays.clone(), setup.mirror("changes", &shelf.url(), "")]);
    let mut agent = setup.start();
    for name in ["stays", "changes"] {
        shelf.wait_for_some(&setup, name);
    }
    assert_eq!(shelf.fired.times(), 2);
    let before = setup.status("stays");

    setup.write(&[stays, setup.mirror("changes", &shelf.url(), "reserve = '1MiB'")]);
    said(&mut agent, "changes", "caught up with");
    let list = setup.mirrors(0);
    assert_eq!(of(&list, "stays")["starts"], 1, "{list}");
    assert_eq!(of(&list, "stays")["caught_up"], false, "{list}");
    assert_eq!(setup.status("stays")["started_at"], before["started_at"]);
    shelf.assert_equals(&setup.place.join("changes"));

    shelf.proxy.cut_all();
    said(&mut agent, "stays", "caught up with");
    // The feed of the other one is cut too: until it is open again, `mirrors` names that and exits with 1.
    let outcome = setup.run(&["mirrors", "--format", "json"]);
    let list: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(of(&list, "stays")["starts"], 1, "{outcome}");
    agent.terminate();
    agent.wait().assert_code(0);
    shelf.assert_equals(&setup.place.join("stays"));
}

#[test]
fn a_signal_during_a_catch_up_commits_what_is_in_flight() {
    let setup = Setup::new();
    let shelf = Stalled::start(1);
    setup.write(&[setup.mirror("shelf", &shelf.url(), "")]);
    let agent = setup.start();
    shelf.fired.wait();
    shelf.wait_for_some(&setup, "shelf");
    agent.terminate();
    let outcome = agent.wait().assert_code(0);
    assert!(!outcome.stderr.contains("caught up with"), "{outcome}");
    let mirror = setup.place.join("shelf");
    let before = Tree::of(&mirror);
    let held = fs::read_dir(mirror.join("shelf")).unwrap().count();
    assert!((1..80).contains(&held), "{held} documents of the stopped feed");

    let mut agent = setup.start();
    said(&mut agent, "shelf", "caught up with");
    agent.terminate();
    agent.wait().assert_code(0);
    let is_document = |path: &Path| path.file_name().is_some_and(|name| name == "document.json");
    for written in before.until(&Tree::of(&mirror)) {
        let is_new = matches!(written, Written::Made(_));
        assert!(is_new || !is_document(written.path()), "{written:?} was written again");
    }
    shelf.assert_equals(&mirror);
}

#[test]
fn a_mirror_whose_directory_is_removed_while_it_runs_does_not_disturb_the_others() {
    let setup = Setup::new();
    let mut feeds = ["lost", "fine"].map(|name| {
        let mut file = FeedFile::create(setup.place.join(&format!("feed-{name}.ndjson")));
        file.put("first", json!({"n": 1}), &[]);
        file
    });
    setup.write(&[
        setup.mirror("lost", &feeds[0].source(), ""),
        setup.mirror("fine", &feeds[1].source(), ""),
    ]);
    let mut agent = setup.start();
    all_said(&mut agent, &["lost", "fine"], "caught up with");
    fs::remove_dir_all(setup.place.join("lost")).unwrap();
    for file in &mut feeds {
        file.put("second", json!({"n": 2}), &[]);
    }
    let mut tail = plainfold::spawn_command(setup.command(&["tail", "fine", "--since", "0"]));
    tail.wait_for_event(|event| event["documentId"] == "second");
    let deadline = Instant::now() + DEADLINE;
    let troubled = loop {
        let outcome = setup.run(&["mirrors", "--format", "json"]);
        let list: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let lost = of(&list, "lost").clone();
        if lost["state"] != "running" || lost["trouble"] != Value::Null {
            break lost;
        }
        assert!(Instant::now() < deadline, "nothing is said about the lost mirror: {lost}");
    };
    assert!(!troubled.to_string().contains("internal error"), "{troubled}");
    assert_eq!(setup.status("fine")["running"], true);
    agent.terminate();
    agent.wait().assert_code(0);
    oracle::assert_equals_feed(feeds[1].path(), &setup.place.join("fine"));
}

#[test]
fn a_mirror_that_gets_another_name_for_its_directory_in_one_reload_is_kept_without_a_pause() {
    let setup = Setup::new();
    let mut file = FeedFile::create(setup.place.join("feed.ndjson"));
    file.put("first", json!({"n": 1}), &[]);
    let mirror = setup.mirror("old", &file.source(), "");
    setup.write(std::slice::from_ref(&mirror));
    let mut agent = setup.start();
    said(&mut agent, "old", "caught up with");
    let before = Tree::of(&setup.place.join("old"));

    setup.write(&[mirror.replace("name = 'old'", "name = 'new'")]);
    said(&mut agent, "new", "caught up with");
    assert_eq!(before.until(&Tree::of(&setup.place.join("old"))), []);
    file.put("second", json!({"n": 2}), &[]);
    let mut tail = plainfold::spawn_command(setup.command(&["tail", "new", "--since", "0"]));
    tail.wait_for_event(|event| event["documentId"] == "second");
    agent.terminate();
    let outcome = agent.wait().assert_code(0);
    assert!(!outcome.stderr.contains("is in use by"), "{outcome}");
    oracle::assert_equals_feed(file.path(), &setup.place.join("old"));
}

#[test]
fn a_program_before_a_session_permits_it_and_one_after_it_finds_the_mirror_closed() {
    let setup = Setup::new();
    let (flag, told) = (setup.place.join("flag"), setup.place.join("told"));
    let told_to = told.display();
    // It notes what it was given, and whether the mirror is open.
    let text = format!(
        "#!/bin/sh\ncat > '{told_to}.new'\nls '{}/.plainfold/staging' >> '{told_to}.new'\n\
         echo \"$PLAINFOLD_MIRROR $1\" >> '{told_to}.new'\nmv '{told_to}.new' '{told_to}'\n",
        setup.place.join("shelf").display()
    );
    let after = setup.place.join("after");
    fs::write(&after, text).unwrap();
    fs::set_permissions(&after, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut shelf = FeedFile::create(setup.place.join("shelf.ndjson"));
    shelf.put("first", json!({"n": 1}), &[]);
    let more = format!(
        "schedule = {{ every = '1h' }}\nhooks = {{ before = ['test', '-e', '{}'], after = ['{}', 'a b'] }}",
        flag.display(),
        after.display()
    );
    setup.write(&[setup.mirror("shelf", &shelf.source(), &more)]);
    let mut agent = setup.start();
    let line = said(&mut agent, "shelf", "`before` of `hooks`");
    assert!(line.contains("the program test") && !line.contains("flag"), "{line}");
    let list = setup.mirrors(1);
    assert_eq!(of(&list, "shelf")["state"], "failed", "{list:#}");
    assert!(!setup.place.join("shelf").exists(), "no session was started");

    fs::write(&flag, "").unwrap();
    setup.run(&["catch-up", "shelf"]).assert_code(0);
    said(&mut agent, "shelf", "the mirror is complete");
    let deadline = Instant::now() + DEADLINE;
    while !told.exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let told = fs::read_to_string(&told).unwrap();
    let (document, rest) = told.split_once('}').map(|_| told.rsplit_once('}').unwrap()).unwrap();
    let document: Value = serde_json::from_str(&format!("{document}}}")).unwrap();
    assert_eq!(document["mirror"], "shelf");
    assert_eq!(document["last_run"]["complete"], true);
    assert!(!rest.contains('-'), "a lane is open: {rest}");
    assert!(rest.ends_with("shelf a b\n"), "{rest}");

    // One that fails is no trouble of the mirror, but is reported.
    fs::write(&after, "#!/bin/sh\nexit 7\n").unwrap();
    setup.run(&["catch-up", "shelf"]).assert_code(0);
    let line = said(&mut agent, "shelf", "`after` of `hooks`");
    assert!(line.contains("exit status: 7"), "{line}");
    let list = setup.mirrors(1);
    let last = &of(&list, "shelf")["last_run"];
    assert_eq!(last["complete"], true, "{list:#}");
    assert!(last["trouble"].as_str().unwrap().contains("`after`"), "{list:#}");
    agent.terminate();
    agent.wait().assert_code(0);
}

#[test]
fn a_program_runs_after_a_live_session_that_a_changed_entry_has_ended() {
    let setup = Setup::new();
    let told = setup.place.join("told");
    let mut shelf = FeedFile::create(setup.place.join("shelf.ndjson"));
    shelf.put("first", json!({"n": 1}), &[]);
    let entry = |more: &str| {
        let hooks = format!("hooks = {{ after = ['tee', '-a', '{}'] }}\n{more}", told.display());
        setup.mirror("shelf", &shelf.source(), &hooks)
    };
    setup.write(&[entry("")]);
    let mut agent = setup.start();
    said(&mut agent, "shelf", "caught up with");
    assert!(!told.exists(), "it is at work");
    setup.write(&[entry("trash = 1")]);
    // The mirror starts again when the program has ended.
    said(&mut agent, "shelf", "caught up with");
    let text = fs::read_to_string(&told).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["mirror"], "shelf");
    agent.terminate();
    agent.wait().assert_code(0);
    assert_eq!(fs::read_to_string(&told).unwrap(), text, "the agent has ended");
}

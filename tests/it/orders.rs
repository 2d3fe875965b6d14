//! Orders to a mirror: pause, resume, catch up and rescan, for a process at work and at rest.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::env::door::{Asked, Door, Reply, say};
use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome, Running, Stream};
use crate::env::{DEADLINE, Place};

fn give(order: &str, mirror: &Path, collection: &str) -> Outcome {
    plainfold::run([order, mirror.to_str().unwrap(), "--collection", collection])
}

fn follow(door: &Door, place: &Place) -> Running {
    let (source, mirror) = (door.url("", ""), place.mirror());
    plainfold::spawn(["mirror", &source, mirror.to_str().unwrap(), "--live"])
}

#[track_caller]
fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn has(place: &Place, database: &str, id: &str) -> bool {
    place.mirror().join(database).join(id).join("document.json").exists()
}

/// What `status` says of a collection.
fn status_of(mirror: &Path, name: &str) -> Value {
    let said = plainfold::run(["status", mirror.to_str().unwrap(), "--format", "json"]).stdout;
    // The mirror may not exist yet.
    let status: Value = serde_json::from_str(&said).unwrap_or_default();
    let mut found = status["collections"].as_array().into_iter().flatten();
    found.find(|one| one["collection"] == name).cloned().unwrap_or_default()
}

/// A server that refuses every request for the database `b` until it is mended.
fn broken(status: &'static str) -> (Door, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let door = Door::start(&["a", "b"], move |asked: &Asked| {
        match asked.line.contains("/b") && !is_mended.load(Ordering::Relaxed) {
            true => say(status, "{}"),
            false => Reply::Honest,
        }
    });
    (door, mended)
}

#[test]
fn a_collection_that_is_paused_rests_until_it_is_resumed() {
    let place = Place::new();
    let door = Door::start(&["a", "b"], |_| Reply::Honest);
    let (running, mirror) = (follow(&door, &place), place.mirror());
    wait_until("a catch-up", || status_of(&mirror, "b")["phase"] == "live");
    let paused = give("pause", &mirror, "b").assert_code(0);
    assert!(paused.stdout.starts_with("b: paused"), "{paused}");
    wait_until("a pause", || status_of(&mirror, "b")["phase"] == "paused");
    assert!(give("pause", &mirror, "b").assert_code(0).stdout.contains("already"));
    assert!(give("catch-up", &mirror, "b").assert_code(1).stdout.contains("plainfold resume"));
    door.put("b", "later");
    door.put("a", "later");
    wait_until("a change of the other one", || has(&place, "a", "later"));
    assert!(!has(&place, "b", "later") && status_of(&mirror, "b")["phase"] == "paused");
    assert!(give("rescan", &mirror, "b").assert_code(0).stdout.contains("next run"));
    let all = plainfold::run(["resume", mirror.to_str().unwrap(), "--format", "json"]);
    let effects: Value = serde_json::from_str(&all.assert_code(0).stdout).unwrap();
    let expected = serde_json::json!([
        { "collection": "a", "effect": "already" }, { "collection": "b", "effect": "done" }
    ]);
    assert_eq!(effects, expected);
    let again = plainfold::run(["resume", mirror.to_str().unwrap()]).assert_code(0);
    assert_eq!(again.stdout, "a: is not paused\nb: is not paused");
    wait_until("the change of the paused one", || has(&place, "b", "later"));
    wait_until("its end", || status_of(&mirror, "b")["phase"] == "live");
    for order in ["pause", "resume", "catch-up", "rescan"] {
        let unknown = give(order, &mirror, "c").assert_code(2);
        assert!(unknown.stderr.contains("no collection `c`"), "{unknown}");
    }
    running.terminate();
    let ended = running.wait().assert_code(0);
    assert!(ended.stderr.contains("requested with `plainfold rescan`"), "{ended}");
    plainfold::run(["verify", mirror.to_str().unwrap()]).assert_code(0);
}

#[test]
fn a_catch_up_waits_for_a_collection_that_is_paused() {
    let place = Place::new();
    let (door, mended) = broken("503 Service Unavailable");
    let (source, mirror) = (door.url("", ""), place.mirror());
    let running = plainfold::spawn(["mirror", &source, mirror.to_str().unwrap()]);
    wait_until("a wait", || status_of(&mirror, "b")["phase"] == "waiting");
    give("pause", &mirror, "b").assert_code(0);
    wait_until("a pause", || status_of(&mirror, "b")["phase"] == "paused");
    wait_until("the other's end", || status_of(&mirror, "a")["phase"] == "caught-up");
    mended.store(true, Ordering::Relaxed);
    assert!(give("pause", &mirror, "a").assert_code(0).stdout.contains("nothing more"));
    give("resume", &mirror, "b").assert_code(0);
    running.wait().assert_code(0);
    assert!(has(&place, "b", "first"));
}

#[test]
fn a_catch_up_that_is_ordered_does_not_wait_for_the_end_of_a_pause() {
    let place = Place::new();
    let (door, mended) = broken("405 Method Not Allowed");
    let (running, mirror) = (follow(&door, &place), place.mirror());
    wait_until("a wait", || status_of(&mirror, "b")["phase"] == "waiting");
    let next: Timestamp = status_of(&mirror, "b")["retry_at"].as_str().unwrap().parse().unwrap();
    mended.store(true, Ordering::Relaxed);
    let hurried = give("catch-up", &mirror, "b").assert_code(0);
    assert!(hurried.stdout.contains("catches up now"), "{hurried}");
    wait_until("a catch-up", || has(&place, "b", "first"));
    assert!(Timestamp::now() < next, "it would have been tried by itself");
    running.terminate();
    running.wait().assert_code(0);
}

#[test]
fn a_collection_that_is_followed_is_scanned_again_when_that_is_ordered() {
    let place = Place::new();
    let door = Door::start(&["a"], |_| Reply::Honest);
    let (mut running, mirror) = (follow(&door, &place), place.mirror());
    wait_until("a catch-up", || status_of(&mirror, "a")["phase"] == "live");
    assert!(give("catch-up", &mirror, "a").assert_code(0).stdout.contains("already"));
    assert!(give("rescan", &mirror, "a").assert_code(0).stdout.contains("full scan now"));
    running.wait_for_line(Stream::Stderr, |line| line.contains("full scan: it was requested"));
    wait_until("its end", || status_of(&mirror, "a")["phase"] == "live");
    door.put("a", "later");
    wait_until("a later change", || has(&place, "a", "later"));
    running.terminate();
    running.wait().assert_code(0);
}

#[test]
fn at_rest_only_a_scan_can_be_ordered() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book:1", serde_json::json!({}), &[]);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    for order in ["pause", "resume", "catch-up"] {
        let refused = give(order, &mirror, "shelf").assert_code(2);
        assert!(refused.stderr.contains("no process works on"), "{refused}");
    }
    give("rescan", &mirror, "shelves").assert_code(2);
    let noted = give("rescan", &mirror, "shelf").assert_code(0);
    assert!(noted.stdout.contains("the next run makes a full scan"), "{noted}");
    assert_eq!(status_of(&mirror, "shelf")["phase"], "scanning");
    let run = plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert!(run.stderr.contains("full scan: it was requested"), "{run}");
    assert_eq!(status_of(&mirror, "shelf")["phase"], "stopped");
}

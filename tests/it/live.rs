//! A source followed as it changes: on disk, and in the events of subscribers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Running, Stream, UnreadTail};
use crate::env::pouchdb::PouchServer;
use crate::env::{Place, oracle};

/// The next event of a document; asserts that it is complete, and that its files are on disk.
fn event_of(tail: &mut Running, mirror: &Path, id: &str) -> Value {
    let event = tail.wait_for_event(|event| event["documentId"] == id);
    for (key, right) in [
        ("event", event["event"].is_u64()),
        ("collectionName", event["collectionName"].is_string()),
        ("files", event["files"].is_array()),
        ("deleted", event["deleted"].is_boolean()),
        ("revision", event["revision"].is_string()),
        ("at", event["at"].is_string()),
    ] {
        assert!(right, "{key} in {event}");
    }
    assert!(event.get("position").is_some(), "{event}");
    for file in event["files"].as_array().unwrap() {
        let there = mirror.join(file.as_str().unwrap()).exists();
        assert_eq!(there, event["deleted"] == false, "{file} of {event}");
    }
    event
}

fn revision_on_disk(mirror: &Path, folder: &str) -> String {
    let text = fs::read(mirror.join(folder).join("document.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["_rev"].as_str().unwrap().to_owned()
}

#[test]
fn a_put_an_update_an_attachment_and_a_deletion_are_each_on_disk_and_one_event() {
    let place = Place::new();
    let mirror = place.mirror();
    let server = PouchServer::start();
    server.create_db("shelf");
    let url = format!("{}/shelf", server.url());
    let live = plainfold::live(&url, &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    // It is asked for beside the feed, at a time of its own.
    event_of(&mut tail, &mirror, "_security");

    let first = server.put_doc("shelf", "book:1", &json!({"title": "One"}));
    let put = event_of(&mut tail, &mirror, "book:1");
    assert_eq!(put["revision"], first.as_str());
    assert_eq!(put["collectionName"], "shelf");
    assert_eq!(revision_on_disk(&mirror, "shelf/book%3A1"), first);

    let second = server.put_doc("shelf", "book:1", &json!({"title": "One, revised"}));
    let update = event_of(&mut tail, &mirror, "book:1");
    assert_eq!(update["revision"], second.as_str());
    assert_eq!(revision_on_disk(&mirror, "shelf/book%3A1"), second);

    let third = server.put_attachment("shelf", "book:1", "a b/ж.txt", "text/plain", b"text");
    let attached = event_of(&mut tail, &mirror, "book:1");
    assert_eq!(attached["revision"], third.as_str());
    let file = mirror.join("shelf/book%3A1/attachments/a b%2Fж.txt");
    assert_eq!(fs::read(file).unwrap(), b"text");

    let fourth = server.delete_doc("shelf", "book:1");
    let deleted = event_of(&mut tail, &mirror, "book:1");
    assert_eq!(deleted["revision"], fourth.as_str());
    assert_eq!(deleted["deleted"], true);
    assert!(!mirror.join("shelf/book%3A1").exists());

    let numbers = [put, update, attached, deleted].map(|event| event["event"].as_u64().unwrap());
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "one event each: {numbers:?}");
    live.terminate();
    live.wait().assert_code(0);
    oracle::assert_equals_server(&url, &mirror, "shelf");
    oracle::assert_clean(&mirror);
}

#[test]
fn tail_since_an_event_replays_all_that_came_after_it() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..20 {
        feed.put(&format!("book:{number}"), json!({"n": number}), &[]);
    }
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    let live = plainfold::live(&feed.source(), &mirror);
    let mut first = plainfold::tail(&mirror, 0);
    let events: Vec<u64> =
        (0..20).map(|_| first.wait_for_event(|_| true)["event"].as_u64().unwrap()).collect();
    assert!(events.windows(2).all(|pair| pair[0] < pair[1]), "{events:?}");

    let mut second = plainfold::tail(&mirror, events[9]);
    for expected in &events[10..] {
        assert_eq!(second.wait_for_event(|_| true)["event"], *expected);
    }
    // Both continue with later changes.
    feed.put("book:new", json!({}), &[]);
    for tail in [&mut first, &mut second] {
        assert_eq!(tail.wait_for_event(|_| true)["documentId"], "book:new");
    }
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn a_feed_file_is_followed_as_it_grows() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book:1", json!({"n": 1}), &[("note.txt", b"one")]);
    let live = plainfold::live(&feed.source(), &mirror);
    oracle::assert_equals_feed(feed.path(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    event_of(&mut tail, &mirror, "book:1");

    feed.put("book:2", json!({"n": 2}), &[]);
    event_of(&mut tail, &mirror, "book:2");
    feed.raw(b"{\"seq\":99,\"id\":\"book:3\",\"changes\":[{\"rev\":\"1-c\"}],"); // half a row
    feed.raw(b"\"doc\":{\"_id\":\"book:3\",\"_rev\":\"1-c\"}}\n"); // and its end
    event_of(&mut tail, &mirror, "book:3");
    feed.put("book:1", json!({"n": 3}), &[("note.txt", b"other")]);
    event_of(&mut tail, &mirror, "book:1");
    feed.delete("book:2");
    assert_eq!(event_of(&mut tail, &mirror, "book:2")["deleted"], true);
    live.terminate();
    live.wait().assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
    oracle::assert_clean(&mirror);
}

#[test]
fn a_database_that_appears_later_is_followed_too() {
    let place = Place::new();
    let mirror = place.mirror();
    let server = PouchServer::start();
    server.create_db("first");
    server.put_doc("first", "x", &json!({}));
    let live = plainfold::live(&server.url(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    event_of(&mut tail, &mirror, "x");
    server.create_db("second");
    server.put_doc("second", "y", &json!({}));
    // The security object is asked for beside the feed: either may come first.
    let mut awaited = BTreeSet::from(["y", "_security"]);
    while !awaited.is_empty() {
        let event = tail.wait_for_event(|event| event["collectionName"] == "second");
        awaited.remove(event["documentId"].as_str().unwrap());
    }
    live.terminate();
    live.wait().assert_code(0);
    oracle::assert_equals_server(&format!("{}/second", server.url()), &mirror, "second");
}

#[test]
fn tail_of_one_collection_tells_of_no_other() {
    let place = Place::new();
    let mirror = place.mirror();
    let server = PouchServer::start();
    for db in ["a", "b"] {
        server.create_db(db);
        server.put_doc(db, &format!("in {db}"), &json!({}));
    }
    let live = plainfold::live(&server.url(), &mirror);
    let directory = mirror.display().to_string();
    let mut tail = plainfold::spawn(["tail", &directory, "--since", "0", "--collection", "b"]);
    server.put_doc("a", "again in a", &json!({}));
    server.put_doc("b", "again in b", &json!({}));
    // The security object has no place among the documents.
    let mut told: Vec<String> = (0..3)
        .map(|_| tail.wait_for_event(|_| true)["documentId"].as_str().unwrap().to_owned())
        .collect();
    told.retain(|id| id != "_security");
    assert_eq!(told, ["in b", "again in b"]);
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn a_subscriber_that_does_not_read_slows_nobody_down_and_loses_nothing() {
    /// Their events exceed every buffer between the mirror and a subscriber.
    const DOCUMENTS: usize = 8_000;
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("first", json!({}), &[]);
    let live = plainfold::live(&feed.source(), &mirror);
    let slow = UnreadTail::start(&mirror, 0);
    let mut fast = plainfold::tail(&mirror, 0);
    let id = |number: usize| format!("book:{number}/{}", "-".repeat(100));
    for number in 0..DOCUMENTS {
        feed.put(&id(number), json!({"n": number}), &[]);
    }
    feed.put("last", json!({}), &[]);
    fast.wait_for_event(|event| event["documentId"] == "last");
    oracle::assert_equals_feed(feed.path(), &mirror);

    let mut slow = slow.read();
    let mut seen = BTreeSet::new();
    let mut newest = 0;
    while !seen.contains("last") {
        let event = slow.wait_for_event(|event| event["documentId"].is_string());
        let number = event["event"].as_u64().unwrap();
        assert_eq!(number, newest + 1, "an event is missing or repeated before {event}");
        newest = number;
        seen.insert(event["documentId"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen.len(), DOCUMENTS + 2);
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn a_server_that_is_away_is_named_once_for_all_its_databases() {
    let place = Place::new();
    let mut server = PouchServer::start_on_disk();
    for db in ["a", "b", "c", "d"] {
        server.create_db(db);
        server.put_doc(db, "x", &json!({}));
    }
    let mut live = plainfold::live(&server.url(), &place.mirror());
    let mut wait_for = |words: &str| {
        live.wait_for_line(Stream::Stderr, |line| line.contains(words));
    };
    wait_for("caught up with 4 collections");
    server.stop();
    wait_for("refused");
    server.start_again();
    wait_for("answers again");
    live.terminate();
    let outcome = live.wait().assert_code(0);
    let refused = outcome.stderr.lines().filter(|line| line.contains("refused"));
    assert_eq!(refused.count(), 1, "{outcome}");
    let again = outcome.stderr.lines().filter(|line| line.contains("answers again"));
    assert_eq!(again.count(), 1, "{outcome}");
}

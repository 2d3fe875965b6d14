//! Cursors of a process that is killed, and of subscribers that were away.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::Place;
use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Running, Stream};

/// The status and the JSON that the process which works on a mirror answers.
fn ask(mirror: &Path, request: &str, body: &Value) -> (u16, Value) {
    let mut socket = UnixStream::connect(mirror.join(".plainfold/socket")).unwrap();
    let (body, host) = (body.to_string(), "host: mirror\r\nconnection: close");
    let length = body.len();
    let text = format!("{request} HTTP/1.1\r\n{host}\r\ncontent-length: {length}\r\n\r\n{body}");
    // In one piece: an answer may come before the end of a body that nobody reads.
    socket.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}")))
}

fn put(feed: &mut FeedFile, ids: std::ops::Range<u32>) {
    for id in ids {
        feed.put(&format!("d{id}"), json!({}), &[]);
    }
}

fn tail(mirror: &Path, cursor: &str) -> Running {
    plainfold::spawn(["tail".as_ref(), mirror.as_os_str(), "--cursor".as_ref(), cursor.as_ref()])
}

fn behind(status: &Value, cursor: &str) -> u64 {
    let found = status["cursors"].as_array().unwrap().iter().find(|one| one["cursor"] == cursor);
    found.unwrap_or_else(|| panic!("{status}"))["behind"].as_u64().unwrap()
}

#[test]
fn an_acknowledgement_that_was_answered_survives_a_kill_and_events_follow_from_there() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("feed.ndjson"));
    put(&mut feed, 0..10);
    let mut live = plainfold::live(&feed.source(), &mirror);
    let (code, made) = ask(&mirror, "PUT /cursors/indexer", &json!({ "since": "start" }));
    assert_eq!((code, &made["behind"]), (201, &json!(10)));
    let (code, moved) = ask(&mirror, "POST /cursors/indexer/ack", &json!({ "event": 7 }));
    live.kill();
    assert_eq!((code, &moved["acknowledged"]), (200, &json!(7)));
    drop(live);
    // Nobody works on the mirror: the state's copy says it.
    assert_eq!(behind(&plainfold::status(&mirror), "indexer"), 3);
    let words = plainfold::run(["status".as_ref(), mirror.as_os_str()]).assert_code(0).stdout;
    assert!(words.contains("cursor      indexer is 3 events behind, at event 7"), "{words}");
    let refused =
        plainfold::run(["tail".as_ref(), mirror.as_os_str(), "--cursor".as_ref(), "x".as_ref()]);
    assert!(refused.assert_code(2).stderr.contains("no event can be acknowledged"));

    let live = plainfold::live(&feed.source(), &mirror);
    assert_eq!(ask(&mirror, "GET /cursors/indexer", &Value::Null).1["acknowledged"], 7);
    let mut tail = tail(&mirror, "indexer");
    for number in 8..=10 {
        let event: Value =
            serde_json::from_str(&tail.wait_for_line(Stream::Stdout, |_| true)).unwrap();
        assert_eq!(event["event"], number);
    }
    // It acknowledges a moment after it has printed.
    while ask(&mirror, "GET /cursors/indexer", &Value::Null).1["behind"] != 0 {
        std::thread::yield_now();
    }
    live.terminate();
    live.wait().assert_code(0);
    tail.wait().assert_code(0);
    assert_eq!(behind(&plainfold::status(&mirror), "indexer"), 0);
}

#[test]
fn a_subscriber_that_was_away_receives_what_it_has_not_acknowledged_and_nothing_else() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("feed.ndjson"));
    put(&mut feed, 0..3);
    let live = plainfold::live(&feed.source(), &mirror);
    ask(&mirror, "PUT /cursors/reader", &json!({ "since": "start" }));
    let mut first = tail(&mirror, "reader");
    first.wait_for_event(|event| event["documentId"] == "d2");
    // It acknowledges a moment after it has printed.
    while ask(&mirror, "GET /cursors/reader", &Value::Null).1["behind"] != 0 {
        std::thread::yield_now();
    }
    first.kill();
    put(&mut feed, 3..200);
    let mut all = plainfold::tail(&mirror, 3);
    all.wait_for_event(|event| event["documentId"] == "d199");
    let mut second = tail(&mirror, "reader");
    for id in 3..200 {
        let event: Value =
            serde_json::from_str(&second.wait_for_line(Stream::Stdout, |_| true)).unwrap();
        assert_eq!(event["documentId"], format!("d{id}"));
    }
    live.terminate();
    live.wait().assert_code(0);
}

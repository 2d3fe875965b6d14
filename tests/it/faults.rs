//! Connections cut, rows torn, servers gone, documents that cannot be mirrored: nothing is lost.
//!
//! Every test asserts that its fault fired.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::env::feed::FeedFile;
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Proxy};
use crate::env::tree::assert_nothing_written;
use crate::env::{Place, oracle, plainfold};

/// A server with a shelf of documents, some with attachments, behind a proxy.
struct Shelf {
    place: Place,
    server: PouchServer,
    proxy: Proxy,
}

impl Shelf {
    fn new() -> Self {
        Self::in_front_of(PouchServer::start())
    }

    fn in_front_of(server: PouchServer) -> Self {
        server.create_db("shelf");
        for number in 0..60 {
            let body = json!({"title": format!("Volume {number}"), "filler": "-".repeat(200)});
            let page = format!("page {number}\n").repeat(40);
            let attachments = [("page.txt", "text/plain", page.as_bytes())];
            let attachments = if number % 3 == 0 { &attachments[..] } else { &[] };
            server.put_with_attachments("shelf", &format!("book:{number}"), &body, attachments);
        }
        let proxy = Proxy::start(server.address());
        Self { place: Place::new(), server, proxy }
    }

    fn url(&self) -> String {
        format!("{}/shelf", self.server.url_through(self.proxy.address()))
    }

    fn assert_equal(&self) {
        let url = format!("{}/shelf", self.server.url());
        oracle::assert_equals_server(&url, &self.place.mirror(), "shelf");
        oracle::assert_clean(&self.place.mirror());
    }

    /// A catch-up in which the next request with `request` in its line meets `fault`.
    fn assert_survives(&self, request: &str, fault: Fault) {
        let fired = self.proxy.inject(request, fault.clone(), 1);
        plainfold::mirror(&self.url(), &self.place.mirror()).assert_code(0);
        assert_eq!(fired.times(), 1, "{fault:?} was not met");
        self.assert_equal();
    }
}

#[test]
fn a_feed_cut_anywhere_is_read_to_its_end() {
    for bytes in [0, 1, 500, 9_000] {
        Shelf::new().assert_survives("/_changes", Fault::CutAfter(bytes));
    }
}

#[test]
fn a_feed_cut_within_a_row_is_read_to_its_end() {
    Shelf::new().assert_survives("/_changes", Fault::CutAt(b"\"_rev\":\"1-".to_vec(), 30));
}

#[test]
fn a_row_that_is_garbage_once_is_read_again() {
    let garbage =
        Fault::Replace(b"\"changes\":[{\"rev\"".to_vec(), b"\"changes\":[[\"rev\"".to_vec());
    Shelf::new().assert_survives("/_changes", garbage);
}

#[test]
fn an_error_written_into_the_feed_is_not_taken_for_a_row() {
    // As CouchDB does when a shard fails while it answers.
    let row = b"\"title\":\"Volume 30\"".to_vec();
    let error = b"HTTP/1.1 500 In Err".to_vec();
    assert_eq!(row.len(), error.len());
    Shelf::new().assert_survives("/_changes", Fault::Replace(row, error));
}

#[test]
fn a_server_that_is_overloaded_once_is_asked_again() {
    for status in [
        "503 Service Unavailable",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "408 Request Timeout",
    ] {
        let answer =
            format!("HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{{}}");
        Shelf::new().assert_survives("/_changes", Fault::Answer(answer.into()));
    }
}

#[test]
fn an_answer_with_attachments_that_is_cut_is_asked_for_again() {
    let shelf = Shelf::new();
    // Small attachments may come in bulk or one by one.
    let bulk = shelf.proxy.inject("/_bulk_get", Fault::CutAfter(900), 1);
    let single = shelf.proxy.inject("/page.txt", Fault::CutAfter(100), 1);
    plainfold::mirror(&shelf.url(), &shelf.place.mirror()).assert_code(0);
    assert!(bulk.times() + single.times() > 0, "the fault was not met");
    shelf.assert_equal();
}

#[test]
fn a_large_attachment_that_is_cut_is_asked_for_again() {
    let shelf = Shelf::new();
    let scan: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    shelf.server.put_doc("shelf", "large", &json!({}));
    shelf.server.put_attachment("shelf", "large", "scan.bin", "application/octet-stream", &scan);
    let cut = shelf.proxy.inject("scan.bin", Fault::CutAfter(1_000_000), 1);
    let bulk = shelf.proxy.inject("/_bulk_get", Fault::CutAfter(1_000_000), 1);
    plainfold::mirror(&shelf.url(), &shelf.place.mirror()).assert_code(0);
    assert!(cut.times() + bulk.times() > 0, "the fault was not met");
    shelf.assert_equal();
}

#[test]
fn an_attachment_with_other_bytes_than_its_digest_is_asked_for_again() {
    let shelf = Shelf::new();
    shelf.server.put_doc("shelf", "large", &json!({}));
    let text = b"the right bytes ".repeat(100_000);
    shelf.server.put_attachment("shelf", "large", "scan.txt", "text/plain", &text);
    let wrong = Fault::Replace(b"the right bytes".to_vec(), b"the wrong bytes".to_vec());
    let fired = shelf.proxy.inject("scan.txt", wrong, 1);
    plainfold::mirror(&shelf.url(), &shelf.place.mirror()).assert_code(0);
    assert_eq!(fired.times(), 1);
    shelf.assert_equal();
}

#[test]
fn a_live_feed_that_falls_silent_without_an_end_is_opened_again() {
    let shelf = Shelf::new();
    let stalled = shelf.proxy.inject("feed=continuous", Fault::StallAfter(0), 1);
    let live = plainfold::live(&shelf.url(), &shelf.place.mirror());
    let mut tail = plainfold::tail(&shelf.place.mirror(), 0);
    shelf.server.put_doc("shelf", "in the silence", &json!({}));
    tail.wait_for_event(|event| event["documentId"] == "in the silence");
    assert_eq!(stalled.times(), 1);
    live.terminate();
    live.wait().assert_code(0);
    shelf.assert_equal();
}

#[test]
fn a_live_feed_that_is_cut_goes_on_where_it_was() {
    let shelf = Shelf::new();
    let live = plainfold::live(&shelf.url(), &shelf.place.mirror());
    let mut tail = plainfold::tail(&shelf.place.mirror(), 0);
    for round in 0..3 {
        shelf.proxy.take_requests();
        shelf.proxy.cut_all();
        shelf.server.put_doc("shelf", &format!("after cut {round}"), &json!({"round": round}));
        shelf.proxy.wait_for_request("/_changes");
        tail.wait_for_event(|event| event["documentId"] == format!("after cut {round}"));
    }
    live.terminate();
    live.wait().assert_code(0);
    shelf.assert_equal();
}

#[test]
fn while_a_server_is_down_it_is_waited_for_and_nothing_is_lost() {
    let shelf = Shelf::new();
    let live = plainfold::live(&shelf.url(), &shelf.place.mirror());
    let mut tail = plainfold::tail(&shelf.place.mirror(), 0);
    shelf.proxy.set_down(true);
    shelf.server.put_doc("shelf", "while down", &json!({}));
    shelf.server.delete_doc("shelf", "book:7");
    shelf.proxy.wait_until_refused(0);
    shelf.proxy.set_down(false);
    let mut awaited = vec!["while down", "book:7"];
    while !awaited.is_empty() {
        let event = tail.wait_for_event(|event| {
            awaited.contains(&event["documentId"].as_str().unwrap())
                && (event["documentId"] != "book:7" || event["deleted"] == true)
        });
        awaited.retain(|id| event["documentId"] != *id);
    }
    live.terminate();
    live.wait().assert_code(0);
    shelf.assert_equal();
}

#[test]
fn a_server_that_restarts_is_followed_again() {
    let mut shelf = Shelf::in_front_of(PouchServer::start_on_disk());
    let live = plainfold::live(&shelf.url(), &shelf.place.mirror());
    let mut tail = plainfold::tail(&shelf.place.mirror(), 0);
    shelf.server.stop();
    shelf.server.start_again();
    shelf.server.put_doc("shelf", "after the restart", &json!({}));
    tail.wait_for_event(|event| event["documentId"] == "after the restart");
    live.terminate();
    live.wait().assert_code(0);
    shelf.assert_equal();
}

/// Whether the status names a document among those that failed.
fn names_failure(status: &Value, id: &str) -> bool {
    let collections = status["collections"].as_array().unwrap().iter();
    let mut failed = collections.flat_map(|collection| collection["failed"].as_array().unwrap());
    failed.any(|failure| failure["documentId"] == id)
}

/// Asserts that a run mirrors all but one document, and names that one everywhere.
fn assert_fails_on(id: &str, source: &str, mirror: &Path) {
    let outcome = plainfold::mirror(source, mirror).assert_code(1);
    assert!(outcome.stderr.contains(id), "{id:?} is not named: {outcome}");
    let status = plainfold::status(mirror);
    assert!(names_failure(&status, id), "{id:?} is not among the failures of {status:#}");
}

fn beside(file: &str) -> Map<String, Value> {
    let entry = json!({"content_type": "text/plain", "file": file});
    [("note.txt".to_owned(), entry)].into_iter().collect()
}

#[test]
fn a_document_whose_attachment_is_missing_is_named_and_tried_again_until_it_is_there() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("before", json!({}), &[]);
    feed.put_with("lacks a file", json!({"n": 1}), beside("note.txt"));
    feed.put("after", json!({}), &[]);
    assert_fails_on("lacks a file", &feed.source(), &mirror);
    assert!(
        mirror.join("shelf/before").exists() && mirror.join("shelf/after").exists(),
        "the others are mirrored"
    );
    assert!(!mirror.join("shelf/lacks a file").exists(), "no half of a document");
    // Remembered, though the feed has nothing new.
    assert_nothing_written(&mirror, || assert_fails_on("lacks a file", &feed.source(), &mirror));
    feed.put("later", json!({}), &[]);
    assert_fails_on("lacks a file", &feed.source(), &mirror);

    fs::write(place.join("note.txt"), "here it is\n").unwrap();
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert!(!names_failure(&plainfold::status(&mirror), "lacks a file"));
    oracle::assert_equals_feed(feed.path(), &mirror);
    oracle::assert_clean(&mirror);
}

#[test]
fn a_document_whose_attachment_has_another_digest_fails_until_it_is_gone() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("whole", json!({}), &[("note.txt", b"right")]);
    let entry = json!({"content_type": "image/png", "data": "d3Jvbmc=", "digest": "md5-AAAAAAAAAAAAAAAAAAAAAA=="});
    feed.put_with("wrong bytes", json!({}), [("note.txt".to_owned(), entry)].into_iter().collect());
    assert_fails_on("wrong bytes", &feed.source(), &mirror);
    assert_fails_on("wrong bytes", &feed.source(), &mirror);
    feed.delete("wrong bytes");
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
}

#[test]
fn a_document_that_fails_keeps_its_older_version_until_the_newer_is_whole() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({"n": 1}), &[("note.txt", b"first")]);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    feed.put_with("book", json!({"n": 2}), beside("second.txt"));
    assert_nothing_written(&mirror, || assert_fails_on("book", &feed.source(), &mirror));
    fs::write(place.join("second.txt"), "second").unwrap();
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
}

#[test]
fn a_line_of_a_feed_that_is_not_json_is_named_and_the_rest_goes_on() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("before", json!({}), &[]);
    feed.raw(b"{\"seq\":7,\"id\":\"torn\",\"doc\":{\"_id\"\n\xff\xfe\n\n");
    feed.put("after", json!({}), &[]);
    let outcome = plainfold::mirror(&feed.source(), &mirror).assert_code(1);
    assert!(
        outcome.stderr.contains("shelf.ndjson"),
        "where the line stands is not said: {outcome}"
    );
    oracle::assert_equals_feed(feed.path(), &mirror);
}

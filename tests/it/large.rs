//! Sending documents with large attachments to a server: in parts if the server accepts them, as
//! base64 if not.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::pouchdb::{PouchServer, encoded};
use crate::env::proxy::{Fault, Proxy};
use crate::env::{Place, oracle, plainfold};
use crate::restore::{answer, report, requests, restore};

/// More than is held in memory.
fn large() -> Vec<u8> {
    (0..1_500_001_u64).map(|n| ((n * 7919) >> 3) as u8).collect()
}

/// A mirror of documents with large attachments.
fn mirrored(place: &Place, documents: &[(&str, &[&str])]) -> (PouchServer, PathBuf) {
    let source = PouchServer::start();
    source.create_db("shelf");
    let large = large();
    for (id, names) in documents {
        let mut attachments: Vec<(&str, &str, &[u8])> =
            names.iter().map(|name| (*name, "application/octet-stream", &large[..])).collect();
        attachments.push(("empty", "x/y", b""));
        attachments.push(("small.txt", "text/plain", b"small"));
        source.put_with_attachments("shelf", id, &json!({"n": 1}), &attachments);
    }
    plainfold::mirror(&format!("{}/shelf", source.url()), &place.mirror()).assert_code(0);
    (source, place.mirror())
}

fn assert_restored(target: &PouchServer, mirror: &Path) {
    oracle::assert_equals_server(&format!("{}/shelf", target.url()), mirror, "shelf");
}

#[test]
fn large_attachments_go_in_parts_and_arrive_intact() {
    let place = Place::new();
    let documents: [(&str, &[&str]); 2] =
        [("plans/ж 1", &["z.bin", "a b (1).bin"]), ("_design/big", &["x"])];
    let (_source, mirror) = mirrored(&place, &documents);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let url = target.url_through(proxy.address());
    restore(&mirror, &url, &[]).assert_code(0);
    let asked = proxy.take_requests();
    let puts = asked.iter().filter(|line| line.contains("?new_edits=false"));
    assert_eq!(puts.count(), 2, "{asked:?}");
    assert!(!asked.iter().any(|line| line.contains("_bulk_docs")), "{asked:?}");
    assert_restored(&target, &mirror);
    restore(&mirror, &url, &["--on-existing", "overwrite"]).assert_code(0);
    assert_eq!(requests(&proxy, "new_edits=false"), 0);
}

#[test]
fn what_a_url_or_the_server_does_not_take_in_parts_goes_as_base64() {
    let place = Place::new();
    // No URL carries the first id, and pouchdb-server unescapes the names of parts.
    let (_source, mirror) = mirrored(&place, &[("..", &["x"]), ("odd", &["50%22.bin", "ж"])]);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    restore(&mirror, &target.url_through(proxy.address()), &[]).assert_code(0);
    assert_eq!(requests(&proxy, "_bulk_docs"), 2);
    assert_restored(&target, &mirror);
}

#[test]
fn a_server_that_takes_no_parts_gets_base64_from_then_on() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place, &[("a", &["x"]), ("b", &["x"]), ("c", &["x"])]);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let fired = proxy.inject("new_edits=false", answer("415 Unsupported Media Type"), 3);
    restore(&mirror, &target.url_through(proxy.address()), &[]).assert_code(0);
    assert!((1..=3).contains(&fired.times()));
    assert_eq!(requests(&proxy, "_bulk_docs"), 3);
    assert_restored(&target, &mirror);
}

#[test]
fn a_large_document_goes_on_top_of_a_tombstone_and_ends_other_branches() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place, &[("gone", &["x"]), ("crossed", &["x"])]);
    let target = PouchServer::start();
    restore(&mirror, &target.url(), &["--ids", "gone"]).assert_code(0);
    target.delete_doc("shelf", "gone");
    let branches = ["7-a", "6-b"].map(|rev| json!({"_id": "crossed", "_rev": rev}));
    let docs = json!({"new_edits": false, "docs": branches}).to_string();
    target.request("POST", "/shelf/_bulk_docs", docs.as_bytes()).assert_ok();
    let over = ["--on-existing", "overwrite", "--format", "json"];
    let outcome = restore(&mirror, &target.url(), &over).assert_code(0);
    assert_eq!(report(&outcome)["collections"][0]["replace"], 2, "{outcome}");
    for id in ["gone", "crossed"] {
        let path = format!("/shelf/{id}?conflicts=true");
        let now = target.request("GET", &path, b"").assert_ok().json();
        assert_eq!((&now["n"], &now["_conflicts"]), (&json!(1), &Value::Null), "{now}");
        let path = format!("/shelf/{id}/{}", encoded("x"));
        assert!(target.request("GET", &path, b"").assert_ok().body == large(), "{id}");
    }
}

#[test]
fn a_server_that_answers_for_something_else_has_written_nothing() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place, &[("a", &["x"])]);
    for said in ["<html>sign in</html>", r#"{"ok":true,"id":"a","rev":"9-other"}"#] {
        let target = PouchServer::start();
        let proxy = Proxy::start(target.address());
        let head = "HTTP/1.1 201 Created\r\nConnection: close\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{said}", said.len());
        let fired = proxy.inject("new_edits=false", Fault::Answer(answer.into_bytes()), 9);
        let outcome = restore(&mirror, &target.url_through(proxy.address()), &[]).assert_code(1);
        assert!(fired.times() > 0);
        assert!(outcome.stdout.contains("shelf/a: "), "{outcome}");
    }
}

#[test]
fn a_large_document_that_the_server_refuses_fails_alone() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place, &[("a", &["x"]), ("b", &["x"]), ("c", &["x"])]);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let forbidden = proxy.inject("PUT /shelf/a?", answer("403 Forbidden"), 1);
    let unauthorized = proxy.inject("PUT /shelf/b?", answer("401 Unauthorized"), 1);
    let outcome = restore(&mirror, &target.url_through(proxy.address()), &[]).assert_code(1);
    assert_eq!((forbidden.times(), unauthorized.times()), (1, 1));
    for id in ["a", "b"] {
        assert!(
            outcome.stdout.contains(&format!("shelf/{id}: the server rejected it")),
            "{outcome}"
        );
        assert_eq!(target.rev("shelf", id), None);
    }
    assert!(target.rev("shelf", "c").is_some());
}

#[test]
fn a_file_that_changes_on_its_way_fails_alone() {
    let place = Place::new();
    let (_source, mirror) = mirrored(&place, &[("a", &["x"]), ("b", &["x"])]);
    // The checksum beside it is gone with the old file, and its length is right.
    let file = mirror.join("shelf/a/attachments/x");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &large()[1..]).unwrap();
    let target = PouchServer::start();
    let outcome = restore(&mirror, &target.url(), &[]).assert_code(1);
    assert!(outcome.stdout.contains("shelf/a: "), "{outcome}");
    assert_eq!(target.rev("shelf", "a"), None);
    assert!(target.rev("shelf", "b").is_some());
}

#[test]
fn a_document_whose_path_a_proxy_decodes_goes_as_base64_and_nothing_else_is_written() {
    let place = Place::new();
    let (_source, mirror) =
        mirrored(&place, &[("plans/a", &["x"]), ("plans/b", &["x"]), ("c", &["x"])]);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    // What CouchDB says to an attachment of a revision that it does not have.
    let fired = proxy.inject("PUT /shelf/plans%2Fa?", answer("409 Conflict"), 1);
    restore(&mirror, &target.url_through(proxy.address()), &[]).assert_code(0);
    assert_eq!(fired.times(), 1);
    let asked = proxy.take_requests();
    let count = |part: &str| asked.iter().filter(|line| line.contains(part)).count();
    assert!(
        asked
            .iter()
            .filter(|line| line.contains("PUT /shelf/plans"))
            .all(|line| line.contains("&rev="))
    );
    assert_eq!(count("PUT /shelf/c?"), 1);
    assert!((1..=2).contains(&count("_bulk_docs")), "{asked:?}");
    assert_restored(&target, &mirror);
}

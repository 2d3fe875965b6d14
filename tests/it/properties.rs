//! The properties with which a database was created, mirrored beside its documents and restored.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Proxy};
use crate::env::tree::assert_nothing_written;
use crate::env::{Place, plainfold};
use crate::restore::{report, restore};

fn limit(of: u64) -> Fault {
    said(&json!(of))
}

fn said(answer: &Value) -> Fault {
    let text = answer.to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    Fault::Answer(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).into_bytes())
}

fn record(mirror: &Path) -> PathBuf {
    mirror.join(".plainfold/collections/shelf.json")
}

fn recorded(mirror: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(record(mirror)).unwrap()).unwrap()
}

fn server() -> PouchServer {
    let server = PouchServer::start();
    server.create_db("shelf");
    server.put_doc("shelf", "a:1", &json!({"n": 1}));
    server
}

/// A mirror whose database is said to have been created so.
fn mirror_of(place: &Place, properties: &Value) -> PathBuf {
    let server = server();
    plainfold::mirror(&format!("{}/shelf", server.url()), &place.mirror()).assert_code(0);
    let mut text = recorded(&place.mirror());
    assert_eq!(text["properties"], Value::Null, "this server does not say");
    text["properties"] = properties.clone();
    fs::write(record(&place.mirror()), text.to_string()).unwrap();
    place.mirror()
}

#[test]
fn a_database_s_limit_of_revisions_is_recorded_and_followed() {
    let place = Place::new();
    let server = server();
    let proxy = Proxy::start(server.address());
    let url = format!("{}/shelf", server.url_through(proxy.address()));
    for (of, news) in [(77, true), (77, false), (5, true)] {
        let fired = proxy.inject("GET /shelf/_revs_limit", limit(of), 1);
        // As a CouchDB says it.
        let info = json!({"update_seq": 1, "doc_count": 1, "disk_format_version": 8,
            "props": {"partitioned": true}});
        proxy.inject("GET /shelf HTTP", said(&info), 2);
        let run = || {
            plainfold::mirror(&url, &place.mirror()).assert_code(0);
        };
        if news {
            run()
        } else {
            assert_nothing_written(&place.mirror(), run)
        }
        assert_eq!(fired.times(), 1);
        let expected = json!({"partitioned": true, "revs_limit": of});
        assert_eq!(recorded(&place.mirror())["properties"], expected);
    }
    // A server that does not say leaves what is known.
    plainfold::mirror(&url, &place.mirror()).assert_code(0);
    assert_eq!(recorded(&place.mirror())["properties"]["revs_limit"], 5);
}

#[test]
fn a_new_database_is_created_as_the_source_s_was_and_an_old_one_is_left_alone() {
    let place = Place::new();
    let mirror = mirror_of(&place, &json!({"partitioned": true, "revs_limit": 77}));
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let url = target.url_through(proxy.address());
    proxy.inject("GET /shelf/_revs_limit", limit(1000), 1);
    let set = proxy.inject("PUT /shelf/_revs_limit", limit(77), 1);
    let outcome = restore(&mirror, &url, &["--format", "json"]).assert_code(1);
    assert_eq!(set.times(), 1, "{outcome}");
    let asked = proxy.take_requests();
    assert!(asked.iter().any(|line| line.starts_with("PUT /shelf?partitioned=true ")), "{asked:?}");
    // This server ignores partitioning; the documents are restored anyway.
    let report = report(&outcome);
    assert_eq!(report["failed"], 1, "{outcome}");
    assert!(outcome.stdout.contains("is not partitioned"), "{outcome}");
    assert!(target.rev("shelf", "a:1").is_some());
    // Of a database that exists nothing is said or changed.
    restore(&mirror, &url, &[]).assert_code(0);
    let asked = proxy.take_requests();
    assert!(!asked.iter().any(|line| line.contains("_revs_limit")), "{asked:?}");
}

#[test]
fn what_the_target_does_not_take_is_named_with_what_to_do() {
    let place = Place::new();
    let mirror = mirror_of(&place, &json!({"revs_limit": 77}));
    let target = PouchServer::start();
    let outcome = restore(&mirror, &target.url(), &[]).assert_code(1);
    assert!(outcome.stdout.contains("`_revs_limit` of 77"), "{outcome}");
    assert!(target.rev("shelf", "a:1").is_some());

    let place = Place::new();
    let mirror = mirror_of(&place, &json!({"partitioned": true, "revs_limit": 1000}));
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let refused = crate::restore::answer("400 Bad Request");
    let fired = proxy.inject("PUT /shelf?partitioned=true", refused, 1);
    let outcome = restore(&mirror, &target.url_through(proxy.address()), &[]).assert_code(1);
    assert_eq!(fired.times(), 1);
    assert!(outcome.stdout.contains("Create a database of this name"), "{outcome}");
    // As the mirror recorded it.
    target.create_db("shelf");
    restore(&mirror, &target.url(), &[]).assert_code(0);
}

#[test]
fn a_record_of_an_older_version_is_read_and_says_nothing() {
    let place = Place::new();
    let mirror = mirror_of(&place, &Value::Null);
    let mut text = recorded(&mirror);
    text.as_object_mut().unwrap().remove("properties");
    fs::write(record(&mirror), text.to_string()).unwrap();
    let target = PouchServer::start();
    restore(&mirror, &target.url(), &[]).assert_code(0);
}

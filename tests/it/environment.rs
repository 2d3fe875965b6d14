//! The test environment itself: a proxy that injects faults, a server that keeps what it receives.

use serde_json::json;

use crate::env::http;
use crate::env::library;
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Proxy};

const TARGET: &str = "/shelf/_changes?include_docs=true";

fn server_with_documents() -> PouchServer {
    let server = PouchServer::start();
    server.create_db("shelf");
    for number in 0..20 {
        server.put_doc("shelf", &format!("book:{number}"), &json!({"n": number}));
    }
    server
}

fn body(proxy: &Proxy) -> Vec<u8> {
    http::request(proxy.address(), "GET", TARGET, &[], b"").unwrap().body
}

#[test]
fn the_proxy_passes_answers_on_and_writes_requests_down() {
    let server = server_with_documents();
    let proxy = Proxy::start(server.address());
    let straight = server.request("GET", TARGET, b"").assert_ok().body;
    assert_eq!(body(&proxy), straight);
    assert_eq!(proxy.take_requests(), [format!("GET {TARGET} HTTP/1.1")]);
    let keys = br#"{"keys":["book:3"]}"#;
    let json = [("Content-Type", "application/json")];
    let answer = http::request(proxy.address(), "POST", "/shelf/_all_docs", &json, keys).unwrap();
    assert_eq!(answer.assert_ok().json()["rows"][0]["id"], "book:3");
}

#[test]
fn the_proxy_cuts_and_replaces_once() {
    let server = server_with_documents();
    let proxy = Proxy::start(server.address());
    let whole = body(&proxy);

    let cut = proxy.inject("/_changes", Fault::CutAfter(300), 1);
    let torn = http::request(proxy.address(), "GET", TARGET, &[], b"");
    assert!(torn.is_err() || torn.unwrap().body.len() < whole.len());
    assert_eq!(cut.times(), 1);

    let cut = proxy.inject("/_changes", Fault::CutAt(b"\"changes\"".to_vec(), 5), 1);
    let torn = http::request(proxy.address(), "GET", TARGET, &[], b"");
    assert!(torn.is_err() || torn.unwrap().body.len() < whole.len());
    assert_eq!(cut.times(), 1);

    let replace = Fault::Replace(b"\"book:7\"".to_vec(), b"\"look:7\"".to_vec());
    let replaced = proxy.inject("/_changes", replace, 1);
    assert_ne!(body(&proxy), whole);
    assert_eq!(replaced.times(), 1);

    let answered = proxy.inject("/_changes", Fault::Answer(b"HTTP/1.1 503 No\r\n\r\n".to_vec()), 1);
    assert_eq!(http::request(proxy.address(), "GET", TARGET, &[], b"").unwrap().status, 503);
    assert_eq!(answered.times(), 1);
    assert_eq!(body(&proxy), whole, "each fault is met once");
}

#[test]
fn while_the_proxy_is_down_it_refuses() {
    let server = server_with_documents();
    let proxy = Proxy::start(server.address());
    let whole = body(&proxy);
    proxy.set_down(true);
    assert!(http::request(proxy.address(), "GET", TARGET, &[], b"").is_err());
    proxy.wait_until_refused(0);
    proxy.set_down(false);
    assert_eq!(body(&proxy), whole);
}

#[test]
fn a_server_on_disk_keeps_its_databases_over_a_restart_and_one_in_memory_does_not() {
    for (mut server, kept) in [(PouchServer::start_on_disk(), true), (PouchServer::start(), false)]
    {
        server.create_db("shelf");
        let rev = server.put_doc("shelf", "book", &json!({}));
        server.start_again();
        if kept {
            assert_eq!(server.rev("shelf", "book"), Some(rev));
        } else {
            assert_eq!(server.request("GET", "/shelf", b"").status, 404);
        }
    }
}

#[test]
fn a_server_takes_the_whole_library() {
    let server = PouchServer::start();
    server.load_feed(&library());
    let counts = ["books", "loans", "members"].map(|db| {
        let info = server.request("GET", &format!("/{db}"), b"").assert_ok().json();
        info["doc_count"].as_u64().unwrap()
    });
    assert_eq!(counts.iter().sum::<u64>(), 389, "{counts:?}");
    let attachment = server.request("GET", "/members/about%3Alibrary/plans/legend.txt", b"");
    assert!(String::from_utf8_lossy(&attachment.assert_ok().body).contains("shelf"));
}

#[test]
fn a_server_with_an_admin_shows_a_closed_database_to_nobody_else() {
    let server = PouchServer::start_with_admin("ana", "open sesame");
    server.create_db("shelf");
    server.close_db("shelf");
    server.put_doc("shelf", "book", &json!({}));
    let stranger = http::request(server.address(), "GET", "/shelf", &[], b"").unwrap();
    assert_eq!(stranger.status, 401);
}

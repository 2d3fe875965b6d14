//! The steps before the first document of a restore: the database, its security object, and
//! replications that must not start.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::pouchdb::PouchServer;
use crate::env::proxy::{Fault, Proxy};
use crate::env::{Place, plainfold};
use crate::restore::{answer, report, requests, restore};

/// A mirror of a database that only the staff may read.
fn closed_mirror(place: &Place) -> PathBuf {
    let source = PouchServer::start();
    source.create_db("shelf");
    for number in 0..3 {
        source.put_doc("shelf", &format!("book:{number}"), &json!({"n": number}));
    }
    source.put_doc("shelf", "_design/by", &json!({"views": {}}));
    secure(&source, "shelf", &staff());
    plainfold::mirror(&format!("{}/shelf", source.url()), &place.mirror()).assert_code(0);
    place.mirror()
}

fn staff() -> Value {
    json!({"members": {"names": [], "roles": ["staff"]}})
}

fn secure(server: &PouchServer, db: &str, security: &Value) {
    let path = format!("/{db}/_security");
    server.request("PUT", &path, security.to_string().as_bytes()).assert_ok();
}

fn security(server: &PouchServer, db: &str) -> Value {
    server.request("GET", &format!("/{db}/_security"), b"").assert_ok().json()
}

fn exists(server: &PouchServer, db: &str) -> bool {
    server.request("GET", &format!("/{db}"), b"").status == 200
}

fn ids(server: &PouchServer, db: &str) -> Vec<String> {
    let rows = server.request("GET", &format!("/{db}/_all_docs"), b"").assert_ok().json();
    let rows = rows["rows"].as_array().unwrap().iter();
    rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_security_object_is_there_before_the_first_document() {
    let place = Place::new();
    let mirror = closed_mirror(&place);
    for more in [&[][..], &["--ids", "book:1"]] {
        let target = PouchServer::start();
        let proxy = Proxy::start(target.address());
        // The restore ends before it has written a document.
        let fired = proxy.inject("_bulk_docs", Fault::StallAfter(0), 1);
        let url = target.url_through(proxy.address());
        let mut arguments = vec!["restore", mirror.to_str().unwrap(), &url];
        arguments.extend(more);
        let mut running = plainfold::spawn(arguments);
        fired.wait();
        running.kill();
        assert!(running.wait().was_killed());
        assert_eq!(fired.times(), 1);
        assert_eq!(security(&target, "shelf"), staff(), "{more:?}");
        let asked = proxy.take_requests();
        let place = |part: &str| asked.iter().position(|line| line.contains(part)).unwrap();
        assert!(place("PUT /shelf/_security") < place("_bulk_docs"), "{asked:?}");
        // What was begun is continued, and the equal object costs no write.
        let second = restore(&mirror, &url, more).assert_code(0);
        assert_eq!(requests(&proxy, "PUT "), 0, "{second}");
    }
}

#[test]
fn another_security_object_is_refused_kept_or_overwritten() {
    let place = Place::new();
    let mirror = closed_mirror(&place);
    let target = PouchServer::start();
    let theirs = json!({"members": {"roles": ["everybody"]}});
    for more in [&[][..], &["--ids", "book:1"]] {
        let _gone = target.request("DELETE", "/shelf", b"");
        target.create_db("shelf");
        secure(&target, "shelf", &theirs);
        let refused = restore(&mirror, &target.url(), more).assert_code(2);
        assert!(refused.stderr.contains("--on-existing"), "{refused}");
        assert_eq!((security(&target, "shelf"), ids(&target, "shelf").len()), (theirs.clone(), 0));
        let kept = [more, &["--on-existing", "skip"]].concat();
        let said = restore(&mirror, &target.url(), &kept).assert_code(0);
        assert!(said.stdout.contains("differs from the mirror's and was left as it is"), "{said}");
        assert_eq!(security(&target, "shelf"), theirs);
        assert!(!ids(&target, "shelf").is_empty());
        let over = [more, &["--on-existing", "overwrite", "--format", "json"]].concat();
        let written = restore(&mirror, &target.url(), &over).assert_code(0);
        assert_eq!(report(&written)["collections"][0]["security"], true, "{written}");
        assert_eq!(security(&target, "shelf"), staff());
    }
}

#[test]
fn a_database_that_was_just_created_gets_the_mirrors_object() {
    let place = Place::new();
    let mirror = closed_mirror(&place);
    let target = PouchServer::start();
    target.create_db("shelf");
    restore(&mirror, &target.url(), &[]).assert_code(0);
    assert_eq!((security(&target, "shelf"), ids(&target, "shelf").len()), (staff(), 4));
}

#[test]
fn where_the_object_cannot_be_written_no_document_is() {
    let place = Place::new();
    let mirror = closed_mirror(&place);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let fired = proxy.inject("PUT /shelf/_security", answer("403 Forbidden"), 1);
    let url = target.url_through(proxy.address());
    let outcome = restore(&mirror, &url, &[]).assert_code(1);
    assert_eq!((fired.times(), requests(&proxy, "_bulk_docs")), (1, 0));
    assert!(outcome.stdout.contains("shelf/_security.json: "), "{outcome}");
    assert!(ids(&target, "shelf").is_empty());
}

#[test]
fn users_are_restored_where_their_object_is_equal_and_named_where_it_differs() {
    let place = Place::new();
    let source = PouchServer::start();
    source.create_db("people");
    let ann = json!({"type": "user", "name": "ann", "roles": []});
    source.put_doc("people", "org.couchdb.user:ann", &ann);
    secure(&source, "people", &staff());
    let mirror = place.mirror();
    plainfold::mirror(&format!("{}/people", source.url()), &mirror).assert_code(0);
    let target = PouchServer::start();
    let as_users = ["--as", "people=_users", "--on-existing", "overwrite"];
    secure(&target, "_users", &staff());
    let proxy = Proxy::start(target.address());
    let url = target.url_through(proxy.address());
    restore(&mirror, &url, &as_users).assert_code(0);
    assert_eq!(requests(&proxy, "PUT "), 0);
    secure(&target, "_users", &json!({}));
    let fired = proxy.inject("PUT /_users/_security", answer("403 Forbidden"), 1);
    let differing = restore(&mirror, &url, &as_users).assert_code(1);
    assert_eq!(fired.times(), 1);
    assert!(differing.stdout.contains("differs from the mirror's"), "{differing}");
    assert!(ids(&target, "_users").contains(&"org.couchdb.user:ann".to_owned()));
}

#[test]
fn a_damaged_security_object_closes_the_new_database_to_all_but_admins() {
    let place = Place::new();
    let mirror = closed_mirror(&place);
    fs::write(mirror.join("shelf/_security.json"), "{\"members\":\n").unwrap();
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let url = target.url_through(proxy.address());
    let outcome = restore(&mirror, &url, &[]).assert_code(1);
    assert!(outcome.stdout.contains("shelf/_security.json"), "{outcome}");
    let admins = json!({"roles": ["_admin"]});
    assert_eq!(security(&target, "shelf"), json!({"admins": admins, "members": admins}));
}

#[test]
fn a_security_object_that_was_never_mirrored_closes_the_new_database_to_all_but_admins() {
    let admins = json!({"roles": ["_admin"]});
    let closed = json!({"admins": admins, "members": admins});
    // Only a CouchDB reports how a database was created, and it always has a security object.
    for (properties, code) in [(json!({"revs_limit": 1000}), 1), (Value::Null, 0)] {
        let place = Place::new();
        let mirror = never_secured_mirror(&place, &properties);
        let target = PouchServer::start();
        let outcome = restore(&mirror, &target.url(), &[]).assert_code(code);
        let said = outcome.stdout.contains("the mirror holds no security object of it");
        assert_eq!(
            (said, security(&target, "shelf") == closed),
            (code == 1, code == 1),
            "{outcome}"
        );
        assert_eq!(ids(&target, "shelf").len(), 1);
    }
}

/// A mirror without a security object.
fn never_secured_mirror(place: &Place, properties: &Value) -> PathBuf {
    let (source, mirror) = (PouchServer::start(), place.mirror());
    source.create_db("shelf");
    source.put_doc("shelf", "book", &json!({}));
    let proxy = Proxy::start(source.address());
    let fired = proxy.inject("GET /shelf/_security", answer("403 Forbidden"), 1);
    let url = format!("{}/shelf", source.url_through(proxy.address()));
    let _outcome = plainfold::mirror(&url, &mirror);
    assert_eq!(fired.times(), 1);
    assert!(!mirror.join("shelf/_security.json").exists());
    let record = mirror.join(".plainfold/collections/shelf.json");
    let mut text: Value = serde_json::from_str(&fs::read_to_string(&record).unwrap()).unwrap();
    text["properties"] = properties.clone();
    fs::write(&record, text.to_string()).unwrap();
    mirror
}

#[test]
fn replications_do_not_start_unless_they_are_asked_for() {
    let place = Place::new();
    let mirror = closed_mirror(&place);
    let target = PouchServer::start();
    let name = "jobs/_replicator";
    let path = "jobs%2F_replicator";
    let rename = ["--as", &format!("shelf={name}"), "--format", "json"];
    let only = [&rename[..], &["--ids", "book:*"]].concat();
    let outcome = restore(&mirror, &target.url(), &only).assert_code(0);
    let counts = &report(&outcome)["collections"][0];
    assert_eq!((&counts["replications"], &counts["create"]), (&json!(3), &json!(0)), "{outcome}");
    assert!(!exists(&target, path), "there was nothing to write");
    let said = restore(&mirror, &target.url(), &rename[..2]).assert_code(0);
    assert!(said.stdout.contains("--with-replications"), "{said}");
    assert_eq!(ids(&target, path), ["_design/by"]);
    let all = [&rename[..], &["--with-replications"]].concat();
    restore(&mirror, &target.url(), &all).assert_code(0);
    assert_eq!(ids(&target, path).len(), 4);
}

#[test]
fn a_restore_of_no_documents_creates_no_database() {
    let place = Place::new();
    let mirror = closed_mirror(&place);
    let target = PouchServer::start();
    let proxy = Proxy::start(target.address());
    let url = target.url_through(proxy.address());
    let _outcome = restore(&mirror, &url, &["--ids", "nothing"]);
    assert_eq!(requests(&proxy, "PUT "), 0);
    assert!(!exists(&target, "shelf"));
}

/// A document with this many branches at the target, above and below the mirror's own.
fn branched(target: &PouchServer, id: &str, count: usize) {
    let branch = |number: usize| {
        let generation = 1 + number % 5;
        let ids: Vec<String> =
            (0..generation).map(|at| format!("{number:04x}{at:04x}")).rev().collect();
        let mut doc = json!({"_id": id, "_rev": format!("{generation}-{}", ids[0]), "v": "theirs",
            "_revisions": {"start": generation, "ids": ids}});
        if number % 2 == 1 {
            doc["_deleted"] = json!(true);
        }
        doc
    };
    let docs: Vec<_> = (0..count).map(branch).collect();
    let docs = json!({"new_edits": false, "docs": docs}).to_string();
    target.request("POST", "/shelf/_bulk_docs", docs.as_bytes()).assert_ok();
}

fn open(target: &PouchServer, id: &str) -> Value {
    target.request("GET", &format!("/shelf/{id}?conflicts=true"), b"").assert_ok().json()
}

#[test]
fn overwriting_wins_over_hundreds_of_branches_at_once_and_then_writes_nothing() {
    let place = Place::new();
    let mirror = closed_mirror(&place);
    let target = PouchServer::start();
    target.create_db("shelf");
    branched(&target, "book:0", 600);
    branched(&target, "book:1", 80);
    let proxy = Proxy::start(target.address());
    let url = target.url_through(proxy.address());
    let over = ["--on-existing", "overwrite"];
    restore(&mirror, &url, &over).assert_code(0);
    assert_eq!(requests(&proxy, "_bulk_docs"), 1, "all branches end at once");
    for (id, n) in [("book:0", 0), ("book:1", 1), ("book:2", 2)] {
        let now = open(&target, id);
        assert_eq!((&now["n"], &now["_conflicts"]), (&json!(n), &Value::Null), "{now}");
        assert_eq!(now["_rev"], own_revision(&mirror, id));
    }
    let end = || target.request("GET", "/shelf", b"").assert_ok().json()["update_seq"].clone();
    let before = end();
    restore(&mirror, &url, &over).assert_code(0);
    assert_eq!((requests(&proxy, "_bulk_docs"), end()), (0, before));
}

fn own_revision(mirror: &Path, id: &str) -> Value {
    let folder = mirror.join("shelf").join(id.replace(':', "%3A"));
    let body = fs::read_to_string(folder.join("document.json")).unwrap();
    serde_json::from_str::<Value>(&body).unwrap()["_rev"].take()
}

#[test]
fn overwriting_keeps_the_conflicts_that_the_mirror_holds() {
    let place = Place::new();
    let source = PouchServer::start();
    source.create_db("shelf");
    branched(&source, "busy", 40);
    let url = format!("{}/shelf", source.url());
    let mirror = place.mirror();
    plainfold::run(["mirror", &url, mirror.to_str().unwrap(), "--revisions"]).assert_code(0);
    let before = open(&source, "busy");
    // Others come, the winner is deleted, and so one of the mirror's conflicts wins.
    let winner = before["_rev"].as_str().unwrap().to_owned();
    source.request("DELETE", &format!("/shelf/busy?rev={winner}"), b"").assert_ok();
    let stranger = json!({"new_edits": false, "docs": [{"_id": "busy", "_rev": "9-stranger"}]});
    source.request("POST", "/shelf/_bulk_docs", stranger.to_string().as_bytes()).assert_ok();
    let over = ["--on-existing", "overwrite"];
    restore(&mirror, &source.url(), &over).assert_code(0);
    let after = open(&source, "busy");
    assert_eq!(after["_conflicts"], before["_conflicts"], "{after}");
    assert_eq!(after["v"], before["v"]);
    let end = || source.request("GET", "/shelf", b"").assert_ok().json()["update_seq"].clone();
    let at = end();
    restore(&mirror, &source.url(), &over).assert_code(0);
    assert_eq!(end(), at);
}

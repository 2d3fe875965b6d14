//! Everything that a copy of winners loses: losing revisions, histories, tombstones, security
//! objects. Kept, restored, and proven by the server's own `_revs_diff`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::plainfold::{Outcome, Stream};
use crate::env::pouchdb::{PouchServer, attach};
use crate::env::proxy::{Fault, Proxy};
use crate::env::tree::assert_nothing_written;
use crate::env::{Place, plainfold};

const KEEPING: [&str; 3] = ["--revisions", "--deleted", "keep"];

fn mirror(url: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let directory = mirror.display().to_string();
    plainfold::run(["mirror", url, &directory].into_iter().chain(more.iter().copied()))
}

/// Writes revisions as a replication would.
fn write(server: &PouchServer, db: &str, docs: &[Value]) {
    let body = json!({"new_edits": false, "docs": docs}).to_string();
    server.request("POST", &format!("/{db}/_bulk_docs"), body.as_bytes()).assert_ok();
}

/// One revision with its history, newest first.
fn revision(id: &str, ids: &[&str], mut body: Value) -> Value {
    body["_id"] = json!(id);
    body["_rev"] = json!(format!("{}-{}", ids.len(), ids[0]));
    body["_revisions"] = json!({"start": ids.len(), "ids": ids});
    body
}

fn a_library_in_conflict(server: &PouchServer) {
    server.create_db("shelf");
    let mut with_attachment = revision("torn", &["b2", "a1"], json!({"side": "left"}));
    attach(&mut with_attachment, &[("a/b ж", "text/plain", b"only in the losing branch")]);
    write(
        server,
        "shelf",
        &[
            revision("calm", &["a1"], json!({"n": 1})),
            revision("old", &["d4", "c3", "b2", "a1"], json!({"n": 4})),
            revision("torn", &["c3", "b1", "a1"], json!({"side": "right"})),
            with_attachment,
            revision("torn", &["d2", "a1"], json!({"_deleted": true, "why": "merged"})),
            revision("gone", &["b2", "a1"], json!({"_deleted": true, "why": "sold"})),
            revision("gone", &["c2", "a1"], json!({"_deleted": true})),
        ],
    );
    let security =
        json!({"admins": {"names": ["ana"], "roles": []}, "members": {"roles": ["staff"]}});
    server.request("PUT", "/shelf/_security", security.to_string().as_bytes()).assert_ok();
}

/// Every leaf of every document of `shelf`, by its feed.
fn leaves(server: &PouchServer, db: &str) -> Value {
    let feed = server.request("GET", &format!("/{db}/_changes?style=all_docs"), b"").json();
    let mut leaves = json!({});
    for row in feed["results"].as_array().unwrap() {
        let revs: Vec<&Value> =
            row["changes"].as_array().unwrap().iter().map(|change| &change["rev"]).collect();
        leaves[row["id"].as_str().unwrap()] = json!(revs);
    }
    leaves
}

#[track_caller]
fn assert_knows_all(server: &PouchServer, db: &str, leaves: &Value) {
    assert!(leaves.as_object().unwrap().len() >= 4, "{leaves}");
    let target = format!("/{db}/_revs_diff");
    let missing = server.request("POST", &target, leaves.to_string().as_bytes()).json();
    assert_eq!(missing, json!({}), "the restored database lacks these");
}

#[test]
fn every_leaf_history_and_tombstone_is_kept_put_back_and_missed_by_nobody() {
    let place = Place::new();
    let server = PouchServer::start();
    a_library_in_conflict(&server);
    let url = format!("{}/shelf", server.url());
    mirror(&url, &place.mirror(), &KEEPING).assert_code(0);
    let shelf = place.mirror().join("shelf");
    let read = |path: &str| fs::read_to_string(shelf.join(path)).unwrap_or_default();
    assert_eq!(read("torn/conflicts/2-b2/attachments/a%2Fb ж"), "only in the losing branch");
    assert!(read("torn/conflicts/2-d2/document.json").contains(r#""why":"merged""#));
    assert_eq!(read("torn/history.json"), "{\"start\":3,\"ids\":[\"c3\",\"b1\",\"a1\"]}\n");
    assert!(
        !shelf.join("calm/history.json").exists() && !shelf.join("gone/document.json").exists()
    );
    assert!(shelf.join("gone/deleted.json").exists() && shelf.join("gone/conflicts").exists());
    assert_nothing_written(&place.mirror(), || {
        mirror(&url, &place.mirror(), &KEEPING).assert_code(0)
    });
    let verified = plainfold::run(["verify", place.mirror().to_str().unwrap()]).assert_code(0);
    assert!(verified.stdout.contains("3 documents"), "{verified}");
    assert!(verified.stdout.contains("1 tombstone"), "{verified}");

    let directory = place.mirror().display().to_string();
    let restore = || plainfold::run(["restore", &directory, &server.url(), "--as", "shelf=again"]);
    let said = restore().assert_code(0);
    assert!(said.stdout.contains("3 documents created"), "{said}");
    assert!(said.stdout.contains("1 tombstone, 3 losing revisions, its security object"), "{said}");
    assert_knows_all(&server, "again", &leaves(&server, "shelf"));
    assert_eq!(leaves(&server, "shelf").to_string(), leaves(&server, "again").to_string());
    let security = |db| server.request("GET", &format!("/{db}/_security"), b"").json();
    assert_eq!(security("again"), security("shelf"));
    let said = restore().assert_code(0);
    assert!(said.stdout.contains("0 documents created, 0 replaced, 4 skipped"), "{said}");

    // The restored database mirrors to the same tree.
    let second = place.join("second");
    mirror(&format!("{}/again", server.url()), &second, &KEEPING).assert_code(0);
    for path in
        ["torn/conflicts/2-b2/attachments/a%2Fb ж", "torn/history.json", "gone/deleted.json"]
    {
        assert_eq!(fs::read(second.join("again").join(path)).unwrap(), read(path).into_bytes());
    }
}

#[test]
fn what_was_not_kept_from_the_first_day_is_fetched_when_it_is_asked_for() {
    let place = Place::new();
    let server = PouchServer::start();
    a_library_in_conflict(&server);
    let url = format!("{}/shelf", server.url());
    mirror(&url, &place.mirror(), &[]).assert_code(0);
    let shelf = place.mirror().join("shelf");
    assert!(!shelf.join("torn/conflicts").exists() && !shelf.join("gone").exists());
    let said = mirror(&url, &place.mirror(), &KEEPING).assert_code(0);
    assert!(said.stderr.contains("all revisions are kept from now on"), "{said}");
    assert!(shelf.join("torn/conflicts/2-b2/document.json").exists());
    assert!(shelf.join("gone/deleted.json").exists());
    // And no longer kept, a tombstone goes when everything is compared.
    write(&server, "shelf", &[revision("gone", &["d3", "c2", "a1"], json!({"_deleted": true}))]);
    let thin = ["--revisions=false", "--deleted=remove", "--discard"];
    mirror(&url, &place.mirror(), &thin).assert_code(0);
    assert!(!shelf.join("gone").exists());
}

#[test]
fn a_conflict_that_comes_and_goes_is_followed_live() {
    let place = Place::new();
    let directory = place.mirror();
    let server = PouchServer::start();
    a_library_in_conflict(&server);
    let url = format!("{}/shelf", server.url());
    let mut running = plainfold::spawn(
        ["mirror", &url, &directory.display().to_string(), "--live"].into_iter().chain(KEEPING),
    );
    let conflicts = directory.join("shelf/calm/conflicts");
    running.wait_for_line(Stream::Stderr, |line| line.contains("following "));
    let mut tail = plainfold::tail(&directory, 0);
    tail.wait_for_event(|event| event["documentId"] == "calm");
    write(&server, "shelf", &[revision("calm", &["0b"], json!({"n": "other"}))]);
    let event = tail.wait_for_event(|event| event["documentId"] == "calm");
    assert!(conflicts.join("1-0b/document.json").exists(), "{event}");
    write(&server, "shelf", &[revision("calm", &["0c", "0b"], json!({"_deleted": true}))]);
    tail.wait_for_event(|event| event["documentId"] == "calm");
    assert!(!conflicts.join("1-0b").exists() && conflicts.join("2-0c/document.json").exists());
    running.terminate();
    running.wait().assert_code(0);
}

#[test]
fn a_revision_that_cannot_be_had_fails_its_document_alone_and_is_asked_for_again() {
    let place = Place::new();
    let server = PouchServer::start();
    a_library_in_conflict(&server);
    let proxy = Proxy::start(server.address());
    let url = format!("{}/shelf", server.url_through(proxy.address()));
    let answer = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    let overloaded = Fault::Answer(answer.into());
    let fired = proxy.inject("/_bulk_get?revs=true", overloaded, 1);
    mirror(&url, &place.mirror(), &KEEPING).assert_code(0);
    assert_eq!(fired.times(), 1);
    let torn = place.mirror().join("shelf/torn");
    assert!(torn.join("conflicts/2-b2/document.json").exists());
    // A completely damaged branch is reported and not restored; everything else is.
    fs::write(torn.join("conflicts/2-d2/document.json"), "{\"_id\":\"torn\",\"_rev\":\"9-x\"}\n")
        .unwrap();
    let directory = place.mirror().display().to_string();
    let verified = plainfold::run(["verify", &directory]).assert_code(1);
    assert!(verified.stdout.contains("shelf/torn/conflicts/2-d2/document.json"), "{verified}");
    let said = plainfold::run(["restore", &directory, &server.url(), "--as", "shelf=again"])
        .assert_code(1);
    assert!(said.stdout.contains("torn/conflicts/2-d2"), "{said}");
    assert!(
        said.stdout.contains("3 documents created") && said.stdout.contains("2 losing"),
        "{said}"
    );
}

#[test]
fn a_recorded_feed_has_no_revisions_to_keep_and_says_so() {
    let place = Place::new();
    let source = format!("feed:{}", crate::env::library().display());
    let said = mirror(&source, &place.mirror(), &["--revisions"]).assert_code(2);
    assert!(said.stderr.contains("--revisions needs a server"), "{said}");
    mirror(&source, &place.mirror(), &["--deleted", "keep"]).assert_code(0);
    let kept = walkdir::WalkDir::new(place.mirror()).into_iter().filter_map(Result::ok);
    assert!(kept.filter(|entry| entry.file_name() == "deleted.json").count() > 0);
    // They go through a feed, and come back as they were.
    let directory = place.mirror().display().to_string();
    let feed = format!("feed:{}", place.join("back.ndjson").display());
    plainfold::run(["restore", &directory, &feed]).assert_code(0);
    let second = place.join("second");
    mirror(&feed, &second, &["--deleted", "keep"]).assert_code(0);
    let same = plainfold::run(["diff", &directory, second.to_str().unwrap()]).assert_code(0);
    assert!(same.stdout.contains("\n0 differences"), "{same}");
}

#[test]
fn what_is_kept_beside_the_winners_is_repaired_too() {
    let place = Place::new();
    let server = PouchServer::start();
    a_library_in_conflict(&server);
    let url = format!("{}/shelf", server.url());
    mirror(&url, &place.mirror(), &KEEPING).assert_code(0);
    let shelf = place.mirror().join("shelf");
    let damaged = [
        "torn/conflicts/2-b2/attachments/a%2Fb ж",
        "torn/conflicts/2-d2/document.json",
        "old/history.json",
        "gone/deleted.json",
    ];
    let before = damaged.map(|path| fs::read(shelf.join(path)).unwrap());
    for path in damaged {
        // Written in place, so that the checksum beside it stays as it was.
        let file = fs::OpenOptions::new().write(true).open(shelf.join(path)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"#", 0).unwrap();
    }
    let directory = place.mirror().display().to_string();
    plainfold::run(["verify", &directory]).assert_code(1);
    let repair = ["verify", &directory, "--repair", "--against", &url, "--format", "json"];
    let said: Value = serde_json::from_str(&plainfold::run(repair).assert_code(0).stdout).unwrap();
    assert_eq!(said["certificate"]["equal"], true, "a tombstone is no document: {said}");
    let collection = &said["collections"][0];
    assert_eq!((&collection["documents"], &collection["tombstones"]), (&json!(3), &json!(1)));
    let repaired = said["repaired"].as_array().unwrap();
    let outcomes: Vec<_> = repaired.iter().map(|one| (&one["id"], &one["outcome"])).collect();
    for id in ["torn", "old", "gone"] {
        assert!(outcomes.contains(&(&json!(id), &json!("repaired"))), "{said}");
    }
    plainfold::run(["verify", &directory]).assert_code(0);
    for (path, before) in damaged.iter().zip(before) {
        assert_eq!(fs::read(shelf.join(path)).unwrap(), before, "{path}");
    }
    assert!(!shelf.join("gone/document.json").exists());
    assert!(shelf.join("torn/history.json").exists());
}

#[test]
fn what_is_kept_beside_the_winners_is_compared_by_bytes_too() {
    let place = Place::new();
    let server = PouchServer::start();
    a_library_in_conflict(&server);
    let url = format!("{}/shelf", server.url());
    mirror(&url, &place.mirror(), &KEEPING).assert_code(0);
    let directory = place.mirror().display().to_string();
    let by_bytes = ["verify", &directory, "--against", &url, "--bytes"];
    plainfold::run(by_bytes).assert_code(0);
    let shelf = place.mirror().join("shelf");
    for (path, id) in [
        ("torn/conflicts/2-b2/attachments/a%2Fb ж", "torn"),
        ("torn/conflicts/2-d2/document.json", "torn"),
        ("old/history.json", "old"),
        ("gone/deleted.json", "gone"),
    ] {
        let path = shelf.join(path);
        let mut text = fs::read(&path).unwrap();
        // Still JSON where it has to be, and with a checksum that fits.
        match path.extension() {
            Some(_) => text.insert(1, b' '),
            None => text[0] ^= 1,
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, &text).unwrap();
        let (checksum, flags) = (blake3::hash(&text), rustix::fs::XattrFlags::empty());
        rustix::fs::setxattr(&path, "user.plainfold.b3", checksum.as_bytes(), flags).unwrap();
        let found = plainfold::run(by_bytes).assert_code(1).stdout;
        assert!(found.contains(&format!("bytes        shelf  {id}  ")), "{found}");
        plainfold::run(by_bytes.iter().chain(&["--repair"])).assert_code(0);
        plainfold::run(by_bytes).assert_code(0);
    }
}

//! The inventory: what it detects without a source, what it confirms in a copy, and the handling of
//! files without any checksum.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::pouchdb::{PouchServer, attach};
use crate::env::{Place, oracle};

fn run(command: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let mirror = mirror.display().to_string();
    plainfold::run([command, &mirror].iter().chain(more))
}

/// The problems that `verify` finds, and its exit code.
fn problems(mirror: &Path, more: &[&str]) -> (Vec<(String, String)>, i32) {
    let outcome = run("verify", mirror, &[&["--format", "json"], more].concat());
    let report: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let problems = report["problems"].as_array().unwrap().iter();
    let problems = problems.map(|one| (text(&one["kind"]), text(&one["path"]))).collect();
    (problems, outcome.status.code().unwrap())
}

fn assert_found(mirror: &Path, expected: &[(&str, &str)]) {
    let (mut found, code) = problems(mirror, &[]);
    found.sort();
    let found: Vec<_> = found.iter().map(|(kind, path)| (&**kind, &**path)).collect();
    assert_eq!(found, expected);
    assert_eq!(code, i32::from(!expected.is_empty()));
}

/// Writes a file again as an editor does: the new one has no checksum beside it.
fn rewrite(path: &Path, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let new = path.with_extension("edited");
    fs::write(&new, change(&text)).unwrap();
    fs::rename(new, path).unwrap();
}

fn copy_plainly(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(status.success());
}

struct Shelf {
    place: Place,
    feed: FeedFile,
}

impl Shelf {
    fn new() -> Self {
        let place = Place::new();
        let mut feed = FeedFile::create(place.join("shelf.ndjson"));
        for number in 0..8 {
            let page = format!("page {number}");
            let files: [(&str, &[u8]); 1] = [("page.txt", page.as_bytes())];
            feed.put(&format!("book:{number}"), json!({"n": number}), &files);
        }
        feed.put("last", json!({"long": "x".repeat(300)}), &[]);
        plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
        Self { place, feed }
    }

    fn at(&self, below: &str) -> PathBuf {
        self.place.mirror().join("shelf").join(below)
    }
}

#[test]
fn a_mirror_is_intact_and_so_is_any_copy_of_it() {
    let shelf = Shelf::new();
    let mirror = shelf.place.mirror();
    assert_found(&mirror, &[]);
    let copy = shelf.place.join("copy");
    copy_plainly(&mirror, &copy);
    // The copy has lost all checksums beside its files, and the inventory confirms them.
    let outcome = run("verify", &copy, &[]).assert_code(0);
    assert!(!outcome.stdout.contains("no checksum"), "{outcome}");
    rewrite(&copy.join("shelf/book%3A3/document.json"), |text| text.replace("\"n\":3", "\"n\":4"));
    assert_found(&copy, &[("altered", "shelf/book%3A3/document.json")]);
    let manifest = shelf.place.join("SHA256SUMS").display().to_string();
    run("verify", &copy, &["--manifest", &manifest]).assert_code(1);
    let sums = fs::read_to_string(manifest).unwrap();
    assert_eq!(sums.lines().count(), 16, "all files but the altered one: {sums}");
    assert!(!sums.contains("book%3A3/document.json"), "{sums}");
}

#[test]
fn what_was_deleted_exchanged_or_replaced_by_something_older_is_found_without_a_source() {
    let mut shelf = Shelf::new();
    let older = shelf.place.join("older");
    fs::rename(shelf.at("book%3A6"), &older).unwrap();
    copy_plainly(&older, &shelf.at("book%3A6"));
    shelf.feed.put("book:6", json!({"n": 66}), &[("page.txt", b"page 6")]);
    let mirror = shelf.place.mirror();
    plainfold::mirror(&shelf.feed.source(), &mirror).assert_code(0);
    assert_found(&mirror, &[]);

    fs::remove_dir_all(shelf.at("book%3A1")).unwrap();
    // Two text attachments, each with the checksum beside it.
    let [two, three, aside] =
        ["book%3A2/attachments/page.txt", "book%3A3/attachments/page.txt", "../aside"]
            .map(|below| shelf.at(below));
    fs::rename(&two, &aside).unwrap();
    fs::rename(&three, &two).unwrap();
    fs::rename(&aside, &three).unwrap();
    rewrite(&shelf.at("book%3A4/document.json"), |text| text.replace("\"n\":4", "\"n\":5"));
    fs::remove_dir_all(shelf.at("book%3A6")).unwrap();
    fs::rename(&older, shelf.at("book%3A6")).unwrap();
    // A document that no run has written.
    copy_plainly(&shelf.at("last"), &shelf.at("planted"));
    rewrite(&shelf.at("planted/document.json"), |text| text.replace("\"last\"", "\"planted\""));
    let expected = [
        ("altered", "shelf/book%3A2/attachments/page.txt"),
        ("altered", "shelf/book%3A3/attachments/page.txt"),
        ("altered", "shelf/book%3A4/document.json"),
        ("altered", "shelf/book%3A6/document.json"),
        ("extra", "shelf/planted"),
        ("missing", "shelf/book%3A1"),
    ];
    assert_found(&mirror, &expected);

    // A restore names each of them too, and restores none of them.
    let back = format!("feed:{}", shelf.place.join("back.ndjson").display());
    let outcome = run("restore", &mirror, &[&back, "--accept-unchecked"]).assert_code(1);
    for path in ["book%3A1", "book%3A2", "book%3A3", "book%3A4", "book%3A6", "planted"] {
        assert!(outcome.stdout.contains(&format!("shelf/{path}")), "{path}: {outcome}");
    }
    let restored = fs::read_to_string(shelf.place.join("back.ndjson")).unwrap();
    assert_eq!(restored.lines().count(), 4, "{restored}");

    // The feed has all of it.
    let outcome = run("verify", &mirror, &["--repair"]);
    let planted = "extra        shelf/planted";
    assert!(
        outcome.stdout.contains(planted),
        "nothing is removed that no source speaks of: {outcome}"
    );
    fs::remove_dir_all(shelf.at("planted")).unwrap();
    assert_found(&mirror, &[]);
    oracle::assert_equals_feed(shelf.feed.path(), &mirror);
}

#[test]
fn a_mirror_without_an_inventory_names_what_nothing_vouches_for_until_it_is_stamped() {
    let shelf = Shelf::new();
    let mirror = shelf.place.mirror();
    fs::remove_dir_all(mirror.join(".plainfold/inventory")).unwrap();
    let outcome = run("verify", &mirror, &[]).assert_code(0);
    assert!(outcome.stdout.contains("its inventory is missing"), "{outcome}");
    for number in [1, 2] {
        let path = shelf.at(&format!("book%3A{number}/document.json"));
        rewrite(&path, |text| text.replace("{\"_id\"", "{ \"_id\""));
    }
    let unchecked = [
        ("unchecked", "shelf/book%3A1/document.json"),
        ("unchecked", "shelf/book%3A2/document.json"),
    ];
    assert_found(&mirror, &unchecked);
    let manifest = shelf.place.join("SHA256SUMS").display().to_string();
    run("verify", &mirror, &["--manifest", &manifest]).assert_code(1);
    assert_eq!(fs::read_to_string(manifest).unwrap().lines().count(), 15);

    let back = |name: &str| format!("feed:{}", shelf.place.join(name).display());
    let outcome = run("restore", &mirror, &[&back("a.ndjson")]).assert_code(1);
    assert!(outcome.stdout.contains("--accept-unchecked"), "{outcome}");
    assert_eq!(fs::read_to_string(shelf.place.join("a.ndjson")).unwrap().lines().count(), 7);
    run("restore", &mirror, &[&back("b.ndjson"), "--accept-unchecked"]).assert_code(0);
    assert_eq!(fs::read_to_string(shelf.place.join("b.ndjson")).unwrap().lines().count(), 9);

    // One is fetched again, the other is taken as it is.
    let copy = shelf.place.join("copy");
    let status = Command::new("cp").arg("-a").args([&mirror, &copy]).status().unwrap();
    assert!(status.success());
    run("verify", &copy, &["--repair"]).assert_code(0);
    oracle::assert_equals_feed(shelf.feed.path(), &copy);
    let outcome = run("verify", &mirror, &["--stamp"]).assert_code(0);
    assert!(outcome.stdout.contains("9 documents listed, 2 checksums written"), "{outcome}");
    assert_found(&mirror, &[]);
    fs::remove_dir_all(shelf.at("last")).unwrap();
    assert_found(&mirror, &[("missing", "shelf/last")]);
    // A stamp does not accept anything that was found wrong.
    run("verify", &mirror, &["--stamp"]).assert_code(1);
    assert_found(&mirror, &[("missing", "shelf/last")]);
}

#[test]
fn a_lost_history_conflict_tombstone_and_security_object_are_found_and_fetched_again() {
    let server = PouchServer::start();
    server.create_db("shelf");
    let revision = |id: &str, ids: &[&str], more: Value| {
        let mut doc = more;
        doc["_id"] = json!(id);
        doc["_rev"] = json!(format!("{}-{}", ids.len(), ids[0]));
        doc["_revisions"] = json!({"start": ids.len(), "ids": ids});
        doc
    };
    let mut torn = revision("torn", &["b2", "a1"], json!({"side": "left"}));
    attach(&mut torn, &[("note.txt", "text/plain", b"only in the losing branch")]);
    let docs = json!([
        revision("old", &["c3", "b2", "a1"], json!({})),
        revision("older", &["c4", "b3", "a2"], json!({})),
        revision("torn", &["c3", "b1", "a1"], json!({"side": "right"})),
        torn,
        revision("gone", &["b2", "a1"], json!({"_deleted": true, "why": "sold"})),
    ]);
    let body = json!({"new_edits": false, "docs": docs}).to_string();
    server.request("POST", "/shelf/_bulk_docs", body.as_bytes()).assert_ok();
    let security = json!({"admins": {"names": ["ana"], "roles": []}, "members": {"roles": ["a"]}});
    server.request("PUT", "/shelf/_security", security.to_string().as_bytes()).assert_ok();

    let place = Place::new();
    let mirror = place.mirror();
    let url = format!("{}/shelf", server.url());
    let directory = mirror.display().to_string();
    plainfold::run(["mirror", &url, &directory, "--revisions", "--deleted", "keep"]).assert_code(0);
    assert_found(&mirror, &[]);
    let whole = place.join("whole");
    copy_plainly(&mirror.join("shelf"), &whole);

    let at = |below: &str| mirror.join("shelf").join(below);
    fs::remove_dir_all(at("gone")).unwrap();
    fs::remove_file(at("_security.json")).unwrap();
    // One history in the place of another, with the checksum beside it.
    fs::rename(at("older/history.json"), at("old/history.json")).unwrap();
    fs::remove_dir_all(at("torn/conflicts")).unwrap();
    fs::remove_file(at("torn/history.json")).unwrap();
    let expected = [
        ("altered", "shelf/old/history.json"),
        ("missing", "shelf/_security.json"),
        ("missing", "shelf/gone"),
        ("missing", "shelf/older/history.json"),
        ("missing", "shelf/torn/conflicts/2-b2/attachments/note.txt"),
        ("missing", "shelf/torn/conflicts/2-b2/document.json"),
        ("missing", "shelf/torn/history.json"),
    ];
    assert_found(&mirror, &expected);
    let outcome = run("verify", &mirror, &["--repair"]).assert_code(0);
    assert!(outcome.stdout.contains("_security"), "{outcome}");
    assert_found(&mirror, &[]);
    let status = Command::new("diff").arg("-r").args([&whole, &mirror.join("shelf")]).status();
    assert!(status.unwrap().success(), "everything is as it was");
    // The next run finds nothing to do.
    plainfold::run(["mirror", &url, &directory, "--revisions", "--deleted", "keep"]).assert_code(0);
    assert_found(&mirror, &[]);
}

#[test]
fn beside_a_mirror_at_work_there_is_no_false_alarm_also_after_a_kill() {
    let server = PouchServer::start();
    server.create_db("shelf");
    let url = format!("{}/shelf", server.url());
    let place = Place::new();
    let mirror = place.mirror();
    let mut live = plainfold::live(&url, &mirror);
    for round in 0..12 {
        let docs: Vec<Value> = (0..40)
            .map(|number| {
                let id = format!("d{}", (round * 17 + number) % 60);
                let mut doc = json!({"_id": id, "round": round});
                if let Some(rev) = server.rev("shelf", &id) {
                    doc["_rev"] = json!(rev);
                    doc["_deleted"] = json!(number % 5 == 0);
                }
                attach(&mut doc, &[("t.txt", "text/plain", format!("{round}").as_bytes())]);
                doc
            })
            .collect();
        let body = json!({"docs": docs}).to_string();
        server.request("POST", "/shelf/_bulk_docs", body.as_bytes()).assert_ok();
        if round % 4 == 3 {
            live.kill();
            drop(live.wait());
            // Whatever the kill has left: each document is at its old or its new version.
            assert_found(&mirror, &[]);
            live = plainfold::live(&url, &mirror);
        }
        assert_found(&mirror, &[]);
    }
    live.terminate();
    live.wait().assert_code(0);
    assert_found(&mirror, &[]);
    oracle::assert_equals_server(&url, &mirror, "shelf");
}

#[test]
fn a_folder_that_is_gone_is_still_known_after_a_run_that_failed() {
    let place = Place::new();
    let mut server = PouchServer::start();
    server.create_db("shelf");
    server.put_doc("shelf", "one", &json!({}));
    let mirror = place.mirror();
    let url = format!("{}/shelf", server.url());
    plainfold::mirror(&url, &mirror).assert_code(0);
    fs::remove_dir_all(mirror.join("shelf")).unwrap();
    assert_eq!(problems(&mirror, &[]).1, 1);
    server.stop();
    plainfold::run(["mirror", &url, mirror.to_str().unwrap(), "--give-up-after", "1"])
        .assert_code(3);
    assert_found(&mirror, &[("missing", "shelf/_security.json"), ("missing", "shelf/one")]);
}

#[test]
fn what_stands_in_the_place_of_an_inventory_or_a_security_object_is_set_aside() {
    let place = Place::new();
    let server = PouchServer::start();
    server.create_db("shelf");
    server.put_doc("shelf", "one", &json!({}));
    let mirror = place.mirror();
    let url = format!("{}/shelf", server.url());
    plainfold::mirror(&url, &mirror).assert_code(0);
    let inventory = mirror.join(".plainfold/inventory/shelf.ndjson");
    fs::remove_file(&inventory).unwrap();
    fs::create_dir(&inventory).unwrap();
    let security = mirror.join("shelf/_security.json");
    fs::remove_file(&security).unwrap();
    fs::create_dir(&security).unwrap();
    assert_found(&mirror, &[("altered", "shelf/_security.json")]);
    let run = plainfold::mirror(&url, &mirror).assert_code(0);
    assert!(run.stderr.contains("was set aside as"), "{run}");
    assert_found(&mirror, &[]);
    assert!(security.is_file() && inventory.is_file());
}

#[test]
fn a_document_with_a_shortened_name_is_repaired_though_no_inventory_lists_it() {
    let place = Place::new();
    let server = PouchServer::start();
    server.create_db("shelf");
    let long = "long-".to_owned() + &"ü".repeat(130);
    server.put_doc("shelf", &long, &json!({"n": 1}));
    let mirror = place.mirror();
    let url = format!("{}/shelf", server.url());
    plainfold::mirror(&url, &mirror).assert_code(0);
    let folder = fs::read_dir(mirror.join("shelf")).unwrap().map(|entry| entry.unwrap().path());
    let folder = folder.into_iter().find(|path| path.is_dir()).unwrap();
    rewrite(&folder.join("document.json"), str::to_owned);
    let inventory = mirror.join(".plainfold/inventory/shelf.ndjson");
    fs::write(&inventory, "{\"inventory\":1,\"complete\":false}\n").unwrap();
    let (found, code) = problems(&mirror, &[]);
    assert_eq!((found[0].0.as_str(), code), ("unchecked", 1));
    run("verify", &mirror, &["--repair", "--against", &url]).assert_code(0);
    assert_found(&mirror, &[]);
}

//! The options that a mirror remembers: a forgotten option never silently removes data.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::Place;
use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::pouchdb::PouchServer;

fn mirror(source: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let path = mirror.to_str().unwrap();
    plainfold::run(["mirror", source, path].iter().chain(more))
}

fn options(mirror: &Path) -> Value {
    plainfold::status(mirror)["options"].clone()
}

/// A feed of one book with an attachment, one that is deleted, and one more.
fn shelf(place: &Place) -> FeedFile {
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({"n": 1}), &[("note.txt", b"first")]);
    feed.put("gone", json!({"n": 1}), &[]);
    feed.delete("gone");
    feed
}

#[test]
fn an_option_that_is_not_named_stays_as_it_was() {
    let place = Place::new();
    let to = place.mirror();
    let mut feed = shelf(&place);
    let named = [
        "--deleted=keep",
        "--attachments=false",
        "--json=pretty",
        "--max-delete=10%,5",
        "--trash=30",
        "--reserve=1B",
        "--collections=s*",
    ];
    mirror(&feed.source(), &to, &named).assert_code(0);
    let expected = json!({
        "revisions": false, "deleted": "keep", "attachments": false, "json": "pretty",
        "max_delete": "10%,5", "trash": 30, "reserve": 1,
        "collections": {feed.source(): ["s*"]},
    });
    assert_eq!(options(&to), expected);
    feed.put("more", json!({"n": 1}), &[("note.txt", b"second")]);
    feed.delete("book");
    let said = mirror(&feed.source(), &to, &[]).assert_code(0);
    assert!(!said.stderr.contains(" changes from "), "nothing has changed: {said}");
    assert_eq!(options(&to), expected);
    assert!(to.join("shelf/book/deleted.json").exists(), "tombstones are still kept");
    assert!(!to.join("shelf/more/attachments").exists(), "attachments are still left out");
    let body = fs::read_to_string(to.join("shelf/more/document.json")).unwrap();
    assert!(body.lines().count() > 1, "still laid out: {body}");
    assert!(to.join(".plainfold/trash").exists(), "the trash is still kept");
    // The process that works on it says the same, in both forms.
    let running = plainfold::live(&feed.source(), &to);
    assert_eq!(options(&to), expected);
    let text = plainfold::run(["status".as_ref(), to.as_os_str()]).assert_code(0).stdout;
    assert!(text.contains("--deleted keep --attachments false --json pretty"), "{text}");
    assert!(text.contains("--max-delete 10%,5 --trash 30 --reserve 1"), "{text}");
    assert!(text.contains("--collections s* of feed:"), "{text}");
    assert!(text.contains("  holds       documents, tombstones\n"), "{text}");
    running.terminate();
    running.wait().assert_code(0);
}

#[test]
fn an_option_with_another_value_is_said() {
    let place = Place::new();
    let to = place.mirror();
    let feed = shelf(&place);
    let first = mirror(&feed.source(), &to, &["--trash=10"]).assert_code(0);
    assert!(!first.stderr.contains(" changes from "), "a new mirror had no options: {first}");
    let said = mirror(&feed.source(), &to, &["--trash=30", "--deleted=keep"]).assert_code(0);
    assert!(said.stderr.contains("--trash changes from 10 days to 30 days"), "{said}");
    assert!(said.stderr.contains("--deleted changes from remove to keep"), "{said}");
    let again = mirror(&feed.source(), &to, &["--trash=30"]).assert_code(0);
    assert!(!again.stderr.contains(" changes from "), "{again}");
}

#[test]
fn what_would_be_discarded_needs_a_word_and_is_named() {
    let place = Place::new();
    let to = place.mirror();
    let feed = shelf(&place);
    mirror(&feed.source(), &to, &["--deleted=keep", "--trash=30"]).assert_code(0);
    let before = options(&to);
    for (option, named) in [
        ("--deleted=remove", "the tombstones of `shelf`"),
        ("--attachments=false", "the attachments of documents that change, of `shelf`"),
        ("--trash=10", "deleted more than 10 days ago"),
    ] {
        let said = mirror(&feed.source(), &to, &[option]).assert_code(2);
        assert!(said.stderr.contains(named) && said.stderr.contains("--discard"), "{said}");
        assert_eq!(options(&to), before, "{option}");
        mirror(&feed.source(), &to, &[option, "--discard"]).assert_code(0);
        assert_ne!(options(&to), before, "{option}");
        mirror(&feed.source(), &to, &["--deleted=keep", "--attachments=true", "--trash=30"])
            .assert_code(0);
        assert_eq!(options(&to), before, "{option}");
    }
    assert!(to.join("shelf/gone/deleted.json").exists());
}

#[test]
fn the_brake_is_not_dropped_while_it_holds_deletions_back() {
    let place = Place::new();
    let to = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..10 {
        feed.put(&format!("book:{number}"), json!({}), &[]);
    }
    mirror(&feed.source(), &to, &["--max-delete=10%,2"]).assert_code(0);
    for number in 0..10 {
        feed.delete(&format!("book:{number}"));
    }
    mirror(&feed.source(), &to, &[]).assert_code(1);
    let said = mirror(&feed.source(), &to, &["--max-delete=off"]).assert_code(2);
    assert!(said.stderr.contains("8 documents of `shelf` whose deletion is held back"), "{said}");
    assert!(to.join("shelf/book%3A9/document.json").exists());
    mirror(&feed.source(), &to, &["--max-delete=off", "--discard"]).assert_code(0);
    assert!(!to.join("shelf/book%3A9").exists());
}

#[test]
fn a_mirror_of_old_is_kept_as_its_collections_were() {
    let place = Place::new();
    let to = place.mirror();
    let mut feed = shelf(&place);
    mirror(&feed.source(), &to, &["--deleted=keep", "--attachments=false"]).assert_code(0);
    fs::remove_file(to.join(".plainfold/options.json")).unwrap();
    feed.put("more", json!({"n": 1}), &[("note.txt", b"second")]);
    feed.delete("book");
    mirror(&feed.source(), &to, &[]).assert_code(0);
    assert!(to.join("shelf/book/deleted.json").exists());
    assert!(!to.join("shelf/more/attachments").exists());
    let now = options(&to);
    assert_eq!((&now["deleted"], &now["attachments"]), (&json!("keep"), &json!(false)));
}

#[test]
fn options_that_cannot_be_read_are_named_and_not_guessed() {
    let place = Place::new();
    let to = place.mirror();
    let feed = shelf(&place);
    mirror(&feed.source(), &to, &["--deleted=keep"]).assert_code(0);
    fs::write(to.join(".plainfold/options.json"), "{\"trash\":").unwrap();
    let said = mirror(&feed.source(), &to, &[]).assert_code(5);
    assert!(said.stderr.contains("options.json is damaged"), "{said}");
    assert!(to.join("shelf/gone/deleted.json").exists());
}

#[test]
fn the_collections_of_a_source_are_remembered_and_narrowing_them_is_said() {
    let place = Place::new();
    let to = place.mirror();
    let mut feed = FeedFile::create(place.join("all.ndjson"));
    let row = |feed: &mut FeedFile, collection: &str, id: &str| {
        let rev = format!("1-{:032x}", 1);
        let row = json!({"collection": collection, "id": id, "changes": [{"rev": rev}],
            "doc": {"_id": id, "_rev": rev}});
        feed.raw(format!("{row}\n").as_bytes());
    };
    for name in ["books", "maps", "loans"] {
        row(&mut feed, name, "a");
    }
    mirror(&feed.source(), &to, &["--collections", "books,maps"]).assert_code(0);
    for name in ["books", "maps", "loans"] {
        row(&mut feed, name, "b");
    }
    mirror(&feed.source(), &to, &[]).assert_code(0);
    let there = |path: &str| to.join(path).exists();
    assert!(there("books/b") && there("maps/b") && !there("loans"));
    let said = mirror(&feed.source(), &to, &["--collections", "books"]).assert_code(0);
    assert!(said.stderr.contains("--collections was books,maps, and is books"), "{said}");
    assert!(said.stderr.contains("`maps` is no longer followed"), "{said}");
    assert!(there("maps/b"), "nothing is removed");
    for mistyped in [&["--collections", "boks"][..], &["--collections", "books,x*"]] {
        let code = if mistyped[1] == "boks" { 2 } else { 1 };
        mirror(&feed.source(), &to, mistyped).assert_code(code);
        assert_eq!(options(&to)["collections"][feed.source()], json!(["books"]));
    }
    let again = mirror(&feed.source(), &to, &[]).assert_code(0);
    assert!(!again.stderr.contains("is no longer followed"), "it is said once: {again}");
    mirror(&feed.source(), &to, &["--collections", ""]).assert_code(0);
    assert!(there("loans/b"), "the default is chosen again");
    assert_eq!(options(&to)["collections"], json!({}));
}

#[test]
fn conflicts_and_histories_are_still_kept_by_a_run_that_does_not_name_them() {
    let place = Place::new();
    let to = place.mirror();
    let server = PouchServer::start();
    server.create_db("shelf");
    let post = |docs: &Value| {
        let body = docs.to_string();
        server.request("POST", "/shelf/_bulk_docs", body.as_bytes()).assert_ok();
    };
    let url = format!("{}/shelf", server.url());
    let leaf = |rev: &str, ids: [&str; 2], n: u32| {
        json!({"_id": "torn", "_rev": format!("2-{rev}"), "n": n,
            "_revisions": {"start": 2, "ids": ids}})
    };
    let docs = |n: u32| {
        let (a, b) = (leaf("aa", ["aa", "00"], n), leaf("bb", ["bb", "00"], n));
        json!({"new_edits": false, "docs": [a, b]})
    };
    post(&docs(1));
    mirror(&url, &to, &["--revisions", "--deleted=keep"]).assert_code(0);
    let conflict = to.join("shelf/torn/conflicts/2-aa/document.json");
    assert!(conflict.exists());
    let next = json!({"_id": "torn", "_rev": "3-cc", "n": 3,
        "_revisions": {"start": 3, "ids": ["cc", "bb", "00"]}});
    post(&json!({"new_edits": false, "docs": [next]}));
    mirror(&url, &to, &[]).assert_code(0);
    assert!(conflict.exists(), "the conflict is still kept");
    assert!(to.join("shelf/torn/history.json").exists());
    let said = mirror(&url, &to, &["--revisions=false"]).assert_code(2);
    assert!(said.stderr.contains("the losing revisions and the histories of `shelf`"), "{said}");
    // A feed cannot update them, so it is not silently accepted as a source of this collection.
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("torn", json!({}), &[]);
    let said = mirror(&feed.source(), &to, &[]).assert_code(2);
    assert!(said.stderr.contains("winning revisions only, would discard"), "{said}");
    assert!(conflict.exists());
}

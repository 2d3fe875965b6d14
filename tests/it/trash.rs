//! Deleted documents that are kept for a time, apart from the tree.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::{Place, oracle};

fn keep(source: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let path = mirror.to_str().unwrap();
    let arguments = ["mirror", source, path, "--trash", "30"];
    plainfold::run(arguments.iter().chain(more)).assert_code(0)
}

/// The one day in the trash.
fn day(mirror: &Path) -> PathBuf {
    let mut days = fs::read_dir(mirror.join(".plainfold/trash")).unwrap();
    let day = days.next().unwrap().unwrap().path();
    assert!(days.next().is_none(), "one day");
    day
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_deleted_document_lies_in_the_trash_with_its_attachments_each_time() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({"n": 1}), &[("note.txt", b"first")]);
    feed.put("stays", json!({"n": 1}), &[("note.txt", b"first")]);
    keep(&feed.source(), &mirror, &[]);
    feed.put("stays", json!({"n": 2}), &[("note.txt", b"second")]);
    feed.delete("book");
    keep(&feed.source(), &mirror, &[]);
    feed.put("book", json!({"n": 2}), &[]);
    keep(&feed.source(), &mirror, &[]);
    feed.delete("book");
    keep(&feed.source(), &mirror, &[]);
    let shelf = day(&mirror).join("shelf");
    assert_eq!(names(&shelf), ["book-1", "book-2"], "and nothing of what only changed");
    assert_eq!(fs::read(shelf.join("book-1/attachments/note.txt")).unwrap(), b"first");
    oracle::assert_equals_feed(feed.path(), &mirror);
    oracle::assert_clean(&mirror);
    plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
}

#[test]
fn a_document_that_a_tombstone_replaces_lies_in_the_trash_too() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({"n": 1}), &[]);
    keep(&feed.source(), &mirror, &["--deleted", "keep"]);
    feed.delete("book");
    keep(&feed.source(), &mirror, &["--deleted", "keep"]);
    assert!(mirror.join("shelf/book/deleted.json").exists());
    assert!(day(&mirror).join("shelf/book-1/document.json").exists());
}

#[test]
fn the_trash_is_swept_of_what_is_older_and_left_alone_without_the_option() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({"n": 1}), &[]);
    keep(&feed.source(), &mirror, &[]);
    let trash = mirror.join(".plainfold/trash");
    for day in ["2001-01-01/shelf/old-1", "9999-01-01/shelf/young-1", "mine"] {
        fs::create_dir_all(trash.join(day)).unwrap();
    }
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert_eq!(names(&trash), ["2001-01-01", "9999-01-01", "mine"]);
    keep(&feed.source(), &mirror, &[]);
    assert_eq!(names(&trash), ["9999-01-01", "mine"]);
}

#[test]
fn what_a_crash_left_on_its_way_to_the_trash_is_brought_there() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("a/b", json!({"n": 1}), &[]);
    keep(&feed.source(), &mirror, &[]);
    // As a removal leaves it, killed after its folder was moved away.
    let staged = mirror.join(".plainfold/staging/0/7-~shelf");
    fs::rename(mirror.join("shelf/a%2Fb"), &staged).unwrap();
    feed.delete("a/b");
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert!(day(&mirror).join("shelf/a%2Fb-1/document.json").exists());
    oracle::assert_clean(&mirror);
}

//! Actions that a mirror must never take: following planted links, sharing its folder, taking over a
//! directory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::feed::{FeedFile, source};
use crate::env::tree::{Tree, Written};
use crate::env::{Place, library, oracle, plainfold};

/// A mirrored document with an attachment, and a directory outside of the mirror with files that
/// bear the same names.
struct Planted {
    place: Place,
    feed: FeedFile,
    outside: PathBuf,
}

impl Planted {
    fn new() -> Self {
        let place = Place::new();
        let mut feed = FeedFile::create(place.join("shelf.ndjson"));
        feed.put("book", json!({"n": 1}), &[("note.txt", b"first")]);
        plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
        let outside = place.join("outside");
        for folder in ["book/attachments", "attachments"] {
            fs::create_dir_all(outside.join(folder)).unwrap();
        }
        for file in [
            "book/document.json",
            "book/attachments/note.txt",
            "document.json",
            "attachments/note.txt",
            "note.txt",
        ] {
            fs::write(outside.join(file), "somebody's own\n").unwrap();
        }
        Self { place, feed, outside }
    }

    /// Replaces `path` in the mirror by a link to `target` outside, then changes and deletes the
    /// document: nothing outside may be written, whatever becomes of the document.
    fn assert_never_followed(mut self, path: &str, target: &str) {
        let link = self.place.mirror().join(path);
        if link.is_dir() { fs::remove_dir_all(&link) } else { fs::remove_file(&link) }.unwrap();
        symlink(self.outside.join(target), &link).unwrap();
        let before = Tree::of(&self.outside);
        let changes: [&dyn Fn(&mut FeedFile); 4] = [
            &|feed| drop(feed.put("book", json!({"n": 2}), &[("note.txt", b"second")])),
            &|feed| drop(feed.put("book", json!({"n": 3}), &[("other.txt", b"third")])),
            &|feed| drop(feed.put("new", json!({}), &[("note.txt", b"new")])),
            &|feed| drop(feed.delete("book")),
        ];
        for (number, change) in changes.iter().enumerate() {
            change(&mut self.feed);
            let outcome = plainfold::mirror(&self.feed.source(), &self.place.mirror());
            let written = before.until(&Tree::of(&self.outside));
            let written: Vec<String> = written.iter().map(Written::to_string).collect();
            assert!(written.is_empty(), "outside, after change {number}: {written:?}: {outcome}");
            assert!(outcome.status.code().is_some(), "{outcome}");
            // A link is replaced by what belongs there, or refused by name; never passed over.
            if outcome.status.success() {
                oracle::assert_equals_feed(self.feed.path(), &self.place.mirror());
            } else {
                assert!(
                    outcome.stderr.contains("link"),
                    "refused without naming the link: {outcome}"
                );
            }
        }
    }
}

#[test]
fn a_link_in_the_place_of_a_collection_is_never_followed() {
    Planted::new().assert_never_followed("shelf", "");
}

#[test]
fn a_link_in_the_place_of_a_document_is_never_followed() {
    Planted::new().assert_never_followed("shelf/book", "book");
}

#[test]
fn a_link_in_the_place_of_a_body_is_never_followed() {
    Planted::new().assert_never_followed("shelf/book/document.json", "document.json");
}

#[test]
fn a_link_in_the_place_of_a_folder_of_attachments_is_never_followed() {
    Planted::new().assert_never_followed("shelf/book/attachments", "attachments");
}

#[test]
fn a_link_in_the_place_of_an_attachment_is_never_followed() {
    Planted::new().assert_never_followed("shelf/book/attachments/note.txt", "note.txt");
}

#[test]
fn a_second_process_says_who_holds_the_mirror() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({}), &[]);
    let first = plainfold::live(&feed.source(), &place.mirror());
    let second = plainfold::mirror(&feed.source(), &place.mirror()).assert_code(5);
    assert!(
        second.stderr.contains(&first.id().to_string()),
        "{} is not named: {second}",
        first.id()
    );
    first.terminate();
    first.wait().assert_code(0);
    plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
}

#[test]
fn a_mirror_of_a_newer_format_is_refused_and_left_alone() {
    let place = Place::new();
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    let path = place.mirror().join(".plainfold/format.json");
    let mut format: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let number = format["format"].as_u64().expect("the format's number");
    format["format"] = json!(number + 1);
    fs::write(&path, format.to_string()).unwrap();
    let before = Tree::of(&place.mirror());
    let outcome = plainfold::mirror(&source(&library()), &place.mirror()).assert_code(5);
    assert!(outcome.stderr.contains(&(number + 1).to_string()), "{outcome}");
    assert!(before.until(&Tree::of(&place.mirror())).is_empty());
}

#[test]
fn a_directory_with_other_peoples_files_is_refused_and_left_alone() {
    let place = Place::new();
    fs::create_dir(place.mirror()).unwrap();
    fs::write(place.mirror().join("thesis.tex"), "draft 7").unwrap();
    let before = Tree::of(&place.mirror());
    let outcome = plainfold::mirror(&source(&library()), &place.mirror()).assert_code(5);
    assert!(outcome.stderr.contains(place.mirror().to_str().unwrap()), "{outcome}");
    assert!(before.until(&Tree::of(&place.mirror())).is_empty());
    let left: Vec<PathBuf> = names(&place.mirror());
    assert_eq!(left, [Path::new("thesis.tex")], "something of ours was left behind");
}

#[test]
fn an_empty_directory_becomes_a_mirror() {
    let place = Place::new();
    fs::create_dir(place.mirror()).unwrap();
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    oracle::assert_equals_feed(&library(), &place.mirror());
}

#[test]
fn a_mistyped_command_is_told_apart_from_a_failure() {
    plainfold::run(["mirror"]).assert_code(2);
    plainfold::run(["mirror", "gopher://example.org/x", "nowhere"]).assert_code(2);
    let place = Place::new();
    plainfold::mirror("feed:/no/such/feed.ndjson", &place.mirror()).assert_code(3);
}

fn names(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into()).collect()
}

//! A copy of a mirror is detected: a state that is ahead of its documents never counts as caught up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::pouchdb::PouchServer;
use crate::env::proxy::Proxy;
use crate::env::tree::Tree;
use crate::env::{Place, crashing, oracle};

const TOOLS: [&str; 3] = ["cp -r", "cp -a", "tar"];

const NOTICED: &str = "the mirror was copied or restored, or the folder was replaced";
const KNOWN: &str = "continues without a full scan";
const IGNORED: &str = "is ignored, and a full scan follows";
const SCANNED: &str = "full scan: the mirror holds documents but no checkpoint";
const PORTABLE: &str = ".plainfold/checkpoints/shelf.json";

/// Copies the contents of a folder into another, except one name.
fn copy(tool: &str, from: &Path, to: &Path, but: &str) {
    fs::create_dir_all(to).unwrap();
    let script = match tool {
        "tar" => "tar -C \"$0\" --exclude=\"$2\" -cf - . | tar -C \"$1\" -xf -".to_owned(),
        tool => format!(
            "cd \"$0\" && for name in $(ls -A); do test \"$name\" = \"$2\" || {tool} \"$name\" \"$1\"; done"
        ),
    };
    let done = Command::new("sh").args(["-c", &script]).args([from, to]).arg(but).status().unwrap();
    assert!(done.success(), "{tool}");
}

/// A mirror of many documents that was changed since a part of it was copied.
struct Written {
    place: Place,
    feed: FeedFile,
}

impl Written {
    fn new() -> Self {
        let place = Place::new();
        let mut feed = FeedFile::create(place.join("shelf.ndjson"));
        for number in 0..30 {
            feed.put(&format!("book:{number:02}"), json!({"n": 1}), &[("note.txt", b"first")]);
        }
        feed.delete("book:00");
        plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
        Self { place, feed }
    }

    /// New documents, changed ones and deletions, mirrored.
    fn go_on(&mut self) {
        for number in 20..60 {
            let id = format!("book:{number:02}");
            self.feed.put(&id, json!({"n": 2}), &[("note.txt", b"second")]);
        }
        for number in 1..5 {
            self.feed.delete(&format!("book:{number:02}"));
        }
        self.mirror(&self.place.mirror()).assert_code(0);
    }

    fn mirror(&self, mirror: &Path) -> Outcome {
        plainfold::mirror(&self.feed.source(), mirror)
    }

    fn there(&self) -> PathBuf {
        self.place.join("copy")
    }
}

#[test]
fn a_copy_whose_state_is_ahead_of_its_documents_is_compared_in_full() {
    for tool in TOOLS {
        let mut written = Written::new();
        let (here, there) = (written.place.mirror(), written.there());
        // As a slow copy of a mirror at work: the documents first, and its own folder at the end.
        copy(tool, &here, &there, ".plainfold");
        written.go_on();
        copy(tool, &here, &there, "shelf");
        let said = written.mirror(&there);
        assert!(said.stderr.contains(NOTICED), "{tool}: {said}");
        assert!(!said.stderr.contains(KNOWN), "{tool}: {said}");
        for number in 20..60 {
            let path = there.join(format!("shelf/book%3A{number:02}/attachments/note.txt"));
            assert_eq!(fs::read(&path).unwrap(), b"second", "{tool}: {}", path.display());
        }
        oracle::assert_equals_feed(written.feed.path(), &there);
        let again = written.mirror(&there).assert_code(0);
        assert!(!again.stderr.contains(NOTICED), "{tool}: it is said once: {again}");
    }
}

#[test]
fn a_copy_of_which_also_the_inventory_is_old_is_compared_in_full() {
    let mut written = Written::new();
    let (here, there) = (written.place.mirror(), written.there());
    copy("cp -r", &here, &there, "none");
    written.go_on();
    let state = ".plainfold/state";
    fs::remove_dir_all(there.join(state)).unwrap();
    copy("cp -r", &here.join(state), &there.join(state), "none");
    // A repair of what is damaged does not make it pass for the mirror that it was.
    let damaged = there.join("shelf/book%3A10/document.json");
    fs::write(&damaged, "{").unwrap();
    let repaired = plainfold::run(["verify", there.to_str().unwrap(), "--repair"]);
    assert!(repaired.stdout.contains("repaired"), "{repaired}");
    let said = written.mirror(&there);
    assert!(said.stderr.contains(NOTICED), "{said}");
    oracle::assert_equals_feed(written.feed.path(), &there);
}

#[test]
fn a_copy_with_newer_documents_than_its_inventory_gets_a_new_inventory() {
    for is_repaired in [false, true] {
        let mut written = Written::new();
        let (here, there) = (written.place.mirror(), written.there());
        copy("cp -a", &here, &there, "none");
        written.go_on();
        fs::remove_dir_all(there.join("shelf")).unwrap();
        copy("cp -a", &here.join("shelf"), &there.join("shelf"), "none");
        let verify =
            |more: &[&str]| plainfold::run(["verify", there.to_str().unwrap()].iter().chain(more));
        if is_repaired {
            fs::write(there.join("shelf/book%3A10/document.json"), "{").unwrap();
            let repaired = verify(&["--repair"]);
            assert!(repaired.stdout.contains("repaired"), "{repaired}");
        } else {
            verify(&[]).assert_code(1);
        }
        let said = written.mirror(&there).assert_code(0);
        assert!(said.stderr.contains(NOTICED), "{said}");
        oracle::assert_equals_feed(written.feed.path(), &there);
        verify(&[]).assert_code(0);
    }
}

#[test]
fn a_copy_of_a_mirror_at_rest_continues_without_a_scan_and_writes_nothing_again() {
    for tool in TOOLS {
        let mut written = Written::new();
        written.go_on();
        let (here, there) = (written.place.mirror(), written.there());
        copy(tool, &here, &there, "none");
        let before = Tree::of(&there.join("shelf"));
        let said = written.mirror(&there).assert_code(0);
        assert!(said.stderr.contains(KNOWN) && !said.stderr.contains(NOTICED), "{tool}: {said}");
        let after = Tree::of(&there.join("shelf"));
        assert!(before.until(&after).is_empty(), "{tool}: something was written again");
        let again = written.mirror(&there).assert_code(0);
        assert!(!again.stderr.contains(KNOWN), "{tool}: it is known by now: {again}");
        // The one that was copied is what it was.
        let said = written.mirror(&here).assert_code(0);
        assert!(!said.stderr.contains(KNOWN) && !said.stderr.contains(NOTICED), "{tool}: {said}");
    }
}

#[test]
fn a_copy_at_rest_of_which_one_file_is_another_is_compared_in_full() {
    let written = Written::new();
    let (here, there) = (written.place.mirror(), written.there());
    copy("cp -r", &here, &there, "none");
    fs::write(there.join("shelf/book%3A07/attachments/note.txt"), "FIRST").unwrap();
    let said = written.mirror(&there);
    assert!(said.stderr.contains(NOTICED) && !said.stderr.contains(KNOWN), "{said}");
}

#[test]
fn a_swapped_folder_of_a_collection_is_compared_in_full() {
    let mut written = Written::new();
    let (here, there) = (written.place.mirror(), written.there());
    copy("cp -a", &here, &there, ".plainfold");
    written.go_on();
    fs::rename(here.join("shelf"), written.place.join("aside")).unwrap();
    fs::rename(there.join("shelf"), here.join("shelf")).unwrap();
    let said = written.mirror(&here);
    assert!(said.stderr.contains(NOTICED), "{said}");
    oracle::assert_equals_feed(written.feed.path(), &here);
}

#[test]
fn a_mirror_that_is_moved_within_its_file_system_is_the_same() {
    let written = Written::new();
    let there = written.there();
    fs::rename(written.place.mirror(), &there).unwrap();
    let said = written.mirror(&there).assert_code(0);
    assert!(!said.stderr.contains(KNOWN) && !said.stderr.contains(NOTICED), "{said}");
}

/// Copies a mirror without its state.
fn copy_without_state(from: &Path, to: &Path) {
    copy("cp -a", from, to, "none");
    fs::remove_dir_all(to.join(".plainfold/state")).unwrap();
}

#[test]
fn a_copy_at_rest_without_its_state_asks_the_server_for_nothing_but_what_is_new() {
    let place = Place::new();
    let server = PouchServer::start();
    server.create_db("shelf");
    for number in 0..20 {
        server.put_doc("shelf", &format!("book:{number:02}"), &json!({"n": number}));
    }
    let proxy = Proxy::start(server.address());
    let url = format!("http://{}/shelf", proxy.address());
    let (here, there) = (place.mirror(), place.join("copy"));
    plainfold::mirror(&url, &here).assert_code(0);
    let scanned = proxy.take_requests();
    copy_without_state(&here, &there);
    let before = Tree::of(&there);
    let said = plainfold::mirror(&url, &there).assert_code(0);
    assert!(said.stderr.contains(KNOWN) && !said.stderr.contains("full scan:"), "{said}");
    assert!(before.until(&Tree::of(&there)).is_empty(), "something was written again");
    let asked = proxy.take_requests();
    let begins = |line: &String| line.contains("_changes") && !line.contains("since=");
    let from_the_beginning = |lines: &[String]| lines.iter().any(begins);
    assert!(from_the_beginning(&scanned), "{scanned:?}");
    assert!(!from_the_beginning(&asked), "{asked:?}");
    // It is known by now, and follows what is new.
    server.put_doc("shelf", "new", &json!({}));
    let said = plainfold::mirror(&url, &there).assert_code(0);
    assert!(!said.stderr.contains(KNOWN), "{said}");
    assert!(!from_the_beginning(&proxy.take_requests()));
    oracle::assert_equals_server(&url, &there, "shelf");
    let events = plainfold::journal(&there, 0);
    let newest = plainfold::journal(&here, 0).last().unwrap()["event"].as_u64();
    assert_eq!(events.last().unwrap()["documentId"], "new");
    assert!(events.last().unwrap()["event"].as_u64() > newest, "{events:?}");
}

#[test]
fn a_copy_without_its_state_that_is_not_of_one_moment_is_compared_in_full() {
    for own_first in [false, true] {
        let mut written = Written::new();
        let (here, there) = (written.place.mirror(), written.there());
        let parts = [("shelf", ".plainfold"), (".plainfold", "shelf")];
        let (last, first) = parts[usize::from(own_first)];
        copy("cp -a", &here, &there, last);
        written.go_on();
        copy("cp -a", &here, &there, first);
        fs::remove_dir_all(there.join(".plainfold/state")).unwrap();
        let said = written.mirror(&there).assert_code(0);
        assert!(said.stderr.contains(IGNORED) && said.stderr.contains(SCANNED), "{said}");
        oracle::assert_equals_feed(written.feed.path(), &there);
        let again = written.mirror(&there).assert_code(0);
        assert!(!again.stderr.contains(IGNORED), "it is said once: {again}");
    }
}

#[test]
fn a_copy_without_its_state_of_a_run_that_was_killed_is_compared_in_full() {
    // The first commit is made before anything is published.
    for (point, passings) in [("publish", 0), ("published", 0), ("committed", 1), ("told", 1)] {
        let mut written = Written::new();
        let (here, there) = (written.place.mirror(), written.there());
        written.feed.put("book:29", json!({"n": 2}), &[]);
        written.feed.put("last", json!({}), &[]);
        let arguments = ["mirror", &written.feed.source(), here.to_str().unwrap()];
        assert!(crashing::aborted_at(point, crashing::run_to(point, passings, arguments)));
        assert!(here.join(PORTABLE).exists(), "that of the run before");
        copy_without_state(&here, &there);
        let said = written.mirror(&there).assert_code(0);
        assert!(said.stderr.contains(IGNORED) && !said.stderr.contains(KNOWN), "{point}: {said}");
        oracle::assert_equals_feed(written.feed.path(), &there);
    }
}

#[test]
fn a_copy_without_its_state_that_lacks_a_document_is_compared_in_full() {
    let written = Written::new();
    let (here, there) = (written.place.mirror(), written.there());
    copy_without_state(&here, &there);
    fs::remove_dir_all(there.join("shelf/book%3A07")).unwrap();
    plainfold::run(["verify", there.to_str().unwrap()]).assert_code(1);
    let said = written.mirror(&there).assert_code(0);
    assert!(said.stderr.contains(IGNORED) && !said.stderr.contains(KNOWN), "{said}");
    oracle::assert_equals_feed(written.feed.path(), &there);
}

#[test]
fn a_checkpoint_that_cannot_be_used_is_reported_and_ignored() {
    let written = Written::new();
    let here = written.place.mirror();
    let text = fs::read_to_string(here.join(PORTABLE)).unwrap();
    // That of the same source in another mirror, which another run has written.
    let other = written.place.join("other");
    written.mirror(&other).assert_code(0);
    let foreign = fs::read_to_string(other.join(PORTABLE)).unwrap();
    let moved = text.replace("shelf.ndjson", "elsewhere.ndjson");
    assert_ne!(moved, text);
    for (number, (text, why)) in [
        (&text[..text.len() / 2], "it is not a checkpoint"),
        ("", "it is not a checkpoint"),
        ("\0\0\0\0", "it is not a checkpoint"),
        ("{}", "it is not a checkpoint"),
        (&moved, "it is of another source"),
        (&foreign, "is not as the last run left it"),
    ]
    .into_iter()
    .enumerate()
    {
        let there = written.place.join(&format!("copy-{number}"));
        copy_without_state(&here, &there);
        fs::write(there.join(PORTABLE), text).unwrap();
        let said = written.mirror(&there).assert_code(0);
        assert!(said.stderr.contains(why) && said.stderr.contains(SCANNED), "{text}: {said}");
        oracle::assert_equals_feed(written.feed.path(), &there);
    }
    for kind in ["folder", "link", "none"] {
        let there = written.place.join(kind);
        copy_without_state(&here, &there);
        fs::remove_file(there.join(PORTABLE)).unwrap();
        match kind {
            "folder" => fs::create_dir(there.join(PORTABLE)).unwrap(),
            "link" => {
                std::os::unix::fs::symlink(here.join(PORTABLE), there.join(PORTABLE)).unwrap()
            }
            _ => {}
        }
        let said = written.mirror(&there).assert_code(0);
        assert!(said.stderr.contains(SCANNED), "{kind}: {said}");
        oracle::assert_equals_feed(written.feed.path(), &there);
    }
    assert_eq!(fs::read_to_string(here.join(PORTABLE)).unwrap(), text, "no link is followed");
}

#[test]
fn documents_that_failed_are_fetched_by_a_copy_that_does_not_know_of_them() {
    let mut written = Written::new();
    let (here, there) = (written.place.mirror(), written.there());
    assert!(here.join(PORTABLE).exists());
    written
        .feed
        .raw(b"{\"seq\":900,\"id\":\"broken\",\"changes\":[{\"rev\":\"1-x\"}],\"doc\":{}\n");
    written.feed.put("after", json!({}), &[]);
    written.mirror(&here).assert_code(1);
    assert!(!here.join(PORTABLE).exists(), "the failure is in the state alone");
    copy_without_state(&here, &there);
    let said = written.mirror(&there).assert_code(1);
    assert!(said.stderr.contains(SCANNED), "{said}");
}

#[test]
fn a_state_that_is_lost_in_its_place_is_followed_by_a_full_scan() {
    let written = Written::new();
    let here = written.place.mirror();
    fs::remove_dir_all(here.join(".plainfold/state")).unwrap();
    let said = written.mirror(&here).assert_code(0);
    assert!(said.stderr.contains(SCANNED) && !said.stderr.contains(KNOWN), "{said}");
}

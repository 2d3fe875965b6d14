//! A mirror from somebody else: whatever replaces Plainfold's files, no command follows it, waits
//! for it, or writes to a file that has another name outside.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::tree::{Tree, Written};
use crate::env::{Place, oracle};

/// The entries of `.plainfold`, and temporary names in it.
const NAMES: [&str; 23] = [
    "lock",
    "socket",
    "state",
    "state/db",
    "state/conf",
    "state/blobs",
    "state/snap.0000000000000001",
    "state.copy",
    "state.high-water",
    "state.high-water.new",
    "event-numbers",
    "clock.json",
    "clock.json.new",
    "format.json",
    "options.json",
    "options.json.new",
    "collections",
    "collections/shelf.json",
    "inventory/shelf.ndjson",
    "staging",
    "epoch",
    "checkpoints",
    "checkpoints/shelf.json",
];

const PLANTS: [&str; 8] = [
    "link to a file",
    "link to a folder",
    "dangling link",
    "pipe",
    "socket",
    "folder",
    "file",
    "hard link",
];

fn plant(what: &str, at: &Path, outside: &Path) {
    match fs::symlink_metadata(at) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(at).unwrap(),
        Ok(_) => fs::remove_file(at).unwrap(),
        Err(_) => {}
    }
    match what {
        "link to a file" => symlink(outside.join("file"), at).unwrap(),
        "link to a folder" => symlink(outside.join("folder"), at).unwrap(),
        "dangling link" => symlink(outside.join("new"), at).unwrap(),
        "pipe" => assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
        "socket" => drop(UnixListener::bind(at).unwrap()),
        "folder" => fs::create_dir(at).unwrap(),
        "file" => fs::write(at, "in the way\n").unwrap(),
        _ => fs::hard_link(outside.join("file"), at).unwrap(),
    }
}

/// A command may refuse, with words, but it ends.
fn bounded(arguments: &[&str]) -> Outcome {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_plainfold")]).args(arguments);
    plainfold::run_command(command)
}

#[test]
fn whatever_is_planted_is_neither_followed_nor_waited_for() {
    std::thread::scope(|scope| {
        for names in NAMES.chunks(NAMES.len().div_ceil(4)) {
            scope.spawn(|| Planted::new().assert_harmless(names));
        }
    });
}

/// A mirror that is behind its feed, and somebody's files.
struct Planted {
    place: Place,
    feed: FeedFile,
}

impl Planted {
    fn new() -> Self {
        let place = Place::new();
        let mut feed = FeedFile::create(place.join("shelf.ndjson"));
        feed.put("book", json!({}), &[("note.txt", b"first")]);
        plainfold::mirror(&feed.source(), &place.join("whole")).assert_code(0);
        feed.put("more", json!({}), &[("note.txt", b"second")]);
        Self { place, feed }
    }

    fn assert_harmless(&self, names: &[&str]) {
        let (mirror, source) = (self.place.mirror(), self.feed.source());
        let path = mirror.to_str().unwrap();
        let commands: [&[&str]; 5] = [
            &["status", path],
            &["tail", path, "--since", "0"],
            &["release", path, "shelf"],
            &["verify", path, "--repair", "--against", &source],
            &["mirror", &source, path],
        ];
        for (name, what) in names.iter().flat_map(|name| PLANTS.map(|what| (name, what))) {
            for command in commands {
                self.assert_one_harmless(name, what, command);
            }
        }
    }

    fn assert_one_harmless(&self, name: &str, what: &str, command: &[&str]) {
        let (mirror, outside) = (self.place.mirror(), self.place.join("outside"));
        let _gone = fs::remove_dir_all(&mirror);
        let whole = self.place.join("whole");
        let copied = Command::new("cp").arg("-a").args([&whole, &mirror]).status().unwrap();
        assert!(copied.success());
        let _gone = fs::remove_dir_all(&outside);
        fs::create_dir_all(outside.join("folder")).unwrap();
        fs::write(outside.join("folder/db"), "somebody's own\n").unwrap();
        fs::write(outside.join("file"), "somebody's own\n").unwrap();
        plant(what, &mirror.join(".plainfold").join(name), &outside);
        let before = Tree::of(&outside);
        let said = bounded(command);
        let case = format!("{what} for {name}, {command:?}: {said}");
        let written = before.until(&Tree::of(&outside));
        let written: Vec<String> = written.iter().map(Written::to_string).collect();
        assert!(written.is_empty(), "outside: {written:?}: {case}");
        let text = fs::read_to_string(outside.join("file")).unwrap();
        assert_eq!(text, "somebody's own\n", "{case}");
        match said.status.code() {
            Some(0) => {}
            Some(1 | 2 | 5) => assert!(!said.stderr.is_empty(), "{case}"),
            _ => panic!("{case}"),
        }
        assert!(!said.stderr.contains("internal error"), "{case}");
        if command[0] == "mirror" && said.status.success() {
            let collection = mirror.join("shelf");
            for id in ["book", "more"] {
                assert!(collection.join(id).join("attachments/note.txt").is_file(), "{case}");
            }
        }
    }
}

#[test]
fn what_says_how_a_mirror_is_kept_is_not_replaced_when_a_link_is_in_its_place() {
    for name in ["format.json", "options.json"] {
        let place = Place::new();
        let mut feed = FeedFile::create(place.join("shelf.ndjson"));
        feed.put("book", json!({}), &[]);
        plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
        let at = place.mirror().join(".plainfold").join(name);
        fs::rename(&at, place.join("kept")).unwrap();
        symlink(place.join("kept"), &at).unwrap();
        let said = plainfold::mirror(&feed.source(), &place.mirror()).assert_code(5);
        assert!(said.stderr.contains("it is not a file but a symbolic link"), "{said}");
        assert!(fs::symlink_metadata(&at).unwrap().is_symlink());
    }
}

#[test]
fn a_copy_of_hard_links_stays_as_it_was() {
    let place = Place::new();
    let mirror = place.mirror();
    let copy = place.join("copy");
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({}), &[("note.txt", b"first")]);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert!(Command::new("cp").arg("-al").args([&mirror, &copy]).status().unwrap().success());
    let before = Tree::of(&copy);
    feed.put("more", json!({}), &[("note.txt", b"second")]);
    feed.delete("book");
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    plainfold::run(["release".as_ref(), mirror.as_os_str(), "shelf".as_ref()]).assert_code(0);
    let written: Vec<String> =
        before.until(&Tree::of(&copy)).iter().map(Written::to_string).collect();
    assert!(written.is_empty(), "{written:?}");
    oracle::assert_equals_feed(feed.path(), &mirror);
    let names = fs::read_dir(mirror.join(".plainfold")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let aside: Vec<_> = names.filter(|name| name.contains("damaged")).collect();
    assert!(aside.is_empty(), "nothing was damaged: {aside:?}");
}

#[test]
fn a_live_mirror_keeps_its_own_place_when_a_link_takes_the_name_of_its_state() {
    let place = Place::new();
    let mirror = place.mirror();
    let outside = place.join("outside");
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({}), &[]);
    let running = plainfold::live(&feed.source(), &mirror);
    fs::create_dir(&outside).unwrap();
    let ours = mirror.join(".plainfold");
    fs::rename(ours.join("state"), ours.join("moved")).unwrap();
    symlink(&outside, ours.join("state")).unwrap();
    let mut tail = plainfold::tail(&mirror, 0);
    feed.put("more", json!({}), &[]);
    tail.wait_for_event(|event| event["documentId"] == "more");
    running.terminate();
    let said = running.wait().assert_code(0);
    assert!(!said.stderr.contains("internal error"), "{said}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{said}");
}

//! A process that was paused at any step, and whose mirror another process has taken over meanwhile:
//! nothing that it does afterwards changes the mirror, and it says so by its exit code.

use std::path::Path;

use serde_json::{Value, json};

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Stream};
use crate::env::random::Random;
use crate::env::tree::{Tree, Written};
use crate::env::{Place, crashing, oracle};

/// Every point that a batch passes, and every operation of the file system.
const POINTS: [&str; 25] = [
    "stage",
    "stage-text",
    "staged",
    "sync",
    "synced",
    "publish",
    "published",
    "published-synced",
    "commit",
    "flush",
    "committed",
    "told",
    "dispose",
    "io-open",
    "io-open-file",
    "io-read",
    "io-write",
    "io-make-file",
    "io-make-folder",
    "io-rename",
    "io-rename-new",
    "io-exchange",
    "io-remove",
    "io-sync",
    "io-sync-file",
];

/// A feed that grows.
struct Growing {
    file: FeedFile,
    chance: Random,
}

impl Growing {
    /// Appends new documents, other bodies, other attachments and deletions.
    fn grow(&mut self, rows: usize) {
        for _ in 0..rows {
            let id = format!("book:{}", self.chance.below(30));
            let body = json!({"n": self.chance.next()});
            let bytes = self.chance.bytes(300);
            match self.chance.below(4) {
                0 => drop(self.file.delete(&id)),
                1 => drop(self.file.put(&id, body, &[])),
                _ => drop(self.file.put(&id, body, &[("scan.bin", &bytes)])),
            }
        }
        // So that at least one folder is exchanged, and one is removed.
        let bytes = self.chance.bytes(300);
        self.file.put("always", json!({}), &[("scan.bin", &bytes)]);
        let n = self.chance.next();
        self.file.put("here and gone", json!({"n": n}), &[]);
        self.file.put("last", json!({"n": n}), &[]);
        match self.chance.below(2) {
            0 => drop(self.file.delete("now and then")),
            _ => drop(self.file.put("now and then", json!({"n": n}), &[])),
        }
    }
}

/// Everything in the mirror, the files of Plainfold's own folder included.
fn everything(mirror: &Path) -> [Tree; 2] {
    [Tree::of(mirror), Tree::of(&mirror.join(".plainfold"))]
}

/// Whether the process with this id has taken the lock last.
fn has_lock(mirror: &Path, id: u32) -> bool {
    let text = std::fs::read(mirror.join(".plainfold/lock")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["pid"] == id
}

/// The numbers of events; a notice, such as that of the numbers that were skipped, has none.
fn numbers(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["event"].as_u64()).collect()
}

#[test]
fn a_process_that_was_displaced_at_any_step_changes_nothing_when_it_wakes() {
    let place = Place::new();
    let mirror = place.mirror();
    let file = FeedFile::create(place.join("shelf.ndjson"));
    let mut feed = Growing { file, chance: Random::from_environment() };
    feed.grow(30);
    let source = feed.file.source();
    let directory = mirror.to_str().unwrap();
    plainfold::run(["mirror", &source, directory, "--trash", "30"]).assert_code(0);
    let mut passed = 0;
    for point in POINTS {
        for passings in [feed.chance.below(40), feed.chance.below(12), 0] {
            feed.grow(8);
            let until = place.join(&format!("wake-{point}-{passings}"));
            let arguments = ["mirror", &source, directory];
            let mut first = crashing::start_held(point, passings, &until, arguments);
            if !first.says_before_its_end(&format!("held at the failpoint `{point}`")) {
                first.wait().assert_code(0);
                assert!(passings > 0, "{point} was not passed");
                continue;
            }
            first.pause();
            if !has_lock(&mirror, first.id()) {
                // It has not opened the mirror yet, so it does so later.
                std::fs::write(&until, "").unwrap();
                first.wake();
                first.wait().assert_code(0);
                assert!(point.starts_with("io-"), "{point}");
                continue;
            }
            feed.grow(4);
            let second = plainfold::run(["mirror", &source, directory, "--take-over"]);
            second.assert_code(0);
            oracle::assert_equals_feed(feed.file.path(), &mirror);
            let before = everything(&mirror);
            let events = plainfold::journal(&mirror, 0);
            std::fs::write(&until, "").unwrap();
            first.wake();
            let said = first.wait();
            let [tree, ours] = everything(&mirror);
            let mut written = [before[0].until(&tree), before[1].until(&ours)].concat();
            // A process that was about to take the lanes gives them back when it sees the other.
            written.retain(|one| *one != Written::Touched("staging".into()));
            let written: Vec<_> = written.iter().map(ToString::to_string).collect();
            assert!(written.is_empty(), "{point} after {passings}: {written:#?}\n{said}");
            assert_eq!(said.status.code(), Some(6), "{point} after {passings}: {said}");
            assert!(said.stderr.contains("another process has taken over"), "{said}");
            assert_eq!(plainfold::journal(&mirror, 0), events, "{point} after {passings}");
            let numbers = numbers(&events);
            assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
            passed += 1;
        }
    }
    assert!(passed > POINTS.len(), "only {passed} times");
    plainfold::run(["verify", directory, "--against", &source]).assert_code(0);
    plainfold::mirror(&source, &mirror).assert_code(0);
    oracle::assert_equals_feed(feed.file.path(), &mirror);
    oracle::assert_clean(&mirror);
}

#[test]
fn a_live_process_that_was_displaced_notices_it_and_leaves_the_socket_of_the_other() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("a", json!({"n": 1}), &[]);
    let (source, directory) = (feed.source(), mirror.to_str().unwrap());
    let first = plainfold::live(&source, &mirror);
    first.pause();
    plainfold::mirror(&source, &mirror).assert_code(5);
    let mut second =
        plainfold::spawn(["mirror", &source, directory, "--live", "--take-over", "-v"]);
    second.wait_for_line(Stream::Stderr, |line| line.contains("caught up"));
    first.wake();
    let said = first.wait();
    assert_eq!(said.status.code(), Some(6), "{said}");
    assert!(said.stderr.contains(&format!("process {}", second.id())), "{said}");
    feed.put("b", json!({"n": 2}), &[]);
    plainfold::tail(&mirror, 0).wait_for_event(|event| event["documentId"] == "b");
    second.terminate();
    second.wait().assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
    oracle::assert_clean(&mirror);
}

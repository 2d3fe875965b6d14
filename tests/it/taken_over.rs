//! A process that was paused at any step, and whose mirror another process has taken over meanwhile:
//! nothing that it does afterwards changes the mirror, and it says so by its exit code.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::env::crashing::{self, OPERATIONS, STEPS};
use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Running, Stream};
use crate::env::random::Random;
use crate::env::tree::{Tree, Written};
use crate::env::{Place, oracle};

/// Operations that this feed does not need: it has no old files to link, and few to sync.
const OTHERS: [&str; 2] = ["io-link", "io-sync-file-system"];

/// Every point that a batch passes, and every operation of the file system but [`OTHERS`].
fn points() -> impl Iterator<Item = &'static str> {
    STEPS.into_iter().chain(OPERATIONS).filter(|point| !OTHERS.contains(point))
}

/// A feed that grows.
struct Growing {
    file: FeedFile,
    chance: Random,
}

impl Growing {
    /// Appends new documents, other bodies, other attachments and deletions. Returns the revision of
    /// the last one.
    fn grow(&mut self, rows: usize) -> String {
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
        match self.chance.below(2) {
            0 => drop(self.file.delete("now and then")),
            _ => drop(self.file.put("now and then", json!({"n": n}), &[])),
        }
        self.file.put("last", json!({"n": n}), &[])
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

/// The highest event number that a process may have used.
fn reserved(mirror: &Path) -> u64 {
    let text = std::fs::read_to_string(mirror.join(".plainfold/state.high-water")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

/// The numbers of events; a notice, such as that of the numbers that were skipped, has none.
fn numbers(lines: &[Value]) -> Vec<u64> {
    lines.iter().filter_map(|line| line["event"].as_u64()).collect()
}

/// A process that waits at a failpoint while it works on the mirror, stopped by a signal.
struct Paused {
    process: Running,
    /// The file that ends its wait.
    until: PathBuf,
}

/// A mirror, and a feed that it follows.
struct Scene {
    place: Place,
    feed: Growing,
    mirror: PathBuf,
    source: String,
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let file = FeedFile::create(place.join("shelf.ndjson"));
        let mut feed = Growing { file, chance: Random::from_environment() };
        feed.grow(30);
        let (mirror, source) = (place.mirror(), feed.file.source());
        let scene = Self { place, feed, mirror, source };
        plainfold::run(["mirror", &scene.source, scene.directory(), "--trash", "30"])
            .assert_code(0);
        scene
    }

    fn directory(&self) -> &str {
        self.mirror.to_str().unwrap()
    }

    /// A run that is paused at a failpoint; `None` if it passes it less often, or is there
    /// before it has opened the mirror.
    fn pause_at(&mut self, point: &str, passings: u64) -> Option<Paused> {
        self.feed.grow(8);
        let until = self.place.join(&format!("wake-{point}-{passings}"));
        let _gone = std::fs::remove_file(&until);
        let arguments = ["mirror", &self.source, self.directory()];
        let mut process = crashing::start_held(point, passings, &until, arguments);
        if !process.says_before_its_end(&format!("held at the failpoint `{point}`")) {
            process.wait().assert_code(0);
            return None;
        }
        process.pause();
        if has_lock(&self.mirror, process.id()) {
            return Some(Paused { process, until });
        }
        // It opens the mirror later.
        std::fs::write(&until, "").unwrap();
        process.wake();
        process.wait().assert_code(0);
        None
    }

    /// Another process takes the mirror over by force, and has caught up. With `live` it follows.
    fn take_over(&mut self, live: bool) -> Option<Running> {
        self.feed.grow(4);
        let mut arguments = vec!["mirror", &self.source, self.directory(), "--take-over"];
        let second = match live {
            false => {
                plainfold::run(arguments).assert_code(0);
                None
            }
            true => {
                arguments.extend(["--live", "-v"]);
                let mut second = plainfold::spawn(arguments);
                second.wait_for_line(Stream::Stderr, |line| line.contains("caught up"));
                Some(second)
            }
        };
        oracle::assert_equals_feed(self.feed.file.path(), &self.mirror);
        second
    }

    /// Wakes a process that was displaced, and waits for its end. Nothing changes, and it says so.
    fn wake(&self, first: Paused, at: &str) {
        let before = everything(&self.mirror);
        std::fs::write(&first.until, "").unwrap();
        first.process.wake();
        let said = first.process.wait();
        let [tree, ours] = everything(&self.mirror);
        let mut written = [before[0].until(&tree), before[1].until(&ours)].concat();
        // A process that was about to take the lanes gives them back when it sees the other.
        written.retain(|one| *one != Written::Touched("staging".into()));
        let written: Vec<_> = written.iter().map(ToString::to_string).collect();
        assert!(written.is_empty(), "{at}: {written:#?}\n{said}");
        assert_eq!(said.status.code(), Some(6), "{at}: {said}");
        assert!(said.stderr.contains("another process has taken over"), "{at}: {said}");
    }
}

#[test]
fn a_process_that_was_displaced_at_any_step_changes_nothing_when_it_wakes() {
    const MOST: u64 = 200;
    let mut scene = Scene::new();
    for point in points() {
        let chance = &mut scene.feed.chance;
        // Some points are passed before the mirror is open, others only once in a run.
        // The lanes are taken first. When they are given back, nothing is left to do.
        let often = if point == "io-rename-folder" { 4 } else { 40 };
        let chosen = [chance.below(often), chance.below(often.min(12))];
        let passings = chosen.into_iter().chain(0..MOST);
        let mut done = 0;
        for (turn, passings) in passings.enumerate() {
            let Some(first) = scene.pause_at(point, passings) else { continue };
            let at = format!("{point} after {passings}");
            let reserved = reserved(&scene.mirror);
            match scene.take_over(done == 0) {
                None => {
                    let events = plainfold::journal(&scene.mirror, reserved);
                    assert!(
                        !numbers(&events).is_empty(),
                        "{at}: no event has a number that is free"
                    );
                    let events = plainfold::journal(&scene.mirror, 0);
                    scene.wake(first, &at);
                    assert_eq!(plainfold::journal(&scene.mirror, 0), events, "{at}");
                }
                Some(second) => {
                    scene.wake(first, &at);
                    let last = scene.feed.grow(2);
                    let is_last = |event: &Value| event["revision"] == *last;
                    plainfold::tail(&scene.mirror, 0).wait_for_event(is_last);
                    second.terminate();
                    second.wait().assert_code(0);
                    oracle::assert_equals_feed(scene.feed.file.path(), &scene.mirror);
                }
            }
            let numbers = numbers(&plainfold::journal(&scene.mirror, 0));
            assert!(numbers.is_sorted_by(|one, other| one < other), "{at}: {numbers:?}");
            done += 1;
            if turn >= 2 {
                break;
            }
        }
        assert!(done > 0, "{point} was not reached");
    }
    plainfold::run(["verify", scene.directory(), "--against", &scene.source]).assert_code(0);
    plainfold::mirror(&scene.source, &scene.mirror).assert_code(0);
    oracle::assert_equals_feed(scene.feed.file.path(), &scene.mirror);
    oracle::assert_clean(&scene.mirror);
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

#[test]
fn other_commands_that_change_a_mirror_take_it_over_too() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("a", json!({"n": 1}), &[]);
    let (source, directory) = (feed.source(), mirror.to_str().unwrap());
    plainfold::run(["verify", directory, "--take-over"]).assert_code(2);
    for (command, option) in [("verify", "--repair"), ("verify", "--stamp"), ("release", "shelf")] {
        let first = plainfold::live(&source, &mirror);
        first.pause();
        plainfold::run([command, directory, option]).assert_code(5);
        plainfold::run([command, directory, option, "--take-over"]).assert_code(0);
        first.wake();
        let said = first.wait();
        assert_eq!(said.status.code(), Some(6), "{command} {option}: {said}");
        plainfold::mirror(&source, &mirror).assert_code(0);
        oracle::assert_clean(&mirror);
    }
}

//! One feed of many collections: it is read once for all of them, and none of them holds up, spoils or
//! loses another.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::env::feed::source;
use crate::env::plainfold::{self, Running};
use crate::env::{DEADLINE, Place};

/// A feed of many collections, with what each of them holds.
struct Many {
    path: PathBuf,
    text: String,
    holds: BTreeMap<String, Vec<String>>,
}

impl Many {
    fn new(place: &Place) -> Self {
        let path = place.join("many.ndjson");
        Self { path, text: String::new(), holds: BTreeMap::new() }
    }

    fn put(&mut self, collection: &str, id: &str, text: &str) {
        self.text += &format!(
            "{{\"seq\":1,\"collection\":\"{collection}\",\"id\":\"{id}\",\
             \"changes\":[{{\"rev\":\"1-a\"}}],\
             \"doc\":{{\"_id\":\"{id}\",\"_rev\":\"1-a\",\"text\":\"{text}\"}}}}\n"
        );
        self.holds.entry(collection.to_owned()).or_default().push(id.to_owned());
    }

    fn delete(&mut self, collection: &str, id: &str) {
        self.text += &format!(
            "{{\"seq\":1,\"collection\":\"{collection}\",\"id\":\"{id}\",\
             \"changes\":[{{\"rev\":\"2-a\"}}],\"deleted\":true}}\n"
        );
        self.holds.entry(collection.to_owned()).or_default().retain(|one| one != id);
    }

    /// A row for each of these collections in turn.
    fn fill(&mut self, collections: u32, rows: u32, prefix: &str, text: &str) {
        for row in 0..rows {
            self.put(&format!("c{}", row % collections), &format!("{prefix}{row}"), text);
        }
    }

    /// Appends what has come since the last time. Returns its length.
    fn append(&mut self) -> u64 {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&self.path).unwrap();
        let text = std::mem::take(&mut self.text);
        file.write_all(text.as_bytes()).unwrap();
        text.len() as u64
    }

    fn source(&self) -> String {
        source(&self.path)
    }

    #[track_caller]
    fn assert_listed(&self, mirror: &Path, except: &[&str]) {
        for (collection, ids) in &self.holds {
            if !except.contains(&collection.as_str()) {
                assert_eq!(documents(&mirror.join(collection)), sorted(ids), "{collection}");
            }
        }
    }

    #[track_caller]
    fn assert_mirrored(&self, mirror: &Path) {
        self.assert_listed(mirror, &[]);
        let mirror = mirror.to_str().unwrap();
        plainfold::run(["verify", mirror, "--against", &self.source(), "--bytes"]).assert_code(0);
    }
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

fn documents(collection: &Path) -> Vec<String> {
    let Ok(folders) = fs::read_dir(collection) else { return Vec::new() };
    let mut names: Vec<_> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn wait_for(tail: &mut Running, collection: &str, id: &str) {
    tail.wait_for_event(|event| event["collectionName"] == collection && event["documentId"] == id);
}

fn collection(status: &Value, name: &str) -> Value {
    let all = status["collections"].as_array().unwrap();
    all.iter().find(|one| one["collection"] == name).unwrap().clone()
}

fn end(live: Running) {
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn what_a_followed_file_grows_by_is_read_once() {
    let (place, text) = (Place::new(), "x".repeat(2_000));
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    feed.fill(50, 1_000, "a", &text);
    feed.append();
    let live = plainfold::live(&feed.source(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    let before = live.bytes_read();
    feed.fill(50, 1_000, "b", &text);
    feed.put("c99", "late", "a collection that is new");
    let grown = feed.append();
    wait_for(&mut tail, "c99", "late");
    feed.put("c0", "last", "");
    feed.append();
    wait_for(&mut tail, "c0", "last");
    let read = live.bytes_read() - before;
    end(live);
    assert!(read < 5 * grown, "{read} bytes were read of {grown}");
    feed.assert_mirrored(&mirror);
}

#[test]
fn a_killed_catch_up_is_continued_by_one_reading_and_loses_no_row() {
    let (place, text) = (Place::new(), "x".repeat(2_000));
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    feed.fill(50, 5_000, "a", &text);
    for row in (0..5_000).step_by(7) {
        feed.delete(&format!("c{}", row % 50), &format!("a{row}"));
    }
    let length = feed.append();
    for kept in [40, 1_500] {
        let mut run = plainfold::spawn(["mirror", &feed.source(), mirror.to_str().unwrap()]);
        let there =
            || -> usize { (0..50).map(|n| documents(&mirror.join(format!("c{n}"))).len()).sum() };
        let deadline = Instant::now() + DEADLINE;
        while there() < kept {
            assert!(Instant::now() < deadline, "{kept} documents do not appear");
            std::thread::yield_now();
        }
        run.kill();
        run.wait();
        assert!(there() < 5_000 - 5_000_usize.div_ceil(7), "it was killed at its end");
    }
    let live = plainfold::live(&feed.source(), &mirror);
    let read = live.bytes_read();
    end(live);
    assert!(read < 3 * length, "{read} bytes were read of {length}");
    feed.assert_mirrored(&mirror);
}

#[test]
fn patterns_are_decided_by_one_more_reading() {
    let (place, text) = (Place::new(), "x".repeat(2_000));
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    feed.fill(50, 5_000, "a", &text);
    let length = feed.append();
    let arguments =
        ["mirror", &feed.source(), mirror.to_str().unwrap(), "--live", "--collections", "c1*,c7"];
    let live = plainfold::live_command(plainfold::command_of(
        Path::new(env!("CARGO_BIN_EXE_plainfold")),
        arguments,
    ));
    let read = live.bytes_read();
    let mut tail = plainfold::tail(&mirror, 0);
    feed.put("c2", "not", "");
    feed.put("c111", "new", "");
    feed.append();
    wait_for(&mut tail, "c111", "new");
    end(live);
    assert!(read < 3 * length, "{read} bytes were read of {length}");
    for (name, ids) in &feed.holds {
        let wanted = name.starts_with("c1") || name == "c7";
        let ids = if wanted { sorted(ids) } else { Vec::new() };
        assert_eq!(documents(&mirror.join(name)), ids, "{name}");
    }
}

#[test]
fn a_collection_whose_folder_cannot_be_used_leaves_the_others_alone() {
    let place = Place::new();
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    feed.fill(10, 200, "a", "");
    feed.append();
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    fs::remove_dir_all(mirror.join("c3")).unwrap();
    fs::write(mirror.join("c3"), "in the way").unwrap();
    feed.fill(10, 200, "b", "");
    feed.append();
    let outcome = plainfold::mirror(&feed.source(), &mirror);
    assert!(!outcome.status.success() && outcome.stderr.contains("c3"), "{outcome}");
    feed.assert_listed(&mirror, &["c3"]);

    // While it is followed, the others continue, and it comes back.
    let mut live = plainfold::spawn(["mirror", &feed.source(), mirror.to_str().unwrap(), "--live"]);
    live.wait_for_line(plainfold::Stream::Stderr, |line| line.contains("c3"));
    let mut tail = plainfold::tail(&mirror, 0);
    feed.fill(10, 200, "c", "");
    feed.append();
    wait_for(&mut tail, "c9", "c199");
    fs::remove_file(mirror.join("c3")).unwrap();
    feed.put("c3", "back", "");
    feed.append();
    wait_for(&mut tail, "c3", "back");
    end(live);
    feed.assert_mirrored(&mirror);
}

#[test]
fn a_brake_and_its_release_concern_one_collection() {
    let place = Place::new();
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    feed.fill(10, 1_000, "a", "");
    feed.append();
    let live = plainfold::live(&feed.source(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    let gone: Vec<u32> = (0..1_000).filter(|row| row % 10 == 4).collect();
    for row in &gone {
        feed.delete("c4", &format!("a{row}"));
        feed.put("c5", &format!("b{row}"), "");
    }
    feed.put("c4", "after", "");
    feed.append();
    wait_for(&mut tail, "c4", "after");
    wait_for(&mut tail, "c5", "b994");
    let status = plainfold::status(&mirror);
    let held = |name: &str| collection(&status, name)["held_back"].as_u64().unwrap();
    assert!(held("c4") > 0 && held("c5") == 0, "{status}");
    plainfold::run(["release", mirror.to_str().unwrap(), "c4"]).assert_code(0);
    feed.put("c4", "later", "");
    feed.put("c6", "later", "");
    feed.append();
    wait_for(&mut tail, "c4", "later");
    end(live);
    feed.assert_mirrored(&mirror);
}

#[test]
fn too_many_bad_rows_of_one_collection_stop_that_one_alone() {
    let place = Place::new();
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    for row in 0..40 {
        feed.text += &format!("{{\"collection\":\"bad\",\"id\":\"b{row}\",\"changes\":[]}}\n");
        feed.put("good", &format!("g{row}"), "");
    }
    feed.append();
    let (from, to) = (feed.source(), mirror.to_str().unwrap());
    let arguments = ["mirror", &from, to, "--max-failures", "3"];
    plainfold::run(arguments).assert_code(1);
    feed.assert_listed(&mirror, &["bad"]);
    assert_eq!(collection(&plainfold::status(&mirror), "bad")["failures"], 3);
    let command = arguments.into_iter().chain(["--live"]);
    let mut live = plainfold::spawn(command);
    live.wait_for_line(plainfold::Stream::Stderr, |line| line.contains("--max-failures"));
    let mut tail = plainfold::tail(&mirror, 0);
    feed.put("good", "last", "");
    feed.append();
    wait_for(&mut tail, "good", "last");
    live.terminate();
    live.wait().assert_code(1);
    // The rows after those are not passed.
    plainfold::run(["mirror", &from, to, "--max-failures", "0"]).assert_code(1);
    assert_eq!(collection(&plainfold::status(&mirror), "bad")["failures"], 40);
}

#[test]
fn a_file_that_is_replaced_while_it_is_followed_is_read_again_for_all() {
    let (place, text) = (Place::new(), "x".repeat(2_000));
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    feed.fill(50, 500, "a", &text);
    feed.append();
    let live = plainfold::live(&feed.source(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    let before = live.bytes_read();
    let (path, aside) = (feed.path.clone(), place.join("aside"));
    feed.path = aside.clone();
    feed.fill(50, 3_000, "b", &text);
    feed.put("c7", "gone", "");
    feed.delete("c7", "gone");
    feed.put("new", "first", "");
    let length = feed.append();
    fs::rename(&aside, &path).unwrap();
    feed.path = path;
    wait_for(&mut tail, "new", "first");
    feed.put("c0", "last", "");
    feed.put("c49", "last", "");
    feed.append();
    wait_for(&mut tail, "c49", "last");
    let read = live.bytes_read() - before;
    end(live);
    // Once for what is deleted at its end, and once for the rows.
    assert!(read < 4 * length, "{read} bytes were read of {length}");
    // What the file no longer names is not known to be gone.
    feed.assert_listed(&mirror, &[]);
}

#[test]
fn a_pipe_of_many_collections_passes_a_row_that_is_huge() {
    let place = Place::new();
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    feed.fill(50, 1_000, "a", "");
    feed.put("c13", "large", &"y".repeat(15 << 20));
    feed.fill(50, 1_000, "b", "");
    feed.append();
    let huge =
        format!("{{\"collection\":\"c13\",\"id\":\"huge\",\"x\":\"{}\"}}\n", "z".repeat(17 << 20));
    fs::write(place.join("huge"), huge).unwrap();
    let command = "cat \"$2\" \"$3\" \"$2\" | \"$0\" mirror feed:- \"$1\"";
    let arguments = [
        "-c",
        command,
        env!("CARGO_BIN_EXE_plainfold"),
        mirror.to_str().unwrap(),
        feed.path.to_str().unwrap(),
        place.join("huge").to_str().unwrap(),
    ]
    .map(str::to_owned);
    let outcome = plainfold::run_command(plainfold::command_of(Path::new("sh"), arguments));
    let outcome = outcome.assert_code(1);
    assert!(outcome.stderr.contains("save the feed to a file"), "{outcome}");
    feed.assert_mirrored(&mirror);
}

#[test]
fn a_paused_collection_holds_up_no_other_and_has_everything_when_it_is_resumed() {
    let place = Place::new();
    let (mut feed, mirror) = (Many::new(&place), place.mirror());
    feed.fill(3, 30, "a", "");
    feed.append();
    let live = plainfold::live(&feed.source(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    let path = mirror.to_str().unwrap();
    plainfold::run(["pause", path, "--collection", "c1"]).assert_code(0);
    // More than may wait for all collections together.
    feed.fill(3, 600, "b", &"x".repeat(100_000));
    feed.append();
    wait_for(&mut tail, "c2", "b599");
    assert_eq!(documents(&mirror.join("c1")).len(), 10);

    plainfold::run(["pause", path]).assert_code(0);
    feed.put("new", "first", "");
    feed.append();
    let is_known = || {
        let status = plainfold::run(["status", path, "--format", "json"]).stdout;
        let status: Value = serde_json::from_str(&status).unwrap();
        let all = status["collections"].as_array().unwrap();
        let new = all.iter().find(|one| one["collection"] == "new");
        new.is_some_and(|new| new["phase"] == "paused")
    };
    let deadline = Instant::now() + DEADLINE;
    while !is_known() {
        assert!(Instant::now() < deadline, "the new collection is not paused");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(documents(&mirror.join("new")), [""; 0]);

    plainfold::run(["resume", path]).assert_code(0);
    feed.fill(3, 3, "later", "");
    feed.put("new", "second", "");
    feed.append();
    wait_for(&mut tail, "new", "second");
    for row in 0..3 {
        let mut tail = plainfold::tail(&mirror, 0);
        wait_for(&mut tail, &format!("c{row}"), &format!("later{row}"));
    }
    end(live);
    feed.assert_mirrored(&mirror);
}

//! A disk that is full or read-only: a live mirror waits, then continues, and loses nothing.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Running, Stream};
use crate::env::tiny::Tiny;
use crate::env::{DEADLINE, Place, oracle};

/// A feed of a shelf, whose file is elsewhere.
struct Shelf {
    place: Place,
    feed: FeedFile,
    next: usize,
}

impl Shelf {
    fn new() -> Self {
        let place = Place::new();
        let feed = FeedFile::create(place.join("shelf.ndjson"));
        let mut shelf = Self { place, feed, next: 0 };
        shelf.put(100);
        shelf
    }

    fn put(&mut self, count: usize) {
        for _ in 0..count {
            let id = format!("book:{}", self.next);
            self.feed.put(&id, json!({"filler": "-".repeat(4000)}), &[("note.txt", &[b'x'; 4000])]);
            self.next += 1;
        }
    }
}

fn only(status: &Value) -> &Value {
    &status["collections"][0]
}

fn wait_for_event(tail: &mut Running, id: &str) {
    tail.wait_for_event(|event| event["documentId"] == id);
}

/// Waits until the mirror reports that it waits for its disk. Returns the reason.
fn wait_for_trouble(live: &mut Running, mirror: &Path) -> String {
    live.wait_for_line(Stream::Stderr, |line| line.contains("the mirror waits"));
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = plainfold::status(mirror);
        let report = only(&status);
        if report["phase"] == "waiting" {
            return report["trouble"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "{status:#}");
    }
}

#[test]
fn a_live_mirror_whose_disk_is_full_waits_says_so_and_goes_on_when_there_is_room() {
    let Some(tiny) = Tiny::mount(24) else { return };
    let mut shelf = Shelf::new();
    let mirror = tiny.mirror();
    let mut live = plainfold::live(&shelf.feed.source(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    wait_for_event(&mut tail, "book:99");
    // How much is left decides which step fails: staging, the state, or something between.
    for (round, left) in [0, 8, 64, 256, 700].into_iter().enumerate() {
        tiny.fill(left * 1024);
        shelf.feed.put("book:3", json!({"round": round, "filler": "+".repeat(50_000)}), &[]);
        shelf.feed.delete("book:5");
        shelf.put(200);
        let position = only(&plainfold::status(&mirror))["position"].clone();
        let trouble = wait_for_trouble(&mut live, &mirror);
        assert!(trouble.contains("No space left") || trouble.contains("has no room"), "{trouble}");
        assert!(!position.is_null());
        tiny.empty();
        live.wait_for_line(Stream::Stderr, |line| line.contains("can be written again"));
        wait_for_event(&mut tail, &format!("book:{}", shelf.next - 1));
        shelf.feed.put("book:5", json!({"round": round}), &[]);
        wait_for_event(&mut tail, "book:5");
    }
    live.terminate();
    live.wait().assert_code(0);
    oracle::assert_equals_feed(shelf.feed.path(), &mirror);
    oracle::assert_clean(&mirror);
    plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
    drop(shelf.place);
}

#[test]
fn a_live_mirror_whose_disk_is_read_only_waits_and_goes_on() {
    let Some(mut tiny) = Tiny::mount(24) else { return };
    let mut shelf = Shelf::new();
    let mirror = tiny.mirror();
    let mut live = plainfold::live(&shelf.feed.source(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    wait_for_event(&mut tail, "book:99");
    // What is open for writing keeps a file system from becoming so: sled's file does.
    if !tiny.make_read_only() {
        eprintln!("skipped: the file system cannot be made read-only while it is written to");
        return;
    }
    shelf.put(1);
    let trouble = wait_for_trouble(&mut live, &mirror);
    assert!(trouble.contains("Read-only"), "{trouble}");
    tiny.make_writable();
    wait_for_event(&mut tail, "book:100");
    live.terminate();
    live.wait().assert_code(0);
    oracle::assert_equals_feed(shelf.feed.path(), &mirror);
}

#[test]
fn a_reserve_stays_free_and_a_catch_up_ends_at_once() {
    let Some(tiny) = Tiny::mount(24) else { return };
    let mut shelf = Shelf::new();
    let (source, mirror) = (shelf.feed.source(), tiny.mirror());
    plainfold::mirror(&source, &mirror).assert_code(0);
    shelf.put(10);
    let reserving = |size: &str| {
        plainfold::run(["mirror", &source, mirror.to_str().unwrap(), "--reserve", size])
    };
    let ended = reserving("1GiB").assert_code(5);
    assert!(ended.stderr.contains("--reserve") && ended.stderr.contains("bytes free"), "{ended}");
    assert!(!mirror.join("shelf/book%3A100").exists());
    reserving("1MiB").assert_code(0);
    oracle::assert_equals_feed(shelf.feed.path(), &mirror);
}

#[test]
fn without_any_room_a_catch_up_ends_and_status_still_reads_the_state() {
    let Some(tiny) = Tiny::mount(24) else { return };
    let mut shelf = Shelf::new();
    let (source, mirror) = (shelf.feed.source(), tiny.mirror());
    plainfold::mirror(&source, &mirror).assert_code(0);
    let before = plainfold::status(&mirror);
    tiny.fill(0);
    shelf.put(10);
    plainfold::mirror(&source, &mirror).assert_code(5);
    let status = plainfold::status(&mirror);
    assert_eq!(only(&status)["position"], only(&before)["position"], "{status:#}");
    assert_eq!(status["running"], false);
    tiny.empty();
    plainfold::mirror(&source, &mirror).assert_code(0);
    oracle::assert_equals_feed(shelf.feed.path(), &mirror);
}

#[test]
fn on_a_disk_without_files_or_bytes_deletions_are_made_and_make_room() {
    for (options, files) in [("size=40m,nr_inodes=4000", true), ("size=24m", false)] {
        let Some(tiny) = Tiny::mount_as("tmpfs", options) else { return };
        let mut shelf = Shelf::new();
        let (source, mirror) = (shelf.feed.source(), tiny.mirror());
        plainfold::run(["mirror", &source, mirror.to_str().unwrap(), "--max-delete", "off"])
            .assert_code(0);
        if files {
            tiny.fill_files()
        } else {
            tiny.fill(0)
        }
        (0..40).for_each(|number| drop(shelf.feed.delete(&format!("book:{number}"))));
        plainfold::mirror(&source, &mirror).assert_code(0);
        oracle::assert_equals_feed(shelf.feed.path(), &mirror);
        // Those that come after what has no room are made too.
        shelf.feed.put("large", json!({"filler": "-".repeat(30_000_000)}), &[]);
        shelf.put(if files { 400 } else { 0 });
        (40..60).for_each(|number| drop(shelf.feed.delete(&format!("book:{number}"))));
        let ended = plainfold::mirror(&source, &mirror).assert_code(5);
        let said = format!("{ended}");
        assert_eq!(said.matches("No space left").count(), 1, "{ended}");
        assert!(ended.stdout.contains("20 deleted"), "{ended}");
        assert!(
            !mirror.join("shelf/book%3A59").exists() && mirror.join("shelf/book%3A60").exists()
        );
        plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
    }
}

#[test]
fn a_live_mirror_that_waits_for_its_disk_makes_the_deletions_that_the_feed_brings() {
    for (options, files) in [("size=40m,nr_inodes=4000", true), ("size=24m", false)] {
        let Some(tiny) = Tiny::mount_as("tmpfs", options) else { return };
        let mut shelf = Shelf::new();
        let mirror = tiny.mirror();
        plainfold::run([
            "mirror",
            &shelf.feed.source(),
            mirror.to_str().unwrap(),
            "--max-delete",
            "off",
        ])
        .assert_code(0);
        let mut live = plainfold::live(&shelf.feed.source(), &mirror);
        let mut tail = plainfold::tail(&mirror, 0);
        if files {
            tiny.fill_files()
        } else {
            tiny.fill(0)
        }
        shelf.put(400);
        wait_for_trouble(&mut live, &mirror);
        for number in 0..5 {
            shelf.feed.delete(&format!("book:{number}"));
            let id = format!("book:{number}");
            tail.wait_for_event(|event| event["documentId"] == *id && event["deleted"] == true);
        }
        if files {
            fs::remove_dir_all(mirror.with_file_name("balloons")).unwrap()
        } else {
            tiny.empty()
        }
        wait_for_event(&mut tail, &format!("book:{}", shelf.next - 1));
        live.terminate();
        live.wait().assert_code(0);
        oracle::assert_equals_feed(shelf.feed.path(), &mirror);
        plainfold::run(["verify".as_ref(), mirror.as_os_str()]).assert_code(0);
    }
}

#[test]
fn a_feed_or_a_manifest_on_a_full_disk_is_an_error_and_never_half_a_file() {
    let Some(tiny) = Tiny::mount(4) else { return };
    let shelf = Shelf::new();
    let mirror = shelf.place.mirror();
    plainfold::mirror(&shelf.feed.source(), &mirror).assert_code(0);
    tiny.fill(32 * 1024);
    let there = |name: &str| tiny.mirror().with_file_name(name);
    let feed = format!("feed:{}", there("feed.ndjson").display());
    let restore = ["restore".as_ref(), mirror.as_os_str(), feed.as_ref()];
    let ended = plainfold::run(restore).assert_code(74);
    assert!(ended.stderr.contains("feed.ndjson cannot be written: No space left"), "{ended}");
    assert!(!there("feed.ndjson").exists());
    let sums = there("sums");
    let verify = ["verify".as_ref(), mirror.as_os_str(), "--manifest".as_ref(), sums.as_os_str()];
    let ended = plainfold::run(verify).assert_code(74);
    assert!(ended.stderr.contains("the manifest cannot be written to"), "{ended}");
    assert!(ended.stdout.contains("no problems found"), "{ended}");
    assert!(!sums.exists());
}

#[test]
fn where_temporary_files_have_no_room_status_says_where_and_what_to_do() {
    let Some(tiny) = Tiny::mount(4) else { return };
    let shelf = Shelf::new();
    let mirror = shelf.place.mirror();
    plainfold::mirror(&shelf.feed.source(), &mirror).assert_code(0);
    tiny.fill(0);
    let status = |format: &str| {
        let program = Path::new(env!("CARGO_BIN_EXE_plainfold"));
        let arguments =
            ["status".as_ref(), mirror.as_os_str(), "--format".as_ref(), format.as_ref()];
        let mut command = plainfold::command_of(program, arguments);
        command.env("TMPDIR", tiny.mirror().parent().unwrap());
        plainfold::run_command(command).assert_code(5).stdout
    };
    let said = status("text");
    assert!(said.contains("No space left") && said.contains("TMPDIR"), "{said}");
    let json: Value = serde_json::from_str(&status("json")).unwrap();
    assert!(json["running"] == false && json["trouble"].is_string(), "{json:#}");
}

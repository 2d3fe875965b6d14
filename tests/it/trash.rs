//! Deleted documents that are kept for a time, outside the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

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

/// Lets this many days pass for the clock that the mirror keeps itself.
fn pass_days(mirror: &Path, days: i64) {
    let path = mirror.join(".plainfold/clock.json");
    let mut clock: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let seen = clock["seen"].as_i64().unwrap();
    clock["seen"] = (seen + days * 24 * 60 * 60 * 1_000).into();
    fs::write(&path, clock.to_string()).unwrap();
}

#[test]
fn the_trash_is_swept_by_the_time_that_passed_and_never_by_what_a_folder_is_named() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    feed.put("book", json!({"n": 1}), &[]);
    keep(&feed.source(), &mirror, &[]);
    let trash = mirror.join(".plainfold/trash");
    for day in ["2001-01-01/shelf/old-1", "9999-01-01/shelf/young-1", "mine"] {
        fs::create_dir_all(trash.join(day)).unwrap();
    }
    let all = ["2001-01-01", "9999-01-01", "mine"];
    // The option is remembered, and the age of these documents is unknown.
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert_eq!(names(&trash), all);
    pass_days(&mirror, 29);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert_eq!(names(&trash), all);
    let off = ["mirror", &feed.source(), mirror.to_str().unwrap(), "--trash", "0"];
    pass_days(&mirror, 2);
    plainfold::run(off).assert_code(0);
    assert_eq!(names(&trash), all, "without a trash nothing is removed from it");
    keep(&feed.source(), &mirror, &["--discard"]);
    assert_eq!(names(&trash), ["mine"]);
}

/// A library that shifts the wall clock by the seconds in the file named by SHIFT_FILE.
const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    const char *name = getenv("SHIFT_FILE");
    FILE *file = clock == CLOCK_REALTIME && name ? fopen(name, "r") : NULL;
    long seconds = 0;
    if (file) { if (fscanf(file, "%ld", &seconds) == 1) time->tv_sec += seconds; fclose(file); }
    return result;
}
"#;

#[test]
fn a_clock_that_jumps_empties_neither_the_trash_nor_the_journal() {
    const DAY: i64 = 24 * 60 * 60;
    let place = Place::new();
    let mirror = place.mirror();
    let (code, library) = (place.join("shift.c"), place.join("shift.so"));
    fs::write(&code, SHIFT).unwrap();
    let compiler = ["-shared", "-fPIC", "-o"].map(std::ffi::OsString::from);
    let files = [library.clone().into(), code.into(), std::ffi::OsString::from("-ldl")];
    let compiled = Command::new("cc").args(compiler).args(files).status().expect("a C compiler");
    assert!(compiled.success());
    let shift = place.join("shift");
    let run = |days: i64, arguments: &[&str]| {
        fs::write(&shift, (days * DAY).to_string()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_plainfold"));
        let mut command = plainfold::command_of(program, arguments);
        command.env("LD_PRELOAD", &library).env("SHIFT_FILE", &shift);
        plainfold::run_command(command).assert_code(0)
    };
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let source = feed.source();
    let path = mirror.to_str().unwrap();
    let follow = |days| run(days, &["mirror", &source, path, "--trash", "30"]);
    for id in ["a", "b", "c", "d"] {
        feed.put(id, json!({}), &[]);
    }
    follow(0);
    let mut deleted = 0;
    for (days, id) in [(0, "a"), (40, "b"), (-20_000, "c"), (40_000, "d")] {
        feed.delete(id);
        follow(days);
        deleted += 1;
        let trash = mirror.join(".plainfold/trash");
        let lying = walkdir::WalkDir::new(&trash).min_depth(3).max_depth(3).into_iter().count();
        assert_eq!(lying, deleted, "with the clock {days} days off");
        assert_eq!(names(&trash).len(), deleted, "the clock was off: each has a day of its own");
        assert_eq!(plainfold::journal(&mirror, 0).len(), 4 + deleted);
    }
    follow(0);
    assert_eq!(names(&mirror.join(".plainfold/trash")).len(), 4);
    assert_eq!(plainfold::journal(&mirror, 0).len(), 8);
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

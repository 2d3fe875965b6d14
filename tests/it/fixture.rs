//! The recorded feed of the invented library: mirrored once, again, and after it has grown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::env::feed::source;
use crate::env::tree::{Tree, Written, assert_nothing_written};
use crate::env::{Place, library, oracle, plainfold, root};

/// A copy of the fixture that a test may change: the feed, and the files that it names.
fn copied_library(place: &Place) -> PathBuf {
    fs::create_dir(place.join("files")).unwrap();
    for file in fs::read_dir(root().join("fixtures/files")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), place.join("files").join(file.file_name())).unwrap();
    }
    let feed = place.join("library.ndjson");
    fs::copy(library(), &feed).unwrap();
    feed
}

/// The feed cut in two at a row: what was recorded until then, and the rest.
fn halves(feed: &Path) -> (Vec<u8>, Vec<u8>) {
    let text = fs::read(feed).unwrap();
    let middle = text.len() / 2 + memchr::memchr(b'\n', &text[text.len() / 2..]).unwrap() + 1;
    (text[..middle].to_vec(), text[middle..].to_vec())
}

#[test]
fn the_generator_gives_the_same_bytes_again() {
    let place = Place::new();
    let made = Command::new("python3")
        .arg("-B")
        .arg(root().join("fixtures/make_library.py"))
        .arg(place.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let content = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert!(content(&place.join("library.ndjson")) == content(&library()), "another feed");
    for file in fs::read_dir(root().join("fixtures/files")).unwrap() {
        let file = file.unwrap();
        let again = content(&place.join("files").join(file.file_name()));
        assert!(again == content(&file.path()), "another {:?}", file.file_name());
    }
}

#[test]
fn the_oracle_finds_each_kind_of_fault() {
    let tests = Command::new("python3")
        .args(["-B", "-m", "unittest", "discover"])
        .arg(root().join("tests/oracle"))
        .output()
        .unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
}

#[test]
fn the_library_is_mirrored_byte_for_byte() {
    let place = Place::new();
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    let said = oracle::assert_equals_feed(&library(), &place.mirror());
    assert!(said.starts_with("equal: 389 documents"), "{said}");
    oracle::assert_clean(&place.mirror());
}

#[test]
fn a_feed_on_standard_input_is_mirrored_as_the_file_is() {
    let place = Place::new();
    let feed = copied_library(&place);
    let outcome = Command::new(env!("CARGO_BIN_EXE_plainfold"))
        .current_dir(place.path()) // where the files that the feed names are found
        .args(["mirror", "feed:-", "mirror"])
        .stdin(fs::File::open(&feed).unwrap())
        .output()
        .unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    oracle::assert_equals_feed(&feed, &place.mirror());
}

#[test]
fn a_second_run_writes_nothing() {
    let place = Place::new();
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    assert_nothing_written(&place.mirror(), || {
        plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0)
    });
    oracle::assert_clean(&place.mirror());
}

#[test]
fn without_its_state_a_replay_from_the_beginning_rewrites_nothing() {
    let place = Place::new();
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    fs::remove_dir_all(place.mirror().join(".plainfold/state")).unwrap();
    assert_nothing_written(&place.mirror(), || {
        plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0)
    });
    oracle::assert_equals_feed(&library(), &place.mirror());
}

#[test]
fn damaged_state_is_rebuilt_by_a_replay_that_rewrites_nothing() {
    let place = Place::new();
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    let state = walkdir::WalkDir::new(place.mirror().join(".plainfold/state")).into_iter();
    for file in state.map(Result::unwrap).filter(|entry| entry.file_type().is_file()) {
        fs::write(file.path(), vec![0xa5; 4096]).unwrap();
    }
    assert_nothing_written(&place.mirror(), || {
        plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0)
    });
    oracle::assert_equals_feed(&library(), &place.mirror());
}

#[test]
fn after_the_feed_has_grown_only_its_new_rows_are_written() {
    let place = Place::new();
    let feed = copied_library(&place);
    let (first, rest) = halves(&feed);
    fs::write(&feed, &first).unwrap();
    plainfold::mirror(&source(&feed), &place.mirror()).assert_code(0);
    oracle::assert_equals_feed(&feed, &place.mirror());

    let before = Tree::of(&place.mirror());
    fs::write(&feed, [first, rest.clone()].concat()).unwrap();
    plainfold::mirror(&source(&feed), &place.mirror()).assert_code(0);
    oracle::assert_equals_feed(&feed, &place.mirror());
    let written = before.until(&Tree::of(&place.mirror()));
    let rows = memchr::memchr_iter(b'\n', &rest).count();
    let bodies = written.iter().filter(|written| {
        !matches!(written, Written::Removed(_)) && written.path().ends_with("document.json")
    });
    let bodies = bodies.count();
    assert!(0 < bodies && bodies <= rows, "{bodies} bodies written for {rows} new rows");
    oracle::assert_clean(&place.mirror());
}

#[test]
fn a_row_that_is_not_yet_complete_waits_for_its_end() {
    let place = Place::new();
    let feed = copied_library(&place);
    let text = fs::read(&feed).unwrap();
    let torn = text.len() - 40; // in the last row, mid-way
    fs::write(&feed, &text[..torn]).unwrap();
    plainfold::mirror(&source(&feed), &place.mirror()).assert_code(0);
    oracle::assert_equals_feed(&feed, &place.mirror());
    fs::write(&feed, &text).unwrap();
    plainfold::mirror(&source(&feed), &place.mirror()).assert_code(0);
    oracle::assert_equals_feed(&feed, &place.mirror());
}

#[test]
fn a_mirror_of_half_the_collections_has_no_folder_of_the_others() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut arguments = vec!["mirror".into(), source(&library()), mirror.display().to_string()];
    arguments.extend(["--collections".to_owned(), "b*,members".to_owned()]);
    plainfold::run(arguments).assert_code(0);
    let mut found: Vec<_> =
        fs::read_dir(&mirror).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, [".plainfold", "books", "members"]);
}

#[test]
fn without_attachments_no_attachment_is_written() {
    let place = Place::new();
    let mirror = place.mirror().display().to_string();
    plainfold::run(["mirror", &source(&library()), &mirror, "--attachments", "false"])
        .assert_code(0);
    let walk = walkdir::WalkDir::new(&mirror).into_iter().map(Result::unwrap);
    let attachments = walk.filter(|entry| entry.file_name() == "attachments").count();
    assert_eq!(attachments, 0);
}

#[test]
fn pretty_bodies_keep_every_number_and_are_not_rewritten_either() {
    let place = Place::new();
    let mirror = place.mirror();
    let directory = mirror.display().to_string();
    let source = source(&library());
    let run = || plainfold::run(["mirror", &source, &directory, "--json", "pretty"]).assert_code(0);
    run();
    let numbers = fs::read_to_string(mirror.join("books/numbers/document.json")).unwrap();
    for line in ["1.0", "12.500", "123456789012345678901234567890", "1e400", "-1.0E-400", "-0"] {
        let stands =
            numbers.lines().any(|text| text.trim_end_matches(',').ends_with(&format!(": {line}")));
        assert!(stands, "{line} in a line of its own of {numbers}");
    }
    assert_nothing_written(&mirror, run);
    oracle::assert_clean(&mirror);
}

//! Damaged or missing parts of `.plainfold` are set aside and rebuilt if that loses nothing, and a
//! mirror inside another is refused.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::tree::Tree;
use crate::env::{Place, oracle, plainfold};

/// A feed of three documents, and its mirror.
fn shelf(place: &Place) -> FeedFile {
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for id in ["a", "b", "c"] {
        feed.put(id, json!({}), &[("note.txt", b"text")]);
    }
    plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
    feed
}

fn aside(ours: &Path, name: &str) -> usize {
    let names = fs::read_dir(ours).unwrap().map(|entry| entry.unwrap().file_name());
    let damaged = format!("{name}.damaged-");
    names.filter(|name| name.to_string_lossy().starts_with(&damaged)).count()
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}

fn numbers(mirror: &Path) -> Vec<u64> {
    // A notice of what the journal does not hold any more has no number.
    plainfold::journal(mirror, 0).iter().filter_map(|line| line["event"].as_u64()).collect()
}

#[test]
fn a_file_for_a_folder_and_a_folder_for_a_file_are_set_aside_and_nothing_is_lost() {
    for name in ["state", "lock", "staging", "collections", "state.high-water", "event-numbers"] {
        let place = Place::new();
        let mut feed = shelf(&place);
        let ours = place.mirror().join(".plainfold");
        let was_folder = ours.join(name).is_dir();
        remove(&ours.join(name));
        match was_folder {
            true => fs::write(ours.join(name), "in the way").unwrap(),
            false => fs::create_dir(ours.join(name)).unwrap(),
        }
        let before = Tree::of(&place.mirror().join("shelf"));
        for command in ["status", "tail", "verify"] {
            plainfold::run([command.as_ref(), place.mirror().as_os_str()]).assert_code(0);
        }
        let said = plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
        if !["state.high-water", "event-numbers"].contains(&name) {
            assert_eq!(aside(&ours, name), 1, "{name}: {said}");
            assert!(said.stderr.contains("set aside as"), "{name}: {said}");
        }
        let after = Tree::of(&place.mirror().join("shelf"));
        assert!(before.until(&after).is_empty(), "{name}: something was written again");
        feed.put("d", json!({}), &[]);
        feed.delete("a");
        plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
        oracle::assert_equals_feed(feed.path(), &place.mirror());
        let numbers = numbers(&place.mirror());
        assert!(numbers.is_sorted() && !numbers.is_empty(), "{name}: {numbers:?}");
    }
}

#[test]
fn event_numbers_never_repeat_whatever_of_their_marks_is_gone() {
    for gone in [
        &["state"][..],
        &["state", "state.high-water"],
        &["state", "event-numbers"],
        &["state", "state.high-water", "event-numbers"],
    ] {
        let place = Place::new();
        let mut feed = shelf(&place);
        let mirror = place.mirror();
        let last = numbers(&mirror).into_iter().max().unwrap();
        gone.iter().for_each(|name| remove(&mirror.join(".plainfold").join(name)));
        feed.put("d", json!({}), &[]);
        let said = plainfold::mirror(&feed.source(), &mirror).assert_code(0);
        let first = numbers(&mirror).into_iter().min().unwrap();
        assert!(first > last, "{gone:?}: {first} after {last}");
        assert!(first < 1 << 53, "{gone:?}: {first} is not exact in JavaScript");
        let all = gone.len() == 3;
        assert_eq!(
            said.stderr.contains("both marks of its event numbers are missing"),
            all,
            "{said}"
        );
    }
}

#[test]
fn a_mirror_inside_another_is_refused_and_creates_nothing() {
    let place = Place::new();
    let feed = shelf(&place);
    let mirror = place.mirror();
    std::os::unix::fs::symlink(mirror.join("shelf"), place.join("link")).unwrap();
    let before = Tree::of(&mirror);
    for inside in [
        mirror.join("shelf"),
        mirror.join("shelf/new"),
        mirror.join("new/deep"),
        mirror.join(".plainfold/staging/0/new"),
        place.join("link/new"),
    ] {
        let said = plainfold::mirror(&feed.source(), &inside).assert_code(5);
        assert!(said.stderr.contains("inside another mirror"), "{said}");
        assert!(said.stderr.contains(mirror.canonicalize().unwrap().to_str().unwrap()), "{said}");
    }
    assert!(before.until(&Tree::of(&mirror)).is_empty());
    // A directory beside it, and one whose name only begins like it, are allowed.
    plainfold::mirror(&feed.source(), &place.join("mirror-2")).assert_code(0);
}

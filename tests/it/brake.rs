//! A mass deletion is held back until it is released, and all other changes are mirrored.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome, Stream};
use crate::env::pouchdb::PouchServer;
use crate::env::tree::assert_nothing_written;
use crate::env::{Place, oracle};

fn held_back(mirror: &Path) -> u64 {
    plainfold::status(mirror)["collections"][0]["held_back"].as_u64().unwrap()
}

fn release(mirror: &Path, collection: &str) -> Outcome {
    plainfold::run(["release".as_ref(), mirror.as_os_str(), collection.as_ref()])
}

fn documents(mirror: &Path) -> usize {
    let names = std::fs::read_dir(mirror.join("shelf")).unwrap();
    names.filter(|entry| entry.as_ref().unwrap().file_name() != "_security.json").count()
}

fn filled(place: &Place, count: usize) -> FeedFile {
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..count {
        feed.put(&format!("book:{number}"), json!({"n": number}), &[]);
    }
    feed
}

/// The documents whose deletion is in the journal.
fn told_deleted(mirror: &Path) -> BTreeSet<String> {
    let told = plainfold::tail(mirror, 0).wait().assert_code(0).stdout;
    let events = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let deleted = events.filter(|event| event["deleted"] == true);
    deleted.map(|event| event["documentId"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_database_created_again_with_few_documents_deletes_nothing_until_it_is_released() {
    let place = Place::new();
    let mirror = place.mirror();
    let server = PouchServer::start();
    let url = format!("{}/shelf", server.url());
    server.create_db("shelf");
    for number in 0..80 {
        server.put_doc("shelf", &format!("old:{number}"), &json!({"n": number}));
    }
    plainfold::mirror(&url, &mirror).assert_code(0);
    server.delete_db("shelf");
    server.create_db("shelf");
    for number in 0..5 {
        server.put_doc("shelf", &format!("new:{number}"), &json!({}));
    }
    let braked = plainfold::mirror(&url, &mirror).assert_code(1);
    let said = format!("{braked}");
    assert!(braked.stderr.contains("80 deletions are held back"), "{braked}");
    assert_eq!(said.matches("plainfold release").count(), 1, "{braked}");
    assert_eq!((documents(&mirror), held_back(&mirror)), (85, 80));
    let differing = ["verify".as_ref(), mirror.as_os_str(), "--against".as_ref(), url.as_ref()];
    let differing = plainfold::run(differing).assert_code(1);
    assert!(differing.stdout.contains("old:7"), "{differing}");

    // It survives a restart, with nothing new, and the rest stays in step.
    assert_nothing_written(&mirror, || {
        plainfold::mirror(&url, &mirror).assert_code(1);
    });
    server.put_doc("shelf", "old:3", &json!({"back": true}));
    server.put_doc("shelf", "later", &json!({}));
    plainfold::mirror(&url, &mirror).assert_code(1);
    assert_eq!((documents(&mirror), held_back(&mirror)), (86, 79));

    let released = release(&mirror, "shelf").assert_code(0);
    assert!(released.stdout.contains("released 79 deletions"), "{released}");
    plainfold::mirror(&url, &mirror).assert_code(0);
    assert_eq!(held_back(&mirror), 0);
    let told = told_deleted(&mirror);
    assert!(told.len() == 79 && !told.contains("old:3"), "{told:?}");
    oracle::assert_equals_server(&url, &mirror, "shelf");
    oracle::assert_clean(&mirror);
    let idle = release(&mirror, "shelf").assert_code(0);
    assert!(idle.stdout.contains("no deletions are held back"), "{idle}");
    release(&mirror, "shelves").assert_code(2);
}

#[test]
fn a_mass_deletion_by_a_live_feed_stops_half_way_and_goes_on_when_it_is_released() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = filled(&place, 100);
    let mut live = plainfold::live(&feed.source(), &mirror);
    let mut tail = plainfold::tail(&mirror, 0);
    for number in 0..80 {
        feed.delete(&format!("book:{number}"));
    }
    feed.put("marker", json!({}), &[]);
    tail.wait_for_event(|event| event["documentId"] == "marker");
    live.wait_for_line(Stream::Stderr, |line| line.contains("deletions are held back"));
    assert_eq!((documents(&mirror), held_back(&mirror)), (51, 30));
    // Two of them come back, one of which goes again.
    feed.put("book:70", json!({"back": 1}), &[]);
    feed.put("book:71", json!({"back": 1}), &[]);
    tail.wait_for_event(|event| event["documentId"] == "book:71" && event["deleted"] == false);
    feed.delete("book:71");
    feed.put("second marker", json!({}), &[]);
    tail.wait_for_event(|event| event["documentId"] == "second marker");
    assert_eq!(held_back(&mirror), 29);

    let released = release(&mirror, "shelf").assert_code(0);
    assert!(released.stdout.contains("applied 29 deletions"), "{released}");
    tail.wait_for_event(|event| event["documentId"] == "book:71" && event["deleted"] == true);
    live.terminate();
    live.wait().assert_code(0);
    assert_eq!(told_deleted(&mirror).len(), 79);
    oracle::assert_equals_feed(feed.path(), &mirror);
    oracle::assert_clean(&mirror);
}

#[test]
fn a_catch_up_counts_over_its_batches_and_what_it_holds_back_is_released_at_rest() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = filled(&place, 300);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    for number in 0..90 {
        feed.delete(&format!("book:{number}"));
    }
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert_eq!(documents(&mirror), 210, "90 of 300 are no more than 30 percent");
    for number in 90..200 {
        feed.delete(&format!("book:{number}"));
    }
    plainfold::mirror(&feed.source(), &mirror).assert_code(1);
    assert_eq!((documents(&mirror), held_back(&mirror)), (147, 47));
    feed.delete("book:299");
    plainfold::mirror(&feed.source(), &mirror).assert_code(1);
    assert_eq!(held_back(&mirror), 48, "one more is held back too");
    release(&mirror, "shelf").assert_code(0);
    assert_eq!(held_back(&mirror), 48, "the next run deletes them");
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    assert_eq!(told_deleted(&mirror).len(), 201);
    oracle::assert_equals_feed(feed.path(), &mirror);
}

#[test]
fn the_tombstones_of_held_back_deletions_are_kept_after_the_release() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = filled(&place, 60);
    let source = feed.source();
    let keeping = [
        "mirror".as_ref(),
        source.as_ref(),
        mirror.as_os_str(),
        "--deleted".as_ref(),
        "keep".as_ref(),
    ];
    plainfold::run(keeping).assert_code(0);
    for number in 0..60 {
        feed.delete(&format!("book:{number}"));
    }
    plainfold::run(keeping).assert_code(1);
    assert_eq!(held_back(&mirror), 10);
    release(&mirror, "shelf").assert_code(0);
    plainfold::run(keeping).assert_code(0);
    assert_eq!(documents(&mirror), 60);
    for number in 0..60 {
        let folder = mirror.join(format!("shelf/book%3A{number}"));
        assert!(folder.join("deleted.json").exists() && !folder.join("document.json").exists());
    }
}

#[test]
fn without_a_brake_everything_goes_and_what_was_held_back_too() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = filled(&place, 60);
    let source = feed.source();
    plainfold::mirror(&source, &mirror).assert_code(0);
    for number in 0..60 {
        feed.delete(&format!("book:{number}"));
    }
    plainfold::mirror(&source, &mirror).assert_code(1);
    let off = ["mirror", &source, mirror.to_str().unwrap(), "--max-delete=off", "--discard"];
    plainfold::run(off).assert_code(0);
    oracle::assert_equals_feed(feed.path(), &mirror);
    let nonsense = ["mirror", &source, "nowhere", "--max-delete", "30"];
    plainfold::run(nonsense).assert_code(2);
}

#[test]
fn a_mirror_that_has_lost_its_state_has_the_brake() {
    let place = Place::new();
    let mirror = place.mirror();
    let mut feed = filled(&place, 120);
    plainfold::mirror(&feed.source(), &mirror).assert_code(0);
    for number in 0..110 {
        feed.delete(&format!("book:{number}"));
    }
    for lost in [".plainfold/state", ".plainfold"] {
        std::fs::remove_dir_all(mirror.join(lost)).unwrap();
        let path = mirror.to_str().unwrap();
        let adopt = if lost == ".plainfold" { &["--adopt"][..] } else { &[] };
        let run = plainfold::run(["mirror", &feed.source(), path].iter().chain(adopt));
        run.assert_code(1);
        assert_eq!(held_back(&mirror) as usize, documents(&mirror) - 10, "{lost}");
        assert!(held_back(&mirror) > 0, "{lost}");
    }
}

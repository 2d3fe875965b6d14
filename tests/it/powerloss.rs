//! The power fails at every moment of a run, and everything that was not synced may be lost: every
//! document is at its old or its new version, and the next run repairs the rest and emits an event
//! for every change.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::disk::{self, Disk, Reached};
use crate::env::feed::FeedFile;
use crate::env::random::Random;
use crate::env::{Place, crashing, oracle, plainfold, tree};

/// The number of trees that Plainfold repairs; the oracle checks all of them.
const RUNS: usize = 30;

/// The number of random selections of what has reached the disk, at each moment.
const PARTS: usize = 4;

/// The newest change of a document.
#[derive(Debug)]
struct Change {
    id: String,
    revision: String,
    deleted: bool,
}

impl Change {
    fn is_told(&self, events: &[Value]) -> bool {
        events.iter().any(|event| {
            event["documentId"] == *self.id
                && event["revision"] == *self.revision
                && event["deleted"] == self.deleted
        })
    }
}

/// The first version of every document, and something to delete.
fn begin(feed: &mut FeedFile, chance: &mut Random) -> usize {
    for number in 0..12 {
        let bytes = chance.bytes(300);
        let both: [(&str, &[u8]); 2] = [("same.txt", b"always the same"), ("scan 1.bin", &bytes)];
        feed.put(&format!("book:{number}"), json!({"n": 1}), &both[..number % 3]);
    }
    12
}

/// A change of each kind for each of some documents: a body alone, attachments, a deletion, new ones.
fn change(feed: &mut FeedFile, documents: usize, chance: &mut Random) -> Vec<Change> {
    let mut changes = Vec::new();
    for number in 0..documents {
        let bytes = chance.bytes(700);
        let both: [(&str, &[u8]); 2] = [("same.txt", b"always the same"), ("scan 1.bin", &bytes)];
        let id = match number % 5 {
            4 => format!("new:{number}"),
            _ => format!("book:{}", number % 12),
        };
        let revision = match number % 5 {
            0 => feed.put(&id, json!({"n": chance.next()}), &[]),
            3 => feed.delete(&id),
            _ => feed.put(&id, json!({"n": chance.next()}), &both),
        };
        changes.push(Change { id, revision, deleted: number % 5 == 3 });
    }
    changes
}

/// Records a run over `documents` changes, and lets the power fail at every moment of it.
fn the_power_goes(documents: usize, from_nothing: bool) {
    let place = Place::new();
    let mirror = place.mirror();
    let mut chance = Random::from_environment();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let mut durable = 0;
    let source = feed.source();
    if from_nothing {
        std::fs::create_dir(&mirror).unwrap();
    } else {
        durable = begin(&mut feed, &mut chance);
        plainfold::mirror(&source, &mirror).assert_code(0);
    }
    let since = if from_nothing { 0 } else { durable as u64 };
    let before = place.join("before");
    std::fs::create_dir(&before).unwrap();
    disk::copy_state(&mirror.join(".plainfold"), &before.join(".plainfold"));
    let (disk, inodes) = Disk::before(&mirror);
    let changes = change(&mut feed, documents, &mut chance);
    let record = place.join("record");
    let arguments = ["mirror", &source, mirror.to_str().unwrap()];
    crashing::run_recorded(&record, arguments).assert_code(0);
    let disk = disk.read(inodes, &record);
    assert!(disk.commits() >= 2, "the record is not whole");

    // The record is complete: replayed to its end, it gives the present tree.
    let end = place.join("end");
    let last = disk.moments() - 1;
    disk.make(&disk.cut(last, Reached::Everything, &mut chance), &before, &end);
    oracle::assert_equals_feed(feed.path(), &end);
    oracle::assert_clean(&end);

    let mut met = HashSet::new();
    let mut left = Vec::new();
    for moment in 0..=last {
        let parts = std::iter::repeat_n(Reached::Some, PARTS);
        let kinds = [Reached::Nothing, Reached::Everything, Reached::NamesOnly];
        for reached in kinds.into_iter().chain(parts) {
            let tree = disk.cut(moment, reached, &mut chance);
            if met.insert(tree.hash()) {
                let path = place.join(&format!("after-{moment}-{}", left.len()));
                disk.make(&tree, &before, &path);
                left.push((tree, path));
            }
        }
    }
    let paths: Vec<&Path> = left.iter().map(|(_, path)| path.as_path()).collect();
    let said = oracle::assert_old_or_new(feed.path(), durable, &paths);
    eprintln!("{} moments, {} trees: {}", disk.moments(), left.len(), said.trim());
    // And the oracle detects it: if syncs do nothing, documents are torn.
    let lying = disk.without_syncs();
    let torn = place.join("torn");
    lying.make(&lying.cut(lying.moments() - 1, Reached::NamesOnly, &mut chance), &before, &torn);
    let faults = oracle::faults_of_old_or_new(feed.path(), durable, &torn);
    assert!(faults.contains("not JSON"), "{faults}");

    let mut mended = Vec::new();
    for run in 0..RUNS.min(left.len()) {
        let at = chance.below(left.len() as u64) as usize;
        let (_, path) = left.swap_remove(at);
        let lost = run % 4 == 3;
        if lost {
            std::fs::remove_dir_all(path.join(".plainfold/state")).ok();
        }
        plainfold::mirror(&source, &path).assert_code(0);
        assert_eq!(tree::staged(&path), 0, "{}", path.display());
        // If the state is lost, so is the journal with the emitted events.
        if !lost {
            let events = plainfold::journal(&path, since);
            for change in changes.iter().filter(|change| !(change.deleted && from_nothing)) {
                assert!(change.is_told(&events), "no event for {change:?}: {}", path.display());
            }
        }
        mended.push(path);
    }
    oracle::assert_old_or_new(feed.path(), durable + documents, &mended);
}

#[test]
fn when_the_power_goes_while_a_few_changes_are_synced_one_by_one_each_is_old_or_new() {
    the_power_goes(5, false);
}

#[test]
fn when_the_power_goes_while_many_changes_are_synced_together_each_is_old_or_new() {
    the_power_goes(12, false);
}

#[test]
fn when_the_power_goes_in_the_very_first_run_nothing_half_is_taken_for_a_mirror() {
    the_power_goes(10, true);
}

//! The inventory's file: records that survive a crash, records that the tree settles, and rewriting.

use std::io::Write as _;

use super::*;
use crate::archive::Tree;
use crate::mirror::inventory::NewRecord;
use crate::tree::inventory::{Contents, FileSum, Inventory, Recorded, State, line_of};

impl Bench {
    fn inventory_path(&self) -> PathBuf {
        self.dir.path().join("mirror/.plainfold/inventory/books.ndjson")
    }

    fn inventory(&self) -> Inventory {
        let tree = Tree::open(&self.dir.path().join("mirror")).unwrap();
        let (collections, _) = tree.collections().unwrap();
        collections[0].inventory().unwrap().unwrap()
    }

    fn recorded(&self, name: &str) -> Recorded {
        let inventory = self.inventory();
        let found = inventory.iter().unwrap().map(Result::unwrap).find(|one| one.name == name);
        found.unwrap_or_else(|| inventory.unlisted(name))
    }

    fn append_raw(&self, text: &str) {
        let file = fs::File::options().append(true).open(self.inventory_path());
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }
}

fn paths(recorded: &Recorded) -> Vec<&str> {
    recorded.present().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_file_of_a_document_is_listed_through_all_its_changes() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[("f", "one"), ("g", "two")]));
    assert_eq!(paths(&bench.recorded("a")), ["attachments/f", "attachments/g", "document.json"]);
    let first = bench.recorded("a").present().unwrap().clone();
    // The body alone, then one attachment, then both gone.
    bench.apply(&present("a", "2-x", &[("f", "one"), ("g", "two")]));
    let second = bench.recorded("a").present().unwrap().clone();
    assert_eq!(first["attachments/f"], second["attachments/f"]);
    assert_ne!(first["document.json"], second["document.json"]);
    bench.apply(&present("a", "3-x", &[("f", "one"), ("g", "three")]));
    let third = bench.recorded("a").present().unwrap().clone();
    assert_eq!(second["attachments/f"], third["attachments/f"]);
    assert_ne!(second["attachments/g"], third["attachments/g"]);
    bench.apply(&present("a", "4-x", &[]));
    assert_eq!(paths(&bench.recorded("a")), ["document.json"]);
    bench.apply(&deleted("a", "5-x"));
    assert_eq!(bench.recorded("a").states, [State::Absent]);
}

#[test]
fn the_tree_decides_which_record_has_come_true_after_a_crash() {
    for published in [false, true] {
        let bench = Bench::new();
        bench.apply(&present("a", "1-x", &[]));
        bench.collection.close_inventory().unwrap().unwrap();
        let change = present("a", "2-x", &[("f", "one")]);
        let Plan::Write(write) = bench.plan(&change) else { panic!() };
        let blobs = HashMap::from([("f".into(), Blob::Bytes("one".into()))]);
        let material = Material { blobs, ..Material::default() };
        let document = change.document();
        let staged =
            bench.collection.stage(&document, write, material, Sync::Each, Lane::default());
        let staged = staged.unwrap();
        bench.collection.record_staged(std::slice::from_ref(&staged), Sync::Each).unwrap();
        assert_eq!(bench.recorded("a").states.len(), 2, "either may be there");
        if published {
            bench.collection.publish(staged, Sync::Each).unwrap();
        }
        // The process ends here.
        let bench = bench.reopened(&MirrorOptions::default());
        let silent = bench.collection.silent(true).unwrap();
        assert_eq!(silent.iter().collect::<Vec<_>>(), ["a"]);
        let recorded = bench.recorded("a");
        assert_eq!(recorded.states.len(), 1);
        assert_eq!(paths(&recorded).len(), if published { 2 } else { 1 });
        // However many runs end before the end of the feed, its event must still be emitted.
        let bench = bench.reopened(&MirrorOptions::default());
        assert_eq!(bench.collection.silent(true).unwrap().len(), 1);
        assert_eq!(bench.collection.close_inventory().unwrap(), None);
        bench.collection.note_emitted().unwrap();
        let bench = bench.reopened(&MirrorOptions::default());
        assert!(bench.collection.silent(true).unwrap().is_empty());
    }
}

#[test]
fn an_inventory_that_is_started_again_lists_nothing_and_still_knows_which_events_are_owed() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[]));
    bench.collection.close_inventory().unwrap().unwrap();
    let record = bench.recorded("a");
    let line = line_of("a", None, record.states.last().unwrap());
    let record = NewRecord { name: "a", line: &line, replaces: true };
    bench.collection.append(std::iter::once(record), Sync::Each).unwrap();
    // The process ends here, and the folder turns out to be another one.
    let bench = bench.reopened(&MirrorOptions::default());
    bench.collection.restart_inventory().unwrap();
    let inventory = bench.inventory();
    assert_eq!((inventory.complete, inventory.iter().unwrap().count()), (false, 0));
    for _ in 0..2 {
        let silent = bench.collection.silent(true).unwrap();
        assert_eq!(silent.iter().collect::<Vec<_>>(), ["a"]);
    }
    let bench = bench.reopened(&MirrorOptions::default());
    assert_eq!(bench.collection.silent(true).unwrap().len(), 1);
}

#[test]
fn a_torn_end_is_cut_off_and_a_line_that_rotted_is_said() {
    for torn in ["{\"document\":\"b\",\"fi", "\0\0\0\0", "{\"mark\":\"comm{\"document\":\"b\"}\n"] {
        let bench = Bench::new();
        bench.apply(&present("a", "1-x", &[]));
        bench.append_raw(torn);
        let inventory = bench.inventory();
        assert_eq!((inventory.complete, inventory.damage.as_deref()), (true, None));
        let bench = bench.reopened(&MirrorOptions::default());
        bench.apply(&present("c", "1-x", &[]));
        assert_eq!(bench.inventory().iter().unwrap().count(), 2, "{torn:?}");
        assert_eq!(bench.inventory().damage, None);
    }
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[]));
    bench.apply(&present("b", "1-x", &[]));
    let text = fs::read_to_string(bench.inventory_path()).unwrap();
    fs::write(bench.inventory_path(), text.replacen("\"files\"", "\"files", 1)).unwrap();
    assert!(bench.inventory().damage.unwrap().contains("line 2"));
}

#[test]
fn what_is_of_no_use_any_more_is_dropped_and_nothing_else() {
    let bench = Bench::new();
    bench.apply(&present("stays", "1-x", &[("f", "one")]));
    bench.apply(&present("goes", "1-x", &[]));
    bench.apply(&deleted("goes", "2-x"));
    let before = bench.recorded("stays");
    let sum = FileSum { length: 1, sum: Some([7; 32]) };
    let state = State::Present(Contents::from([("document.json".to_owned(), sum)]));
    let line = line_of(&"x".repeat(150), None, &state);
    let size = || fs::metadata(bench.inventory_path()).unwrap().len();
    while size() < 400 << 10 {
        let record = NewRecord { name: "x", line: &line, replaces: true };
        bench.collection.append(std::iter::once(record), Sync::Together).unwrap();
        bench.collection.note_committed().unwrap();
    }
    let grown = size();
    let token = bench.collection.close_inventory().unwrap();
    assert!(size() < grown / 10, "{} of {grown}", size());
    let inventory = bench.inventory();
    assert_eq!((inventory.complete, inventory.closed.clone()), (true, token.clone()));
    assert_eq!(inventory.iter().unwrap().count(), 2);
    assert_eq!(bench.recorded("stays"), before);
    // And the end of the run is found without reading all of it.
    let bench = bench.reopened(&MirrorOptions::default());
    assert_eq!(bench.collection.close_inventory().unwrap(), token);
}

#[test]
fn a_tree_agrees_with_its_inventory_only_as_it_was_closed() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[("f", "one")]));
    bench.collection.write_security(b"{}").unwrap();
    bench.collection.note_committed().unwrap();
    let token = bench.collection.close_inventory().unwrap().unwrap();
    let agrees = |token: &str| bench.collection.agrees_with_inventory(token).unwrap();
    assert!(agrees(&token));
    assert!(!agrees("another"));
    fs::write(bench.path("a/attachments/f"), "two").unwrap();
    assert!(!agrees(&token));
    fs::write(bench.path("a/attachments/f"), "one").unwrap();
    assert!(agrees(&token), "the bytes decide, not the checksum beside them");
    fs::create_dir(bench.path("b")).unwrap();
    assert!(!agrees(&token));
    fs::remove_dir(bench.path("b")).unwrap();
    fs::rename(bench.path("a"), bench.path("b")).unwrap();
    assert!(!agrees(&token));
}

#[test]
fn what_a_full_listing_does_not_show_and_the_tree_does_not_hold_is_forgotten() {
    let bench = Bench::new();
    for id in ["here", "lost", "gone"] {
        bench.apply(&present(id, "1-x", &[]));
    }
    fs::remove_dir_all(bench.path("lost")).unwrap();
    fs::remove_dir_all(bench.path("gone")).unwrap();
    bench.collection.forget_absent(|id| id == "lost").unwrap();
    assert_eq!(bench.recorded("gone").states, [State::Absent]);
    for id in ["here", "lost"] {
        assert!(bench.recorded(id).present().is_some(), "{id}");
    }
}

#[test]
fn a_collection_that_held_documents_before_has_no_complete_inventory() {
    let bench = Bench::new();
    bench.apply(&present("old", "1-x", &[("f", "one")]));
    fs::remove_file(bench.inventory_path()).unwrap();
    let bench = bench.reopened(&MirrorOptions::default());
    bench.apply(&present("new", "1-x", &[]));
    // Nothing is known about its attachment.
    bench.apply(&present("old", "2-x", &[("f", "one")]));
    assert!(!bench.inventory().complete);
    assert!(bench.recorded("old").is_unknown() && bench.recorded("never").is_unknown());
    assert!(bench.recorded("new").present().is_some());
    bench.collection.stamp_tree(&Default::default()).unwrap();
    assert!(bench.inventory().complete);
    assert_eq!(paths(&bench.recorded("old")), ["attachments/f", "document.json"]);
    assert_eq!(bench.recorded("never").states, [State::Absent]);
}

//! Files that cannot be removed, or not even moved, stop nothing: they are reported and set aside,
//! and everything else is mirrored.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::{Place, oracle, plainfold};

/// A feed of a shelf with its mirror.
struct Shelf {
    place: Place,
    feed: FeedFile,
}

impl Shelf {
    fn mirrored() -> Self {
        let place = Place::new();
        let feed = FeedFile::create(place.join("shelf.ndjson"));
        let mut shelf = Self { place, feed };
        shelf.change(0);
        shelf.mirror(&[]).assert_code(0);
        shelf
    }

    /// Changes every document, and its attachment.
    fn change(&mut self, turn: u32) {
        for number in 0..12 {
            let content = format!("turn {turn}");
            let attachments = [("a.txt", content.as_bytes()), ("same.txt", b"the same")];
            self.feed.put(&format!("d{number}"), json!({ "turn": turn }), &attachments);
        }
    }

    fn path(&self) -> PathBuf {
        self.place.mirror()
    }

    fn document(&self, id: &str) -> PathBuf {
        self.path().join("shelf").join(id)
    }

    fn mirror(&self, more: &[&str]) -> plainfold::Outcome {
        let (source, mirror) = (self.feed.source(), self.path().display().to_string());
        plainfold::run(["mirror", &source, &mirror].iter().chain(more))
    }

    fn unremovable(&self) -> u64 {
        plainfold::status(&self.path())["unremovable"].as_u64().unwrap()
    }

    fn assert_mirrored(&self) {
        oracle::assert_equals_feed(self.feed.path(), &self.path());
        plainfold::run(["verify".as_ref(), self.path().as_os_str()]).assert_code(0);
    }
}

/// Makes something immutable until it is dropped. `None` where that is not allowed.
struct Immutable(PathBuf, &'static str);

impl Immutable {
    fn make(path: PathBuf, flag: &'static str) -> Option<Self> {
        let done = Command::new("chattr").arg(format!("+{flag}")).arg(&path).output();
        if !done.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: nothing can be made immutable here");
            return None;
        }
        Some(Self(path, flag))
    }

    /// Where it is now.
    fn moved_to(&mut self, path: PathBuf) {
        self.0 = path;
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg(format!("-{}", self.1)).arg(&self.0).output();
    }
}

/// The only thing that was set aside.
fn set_aside(mirror: &Path) -> PathBuf {
    let entries = fs::read_dir(mirror.join(".plainfold/unremovable")).unwrap();
    let all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn a_file_whose_name_is_not_text_goes_with_its_document() {
    let mut shelf = Shelf::mirrored();
    for id in ["d3", "d4"] {
        fs::write(shelf.document(id).join(OsStr::from_bytes(b"caf\xe9.txt")), "mine").unwrap();
    }
    shelf.change(1);
    shelf.feed.delete("d4");
    shelf.mirror(&[]).assert_code(0);
    shelf.assert_mirrored();
    oracle::assert_clean(&shelf.path());
    assert_eq!(shelf.unremovable(), 0);
}

#[test]
fn an_immutable_file_is_set_aside_with_its_folder_and_tried_again() {
    for deletion in [false, true] {
        let mut shelf = Shelf::mirrored();
        fs::write(shelf.document("d3").join("mine"), "mine").unwrap();
        let Some(mut mine) = Immutable::make(shelf.document("d3").join("mine"), "i") else {
            return;
        };
        shelf.change(1);
        if deletion {
            shelf.feed.delete("d3");
        }
        let said = shelf.mirror(&[]).assert_code(0).stderr;
        let aside = set_aside(&shelf.path());
        mine.moved_to(aside.join("mine"));
        assert!(said.contains("cannot remove") && said.contains(aside.to_str().unwrap()), "{said}");
        assert_eq!(fs::read_to_string(aside.join("mine")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&aside).unwrap().count(), 1, "all else of it is removed");
        shelf.assert_mirrored();
        // Later runs report it once, and continue.
        shelf.feed.put("later", json!({}), &[]);
        let said = shelf.mirror(&[]).assert_code(0).stderr;
        let lines = said.lines().filter(|line| line.contains("unremovable"));
        assert_eq!(lines.count(), 1, "{said}");
        assert_eq!(shelf.unremovable(), 1);
        let verified = plainfold::run(["verify".as_ref(), shelf.path().as_os_str()]).assert_code(0);
        assert!(verified.stdout.contains("1 part of earlier versions"), "{verified}");
        shelf.assert_mirrored();
        drop(mine);
        shelf.mirror(&[]).assert_code(0);
        assert_eq!(shelf.unremovable(), 0);
    }
}

#[test]
fn what_is_mounted_in_a_documents_folder_is_not_entered() {
    let mut shelf = Shelf::mirrored();
    let place = shelf.document("d3").join("mnt");
    fs::create_dir(&place).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "none"]).arg(&place);
    if !mount.output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    fs::write(place.join("precious"), "x").unwrap();
    shelf.change(1);
    let ended = shelf.mirror(&[]);
    let again = shelf.mirror(&[]);
    let mounted = set_aside(&shelf.path()).join("mnt");
    let kept = mounted.join("precious").exists();
    let done = Command::new("umount").arg(&mounted).status();
    assert!(done.is_ok_and(|status| status.success()), "it stays mounted");
    let said = ended.assert_code(0).stderr;
    assert!(said.contains("what is mounted at"), "{said}");
    again.assert_code(0);
    assert!(kept);
    shelf.mirror(&[]).assert_code(0);
    assert_eq!(shelf.unremovable(), 0);
    shelf.assert_mirrored();
}

#[test]
fn a_document_that_cannot_be_replaced_fails_by_its_name_and_the_others_do_not() {
    let mut shelf = Shelf::mirrored();
    let Some(folder) = Immutable::make(shelf.document("d3"), "i") else { return };
    let before = fs::read(shelf.document("d3").join("document.json")).unwrap();
    shelf.change(1);
    shelf.feed.put("later", json!({}), &[]);
    let said = shelf.mirror(&[]).assert_code(1);
    assert!(said.stderr.contains("document `d3` was not mirrored"), "{said}");
    assert!(said.stdout.contains("1 document failed"), "{said}");
    assert_eq!(fs::read(shelf.document("d3").join("document.json")).unwrap(), before);
    assert!(shelf.document("later").exists());
    plainfold::run(["verify".as_ref(), shelf.path().as_os_str()]).assert_code(0);
    // So does its deletion.
    shelf.feed.delete("d3");
    shelf.feed.delete("d5");
    shelf.mirror(&[]).assert_code(1);
    assert!(shelf.document("d3").exists() && !shelf.document("d5").exists());
    assert!(fs::read_dir(shelf.path().join(".plainfold/staging/0")).unwrap().next().is_none());
    drop(folder);
    shelf.mirror(&[]).assert_code(0);
    shelf.assert_mirrored();
    oracle::assert_clean(&shelf.path());
}

#[test]
fn a_repair_says_so_of_a_document_that_it_cannot_replace() {
    let shelf = Shelf::mirrored();
    for id in ["d3", "d4"] {
        fs::write(shelf.document(id).join("attachments/a.txt"), "damaged").unwrap();
    }
    let Some(folder) = Immutable::make(shelf.document("d3"), "i") else { return };
    let repair =
        || plainfold::run(["verify".as_ref(), shelf.path().as_os_str(), "--repair".as_ref()]);
    let said = repair();
    assert!(said.stdout.contains("repaired") && said.stdout.contains("d4"), "{said}");
    let line = said.stdout.lines().find(|line| line.contains("not-repaired"));
    assert!(line.is_some_and(|line| line.contains("d3")), "{said}");
    said.assert_code(1);
    drop(folder);
    repair().assert_code(0);
    shelf.mirror(&[]).assert_code(0);
    shelf.assert_mirrored();
}

#[test]
fn an_immutable_inventory_of_one_collection_stops_no_other() {
    let shelf = Shelf::mirrored();
    let mut other = FeedFile::create(shelf.place.join("annex.ndjson"));
    other.put("a", json!({}), &[]);
    let inventory = shelf.path().join(".plainfold/inventory/shelf.ndjson");
    let Some(inventory) = Immutable::make(inventory, "i") else { return };
    let mut feed = FeedFile::create(shelf.place.join("both.ndjson"));
    for collection in ["shelf", "annex"] {
        let doc = json!({"_id": "b", "_rev": "9-b"});
        let row =
            json!({"id": "b", "collection": collection, "changes": [{"rev": "9-b"}], "doc": doc});
        feed.raw(format!("{row}\n").as_bytes());
    }
    let mirror = shelf.path().display().to_string();
    let arguments = ["mirror", &feed.source(), &mirror, "--source-moved"];
    let said = plainfold::run(arguments).assert_code(5).stderr;
    assert!(said.contains("shelf.ndjson"), "{said}");
    assert!(shelf.path().join("annex/b/document.json").exists(), "{said}");
    drop(inventory);
    plainfold::run(arguments).assert_code(0);
    assert!(shelf.path().join("shelf/b/document.json").exists());
}

//! The contract of whatever holds documents at rest, as tests that take a factory.
//!
//! An archive of the suite holds one collection with the documents `a` (which has an attachment `f`,
//! the text `one`) and `b/c`, both at the revision `1-x`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::locate::{Located, locate};
use super::{Archive, Entry, Problem, ProblemKind, StoredCollection, StoredDocument, open};
use crate::document::Head;

pub(crate) mod memory;

use memory::{MemoryArchive, MemoryCollection};

/// The documents of each archive.
pub(crate) const IDS: [&str; 2] = ["a", "b/c"];

/// An archive that a test may damage.
pub(crate) trait Sample {
    fn open(&self) -> Arc<dyn Archive>;

    /// Changes the bytes in the place of a document's body; `None` is no bytes.
    fn rewrite(&self, document: &StoredDocument, change: &dyn Fn(Bytes) -> Option<Bytes>);

    /// Removes a document.
    fn remove(&self, path: &str, id: &str);

    /// What shows that something was written.
    fn stamps(&self) -> BTreeMap<PathBuf, (u64, i64, i64)>;
}

/// An archive in a directory of its own.
pub(crate) struct Directory {
    pub dir: tempfile::TempDir,
    /// The directory of the archive.
    pub path: PathBuf,
}

impl Sample for Directory {
    fn open(&self) -> Arc<dyn Archive> {
        open(&self.path).unwrap()
    }

    fn rewrite(&self, document: &StoredDocument, change: &dyn Fn(Bytes) -> Option<Bytes>) {
        let path = self.path.join(&document.body.path);
        match change(fs::read(&path).unwrap().into()) {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }

    fn remove(&self, path: &str, _id: &str) {
        fs::remove_dir_all(self.path.join(path)).unwrap();
    }

    fn stamps(&self) -> BTreeMap<PathBuf, (u64, i64, i64)> {
        let entries = walkdir::WalkDir::new(&self.path).into_iter().map(Result::unwrap);
        let stamp = |entry: walkdir::DirEntry| {
            let found = entry.path().symlink_metadata().unwrap();
            (entry.into_path(), (found.ino(), found.ctime(), found.ctime_nsec()))
        };
        entries.map(stamp).collect()
    }
}

impl Sample for MemoryArchive {
    fn open(&self) -> Arc<dyn Archive> {
        Arc::new(self.clone())
    }

    fn rewrite(&self, document: &StoredDocument, change: &dyn Fn(Bytes) -> Option<Bytes>) {
        let mut documents = self.0[0].documents.lock().unwrap();
        let held = documents.get_mut(&document.id).unwrap();
        held.body = change(held.body.take().unwrap());
    }

    fn remove(&self, _path: &str, id: &str) {
        self.0[0].documents.lock().unwrap().remove(&id.into());
    }

    fn stamps(&self) -> BTreeMap<PathBuf, (u64, i64, i64)> {
        BTreeMap::new()
    }
}

/// The archive of the suite in memory.
pub(crate) fn in_memory() -> MemoryArchive {
    let collection = MemoryCollection::new("books");
    let stub = r#"{"f":{"stub":true,"length":3,"content_type":"text/plain"}}"#;
    let body = format!(r#"{{"_id":"a","_rev":"1-x","_attachments":{stub}}}"#);
    collection.put("a", &body, &[("f", "one")]);
    collection.put("b/c", r#"{"_id":"b/c","_rev":"1-x"}"#, &[]);
    MemoryArchive(vec![Arc::new(collection)])
}

/// The tests, each with a fresh archive of `$factory`.
macro_rules! suite {
    ($kind:ident, $factory:expr) => {
        mod $kind {
            use super::*;

            $crate::archive::conformance::suite!(
                @ $factory;
                every_document_is_listed_once_and_found_by_its_id
                a_document_is_whole
                what_is_not_there_is_nothing
                a_damaged_document_is_a_problem_and_hides_no_other
                a_document_is_located_and_identified
                reading_writes_nothing
            );
        }
    };
    (@ $factory:expr; $($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                $crate::archive::conformance::$test(&$factory());
            }
        )*
    };
}
pub(crate) use suite;

suite!(fake, in_memory);

fn only(sample: &dyn Sample) -> Arc<dyn StoredCollection> {
    let (mut collections, problems) = sample.open().collections().unwrap();
    assert_eq!((collections.len(), problems), (1, Vec::new()));
    collections.remove(0)
}

fn document(collection: &dyn StoredCollection, id: &str) -> StoredDocument {
    match entry(collection, id) {
        Some(Entry::Document(document)) => *document,
        other => panic!("{id}: {other:?}"),
    }
}

fn problem(collection: &dyn StoredCollection, id: &str) -> Problem {
    match entry(collection, id) {
        Some(Entry::Problem(problem)) => problem,
        other => panic!("{id}: {other:?}"),
    }
}

fn entry(collection: &dyn StoredCollection, id: &str) -> Option<Entry> {
    collection.entry(&collection.name_of(&id.into())).unwrap()
}

pub(crate) fn every_document_is_listed_once_and_found_by_its_id(sample: &dyn Sample) {
    let collection = &*only(sample);
    let names = collection.entry_names().unwrap();
    let mut expected = IDS.map(|id| collection.name_of(&id.into()));
    expected.sort();
    assert_eq!(names, expected, "in order");
    let mut each: Vec<_> =
        collection.each_name().unwrap().map(|name| name.unwrap().unwrap()).collect();
    each.sort();
    assert_eq!(each, names);
    for id in IDS {
        assert_eq!(document(collection, id).id.as_str(), id);
    }
}

pub(crate) fn a_document_is_whole(sample: &dyn Sample) {
    let collection = &*only(sample);
    for id in IDS {
        let document = document(collection, id);
        assert_eq!(document.revision.as_ref().unwrap().as_str(), "1-x");
        let head = Head::read(&document.body.text).unwrap();
        assert_eq!(head.revision.as_deref(), Some("1-x"));
        assert_eq!(document.path, collection.path_of(&collection.name_of(&id.into())));
        assert!(document.extras().unwrap().is_empty() && document.problems.is_empty());
        assert!(!document.deleted && document.conflicts.is_empty());
    }
    let a = document(collection, "a");
    let [f] = &a.attachments[..] else { panic!("{:?}", a.attachments) };
    assert_eq!((f.name.as_str(), f.size), ("f", Some(3)));
    let mut file = a.open_attachment(f).unwrap().unwrap();
    for _ in 0..2 {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        file.rewind().unwrap();
    }
    assert!(
        file.noted().is_ok_and(|noted| noted == *blake3::hash(b"one").as_bytes())
            || file.noted().is_err()
    );
}

pub(crate) fn what_is_not_there_is_nothing(sample: &dyn Sample) {
    let collection = &*only(sample);
    assert!(entry(collection, "never").is_none());
    let before = collection.version("a").unwrap();
    assert_eq!(collection.version("a").unwrap(), before);
    let a = collection.name_of(&"a".into());
    sample.remove(&collection.path_of(&a), "a");
    assert!(entry(collection, "a").is_none(), "it is gone by now");
    assert_ne!(collection.version("a").unwrap(), before);
    assert!(!collection.entry_names().unwrap().contains(&a));
}

pub(crate) fn a_damaged_document_is_a_problem_and_hides_no_other(sample: &dyn Sample) {
    let collection = &*only(sample);
    let whole = document(collection, "a");
    let path = whole.body.path.clone();
    // To the half, to one byte, to nothing.
    for share in [2, whole.body.text.len() / 2, 2] {
        sample.rewrite(&whole, &|bytes| Some(bytes.slice(..bytes.len() / share)));
        let problem = problem(collection, "a");
        assert_eq!(problem.path, path, "a part of one in {share} is left");
        let kinds = [ProblemKind::Altered, ProblemKind::HalfWritten];
        assert!(kinds.contains(&problem.kind), "{problem:?}");
    }
    sample.rewrite(&whole, &|_| Some(Bytes::from_static(b"[1]\n")));
    assert_eq!(problem(collection, "a").kind, ProblemKind::Altered);
    sample.rewrite(&whole, &|_| None);
    let missing = problem(collection, "a");
    assert_eq!((missing.path, missing.kind), (path, ProblemKind::Missing));
    document(collection, "b/c");
    assert_eq!(collection.entry_names().unwrap().len(), IDS.len(), "it is still reported");
}

/// The same of an archive in a directory.
pub(crate) fn no_link_is_followed(sample: &Directory) {
    let collection = &*only(sample);
    let whole = document(collection, "a");
    let (folder, away) = (sample.path.join(&whole.path), sample.dir.path().join("away"));
    fs::rename(&folder, &away).unwrap();
    symlink(&away, &folder).unwrap();
    let found = problem(collection, "a");
    assert_eq!(found.kind, ProblemKind::Extra, "{found:?}");
    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    let file = sample.path.join(&whole.body.path);
    fs::rename(&file, &away).unwrap();
    symlink(&away, &file).unwrap();
    assert_ne!(problem(collection, "a").kind, ProblemKind::Unchecked);
}

pub(crate) fn a_document_is_located_and_identified(sample: &dyn Sample) {
    let (archive, collection) = (sample.open(), only(sample));
    for id in IDS {
        let there = locate(&*archive, collection.name(), &id.into()).unwrap();
        assert_eq!(there.found, Located::Document);
        for below in ["", "document.json"] {
            let found = archive.identify(&Path::new(&there.path).join(below)).unwrap();
            assert_eq!((&found.collection, found.id.as_str()), (collection.name(), id));
            assert_eq!(found.found, Located::Document);
        }
    }
    let never = locate(&*archive, collection.name(), &"never".into()).unwrap();
    assert_eq!(never.found, Located::Nothing);
    assert!(locate(&*archive, &"no such collection".into(), &"a".into()).is_err());
    assert!(archive.identify(Path::new("")).is_err());
}

pub(crate) fn reading_writes_nothing(sample: &dyn Sample) {
    let before = sample.stamps();
    let (archive, collection) = (sample.open(), only(sample));
    for name in collection.entry_names().unwrap() {
        collection.entry(&name).unwrap();
    }
    collection.security().unwrap();
    collection.inventory().unwrap();
    archive.missing(std::slice::from_ref(&collection)).unwrap();
    assert!(collection.is_recorded().unwrap() && collection.holds_attachments().unwrap());
    assert_eq!((archive.leftovers().unwrap(), archive.unremovable()), (0, 0));
    assert_eq!(sample.stamps(), before);
}

//! The contract of whatever holds documents at rest, as tests that take a factory.
//!
//! An archive of the suite holds one collection with the documents `a` (which has an attachment `f`,
//! the text `one`) and `b/c`, both at the revision `1-x`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::locate::Found;
use super::{Entry, Problem, ProblemKind, StoredDocument, Tree, TreeCollection};
use crate::document::Head;

/// The documents of each archive.
pub(crate) const IDS: [&str; 2] = ["a", "b/c"];

/// An archive in a directory of its own.
pub(crate) struct Sample {
    pub dir: tempfile::TempDir,
    /// The directory of the archive.
    pub path: PathBuf,
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
                no_link_is_followed
                a_document_is_located_and_identified
                reading_writes_nothing
            );
        }
    };
    (@ $factory:expr; $($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                $crate::archive::conformance::$test(&$factory);
            }
        )*
    };
}
pub(crate) use suite;

impl Sample {
    fn open(&self) -> (Tree, TreeCollection) {
        let tree = Tree::open(&self.path).unwrap();
        let (mut collections, problems) = tree.collections().unwrap();
        assert_eq!((collections.len(), problems), (1, Vec::new()));
        let only = collections.remove(0);
        (tree, only)
    }

    /// The folder of a document.
    fn folder(&self, collection: &TreeCollection, id: &str) -> PathBuf {
        self.path.join(collection.path_of(&collection.name_of(&id.into())))
    }
}

fn document(collection: &TreeCollection, id: &str) -> StoredDocument {
    match entry(collection, id) {
        Some(Entry::Document(document)) => *document,
        other => panic!("{id}: {other:?}"),
    }
}

fn problem(collection: &TreeCollection, id: &str) -> Problem {
    match entry(collection, id) {
        Some(Entry::Problem(problem)) => problem,
        other => panic!("{id}: {other:?}"),
    }
}

fn entry(collection: &TreeCollection, id: &str) -> Option<Entry> {
    collection.entry(&collection.name_of(&id.into())).unwrap()
}

pub(crate) fn every_document_is_listed_once_and_found_by_its_id(new: &dyn Fn() -> Sample) {
    let sample = new();
    let (_tree, collection) = sample.open();
    let names = collection.entry_names().unwrap();
    let mut expected = IDS.map(|id| collection.name_of(&id.into()));
    expected.sort();
    assert_eq!(names, expected, "in order");
    let mut each: Vec<_> =
        collection.each_name().unwrap().map(|name| name.unwrap().unwrap()).collect();
    each.sort();
    assert_eq!(each, names);
    for id in IDS {
        assert_eq!(document(&collection, id).id.as_str(), id);
    }
}

pub(crate) fn a_document_is_whole(new: &dyn Fn() -> Sample) {
    let sample = new();
    let (_tree, collection) = sample.open();
    for id in IDS {
        let document = document(&collection, id);
        assert_eq!(document.revision.as_ref().unwrap().as_str(), "1-x");
        let head = Head::read(&document.body).unwrap();
        assert_eq!(head.revision.as_deref(), Some("1-x"));
        assert!(sample.path.join(document.body_path()).is_file());
        assert_eq!(document.path, collection.path_of(&collection.name_of(&id.into())));
        assert!(document.extras().unwrap().is_empty() && document.problems.is_empty());
        assert!(!document.deleted && document.conflicts.is_empty());
    }
    let a = document(&collection, "a");
    let [f] = &a.attachments[..] else { panic!("{:?}", a.attachments) };
    assert_eq!((f.name.as_str(), f.size), ("f", Some(3)));
    assert!(sample.path.join(a.attachment_path(f)).is_file());
    let mut text = String::new();
    a.open_attachment(f).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "one");
}

pub(crate) fn what_is_not_there_is_nothing(new: &dyn Fn() -> Sample) {
    let sample = new();
    let (_tree, collection) = sample.open();
    assert!(entry(&collection, "never").is_none());
    let before = collection.standing("a").unwrap();
    assert_eq!(collection.standing("a").unwrap(), before);
    fs::remove_dir_all(sample.folder(&collection, "a")).unwrap();
    assert!(entry(&collection, "a").is_none(), "it is gone by now");
    assert_ne!(collection.standing("a").unwrap(), before);
    let a = collection.name_of(&"a".into());
    assert!(!collection.entry_names().unwrap().contains(&a));
}

pub(crate) fn a_damaged_document_is_a_problem_and_hides_no_other(new: &dyn Fn() -> Sample) {
    let sample = new();
    let (_tree, collection) = sample.open();
    let path = document(&collection, "a").body_path();
    let body = sample.path.join(&path);
    let whole = fs::read(&body).unwrap();
    for length in [0, 1, whole.len() / 2] {
        fs::write(&body, &whole[..length]).unwrap();
        let problem = problem(&collection, "a");
        assert_eq!(problem.path, path, "{length} bytes are left");
        let kinds = [ProblemKind::Altered, ProblemKind::HalfWritten];
        assert!(kinds.contains(&problem.kind), "{problem:?}");
    }
    fs::write(&body, b"[1]\n").unwrap();
    assert_eq!(problem(&collection, "a").kind, ProblemKind::Altered);
    fs::remove_file(&body).unwrap();
    let missing = problem(&collection, "a");
    assert_eq!((missing.path, missing.kind), (path, ProblemKind::Missing));
    document(&collection, "b/c");
    assert_eq!(collection.entry_names().unwrap().len(), IDS.len(), "it is still reported");
}

pub(crate) fn no_link_is_followed(new: &dyn Fn() -> Sample) {
    let sample = new();
    let (_tree, collection) = sample.open();
    let (folder, away) = (sample.folder(&collection, "a"), sample.dir.path().join("away"));
    fs::rename(&folder, &away).unwrap();
    symlink(&away, &folder).unwrap();
    let found = problem(&collection, "a");
    assert_eq!(found.kind, ProblemKind::Extra, "{found:?}");
    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    let file = sample.path.join(document(&collection, "a").body_path());
    fs::rename(&file, &away).unwrap();
    symlink(&away, &file).unwrap();
    assert_ne!(problem(&collection, "a").kind, ProblemKind::Unchecked);
}

pub(crate) fn a_document_is_located_and_identified(new: &dyn Fn() -> Sample) {
    let sample = new();
    let (tree, collection) = sample.open();
    for id in IDS {
        let there = tree.locate(&collection.name, &id.into()).unwrap();
        assert_eq!(there.found, Found::Document);
        for below in ["", "document.json"] {
            let told = tree.identify(&Path::new(&there.path).join(below)).unwrap();
            assert_eq!((told.collection, told.id.as_str()), (collection.name.clone(), id));
            assert_eq!(told.found, Found::Document);
        }
    }
    let never = tree.locate(&collection.name, &"never".into()).unwrap();
    assert_eq!(never.found, Found::Nothing);
    assert!(tree.locate(&"no such collection".into(), &"a".into()).is_err());
    assert!(tree.identify(Path::new("")).is_err());
}

pub(crate) fn reading_writes_nothing(new: &dyn Fn() -> Sample) {
    let sample = new();
    let before = contents(&sample.path);
    let (tree, collection) = sample.open();
    for name in collection.entry_names().unwrap() {
        collection.entry(&name).unwrap();
    }
    collection.security().unwrap();
    collection.inventory().unwrap();
    tree.missing_collections(std::slice::from_ref(&collection)).unwrap();
    assert!(tree.is_recorded(&collection).unwrap());
    assert!(tree.holds_attachments(&collection).unwrap());
    assert_eq!((tree.leftovers().unwrap(), tree.unremovable()), (0, 0));
    assert_eq!(contents(&sample.path), before);
}

/// Each path beneath a directory, with its inode and when it was changed.
fn contents(path: &Path) -> BTreeMap<PathBuf, BTreeSet<i64>> {
    let entries = walkdir::WalkDir::new(path).into_iter().map(Result::unwrap);
    let stamp = |entry: walkdir::DirEntry| {
        let found = entry.path().symlink_metadata().unwrap();
        let ino = i64::try_from(found.ino()).unwrap();
        (entry.into_path(), BTreeSet::from([ino, found.ctime(), found.ctime_nsec()]))
    };
    entries.map(stamp).collect()
}

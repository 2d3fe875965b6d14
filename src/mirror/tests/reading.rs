//! A tree read from outside: all entries, and all problems.

use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::archive::conformance::{Directory, no_link_is_followed, suite};
use crate::archive::{
    self, Archive, Entry, Problem, ProblemKind, StoredCollection, StoredDocument,
};

impl Bench {
    fn tree(&self) -> Arc<dyn Archive> {
        archive::open(&self.dir.path().join("mirror")).unwrap()
    }

    fn books(&self) -> Arc<dyn StoredCollection> {
        let (mut collections, _) = self.tree().collections().unwrap();
        collections.remove(0)
    }

    fn stored(&self, name: &str) -> StoredDocument {
        match self.books().entry(name).unwrap() {
            Some(Entry::Document(document)) => *document,
            other => panic!("{other:?}"),
        }
    }

    /// All problems of the tree.
    fn problems(&self) -> Vec<(String, ProblemKind)> {
        let (collections, mut problems) = self.tree().collections().unwrap();
        for collection in &collections {
            for name in collection.entry_names().unwrap() {
                match collection.entry(&name).unwrap().unwrap() {
                    Entry::Problem(problem) => problems.push(problem),
                    Entry::Document(document) => {
                        problems.extend(document.extras().unwrap());
                        problems.extend(document.problems);
                    }
                }
            }
            problems.extend(collection.security().unwrap().and_then(Result::err));
        }
        let mut problems: Vec<_> =
            problems.into_iter().map(|Problem { path, kind, .. }| (path, kind)).collect();
        problems.sort();
        problems
    }
}

/// A mirror at rest for the suite.
fn sample() -> Directory {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[("f", "one")])).unwrap();
    bench.apply(&present("b/c", "1-x", &[])).unwrap();
    let Bench { dir, collection } = bench;
    drop(collection);
    Directory { path: dir.path().join("mirror"), dir }
}

/// The same without its `.plainfold`.
fn bare() -> Directory {
    let sample = sample();
    fs::remove_dir_all(sample.path.join(".plainfold")).unwrap();
    sample
}

/// What RxDB's backup plugin leaves of the same documents.
fn of_rxdb() -> Directory {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup");
    for (id, attachments) in [("a", r#"{"f":{}}"#), ("b/c", "{}")] {
        fs::create_dir_all(path.join(id).join("attachments")).unwrap();
        let body = format!(r#"{{"name":"{id}","_rev":"1-x","_attachments":{attachments}}}"#);
        fs::write(path.join(id).join("document.json"), body).unwrap();
    }
    fs::write(path.join("a/attachments/f"), "one").unwrap();
    fs::write(path.join("backup_meta.json"), r#"{"collectionStates":{"heroes":{}}}"#).unwrap();
    Directory { dir, path }
}

suite!(mirror, sample);
suite!(bare_mirror, bare);
suite!(rxdb, of_rxdb);

#[test]
fn no_link_in_an_archive_is_followed() {
    [sample(), bare(), of_rxdb()].iter().for_each(no_link_is_followed);
}

/// Two documents: `a` with an attachment and a branch that has one too, and a tombstone.
fn shelf() -> Bench {
    let bench = keeping();
    bench.apply(&with_others(present("a", "3-w", &[("f", "one")]), &["3-l"])).unwrap();
    bench.apply(&with_others(deleted("gone", "2-x"), &[])).unwrap();
    bench.collection.write_security(b"{}").unwrap();
    bench
}

#[test]
fn all_of_a_document_is_found() {
    let bench = shelf();
    let a = bench.stored("a");
    assert_eq!((a.id.as_str(), a.revision.as_ref().unwrap().as_str()), ("a", "3-w"));
    assert_eq!((a.body.path.as_str(), a.deleted), ("books/a/document.json", false));
    let body = fs::read(bench.path("a/document.json")).unwrap();
    assert_eq!([&a.body.text[..], b"\n"].concat(), body);
    assert_eq!(a.body.checksum, Ok(*blake3::hash(&body).as_bytes()));
    let [f] = &a.attachments[..] else { panic!("{:?}", a.attachments) };
    assert_eq!((a.attachment_path(f).as_str(), a.caveat), ("books/a/attachments/f", ""));
    let history = a.history.as_ref().unwrap();
    assert_eq!(&history.text[..], br#"{"start":9,"ids":["3-w"]}"#);
    assert_eq!(history.path, "books/a/history.json");
    let [branch] = &a.conflicts[..] else { panic!("{:?}", a.conflicts) };
    assert_eq!(branch.revision.as_ref().unwrap().as_str(), "3-l");
    assert_eq!(branch.body.path, "books/a/conflicts/3-l/document.json");
    let gone = bench.stored("gone");
    assert_eq!((gone.body.path.as_str(), gone.deleted), ("books/gone/deleted.json", true));
    assert!(bench.problems().is_empty(), "{:?}", bench.problems());
}

#[test]
fn whatever_does_not_belong_is_named() {
    use ProblemKind::{Altered, Extra, HalfWritten, Missing};
    let cases = [
        ("../stray", Some("text"), "stray", Extra),
        ("../a:b", None, "a:b", Extra),
        ("stray", Some("text"), "books/stray", Extra),
        ("a:b", None, "books/a:b", Extra),
        ("empty", None, "books/empty/document.json", Missing),
        ("a/document.json", Some("{\"_id\":\"a\""), "books/a/document.json", HalfWritten),
        ("a/document.json", Some("{\"_id\"\n"), "books/a/document.json", Altered),
        ("a/document.json", Some("{\"_id\":\"b\"}\n"), "books/a/document.json", Altered),
        ("gone/deleted.json", Some("{}"), "books/gone/deleted.json", HalfWritten),
        ("gone/extra", Some("text"), "books/gone/extra", Extra),
        ("a/extra", Some("text"), "books/a/extra", Extra),
        ("a/folder", None, "books/a/folder", Extra),
        ("a/deleted.json", Some("{}\n"), "books/a/deleted.json", Extra),
        ("a/attachments/extra", Some("text"), "books/a/attachments/extra", Extra),
        ("a/history.json", Some("{}"), "books/a/history.json", HalfWritten),
        ("a/history.json", Some("{\n"), "books/a/history.json", Altered),
        ("a/conflicts/stray", Some("text"), "books/a/conflicts/stray", Extra),
        ("a/conflicts/4-x", None, "books/a/conflicts/4-x/document.json", Missing),
        (
            "a/conflicts/3-l/document.json",
            Some("{\"_id\":\"a\",\"_rev\":\"3-w\"}\n"),
            "books/a/conflicts/3-l/document.json",
            Altered,
        ),
        ("a/conflicts/3-l/extra", Some("text"), "books/a/conflicts/3-l/extra", Extra),
        ("a/conflicts/3-l/conflicts", None, "books/a/conflicts/3-l/conflicts", Extra),
        ("_security.json", Some("{\n"), "books/_security.json", Altered),
        ("_security.json", Some("{}"), "books/_security.json", HalfWritten),
    ];
    for (place, text, path, kind) in cases {
        let bench = shelf();
        match text {
            Some(text) => fs::write(bench.path(place), text).unwrap(),
            None => fs::create_dir(bench.path(place)).unwrap(),
        }
        assert_eq!(bench.problems(), [(path.to_owned(), kind)], "{place}");
    }
    let bench = shelf();
    let unreadable = std::ffi::OsStr::from_bytes(b"\xff");
    fs::write(bench.path("a").join(unreadable), "text").unwrap();
    fs::remove_file(bench.path("a/history.json")).unwrap();
    fs::create_dir(bench.path("a/history.json")).unwrap();
    let extra = |name: &str| (format!("books/a/{name}"), Extra);
    assert_eq!(bench.problems(), [extra("history.json"), extra("\u{fffd}")]);
    let bench = shelf();
    for neighbour in [".git", ".hidden"] {
        fs::create_dir(bench.path("..").join(neighbour)).unwrap();
    }
    assert_eq!(bench.problems(), []);
}

#[test]
fn shortened_names_are_read_by_what_they_belong_to() {
    let dir = tempfile::tempdir().unwrap();
    let (id, name) = ("long".repeat(100), "shelf".repeat(50));
    let mirror = open(&dir.path().join("mirror"), &MirrorOptions::default()).unwrap();
    let collection = mirror.collection(&name.as_str().into()).unwrap();
    let bench = Bench { dir, collection };
    bench.apply(&present(&id, "1-x", &[])).unwrap();
    let books = bench.books();
    assert_eq!(books.name().as_str(), name);
    let names = books.entry_names().unwrap();
    assert_eq!(names, [books.name_of(&id.as_str().into())]);
    assert_eq!(books.id_of(&names[0]), None, "a hash does not tell it");
    assert_eq!(bench.stored(&names[0]).id.as_str(), id);

    // Another document's body under this name, and a name whose record is lost.
    let place = bench.dir.path().join("mirror").join(books.path()).join(&names[0]);
    fs::write(place.join("document.json"), "{\"_id\":\"other\"}\n").unwrap();
    let path = format!("{}/document.json", books.path_of(&names[0]));
    assert_eq!(bench.problems(), [(path, ProblemKind::Altered)]);
    fs::remove_dir_all(bench.dir.path().join("mirror/.plainfold/collections")).unwrap();
    let (collections, problems) = bench.tree().collections().unwrap();
    assert_eq!((collections.len(), problems.len()), (0, 1));
}

#[test]
fn a_collections_own_words_are_read() {
    let bench = shelf();
    let (tree, books) = (bench.tree(), bench.books());
    assert_eq!((books.name().as_str(), books.path()), ("books", "books"));
    assert_eq!(books.entry_names().unwrap(), ["a", "gone"]);
    let mut each: Vec<_> = books.each_name().unwrap().map(|name| name.unwrap().unwrap()).collect();
    each.sort();
    assert_eq!(each, ["a", "gone"]);
    assert_eq!(books.path_of("a"), "books/a");
    assert_eq!(books.name_of(&"a/b".into()), "a%2Fb");
    assert_eq!(books.id_of("a%2Fb").unwrap().as_str(), "a/b");
    assert_eq!(&books.security().unwrap().unwrap().unwrap().text[..], b"{}");
    assert_eq!(books.security_path(), "books/_security.json");
    assert!(books.is_recorded().unwrap() && books.holds_attachments().unwrap());
    assert_eq!(tree.lineage(), Some(bench.collection.mirror.format().lineage.as_str()));

    let record = bench.path("../.plainfold/collections/books.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"attachments\": true", "\"attachments\": false")).unwrap();
    assert!(!books.holds_attachments().unwrap());
    fs::remove_file(&record).unwrap();
    assert!(!books.is_recorded().unwrap() && books.holds_attachments().unwrap());
}

#[test]
fn a_collection_that_is_not_there_is_missed() {
    let bench = shelf();
    let tree = bench.tree();
    let missing = || {
        let (present, _) = tree.collections().unwrap();
        let missing = tree.missing(&present).unwrap();
        missing.into_iter().map(|problem| (problem.path, problem.kind)).collect::<Vec<_>>()
    };
    assert_eq!(missing(), []);
    // A collection that appeared after the list was made counts as present.
    assert!(tree.missing(&[]).unwrap().is_empty());
    fs::remove_dir_all(bench.path("")).unwrap();
    assert_eq!(missing(), [("books".to_owned(), ProblemKind::Missing)]);
}

#[test]
fn what_was_left_in_staging_is_counted_when_nobody_works_there() {
    let bench = shelf();
    let left = bench.path("../.plainfold/staging/1-2/7-x");
    fs::write(&left, "text").unwrap();
    let tree = bench.tree();
    assert_eq!(tree.leftovers().unwrap(), 0, "somebody is at work");
    let Bench { dir, collection } = bench;
    drop(collection);
    assert_eq!(tree.leftovers().unwrap(), 1);
    drop(dir);
}

#[test]
fn it_is_seen_that_a_document_was_replaced() {
    let bench = shelf();
    let books = bench.books();
    for (id, change) in [
        ("a", with_others(present("a", "4-w", &[("f", "one")]), &["3-l"])),
        ("gone", with_others(deleted("gone", "3-x"), &[])),
    ] {
        let before = books.version(id).unwrap();
        assert_eq!(books.version(id).unwrap(), before);
        bench.apply(&change).unwrap();
        assert_ne!(books.version(id).unwrap(), before, "{id}");
    }
    assert_ne!(books.version("a").unwrap(), books.version("never").unwrap());
}

#[test]
fn a_collection_may_be_called_as_the_folder_of_branches_is() {
    let kept = Kept { revisions: true, deleted: true };
    let dir = tempfile::tempdir().unwrap();
    let options = MirrorOptions { kept, ..MirrorOptions::default() };
    let mirror = open(&dir.path().join("mirror"), &options).unwrap();
    let collection = mirror.collection(&"conflicts".into()).unwrap();
    let bench = Bench { dir, collection };
    bench.apply(&with_others(present("a", "3-w", &[]), &["3-l"])).unwrap();
    assert_eq!(bench.problems(), []);
    assert_eq!(bench.stored("a").conflicts.len(), 1);
}

/// A directory as RxDB's backup plugin leaves it.
fn backup(states: &str) -> (tempfile::TempDir, Arc<dyn Archive>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("backup_meta.json"), format!(r#"{{"collectionStates":{states}}}"#))
        .unwrap();
    for (id, attachments) in [("a", r#"{"f":{},"g/h":{},"..":{}}"#), ("b", "{}")] {
        let place = dir.path().join(id);
        fs::create_dir_all(place.join("attachments")).unwrap();
        let body = format!(r#"{{"name":"{id}","_rev":"1-x","_attachments":{attachments}}}"#);
        fs::write(place.join("document.json"), body).unwrap();
    }
    fs::write(dir.path().join("a/attachments/f"), "one").unwrap();
    let tree = archive::open(dir.path()).unwrap();
    (dir, tree)
}

#[test]
fn what_rxdbs_plugin_wrote_is_read_as_one_collection() {
    let (_dir, tree) = backup(r#"{"heroes":{}}"#);
    let (collections, problems) = tree.collections().unwrap();
    assert_eq!((collections.len(), problems, tree.lineage()), (1, Vec::new(), None));
    let heroes = &collections[0];
    assert_eq!(heroes.name().as_str(), "heroes");
    assert_eq!(heroes.entry_names().unwrap(), ["a", "b"]);
    assert_eq!((heroes.path_of("a").as_str(), heroes.name_of(&"a".into()).as_str()), ("a", "a"));
    assert!(heroes.security().unwrap().is_none());
    let Some(Entry::Document(a)) = heroes.entry("a").unwrap() else { panic!("it is whole") };
    let sizes: Vec<_> = a.attachments.iter().map(|one| (one.name.as_str(), one.size)).collect();
    assert_eq!(sizes, [("f", Some(3)), ("g/h", None), ("..", None)]);
    assert_eq!(a.attachment_path(&a.attachments[0]), "a/attachments/f");
    assert!(a.caveat.contains("RxDB"));
}

#[test]
fn of_several_collections_of_the_plugins_none_is_told() {
    for states in [r#"{"heroes":{},"villains":{}}"#, "{}"] {
        let (dir, tree) = backup(states);
        let (collections, _) = tree.collections().unwrap();
        let expected = dir.path().canonicalize().unwrap();
        let expected = expected.file_name().unwrap().to_str().unwrap();
        assert_eq!(collections[0].name().as_str(), expected);
    }
}

#[test]
fn a_document_of_the_plugins_may_be_called_as_a_folder_of_ours_is() {
    let (dir, tree) = backup(r#"{"heroes":{}}"#);
    let place = dir.path().join("attachments/x");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("document.json"), r#"{"name":"attachments/x","_rev":"1-x"}"#).unwrap();
    // The document reports the entries of its folder.
    fs::write(dir.path().join("a").join(std::ffi::OsStr::from_bytes(b"\xff")), "text").unwrap();
    let (collections, _) = tree.collections().unwrap();
    assert_eq!(collections[0].entry_names().unwrap(), ["a", "attachments/x", "b"]);
}

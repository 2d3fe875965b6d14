//! The documents that a collection lists.

use super::*;

fn ids(collection: &Collection) -> Vec<String> {
    let mut ids: Vec<_> = collection.documents().map(|id| id.unwrap().to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn a_collection_is_empty_until_it_holds_a_document() {
    let bench = Bench::new();
    bench.collection.write_security(b"{}").unwrap();
    assert!(bench.collection.is_empty().unwrap());
    let bench = bench.reopened(&MirrorOptions::default());
    assert!(bench.collection.is_empty().unwrap(), "the security object is not a document");
    bench.apply(&present("a", "1-x", &[])).unwrap();
    let bench = bench.reopened(&MirrorOptions::default());
    assert!(!bench.collection.is_empty().unwrap());
}

#[test]
fn every_document_is_listed_and_nothing_else() {
    let bench = keeping();
    let long = "long".repeat(100);
    for id in ["a", "a/b", &long] {
        bench.apply(&with_others(present(id, "1-x", &[]), &[])).unwrap();
    }
    bench.apply(&with_others(deleted("gone", "2-x"), &[])).unwrap();
    bench.collection.write_security(b"{}").unwrap();
    fs::create_dir(bench.path("a:b")).unwrap();
    // A name like that of a long id, without a record of the id.
    let other = bench.collection.document_name(&"other".repeat(100));
    fs::create_dir(bench.path(other.as_str())).unwrap();
    assert_eq!(ids(&bench.collection), ["a", "a/b", "gone", &long]);
    fs::write(bench.path(other.as_str()).join("document.json"), "{\"_id\":\"a\"}\n").unwrap();
    assert_eq!(ids(&bench.collection), ["a", "a/b", "gone", &long]);
    // If no tombstones are kept, every folder counts without being opened.
    fs::remove_dir_all(bench.path("a:b")).unwrap();
    fs::remove_dir_all(bench.path(other.as_str())).unwrap();
    assert_eq!(bench.collection.count().unwrap(), 3);
    let bench = bench.reopened(&MirrorOptions::default());
    assert_eq!(bench.collection.count().unwrap(), 4);
}

#[test]
fn a_file_system_that_folds_case_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open_path(dir.path()).unwrap();
    fs::create_dir(dir.path().join("staging")).unwrap();
    assert!(!scan::folds_case(&folder).unwrap());
    // As it looks if both names are the same.
    fs::create_dir(dir.path().join("STAGING")).unwrap();
    assert!(scan::folds_case(&folder).unwrap());
}

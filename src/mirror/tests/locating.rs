//! From an id to the path of its document, and back.

use proptest::prelude::*;

use super::*;
use crate::archive;
use crate::archive::locate::{LocateError, Located, around, locate};

/// Ids that a careless rule would lose, mix up or lead out of the mirror.
fn hostile() -> Vec<String> {
    let mut ids: Vec<String> = [
        "a",
        "A",
        "a/b",
        "a%2Fb",
        "a%2fb",
        ".",
        "..",
        "../../etc/passwd",
        "",
        "~",
        "con",
        "NUL.txt",
        "_security.json",
        "document.json",
        ".plainfold",
        "two\nlines\t\u{1b}[2J",
        "\u{202e}",
        "é",
        "e\u{301}",
        "羅生門",
        "📚",
        "a ",
        "a.",
        "-v",
        "--",
        "_design/by title",
    ]
    .map(str::to_owned)
    .into();
    for long in ["x", "X", "/", "é", "📚", "\n"] {
        ids.push(long.repeat(300));
        ids.push(long.repeat(300) + "y");
    }
    ids
}

fn both(bench: &Bench, id: &str) -> (String, Located) {
    let mirror = bench.dir.path().join("mirror");
    let tree = archive::open(&mirror).unwrap();
    let there = locate(&*tree, &"books".into(), &id.into()).unwrap();
    let (nearest, within) = around(&mirror.join(&there.path)).unwrap();
    assert_eq!(within, Path::new(&there.path), "{id:?}");
    if !matches!(there.found, Located::Nothing) {
        for file in ["", "document.json", "attachments/f", "attachments", "not/there"] {
            let (_, within) = around(&mirror.join(&there.path).join(file)).unwrap();
            let back = nearest.identify(&within).unwrap();
            assert_eq!((back.id.as_str(), back.collection.as_str()), (id, "books"));
            assert_eq!(back.found, there.found);
        }
    }
    (there.path, there.found)
}

fn of(codec: Codec) -> Bench {
    Bench::with(&MirrorOptions { names: Some(codec), ..MirrorOptions::default() })
}

#[test]
fn every_id_leads_to_its_folder_and_back() {
    for codec in [Codec::Native, Codec::Portable] {
        let bench = of(codec);
        let mut paths = std::collections::BTreeSet::new();
        for id in hostile() {
            assert_eq!(both(&bench, &id).1, Located::Nothing, "{id:?}");
            bench.apply(&present(&id, "1-a", &[("f", "one")]));
            let (path, found) = both(&bench, &id);
            let is_there = bench.path("..").join(&path).join("document.json").is_file();
            assert_eq!((found, is_there), (Located::Document, true), "{id:?} {path}");
            assert!(paths.insert(path), "{id:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn any_id_leads_to_its_folder_and_back(
        portable in any::<bool>(),
        head in any::<String>(),
        times in prop_oneof![Just(1_usize), 2..60_usize],
    ) {
        let bench = of(if portable { Codec::Portable } else { Codec::Native });
        let id = format!("x{}", head.repeat(times));
        bench.apply(&present(&id, "1-a", &[]));
        prop_assert_eq!(both(&bench, &id).1, Located::Document);
    }
}

#[test]
fn a_shortened_name_without_its_document_is_told_by_the_inventory_and_never_guessed() {
    let bench = Bench::new();
    let id = "/".repeat(300);
    bench.apply(&present(&id, "1-a", &[])).unwrap();
    let path = both(&bench, &id).0;
    let mirror = bench.dir.path().join("mirror");
    let tree = archive::open(&mirror).unwrap();
    fs::write(mirror.join(&path).join("document.json"), "{\"_id\":\"other\"}\n").unwrap();
    let told = tree.identify(Path::new(&path)).unwrap();
    assert_eq!(told.id.as_str(), id);
    assert!(matches!(told.found, Located::Damaged(_)), "{told:?}");
    fs::remove_dir_all(mirror.join(&path)).unwrap();
    let told = tree.identify(Path::new(&path)).unwrap();
    assert_eq!((told.id.as_str(), told.found), (&*id, Located::Nothing));
    fs::remove_dir_all(mirror.join(".plainfold/inventory")).unwrap();
    let unknown = tree.identify(Path::new(&path));
    assert!(matches!(unknown, Err(LocateError::NoId { .. })), "{unknown:?}");
    let exact = tree.identify(Path::new("books/gone%2F1")).unwrap();
    assert_eq!((exact.id.as_str(), exact.found), ("gone/1", Located::Nothing));
}

#[test]
fn what_is_not_a_documents_has_no_id() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-a", &[])).unwrap();
    bench.collection.write_security(b"{}").unwrap();
    fs::write(bench.path("note.txt"), "").unwrap();
    let mirror = bench.dir.path().join("mirror");
    let tree = archive::open(&mirror).unwrap();
    for path in [
        "",
        "books",
        "books/_security.json",
        "books/note.txt",
        "books/a%2fb",
        "a%2fb/x",
        ".git/config",
        ".plainfold",
        ".plainfold/trash/2026-01-01/books/a-1",
    ] {
        let told = tree.identify(Path::new(path));
        assert!(matches!(told, Err(LocateError::NoDocument { .. })), "{path}: {told:?}");
    }
    let other = locate(&*tree, &"loans".into(), &"a".into());
    assert!(matches!(other, Err(LocateError::NoCollection(_))), "{other:?}");
    let outside = around(bench.dir.path());
    assert!(matches!(outside, Err(LocateError::NoMirror { .. })), "{outside:?}");
}

#[test]
fn tombstones_and_the_trash_have_ids_too() {
    let bench = keeping();
    bench.apply(&with_others(deleted("gone", "2-x"), &[])).unwrap();
    assert_eq!(both(&bench, "gone").1, Located::Tombstone);

    let bench = Bench::with(&MirrorOptions { trash_days: 3, ..MirrorOptions::default() });
    let long = "y".repeat(300);
    for id in ["a-1", long.as_str()] {
        bench.apply(&present(id, "1-x", &[])).unwrap();
        bench.apply(&deleted(id, "2-x")).unwrap();
        assert_eq!(both(&bench, id).1, Located::Nothing);
    }
    let (tree, _) = around(&bench.path("..")).unwrap();
    let top = bench.path("../.plainfold/trash").canonicalize().unwrap();
    let walk = walkdir::WalkDir::new(&top).min_depth(3).max_depth(3);
    let mut found: Vec<String> = Vec::new();
    for entry in walk {
        let (_, within) = around(entry.unwrap().path()).unwrap();
        let told = tree.identify(&within).unwrap();
        assert_eq!(told.found, Located::Document);
        found.push(told.id.to_string());
    }
    found.sort();
    assert_eq!(found, ["a-1".to_owned(), long]);
}

#[test]
fn no_link_below_a_mirror_is_followed() {
    let (bench, other) = (Bench::new(), Bench::new());
    for one in [&bench, &other] {
        one.apply(&present("a", "1-a", &[])).unwrap();
    }
    let link = bench.path("planted");
    for target in [bench.path("a"), other.path("a"), other.dir.path().join("mirror")] {
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for below in ["", "document.json", "books/a"] {
            let told = around(&link.join(below));
            assert!(matches!(told, Err(LocateError::Link { .. })), "{target:?} {told:?}");
        }
        fs::remove_file(&link).unwrap();
    }
    // A link that leads to the mirror is the user's own; a folder with a name like ours is no mirror.
    let way = other.dir.path().join("way");
    std::os::unix::fs::symlink(bench.dir.path(), &way).unwrap();
    let (_, within) = around(&way.join("mirror/books/b/../a")).unwrap();
    assert_eq!(within, Path::new("books/a"));
    fs::create_dir(bench.path("a/.plainfold")).unwrap();
    let (_, within) = around(&bench.path("a/document.json")).unwrap();
    assert_eq!(within, Path::new("books/a/document.json"));
}

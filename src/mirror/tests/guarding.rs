//! Links, strange names and other planted entries.

use super::*;

#[test]
fn planted_links_are_replaced_and_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("document.json");
    fs::write(&precious, "precious").unwrap();
    fs::create_dir(outside.path().join("attachments")).unwrap();
    fs::write(outside.path().join("attachments/f"), "precious").unwrap();
    type Plant<'a> = &'a dyn Fn(&Bench);
    let plants: [(&str, Plant<'_>); 5] = [
        ("the document's folder", &|bench| {
            fs::remove_dir_all(bench.path("a")).unwrap();
            symlink(outside.path(), bench.path("a")).unwrap();
        }),
        ("its body", &|bench| {
            fs::remove_file(bench.path("a/document.json")).unwrap();
            symlink(&precious, bench.path("a/document.json")).unwrap();
        }),
        ("its attachments", &|bench| {
            fs::remove_dir_all(bench.path("a/attachments")).unwrap();
            symlink(outside.path().join("attachments"), bench.path("a/attachments")).unwrap();
        }),
        ("an attachment", &|bench| {
            fs::remove_file(bench.path("a/attachments/f")).unwrap();
            symlink(outside.path().join("attachments/f"), bench.path("a/attachments/f")).unwrap();
        }),
        ("a file in the folder's place", &|bench| {
            fs::remove_dir_all(bench.path("a")).unwrap();
            fs::write(bench.path("a"), "x").unwrap();
        }),
    ];
    for (what, plant) in plants {
        let bench = Bench::new();
        bench.apply(&present("a", "1-x", &[("f", "one")])).unwrap();
        plant(&bench);
        bench.apply(&present("a", "2-x", &[("f", "two")])).unwrap();
        assert_eq!(bench.read("a/attachments/f"), "two", "{what}");
        assert!(bench.read("a/document.json").contains("2-x"), "{what}");
        let folder = fs::symlink_metadata(bench.path("a")).unwrap();
        assert!(folder.is_dir(), "{what}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{what}");
        let kept = fs::read_to_string(outside.path().join("attachments/f")).unwrap();
        assert_eq!(kept, "precious", "{what}");
    }
}

#[test]
fn what_stands_unseen_in_a_new_documents_place_is_replaced_and_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("document.json"), "precious").unwrap();
    let bench = Bench::new();
    symlink(outside.path(), bench.path("a")).unwrap();
    fs::write(bench.path("b"), "x").unwrap();
    fs::create_dir(bench.path("c")).unwrap();
    for id in ["a", "b", "c"] {
        bench.apply(&present(id, "1-x", &[])).unwrap();
        assert!(fs::symlink_metadata(bench.path(id)).unwrap().is_dir(), "{id}");
        assert!(bench.read(&format!("{id}/document.json")).contains("1-x"), "{id}");
    }
    let precious = fs::read_to_string(outside.path().join("document.json")).unwrap();
    assert_eq!(precious, "precious");
}

#[test]
fn a_link_in_a_collections_place_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let mirror = open(&dir.path().join("mirror"), &MirrorOptions::default()).unwrap();
    symlink(outside.path(), dir.path().join("mirror/books")).unwrap();
    let error = mirror.collection(&"books".into()).unwrap_err();
    assert!(matches!(error, MirrorError::InTheWay { .. }), "{error}");
}

#[test]
fn ids_that_mean_something_to_a_file_system_stay_inside_and_are_read_back() {
    let bench = Bench::new();
    let long = "long/".repeat(100);
    let ids = ["..", ".", "a/b", "../../etc", "CON", "x\0y", &long, "é", "e\u{301}"];
    for id in ids {
        // The body is JSON, in which a NUL is written as an escape.
        let escaped = serde_json::to_string(id).unwrap();
        let mut change = present("x", "1-x", &[]);
        change.id = id.into();
        change.state = DocumentState::Present(Document {
            body: format!(r#"{{"_id":{escaped},"_rev":"1-x"}}"#).into(),
            attachments: Vec::new(),
        });
        bench.apply(&change).unwrap();
    }
    let held: Result<Vec<_>, _> = bench.collection.documents().collect();
    let mut held: Vec<String> = held.unwrap().iter().map(ToString::to_string).collect();
    held.sort_unstable();
    let mut expected: Vec<String> = ids.iter().map(ToString::to_string).collect();
    expected.sort_unstable();
    assert_eq!(held, expected);
    assert_eq!(fs::read_dir(bench.path("")).unwrap().count(), ids.len());
}

#[test]
fn a_file_is_no_folder() {
    let file = tempfile::NamedTempFile::new().unwrap();
    Folder::open_path(file.path()).unwrap_err();
}

#[test]
fn only_a_regular_file_is_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open_path(dir.path()).unwrap();
    fs::write(dir.path().join("file"), "text").unwrap();
    symlink("file", dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(folder.read_file("file").unwrap().unwrap(), b"text");
    for other in ["link", "folder", "pipe", "nothing"] {
        assert!(folder.open_file(other).unwrap().is_none(), "{other}");
    }
}

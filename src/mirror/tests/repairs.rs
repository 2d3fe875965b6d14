//! Damaged documents are rewritten.

use super::*;

#[test]
fn a_repair_writes_all_of_a_document_anew_whatever_its_body_claims() {
    let bench = Bench::new();
    let change = present("a", "1-x", &[("f", "one"), ("g", "two")]);
    bench.apply(&change).unwrap();
    fs::write(bench.path("a/attachments/f"), "rot").unwrap();
    fs::write(bench.path("a/foreign"), "x").unwrap();
    assert!(matches!(bench.plan(&change), Plan::Unchanged));
    let published = bench.apply_as(&change, Authority::Repair).unwrap();
    assert_eq!((published.files.len(), published.attachments), (3, 2));
    assert_eq!(bench.read("a/attachments/f"), "one");
    assert!(!bench.path("a/foreign").exists());
}

#[test]
fn a_repair_without_attachments_keeps_those_that_had_a_file() {
    let bench = Bench::new();
    let change = present("a", "1-x", &[("f", "one"), ("g", "two")]);
    bench.apply(&change).unwrap();
    fs::remove_file(bench.path("a/attachments/g")).unwrap();
    let without = MirrorOptions { attachments: false, ..MirrorOptions::default() };
    let bench = bench.reopened(&without);
    bench.apply_as(&change, Authority::Repair).unwrap();
    assert_eq!(bench.read("a/attachments/f"), "one");
    assert!(!bench.path("a/attachments/g").exists());
    // As it was recorded when the mirror was created.
    assert!(!bench.collection.mirrors_attachments());
    assert!(bench.collection.as_recorded().unwrap().mirrors_attachments());
}

#[test]
fn a_repair_removes_documents_and_nothing_that_never_was_one() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[])).unwrap();
    fs::write(bench.path("a/document.json"), "rot").unwrap();
    bench.apply_as(&deleted("a", "2-x"), Authority::Repair).unwrap();
    assert!(!bench.path("a").exists());
    fs::create_dir(bench.path("folder")).unwrap();
    fs::write(bench.path("file"), "x").unwrap();
    for id in ["folder", "file", "nothing"] {
        assert!(bench.apply_as(&deleted(id, "2-x"), Authority::Repair).is_none(), "{id}");
    }
    bench.apply_as(&present("file", "1-x", &[]), Authority::Repair).unwrap();
    assert!(bench.path("file/document.json").is_file());
}

//! What reads archives knows no format: it reads one in memory too.

use std::sync::Arc;

use super::*;
use crate::archive::conformance::in_memory;
use crate::archive::conformance::memory::MemoryArchive;

fn read(archive: &MemoryArchive) -> Verified {
    let options = Options { manifest: true, ..Options::default() };
    verify_archive(Arc::new(archive.clone()), "memory", &options).unwrap()
}

#[test]
fn an_archive_in_memory_is_verified_and_compared() {
    let whole = read(&in_memory());
    assert_eq!((&whole.report.problems, &*whole.report.mirror), (&Vec::new(), "memory"));
    let [books] = &whole.report.collections[..] else { panic!("{:?}", whole.report) };
    assert_eq!((books.side.documents, books.counts.attachments), (2, 1));
    let mut manifest = Vec::new();
    whole.write_manifest(&mut manifest).unwrap();
    let manifest = String::from_utf8(manifest).unwrap();
    let paths: Vec<_> =
        manifest.lines().filter_map(|line| Some(line.split_once("  ")?.1)).collect();
    assert_eq!(
        paths,
        ["books/a/attachments/f", "books/a/document.json", "books/b%2Fc/document.json"]
    );

    let other = in_memory();
    other.0[0].put("b/c", r#"{"_id":"b/c","_rev":"2-y"}"#, &[]);
    other.0[0].put("d", r#"{"_id":"d","_rev":"1-x"}"#, &[]);
    let certificate = whole.beside(&read(&other), &Comparison::default()).unwrap();
    let found: Vec<_> = certificate.differences.iter().map(|one| (one.kind, &*one.id)).collect();
    assert_eq!(found, [(DifferenceKind::Revision, "b/c"), (DifferenceKind::OnlyThere, "d")]);
    let certificate = whole.beside(&read(&in_memory()), &Comparison::default()).unwrap();
    assert!(certificate.equal && certificate.depth == Depth::Bytes);
}

#[test]
fn what_is_wrong_in_memory_is_found() {
    let archive = in_memory();
    {
        let mut documents = archive.0[0].documents.lock().unwrap();
        documents.get_mut(&"a".into()).unwrap().attachments.insert("f".to_owned(), "on".into());
        documents.get_mut(&"b/c".into()).unwrap().body = None;
    }
    let problems = read(&archive).report.problems;
    let found: Vec<_> = problems.iter().map(|one| (one.kind, &*one.path)).collect();
    let expected = [
        (ProblemKind::HalfWritten, "books/a/attachments/f"),
        (ProblemKind::Missing, "books/b%2Fc/document.json"),
    ];
    assert_eq!(found, expected);
}

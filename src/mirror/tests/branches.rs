//! Tombstones, histories and the revisions beside the winners.

use super::*;

#[test]
fn a_kept_tombstone_takes_the_place_of_its_document_and_gives_it_back() {
    let bench = keeping();
    bench.apply(&with_others(present("a", "1-x", &[("f", "one")]), &[])).unwrap();
    let gone = with_others(deleted("a", "2-x"), &[]);
    let published = bench.apply(&gone).unwrap();
    assert_eq!(published.files, ["books/a/deleted.json", "books/a/history.json"]);
    let tombstone = "{\"_id\":\"a\",\"_rev\":\"2-x\",\"_deleted\":true}\n";
    assert_eq!(bench.read("a/deleted.json"), tombstone);
    assert!(!bench.path("a/document.json").exists() && !bench.path("a/attachments").exists());
    assert!(matches!(bench.plan(&gone), Plan::Unchanged));
    bench.apply(&with_others(present("a", "3-x", &[]), &[])).unwrap();
    assert!(bench.path("a/document.json").exists() && !bench.path("a/deleted.json").exists());
}

#[test]
fn without_being_asked_for_a_tombstone_does_not_stay() {
    let bench = keeping();
    bench.apply(&deleted("a", "2-x")).unwrap();
    let bench = bench.reopened(&MirrorOptions::default());
    assert_eq!(bench.apply(&deleted("a", "2-x")).unwrap().files, [""; 0]);
    assert!(!bench.path("a").exists());
}

#[test]
fn branches_stand_beside_their_winner_and_stay_as_the_same_files() {
    let bench = keeping();
    let first = with_others(present("a", "3-w", &[("f", "one")]), &["3-l", "2-d"]);
    let mut files = bench.apply(&first).unwrap().files;
    files.sort();
    assert_eq!(
        files,
        [
            "books/a/attachments/f",
            "books/a/conflicts/2-d/attachments/b",
            "books/a/conflicts/2-d/document.json",
            "books/a/conflicts/3-l/attachments/b",
            "books/a/conflicts/3-l/document.json",
            "books/a/document.json",
            "books/a/history.json",
        ]
    );
    assert_eq!(bench.read("a/history.json"), "{\"start\":9,\"ids\":[\"3-w\"]}\n");
    assert!(matches!(bench.plan(&first), Plan::Unchanged));
    let inode = |below: &str| fs::metadata(bench.path(below)).unwrap().ino();
    let kept = [
        "a/conflicts/2-d/document.json",
        "a/conflicts/2-d/attachments/b",
        "a/attachments/f",
        "a/history.json",
    ];
    let before = kept.map(inode);
    // One branch is gone, another has come; the winner is the same.
    let second = with_others(present("a", "3-w", &[("f", "one")]), &["2-d", "4-n"]);
    let files = bench.apply(&second).unwrap().files;
    assert!(files.contains(&"books/a/conflicts/4-n/document.json".to_owned()), "{files:?}");
    assert!(!bench.path("a/conflicts/3-l").exists());
    assert_eq!(kept.map(inode), before);
    assert_eq!(bench.read("a/conflicts/4-n/attachments/b"), "4-n");
}

#[test]
fn a_branch_of_which_a_file_is_missing_is_asked_for_again() {
    let bench = keeping();
    let change = with_others(present("a", "3-w", &[]), &["3-l"]);
    bench.apply(&change).unwrap();
    fs::remove_file(bench.path("a/conflicts/3-l/attachments/b")).unwrap();
    let Plan::Write(write) = bench.plan(&change) else { panic!("it is not whole") };
    assert_eq!(write.branches, ["3-l".into()]);
}

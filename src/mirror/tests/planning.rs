//! Plans for changes, by what the tree holds.

use super::*;

fn write(bench: &Bench, change: &Change) -> Write {
    match bench.plan(change) {
        Plan::Write(write) => write,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_and_what_is_buried_is_told() {
    let bench = keeping();
    let flags = |change: &Change| {
        let write = write(&bench, change);
        (write.is_new(), write.buries())
    };
    let steps = [
        (with_others(present("a", "1-x", &[]), &[]), (true, false)),
        (with_others(present("a", "2-x", &[]), &[]), (false, false)),
        (with_others(deleted("a", "3-x"), &[]), (false, true)),
        (with_others(deleted("a", "4-x"), &[]), (false, false)),
        (with_others(present("a", "5-x", &[]), &[]), (true, false)),
        (with_others(deleted("never-seen", "2-x"), &[]), (false, false)),
    ];
    for (change, expected) in steps {
        assert_eq!(flags(&change), expected, "{} {}", change.id, change.revision);
        bench.apply(&change).unwrap();
    }
}

#[test]
fn attachments_come_and_go_with_their_document() {
    let bench = Bench::new();
    let steps: [&[(&str, &str)]; 7] = [
        &[],
        &[("f", "one")],
        &[("f", "one"), ("g", "two")],
        &[("g", "two")],
        &[("h", "three")],
        &[("h", "four")],
        &[],
    ];
    for (n, attachments) in steps.into_iter().enumerate() {
        let revision = format!("{}-x", n + 1);
        bench.apply(&present("a", &revision, attachments)).unwrap();
        assert!(bench.read("a/document.json").contains(&revision));
        let held: BTreeMap<String, String> = match fs::read_dir(bench.path("a/attachments")) {
            Err(_) => BTreeMap::new(),
            Ok(entries) => entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .map(|name| (name.clone(), bench.read(&format!("a/attachments/{name}"))))
                .collect(),
        };
        let expected =
            attachments.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        assert_eq!(held, expected.collect(), "revision {revision}");
    }
}

#[test]
fn branches_go_when_they_are_not_to_be_kept_any_more() {
    let bench = keeping();
    bench.apply(&with_others(present("a", "3-w", &[("f", "one")]), &["3-l"])).unwrap();
    assert!(bench.path("a/conflicts/3-l").exists() && bench.path("a/history.json").exists());
    let bench = bench.reopened(&MirrorOptions::default());
    bench.apply(&present("a", "4-w", &[("f", "one")])).unwrap();
    assert!(!bench.path("a/conflicts").exists() && !bench.path("a/history.json").exists());
    assert_eq!(bench.read("a/attachments/f"), "one");
}

#[test]
fn a_history_is_that_of_the_revision_beside_it() {
    let bench = Bench::new();
    bench.apply(&present("a", "3-w", &[])).unwrap();
    let kept = Kept { revisions: true, deleted: false };
    let bench = bench.reopened(&MirrorOptions { kept, ..MirrorOptions::default() });
    let history = || fs::read_to_string(bench.path("a/history.json")).ok();
    // The revision is there already, without its history.
    bench.apply(&with_others(present("a", "3-w", &[]), &[])).unwrap();
    assert!(history().unwrap().contains("3-w"));
    bench.apply(&with_others(present("a", "4-w", &[]), &["3-l"])).unwrap();
    assert!(history().unwrap().contains("4-w"));
    // A row without leaves: a newer one will list them.
    bench.apply(&present("a", "5-w", &[])).unwrap();
    assert_eq!(history(), None);
    assert!(bench.path("a/conflicts/3-l/document.json").exists());
}

#[test]
fn branches_that_are_no_leaves_any_more_go_with_a_body_that_changes() {
    let bench = keeping();
    bench.apply(&with_others(present("a", "1-w", &[]), &["1-l"])).unwrap();
    let body = r#"{"_id":"a","_rev":"1-w","schema":2}"#.into();
    let state = DocumentState::Present(Document { body, attachments: Vec::new() });
    let migrated = Change { state, ..with_others(present("a", "1-w", &[]), &[]) };
    bench.apply(&migrated).unwrap();
    assert!(bench.read("a/document.json").contains("schema"));
    assert!(!bench.path("a/conflicts").exists());
}

#[test]
fn a_repair_needs_an_id_to_go_by_and_says_what_it_buries() {
    let bench = keeping();
    let id = "long".repeat(100);
    let long = with_others(present(&id, "1-x", &[]), &[]);
    bench.apply_as(&long, Authority::Repair).unwrap();
    let Plan::Write(write) = bench.collection.plan(&long, Authority::Repair).unwrap() else {
        panic!("it is rewritten")
    };
    assert!(!write.buries());
    let body = Bytes::from(r#"{"_rev":"1-x"}"#);
    let state = DocumentState::Present(Document { body, attachments: Vec::new() });
    let nameless = bench.collection.plan(&Change { state, ..long }, Authority::Repair).unwrap();
    assert!(matches!(nameless, Plan::Nameless));
    let gone = with_others(deleted(&id, "2-x"), &[]);
    let Plan::Write(write) = bench.collection.plan(&gone, Authority::Repair).unwrap() else {
        panic!("a tombstone is kept")
    };
    assert!(write.buries());
}

#[test]
fn without_a_digest_the_revision_tells_whether_an_attachment_is_there() {
    let bench = Bench::new();
    let with = |revision: &str| {
        let mut change = present("a", revision, &[("f", "one")]);
        if let DocumentState::Present(document) = &mut change.state {
            let body = format!(r#"{{"_id":"a","_rev":"{revision}","_attachments":{{"f":{{}}}}}}"#);
            document.body = body.into();
            document.attachments[0].digest = None;
        }
        change
    };
    bench.apply(&with("1-x")).unwrap();
    assert!(matches!(bench.plan(&with("1-x")), Plan::Unchanged));
    assert_eq!(write(&bench, &with("2-x")).fetch.len(), 1);
}

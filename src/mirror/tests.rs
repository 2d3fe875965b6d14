//! One change at a time through plan, stage, sync, publish, on a real file system.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use bytes::Bytes;
use rustix::io::Errno;

use super::*;
use crate::document::{Attachment, Branch, Change, Content, Document, DocumentState, Revision};

mod listing;
mod planning;
mod reading;
mod trash;

struct Bench {
    dir: tempfile::TempDir,
    collection: Collection,
}

fn open(dir: &Path, options: &MirrorOptions) -> Result<Arc<Mirror>, MirrorError> {
    Mirror::open(dir, options, &Holder::this_process("mirror")).map(Arc::new)
}

impl Bench {
    fn new() -> Self {
        Self::with(&MirrorOptions::default())
    }

    fn with(options: &MirrorOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mirror = open(&dir.path().join("mirror"), options).unwrap();
        let collection = mirror.collection(&"books".into()).unwrap();
        Self { dir, collection }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("mirror/books").join(below)
    }

    fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap()
    }

    fn plan(&self, change: &Change) -> Plan {
        self.collection.plan(change, Authority::Feed).unwrap()
    }

    /// Carries a change through all steps; `None` where there was nothing to do.
    fn apply(&self, change: &Change) -> Option<Published> {
        self.apply_as(change, Authority::Feed)
    }

    fn apply_as(&self, change: &Change, authority: Authority) -> Option<Published> {
        let (mirror, sync) = (&self.collection.mirror, Sync::Each);
        let staged = match self.collection.plan(change, authority).unwrap() {
            Plan::Unchanged | Plan::Older { .. } | Plan::Nameless => return None,
            removal @ Plan::Remove(_) => self.collection.stage_removal(removal).unwrap(),
            Plan::Write(write) => {
                let bytes = |attachment: &Attachment| match &attachment.content {
                    Content::Inline(bytes) => Blob::Bytes(bytes.clone()),
                    Content::Remote(_) => panic!("tests bring their bytes"),
                };
                let blobs: HashMap<_, _> =
                    write.fetch.iter().map(|a| (Arc::clone(&a.name), bytes(a))).collect();
                let branches = write.branches.iter().map(|revision| branch(change, revision));
                let material = Material { blobs, branches: branches.collect() };
                self.collection
                    .stage(&change.document(), write, material, sync, Lane::default())
                    .unwrap()
            }
        };
        mirror.sync_staged(std::slice::from_ref(&staged), sync).unwrap();
        let published = self.collection.publish(staged, sync).unwrap();
        mirror.sync_published(&self.collection, std::slice::from_ref(&published), sync).unwrap();
        mirror.dispose([&published]).unwrap();
        let staged = lanes::staged(&self.dir.path().join("mirror"));
        assert_eq!(staged, [""; 0], "nothing stays in staging");
        Some(published)
    }
}

/// A revision of a change's document, with one attachment.
fn branch(change: &Change, revision: &Revision) -> BranchFiles {
    let history = format!(r#"{{"start":9,"ids":["{revision}"]}}"#);
    let body = format!(
        r#"{{"_id":"{}","_rev":"{revision}","_revisions":{history},"_attachments":{{"b":{{}}}}}}"#,
        change.id
    );
    let document = Document { body: body.into(), attachments: Vec::new() };
    let blobs = HashMap::from([("b".into(), Blob::Bytes(revision.to_string().into()))]);
    let branch = Branch { revision: revision.clone(), history: history.into(), document };
    BranchFiles { branch, blobs }
}

fn deleted(id: &str, revision: &str) -> Change {
    let state = DocumentState::Deleted(None);
    Change { id: id.into(), revision: revision.into(), position: None, others: None, state }
}

fn present(id: &str, revision: &str, attachments: &[(&str, &str)]) -> Change {
    let stub = |(name, text): &(&str, &str)| format!(r#""{name}":{{"digest":"md5-{text}"}}"#);
    let stubs: Vec<_> = attachments.iter().map(stub).collect();
    let stubs = match stubs.is_empty() {
        true => String::new(),
        false => format!(r#","_attachments":{{{}}}"#, stubs.join(",")),
    };
    let body = format!(r#"{{"_id":"{id}","_rev":"{revision}","n":1.0{stubs}}}"#);
    let attachment = |(name, text): &(&str, &str)| Attachment {
        name: (*name).into(),
        digest: Some(format!("md5-{text}").into()),
        length: Some(text.len() as u64),
        gzipped: false,
        content: Content::Inline(Bytes::from((*text).to_owned())),
    };
    let attachments = attachments.iter().map(attachment).collect();
    let state = DocumentState::Present(Document { body: body.into(), attachments });
    Change { id: id.into(), revision: revision.into(), position: None, others: None, state }
}

#[test]
fn a_body_is_written_byte_for_byte_with_a_newline() {
    let bench = Bench::new();
    let published = bench.apply(&present("a", "1-x", &[])).unwrap();
    assert_eq!(published.files, ["books/a/document.json"]);
    assert_eq!(bench.read("a/document.json"), "{\"_id\":\"a\",\"_rev\":\"1-x\",\"n\":1.0}\n");
    assert!(!bench.path("a/attachments").exists());
}

#[test]
fn the_same_revision_again_writes_nothing() {
    let bench = Bench::new();
    let change = present("a", "1-x", &[("f", "one")]);
    bench.apply(&change).unwrap();
    assert!(matches!(bench.plan(&change), Plan::Unchanged));
}

#[test]
fn an_older_revision_never_replaces_a_newer_one_unless_the_source_confirms_it() {
    let bench = Bench::new();
    bench.apply(&present("a", "10-x", &[])).unwrap();
    for older in [present("a", "9-z", &[]), deleted("a", "9-z")] {
        assert!(matches!(bench.plan(&older), Plan::Older { .. }));
        let confirmed = bench.collection.plan(&older, Authority::Confirmed).unwrap();
        assert!(matches!(confirmed, Plan::Write(_) | Plan::Remove(_)));
    }
}

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
    let bench = {
        let Bench { dir, collection } = bench;
        drop(collection);
        let options = MirrorOptions { attachments: false, ..MirrorOptions::default() };
        let mirror = open(&dir.path().join("mirror"), &options).unwrap();
        Bench { collection: mirror.collection(&"books".into()).unwrap(), dir }
    };
    bench.apply_as(&change, Authority::Repair).unwrap();
    assert_eq!(bench.read("a/attachments/f"), "one");
    assert!(!bench.path("a/attachments/g").exists());
    // As it was recorded when the mirror was made.
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

#[test]
fn a_new_body_leaves_folder_and_attachments_alone() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[("f", "one")])).unwrap();
    let inode = |below: &str| fs::metadata(bench.path(below)).unwrap().ino();
    let before = (inode("a"), inode("a/attachments/f"));
    let published = bench.apply(&present("a", "2-x", &[("f", "one")])).unwrap();
    assert_eq!(published.files, ["books/a/document.json"]);
    assert_eq!((inode("a"), inode("a/attachments/f")), before);
    assert!(bench.read("a/document.json").contains("2-x"));
}

#[test]
fn attachments_that_change_replace_the_folder_and_those_that_stay_are_kept() {
    let bench = Bench::new();
    bench
        .apply(&present("a", "1-x", &[("keep", "same"), ("change", "one"), ("drop", "x")]))
        .unwrap();
    let kept = fs::metadata(bench.path("a/attachments/keep")).unwrap().ino();
    let published =
        bench.apply(&present("a", "2-x", &[("keep", "same"), ("change", "two")])).unwrap();
    assert_eq!(published.files, ["books/a/document.json", "books/a/attachments/change"]);
    assert_eq!(bench.read("a/attachments/change"), "two");
    assert_eq!(fs::metadata(bench.path("a/attachments/keep")).unwrap().ino(), kept);
    assert!(!bench.path("a/attachments/drop").exists());
}

#[test]
fn a_missing_attachment_is_fetched_again_though_the_revision_is_the_same() {
    let bench = Bench::new();
    let change = present("a", "1-x", &[("f", "one"), ("g", "two")]);
    bench.apply(&change).unwrap();
    fs::remove_file(bench.path("a/attachments/g")).unwrap();
    assert_eq!(bench.apply(&change).unwrap().attachments, 1);
    assert_eq!(bench.read("a/attachments/g"), "two");
}

#[test]
fn a_deleted_document_is_gone_and_its_deletion_again_is_nothing() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[("f", "one")])).unwrap();
    assert!(bench.apply(&deleted("a", "2-x")).unwrap().files.is_empty());
    assert!(!bench.path("a").exists());
    assert!(bench.apply(&deleted("a", "2-x")).is_none());
}

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
fn a_long_id_that_the_body_does_not_carry_is_refused_before_it_is_lost() {
    let bench = Bench::new();
    let id = "long".repeat(100);
    let mut change = present(&id, "1-x", &[]);
    assert!(matches!(bench.plan(&change), Plan::Write(_)));
    let body = Bytes::from(r#"{"_rev":"1-x"}"#);
    change.state = DocumentState::Present(Document { body, attachments: Vec::new() });
    assert!(matches!(bench.plan(&change), Plan::Nameless));
}

#[test]
fn the_checksum_of_what_was_written_stands_beside_it() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[("f", "one")])).unwrap();
    let mut files = BTreeMap::new();
    for below in ["a/document.json", "a/attachments/f"] {
        let mut value = [0_u8; 64];
        match rustix::fs::getxattr(bench.path(below), "user.plainfold.b3", &mut value[..]) {
            Ok(length) => files.insert(below, value[..length].to_vec()),
            Err(error) => {
                assert_eq!(error, rustix::io::Errno::OPNOTSUPP, "{below}");
                return;
            }
        };
    }
    for (below, value) in files {
        let expected = blake3::hash(&fs::read(bench.path(below)).unwrap());
        assert_eq!(value, expected.as_bytes(), "{below}");
    }
}

#[test]
fn pretty_bodies_keep_their_revision_and_their_numbers() {
    let options = MirrorOptions { json: JsonStyle::Pretty, ..MirrorOptions::default() };
    let bench = Bench::with(&options);
    let change = present("a", "1-x", &[]);
    bench.apply(&change).unwrap();
    let expected = "{\n  \"_id\": \"a\",\n  \"_rev\": \"1-x\",\n  \"n\": 1.0\n}\n";
    assert_eq!(bench.read("a/document.json"), expected);
    assert!(matches!(bench.plan(&change), Plan::Unchanged));
}

#[test]
fn without_attachments_the_stubs_stay_and_nothing_is_fetched() {
    let options = MirrorOptions { attachments: false, ..MirrorOptions::default() };
    let bench = Bench::with(&options);
    let change = present("a", "1-x", &[("f", "one")]);
    bench.apply(&change).unwrap();
    assert!(bench.read("a/document.json").contains("md5-one"));
    assert!(!bench.path("a/attachments").exists());
    assert!(matches!(bench.plan(&change), Plan::Unchanged));
}

#[test]
fn what_an_interrupted_run_left_in_staging_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mirror");
    drop(open(&path, &MirrorOptions::default()).unwrap());
    for place in [".plainfold/staging/7", ".plainfold/staging/1/7"] {
        fs::create_dir_all(path.join(place).join("attachments")).unwrap();
        fs::write(path.join(place).join("document.json"), "{").unwrap();
    }
    assert_eq!(lanes::staged(&path).len(), 2);
    drop(open(&path, &MirrorOptions::default()).unwrap());
    assert_eq!(lanes::staged(&path), [""; 0]);
}

#[test]
fn the_files_of_a_document_are_told_again_if_its_body_was_written_since() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[("z", "1"), ("b", "2")])).unwrap();
    // Nobody is told of what is no regular file.
    symlink("b", bench.path("a/attachments/link")).unwrap();
    let written = fs::metadata(bench.path("a/document.json")).unwrap().modified().unwrap();
    let files = bench.collection.written_since("a", written).unwrap();
    let expected = ["a/document.json", "a/attachments/b", "a/attachments/z"];
    assert_eq!(files.unwrap(), expected.map(|file| format!("books/{file}")));
    let later = written + std::time::Duration::from_secs(1);
    assert_eq!(bench.collection.written_since("a", later).unwrap(), None);
    assert_eq!(bench.collection.written_since("nobody", written).unwrap(), None);
}

#[test]
fn a_codec_is_chosen_once() {
    let dir = tempfile::tempdir().unwrap();
    let portable = MirrorOptions { names: Some(Codec::Portable), ..MirrorOptions::default() };
    let native = MirrorOptions { names: Some(Codec::Native), ..MirrorOptions::default() };
    drop(open(dir.path(), &portable).unwrap());
    assert!(open(dir.path(), &MirrorOptions::default()).is_ok());
    assert!(matches!(open(dir.path(), &native), Err(MirrorError::OtherNames { .. })));
}

#[test]
fn a_streamed_attachment_arrives_whole_or_leaves_nothing() {
    let bench = Bench::new();
    let left = || lanes::staged(&bench.dir.path().join("mirror"));
    let mut writer = bench.collection.blob_writer().unwrap();
    writer.write(b"half of").unwrap();
    writer.abandon().unwrap();
    assert_eq!(left(), [""; 0]);
    let mut writer = bench.collection.blob_writer().unwrap();
    writer.write(b"all ").unwrap();
    writer.write(b"of it").unwrap();
    let blob = writer.finish(Sync::Each).unwrap();
    let change = present("a", "1-x", &[("f", "all of it")]);
    let (Plan::Write(write), DocumentState::Present(document)) =
        (bench.plan(&change), &change.state)
    else {
        panic!("it is new")
    };
    let blobs = HashMap::from([("f".into(), blob)]);
    let material = Material { blobs, ..Material::default() };
    let staged =
        bench.collection.stage(document, write, material, Sync::Each, Lane::default()).unwrap();
    bench.collection.publish(staged, Sync::Each).unwrap();
    assert_eq!(bench.read("a/attachments/f"), "all of it");
    assert_eq!(left(), [""; 0]);
}

/// A mirror that keeps everything.
fn keeping() -> Bench {
    let kept = Kept { revisions: true, deleted: true };
    Bench::with(&MirrorOptions { kept, ..MirrorOptions::default() })
}

fn with_others(change: Change, others: &[&str]) -> Change {
    Change { others: Some(others.iter().map(|revision| (*revision).into()).collect()), ..change }
}

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
    let Bench { dir, collection } = bench;
    drop(collection);
    let mirror = open(&dir.path().join("mirror"), &MirrorOptions::default()).unwrap();
    let bench = Bench { dir, collection: mirror.collection(&"books".into()).unwrap() };
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

#[test]
fn who_may_do_what_is_written_when_it_differs_and_is_no_document() {
    let bench = Bench::new();
    let security = br#"{"admins":{"names":["ana"]}}"#;
    assert!(!bench.collection.holds_security(security).unwrap());
    bench.collection.write_security(security).unwrap();
    assert!(bench.collection.holds_security(security).unwrap());
    assert_eq!(bench.read("_security.json").as_bytes(), [&security[..], b"\n"].concat());
    assert!(bench.collection.is_empty().unwrap());
    assert_eq!(bench.collection.documents().count(), 0);
    bench.apply(&present("_security.json", "1-x", &[])).unwrap();
    assert!(bench.path("%5Fsecurity.json/document.json").exists());
    assert!(bench.collection.holds_security(security).unwrap());
}

#[test]
fn from_outside_it_is_seen_who_holds_a_mirror() {
    let dir = tempfile::tempdir().unwrap();
    for nothing in [dir.path().to_owned(), dir.path().join("missing")] {
        let error = Ours::find(&nothing).unwrap_err();
        assert!(matches!(&error, MirrorError::NoMirror { path } if *path == nothing), "{error}");
    }
    let holder = Holder { socket: Some("/run/a.sock".into()), ..Holder::this_process("mirror") };
    let mirror = open(dir.path(), &MirrorOptions::default()).unwrap();
    let ours = Ours::find(dir.path()).unwrap();
    assert_eq!(ours.holder().unwrap().map(|holder| holder.socket), Some(None));
    mirror.describe_holder(&holder).unwrap();
    assert_eq!(ours.holder().unwrap(), Some(holder));
    drop(mirror);
    assert_eq!(ours.holder().unwrap(), None);
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

#[test]
fn a_collection_remembers_whom_it_follows_and_what_of_it_is_mirrored() {
    let dir = tempfile::tempdir().unwrap();
    let with = MirrorOptions::default();
    let without = MirrorOptions { attachments: false, ..with.clone() };
    let keeping = MirrorOptions { kept: Kept { revisions: true, deleted: true }, ..with.clone() };
    let collection =
        |options| open(dir.path(), options).unwrap().collection(&"books".into()).unwrap();
    let record = || {
        let path = dir.path().join(".plainfold/collections/books.json");
        fs::metadata(path).unwrap().ino()
    };
    let books = collection(&with);
    assert!(books.is_new() && books.followed().unwrap().is_none());
    books.follow("http://a/books").unwrap();
    drop(books);
    let before = record();
    let books = collection(&with);
    assert!(!books.is_new());
    assert_eq!(books.followed().unwrap().as_deref(), Some("http://a/books"));
    books.follow("http://a/books").unwrap();
    assert_eq!(record(), before, "nothing is written again");
    drop(books);
    for other in [&without, &keeping, &with] {
        let books = collection(other);
        let kept = other.kept;
        assert_eq!((books.mirrors_attachments(), books.kept()), (other.attachments, kept));
        books.follow("http://a/books").unwrap();
        drop(books);
        for now in [&without, &keeping, &with] {
            let recorded = collection(now).as_recorded().unwrap();
            assert_eq!(
                (recorded.mirrors_attachments(), recorded.kept()),
                (other.attachments, kept)
            );
        }
    }
    let books = collection(&with);
    books.follow("http://b/books").unwrap();
    assert_eq!(books.followed().unwrap().as_deref(), Some("http://b/books"));
}

#[test]
fn a_collection_that_came_to_hold_nothing_is_forgotten() {
    let bench = Bench::new();
    let mirror = &bench.collection.mirror;
    let record = bench.path("../.plainfold/collections/books.json");
    bench.apply(&present("a", "1-x", &[])).unwrap();
    mirror.forget_empty(&"books".into()).unwrap();
    assert!(record.exists() && bench.path("a").exists());
    bench.apply(&deleted("a", "2-x")).unwrap();
    mirror.forget_empty(&"books".into()).unwrap();
    assert!(!record.exists() && !bench.path("").exists());
}

#[test]
fn a_disk_is_at_fault_where_waiting_may_mend_it() {
    let failed = |errno| MirrorError::io("write", Path::new("a"), errno);
    for mends in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO] {
        assert!(failed(mends).is_disk(), "{mends}");
    }
    assert!(MirrorError::Reserve { path: "a".into(), free: 1, reserve: 2 }.is_disk());
    for stays in [Errno::ACCESS, Errno::NOENT, Errno::NOTDIR] {
        assert!(!failed(stays).is_disk(), "{stays}");
    }
    assert!(!MirrorError::NoMirror { path: "a".into() }.is_disk());
}

#[test]
fn a_body_need_not_carry_an_id_that_its_folder_tells() {
    let bench = Bench::new();
    for id in ["short", ""] {
        let document = Document { body: r#"{"n":1}"#.into(), attachments: Vec::new() };
        let state = DocumentState::Present(document);
        bench.apply(&Change { state, ..deleted(id, "1-x") }).unwrap();
    }
    assert_eq!(bench.read("~/document.json"), bench.read("short/document.json"));
}

#[test]
fn after_a_failure_a_collection_clears_up_behind_itself_alone() {
    let bench = Bench::new();
    let staged = |name: &str| bench.path("../.plainfold/staging/2").join(name);
    for (name, id) in [("7~books", "a"), ("8-removed~books", "b"), ("9~maps", "c")] {
        fs::create_dir(staged(name)).unwrap();
        let body = format!(r#"{{"_id":"{id}","_rev":"1-x"}}"#);
        fs::write(staged(name).join("document.json"), body).unwrap();
    }
    bench.collection.clear_up().unwrap();
    assert!(!staged("7~books").exists() && staged("9~maps").exists());
    let mut in_doubt: Vec<_> = bench.collection.interrupted().into_keys().collect();
    in_doubt.sort();
    let in_doubt: Vec<_> = in_doubt.iter().map(|id| id.as_str()).collect();
    assert_eq!(in_doubt, ["a", "b"], "they may be told of again");
}

#[test]
fn a_probe_tells_whether_the_disk_can_be_written_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let reserving = |reserve| {
        let options = MirrorOptions { reserve, ..MirrorOptions::default() };
        open(dir.path(), &options).unwrap()
    };
    let mirror = reserving(1);
    mirror.probe().unwrap();
    assert_eq!(lanes::staged(dir.path()), [""; 0]);
    fs::remove_dir_all(dir.path().join(".plainfold/staging")).unwrap();
    mirror.probe().unwrap_err();
    drop(mirror);
    assert!(reserving(u64::MAX).probe().unwrap_err().is_disk());
}

#[test]
fn the_bytes_that_were_written_are_told() {
    let bench = keeping();
    let (f, g) = (("f", "one"), ("g", "three"));
    let steps = [
        with_others(present("a", "1-x", &[]), &[]),
        with_others(present("a", "2-x", &[f]), &["2-l"]),
        with_others(present("a", "3-x", &[f, g]), &["2-l"]),
        with_others(deleted("a", "4-x"), &[]),
    ];
    for change in steps {
        let published = bench.apply(&change).unwrap();
        let files = published.files.iter().map(|file| bench.path("..").join(file));
        let sizes: u64 = files.map(|file| fs::metadata(file).unwrap().len()).sum();
        assert_eq!(published.bytes, sizes, "{:?}", published.files);
        let attachments = published.files.iter().filter(|file| file.contains("/attachments/"));
        assert_eq!(published.attachments, attachments.count() as u64, "{:?}", published.files);
    }
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[])).unwrap();
    let body_alone = bench.apply(&present("a", "2-longer", &[])).unwrap();
    assert_eq!(body_alone.bytes, fs::metadata(bench.path("a/document.json")).unwrap().len());
}

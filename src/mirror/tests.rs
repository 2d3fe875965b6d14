//! One change at a time through plan, stage, sync, publish, on a real file system.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use bytes::Bytes;
use rustix::io::Errno;

use super::*;
use crate::document::{Attachment, Branch, Change, Content, Document, DocumentState, Revision};

mod branches;
mod guarding;
mod inventory;
mod kept;
mod listing;
mod locating;
mod planning;
mod reading;
mod remembering;
mod repairs;
mod room;
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

    /// The same tree, opened by another run.
    fn reopened(self, options: &MirrorOptions) -> Self {
        let Self { dir, collection } = self;
        drop(collection);
        let mirror = open(&dir.path().join("mirror"), options).unwrap();
        Self { dir, collection: mirror.collection(&"books".into()).unwrap() }
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
        self.collection.record_staged(std::slice::from_ref(&staged), sync).unwrap();
        mirror.sync_staged(std::slice::from_ref(&staged), sync).unwrap();
        let published = self.collection.publish(staged, sync).unwrap();
        mirror.sync_published(&self.collection, std::slice::from_ref(&published), sync).unwrap();
        self.collection.note_committed().unwrap();
        mirror.dispose([&published]).unwrap();
        let left = crate::tree::lanes::staged(&self.dir.path().join("mirror"));
        assert_eq!(left, [""; 0], "nothing stays in staging");
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
    let quoted = serde_json::Value::from(id);
    let body = format!(r#"{{"_id":{quoted},"_rev":"{revision}","n":1.0{stubs}}}"#);
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
    assert_eq!(staged(&path).len(), 2);
    drop(open(&path, &MirrorOptions::default()).unwrap());
    assert_eq!(staged(&path), [""; 0]);
}

#[test]
fn the_files_of_a_document_are_listed_with_its_body_first() {
    let bench = Bench::new();
    bench.apply(&present("a", "1-x", &[("z", "1"), ("b", "2")])).unwrap();
    // A file that is not a regular file is not reported in events.
    symlink("b", bench.path("a/attachments/link")).unwrap();
    let files = bench.collection.files_of("a").unwrap();
    let expected = ["a/document.json", "a/attachments/b", "a/attachments/z"];
    assert_eq!(files.unwrap(), expected.map(|file| format!("books/{file}")));
    assert_eq!(bench.collection.files_of("nobody").unwrap(), None);
}

#[test]
fn a_streamed_attachment_arrives_whole_or_leaves_nothing() {
    let bench = Bench::new();
    let left = || staged(&bench.dir.path().join("mirror"));
    let mut writer = bench.collection.blob_writer().unwrap();
    writer.write(b"half of").unwrap();
    drop(writer);
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

/// A mirror that keeps all revisions.
fn keeping() -> Bench {
    let kept = Kept { revisions: true, deleted: true };
    Bench::with(&MirrorOptions { kept, ..MirrorOptions::default() })
}

fn with_others(change: Change, others: &[&str]) -> Change {
    Change { others: Some(others.iter().map(|revision| (*revision).into()).collect()), ..change }
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

//! A mirror compared with a model in memory: whatever a source does, and however runs end, the tree
//! finally equals the source, and an event was emitted for every change.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;
use crate::document::{DocumentId, Revision};
use crate::source::{Answers, Attachments, ByteStream, Holds, Reading, Reads, Wanted};

/// The possible steps.
#[derive(Clone, Debug)]
enum Step {
    /// A document is written, with this many new attachments, small or large, and perhaps its old
    /// ones.
    Put { id: usize, small: usize, large: bool, keep: bool },
    /// A document is deleted.
    Delete { id: usize },
    /// A branch with a lower generation wins.
    Conflict { id: usize },
    /// From now on attachments are mirrored, or not.
    Attachments(bool),
    /// The position of the mirror has expired.
    Expire,
    /// A run to its end. The feed begins this many rows too early, and is cut after this many rows.
    Run { rewind: usize, cut: Option<usize> },
    /// A run that is dropped in progress: after this many rows, or after its first event.
    Crash { rows: usize, event: bool },
    /// A run to its end, after which the state is as it was before its commits.
    Forget,
}

/// A document at the source.
#[derive(Clone, Debug)]
struct Doc {
    seq: u64,
    revision: String,
    deleted: bool,
    /// The attachments by name, with their lengths; the digest is made from revision and name.
    attachments: BTreeMap<String, (String, usize)>,
}

impl Doc {
    fn body(&self, id: &str) -> String {
        let stub = |(name, (digest, length)): (&String, &(String, usize))| {
            format!(r#""{name}":{{"digest":"{digest}","length":{length},"stub":true}}"#)
        };
        let stubs: Vec<String> = self.attachments.iter().map(stub).collect();
        let (revision, stubs) = (&self.revision, stubs.join(","));
        match self.deleted {
            true => format!(r#"{{"_id":"{id}","_rev":"{revision}","_deleted":true}}"#),
            false => format!(r#"{{"_id":"{id}","_rev":"{revision}","_attachments":{{{stubs}}}}}"#),
        }
    }

    fn change(&self, id: &str, position: Option<Position>) -> Change {
        let attachment = |(name, (digest, length)): (&String, &(String, usize))| Attachment {
            name: name.as_str().into(),
            digest: Some(digest.as_str().into()),
            length: Some(*length as u64),
            gzipped: false,
            content: Content::Remote("".into()),
        };
        let attachments = self.attachments.iter().map(attachment).collect();
        let state = match self.deleted {
            true => DocumentState::Deleted(None),
            false => DocumentState::Present(Document { body: self.body(id).into(), attachments }),
        };
        let (id, revision) = (id.into(), self.revision.as_str().into());
        Change { id, revision, position, others: None, state }
    }
}

/// An attachment's bytes, which its digest names.
fn bytes(digest: &str, length: usize) -> Bytes {
    digest.bytes().cycle().take(length).collect::<Vec<u8>>().into()
}

/// The source: a history of all writes, and the present documents.
#[derive(Default)]
struct World {
    now: BTreeMap<String, Doc>,
    log: Vec<(String, Doc)>,
    expired: bool,
    rewind: usize,
    cut: Option<usize>,
    /// The feed is silent after this many rows.
    silent_after: Option<usize>,
}

#[derive(Default)]
struct Modelled {
    world: Mutex<World>,
    /// The feed is silent.
    silent: Notify,
}

impl World {
    fn write(&mut self, id: usize, change: impl FnOnce(&mut Doc, u64)) {
        let (id, seq) = (format!("d{id}"), self.log.len() as u64 + 1);
        let none =
            Doc { seq, revision: String::new(), deleted: true, attachments: BTreeMap::new() };
        let mut doc = self.now.get(&id).cloned().unwrap_or(none);
        doc.seq = seq;
        // Generations are spaced, so that a branch fits below.
        doc.revision = format!("{}-x", seq * 1000);
        change(&mut doc, seq);
        self.now.insert(id.clone(), doc.clone());
        self.log.push((id, doc));
    }

    fn rows(&mut self, since: &Since) -> Vec<Said> {
        let end = self.log.len() as u64;
        let row = |(id, doc): (&String, &Doc), position| -> Said {
            Ok(FeedEvent::Change(doc.change(id, position)))
        };
        let mut rows = Vec::new();
        if let Since::Scan(reason) = since {
            assert!(!reason.contains("says that it holds"), "a false alarm: {reason}");
            rows.push(Ok(FeedEvent::ScanStarted { reason: reason.clone() }));
            let live = self.now.iter().filter(|(_, doc)| !doc.deleted);
            rows.extend(live.map(|one| row(one, None)));
        } else if std::mem::take(&mut self.expired) && matches!(since, Since::Position(_)) {
            return vec![Err(SourceError::Expired { reason: "it was created again".into() })];
        } else {
            let since = match since {
                Since::Position(position) => position.token().parse::<usize>().unwrap(),
                _ => 0,
            };
            let from = since.saturating_sub(std::mem::take(&mut self.rewind));
            let later = self.log.iter().skip(from);
            rows.extend(later.map(|(id, doc)| row((id, doc), Some(at(&doc.seq.to_string())))));
        }
        if let Some(cut) = self.cut.take() {
            rows.truncate(cut);
            rows.push(Err(transient()));
            return rows;
        }
        let position = at(&end.to_string());
        rows.push(Ok(match since {
            Since::Scan(_) => FeedEvent::ScanFinished { position, exhaustive: true },
            _ => FeedEvent::Position(position),
        }));
        let count = |deleted| self.now.values().filter(|doc| doc.deleted == deleted).count() as u64;
        let (documents, tombstones) = (Some(count(false)), Some(count(true)));
        rows.push(Ok(FeedEvent::Holds(Holds { documents, tombstones })));
        rows.push(Ok(FeedEvent::CaughtUp));
        rows
    }
}

impl Modelled {
    fn blob(wanted: &Attachment) -> Bytes {
        bytes(wanted.digest.as_ref().unwrap(), wanted.length.unwrap() as usize)
    }
}

impl Feed for Modelled {
    fn changes(&self, since: Since, _mode: Mode) -> BoxStream<'static, Said> {
        let mut world = self.world.lock().unwrap();
        let mut rows = world.rows(&since);
        match world.silent_after {
            None => stream::iter(rows).boxed(),
            Some(after) => {
                rows.truncate(after);
                self.silent.notify_one();
                stream::iter(rows).chain(stream::pending()).boxed()
            }
        }
    }

    fn reads(&self) -> Option<&dyn Reads> {
        Some(self)
    }

    fn attachments(&self) -> Option<&dyn Attachments> {
        Some(self)
    }
}

impl Reads for Modelled {
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        _position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>> {
        let doc = self.world.lock().unwrap().now.get(id.as_str()).cloned();
        let found = doc.map(|doc| Reading::Found(doc.change(id.as_str(), None)));
        async { Ok(found.unwrap_or(Reading::Unknown)) }.boxed()
    }
}

impl Attachments for Modelled {
    fn stream<'a>(
        &'a self,
        _id: &'a DocumentId,
        _revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>> {
        let whole = Self::blob(attachment);
        async { Ok(stream::iter([Ok(whole)]).boxed()) }.boxed()
    }

    fn many<'a>(&'a self, wanted: &'a [Wanted]) -> Answers<'a, Bytes> {
        let answers = wanted.iter().map(|wanted| Ok(Self::blob(&wanted.attachment))).collect();
        async { Ok(answers) }.boxed()
    }
}

/// The mirror, and what must be true of it.
struct Model {
    home: Home,
    source: Arc<Modelled>,
    attachments: bool,
    /// The files of attachments in the tree, by document and name, with their digests.
    files: BTreeMap<(String, String), (String, usize)>,
    /// The last event of each document: the revision, or that it is gone.
    told: BTreeMap<String, Option<String>>,
    /// The number of the last event.
    last: u64,
}

/// How a run ends.
enum End {
    ByItself,
    Silent,
    AtEvent,
}

impl Model {
    fn new() -> Self {
        Self {
            home: Home::new(),
            source: Arc::default(),
            attachments: true,
            files: BTreeMap::new(),
            told: BTreeMap::new(),
            last: 0,
        }
    }

    /// One process that works on the mirror: whatever ends it ends all of its tasks.
    fn process(&self, end: End) -> Vec<Arc<Emitted>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let source = Arc::clone(&self.source);
        let options = MirrorOptions { attachments: self.attachments, ..MirrorOptions::default() };
        let mut received = runtime.block_on(async {
            let source: Arc<dyn Feed> = source.clone();
            let (pipeline, received) =
                pipeline_with(self.home.dir.path(), source, Mode::CatchUp, &options);
            let stop = CancellationToken::new();
            match end {
                End::ByItself => {
                    pipeline.run(&stop).await.unwrap();
                    assert!(pipeline.failures().is_empty(), "{:?}", pipeline.failures());
                }
                End::Silent => tokio::select! {
                    _ = pipeline.run(&stop) => {}
                    () = async {
                        self.source.silent.notified().await;
                        tokio::task::yield_now().await;
                    } => {}
                },
                End::AtEvent => {
                    let mut first = received.resubscribe();
                    tokio::select! {
                        _ = pipeline.run(&stop) => {}
                        _ = first.recv() => {}
                    }
                }
            }
            received
        });
        // Waits for operations on the disk in progress, as a process in a system call does.
        drop(runtime);
        let mut events = Vec::new();
        while let Ok(event) = received.try_recv() {
            events.push(event);
        }
        events
    }

    fn hear(&mut self, events: &[Arc<Emitted>]) {
        for event in events {
            assert!(event.event > self.last, "{} after {}", event.event, self.last);
            self.last = event.event;
            let revision = (!event.deleted).then(|| event.revision.to_string());
            self.told.insert(event.document.to_string(), revision);
        }
    }

    fn step(&mut self, step: &Step) {
        let source = Arc::clone(&self.source);
        let mut world = source.world.lock().unwrap();
        match *step {
            Step::Put { id, small, large, keep } => world.write(id, |doc, seq| {
                if !keep || doc.deleted {
                    doc.attachments.clear();
                }
                doc.deleted = false;
                let lengths = std::iter::repeat_n(11, small).chain(large.then_some(70_000));
                for (index, length) in lengths.enumerate() {
                    let of = format!("md5-{seq}-{index}");
                    doc.attachments.insert(format!("f{index}"), (of, length));
                }
            }),
            Step::Delete { id } => world.write(id, |doc, _| {
                doc.deleted = true;
                doc.attachments.clear();
            }),
            Step::Conflict { id } => world.write(id, |doc, seq| {
                doc.deleted = false;
                doc.attachments.clear();
                doc.revision = format!("{}-y", seq * 1000 - 900);
            }),
            Step::Attachments(on) => self.attachments = on,
            Step::Expire => world.expired = true,
            Step::Run { rewind, cut } => {
                (world.rewind, world.cut) = (rewind, cut);
                drop(world);
                let events = self.process(End::ByItself);
                self.hear(&events);
                self.check();
            }
            Step::Crash { rows, event } => {
                world.silent_after = (!event).then_some(rows);
                drop(world);
                let events = self.process(if event { End::AtEvent } else { End::Silent });
                self.source.world.lock().unwrap().silent_after = None;
                self.hear(&events);
            }
            Step::Forget => {
                drop(world);
                self.forget();
            }
        }
    }

    /// A run that ended between the last step in the tree and the commit.
    fn forget(&mut self) {
        let state = self.home.state_path();
        let name = "books".into();
        let before = match state.exists() {
            true => open_state(&state).checkpoint(&name),
            false => Ok(None),
        };
        let before = before.unwrap().unwrap_or_default();
        let open_since = before.open_since.or(Some(jiff::Timestamp::now()));
        let had = self.revisions();
        let aside_before = self.aside();
        // Nobody has received the uncommitted events. But their numbers are not used again.
        let events = self.process(End::ByItself);
        self.last = events.last().map_or(self.last, |event| event.event);
        self.note_files();
        forget_commits(&self.home, &Checkpoint { open_since, ..before });
        // The removed folder is still in staging, left by this run or an earlier one.
        let has = self.revisions();
        let removed = had.iter().filter(|(id, _)| !has.contains_key(*id));
        let body = |(id, revision)| format!("{{\"_id\":\"{id}\",\"_rev\":\"{revision}\"}}\n");
        for (number, body) in aside_before.into_iter().chain(removed.map(body)).enumerate() {
            let aside = format!(".plainfold/staging/1/{number:x}-removed~books");
            let aside = self.home.dir.path().join(aside);
            std::fs::create_dir_all(&aside).unwrap();
            std::fs::write(aside.join("document.json"), body).unwrap();
        }
    }

    /// The bodies of removed documents whose events may not have been emitted.
    fn aside(&self) -> Vec<String> {
        if !self.home.dir.path().join(".plainfold/staging").exists() {
            return Vec::new();
        }
        let paths = crate::mirror::staged(self.home.dir.path()).into_iter();
        let removed = paths.filter(|path| path.contains("-removed~"));
        let body = |path| {
            let aside = self.home.dir.path().join(".plainfold/staging").join(path);
            std::fs::read_to_string(aside.join("document.json")).unwrap()
        };
        removed.map(body).collect()
    }

    /// The revisions in the tree, read without Plainfold's code.
    fn revisions(&self) -> BTreeMap<String, String> {
        let Ok(entries) = std::fs::read_dir(self.home.path("")) else { return BTreeMap::new() };
        let folders = entries.map(|entry| entry.unwrap().path());
        let read = |folder: PathBuf| {
            let text = std::fs::read_to_string(folder.join("document.json")).unwrap();
            let body: serde_json::Value = serde_json::from_str(&text).unwrap();
            let text = |member: &str| body[member].as_str().unwrap().to_owned();
            (text("_id"), text("_rev"))
        };
        folders.map(read).collect()
    }

    /// The attachments that have files now: all, or those that had them and stayed the same.
    fn note_files(&mut self) {
        let world = self.source.world.lock().unwrap();
        let mut files = BTreeMap::new();
        for (id, doc) in world.now.iter().filter(|(_, doc)| !doc.deleted) {
            for (name, attachment) in &doc.attachments {
                let key = (id.clone(), name.clone());
                if self.attachments || self.files.get(&key) == Some(attachment) {
                    files.insert(key, attachment.clone());
                }
            }
        }
        self.files = files;
    }

    /// The tree equals the source, and all events were emitted.
    fn check(&mut self) {
        self.note_files();
        let world = self.source.world.lock().unwrap();
        let live = world.now.iter().filter(|(_, doc)| !doc.deleted);
        let expected: BTreeMap<String, String> =
            live.clone().map(|(id, doc)| (id.clone(), doc.revision.clone())).collect();
        assert_eq!(self.revisions(), expected);
        let mut files = BTreeMap::new();
        for (id, doc) in live {
            let text = std::fs::read_to_string(self.home.path(&format!("{id}/document.json")));
            assert_eq!(text.unwrap(), doc.body(id) + "\n");
            let folder = self.home.path(&format!("{id}/attachments"));
            let mut found = BTreeMap::new();
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                found.insert((id.clone(), name), std::fs::read(entry.path()).unwrap());
            }
            // Without attachments, those of a crashed run may be there too.
            let may = |name: &String| doc.attachments.get(name);
            let must = self.files.keys().filter(|(of, _)| of == id);
            let lacking: Vec<_> = must.filter(|key| !found.contains_key(*key)).collect();
            assert!(lacking.is_empty(), "{lacking:?} are not there");
            for ((_, name), content) in found {
                let attachment = may(&name).unwrap_or_else(|| panic!("{name} of {id} is too many"));
                assert!(
                    content == bytes(&attachment.0, attachment.1),
                    "the bytes of {name} of {id}"
                );
                files.insert((id.clone(), name), attachment.clone());
            }
        }
        let heard = self.told.iter().filter_map(|(id, at)| Some((id.clone(), at.clone()?)));
        assert_eq!(heard.collect::<BTreeMap<_, _>>(), expected, "the events of subscribers");
        let staged = crate::mirror::staged(self.home.dir.path());
        assert_eq!(staged, [""; 0], "something is left in staging");
        drop(world);
        self.files = files;
    }
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..5_usize;
    prop_oneof![
        6 => (id.clone(), 0..3_usize, any::<bool>(), any::<bool>())
            .prop_map(|(id, small, large, keep)| Step::Put { id, small, large, keep }),
        2 => id.clone().prop_map(|id| Step::Delete { id }),
        1 => id.prop_map(|id| Step::Conflict { id }),
        1 => any::<bool>().prop_map(Step::Attachments),
        1 => Just(Step::Expire),
        4 => (0..6_usize, prop::option::of(0..6_usize))
            .prop_map(|(rewind, cut)| Step::Run { rewind, cut }),
        2 => (0..6_usize, any::<bool>()).prop_map(|(rows, event)| Step::Crash { rows, event }),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_mirror_becomes_what_the_source_is_and_all_is_told(
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
        }
        model.step(&Step::Run { rewind: 0, cut: None });
        // If nothing is new, no event is emitted.
        let last = model.last;
        model.step(&Step::Run { rewind: 0, cut: None });
        prop_assert_eq!(model.last, last);
    }
}

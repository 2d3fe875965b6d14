//! A pipeline from a scripted source to a real mirror.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::broadcast;

use super::*;
use crate::checkpoint::{Bounds, Checkpoint, Commit, HeldBack};
use crate::document::{Attachment, Change, Content, Document, DocumentState};
use crate::event::WriteEvent;
use crate::mirror::{Holder, MirrorOptions};
use crate::source::scripted::{Said, Scripted};
use crate::source::{FeedEvent, Unreadable};

mod branches;
mod deletions;
mod disk;
mod following;
mod model;
mod opening;
mod phases;
mod remembering;
mod security;

use following::Following;

const QUICK: RetryPolicy = RetryPolicy {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(5),
    give_up_after: Some(Duration::from_millis(200)),
    attempts: 2,
};

/// A directory for a mirror that outlives the processes that work on it.
struct Home {
    dir: tempfile::TempDir,
}

/// One run of a pipeline on it.
struct Run {
    outcome: Result<(), PipelineError>,
    events: Vec<Arc<WriteEvent>>,
    report: Report,
    failures: Vec<Failure>,
    opened: Vec<Since>,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("books").join(below)
    }

    fn documents(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    async fn run(&self, scripts: Vec<Vec<Said>>) -> Run {
        self.run_source(Scripted::new(scripts)).await
    }

    async fn run_source(&self, source: Scripted) -> Run {
        self.run_with(source, &MirrorOptions::default()).await
    }

    async fn run_with(&self, source: Scripted, options: &MirrorOptions) -> Run {
        let source = Arc::new(source);
        let (pipeline, mut received) =
            pipeline_with(self.dir.path(), source.clone(), Mode::CatchUp, options);
        let outcome = pipeline.run(&CancellationToken::new()).await;
        let mut events = Vec::new();
        while let Ok(event) = received.try_recv() {
            events.push(event);
        }
        let report = pipeline.reporter.report();
        let failures = pipeline.failures();
        let opened = source.opened.lock().unwrap().clone();
        Run { outcome, events, report, failures, opened }
    }
}

fn pipeline(
    dir: &Path,
    source: Arc<Scripted>,
    mode: Mode,
) -> (Pipeline, broadcast::Receiver<Arc<WriteEvent>>) {
    pipeline_with(dir, source, mode, &MirrorOptions::default())
}

/// Opens a state of which an earlier run in this process may still hold the lock for a moment: sled lets
/// go of its file in threads of its own. (Processes have no such trouble.)
fn open_state(path: &Path) -> Checkpoints {
    for _ in 0..1_000 {
        match Checkpoints::open(path, Bounds::DEFAULT) {
            Ok(opened) => return opened.state,
            Err(error) if error.to_string().contains("acquire lock") => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the lock of {} is never let go", path.display())
}

fn pipeline_with(
    dir: &Path,
    source: Arc<dyn Source>,
    mode: Mode,
    options: &MirrorOptions,
) -> (Pipeline, broadcast::Receiver<Arc<WriteEvent>>) {
    pipeline_as(dir, source, options, in_mode(mode))
}

fn in_mode(mode: Mode) -> PipelineOptions {
    let deletions = Some(DeletionLimit { percent: 30, documents: 5 });
    PipelineOptions { mode, retry: QUICK, revisit: Duration::from_secs(3600), deletions }
}

fn pipeline_as(
    dir: &Path,
    source: Arc<dyn Source>,
    options: &MirrorOptions,
    how: PipelineOptions,
) -> (Pipeline, broadcast::Receiver<Arc<WriteEvent>>) {
    let holder = Holder::this_process("mirror");
    let mirror = Arc::new(Mirror::open(dir, options, &holder).unwrap());
    let state = open_state(&mirror.state_path());
    let events = Broadcast::new();
    let received = events.subscribe();
    let collection = mirror.collection(&"books".into()).unwrap();
    let reporter = Reporter::new("books".into());
    let state = Arc::new(state);
    let pipeline =
        Pipeline::new(source, &mirror, collection, &state, &events, reporter, how).unwrap();
    (pipeline, received)
}

fn at(token: &str) -> Position {
    Position::new(token, "".into(), None)
}

fn change(id: &str, revision: &str, token: Option<&str>) -> Change {
    let body = format!(r#"{{"_id":"{id}","_rev":"{revision}"}}"#);
    Change {
        id: id.into(),
        revision: revision.into(),
        position: token.map(at),
        others: None,
        state: DocumentState::Present(Document { body: body.into(), attachments: Vec::new() }),
    }
}

fn row(id: &str, revision: &str, token: &str) -> Said {
    Ok(FeedEvent::Change(change(id, revision, Some(token))))
}

fn deleted(id: &str, revision: &str, token: &str) -> Said {
    let state = DocumentState::Deleted(None);
    Ok(FeedEvent::Change(Change { state, ..change(id, revision, Some(token)) }))
}

/// A row with one attachment, which is `length` bytes long by its stub.
fn row_with(id: &str, revision: &str, token: &str, name: &str, length: u64) -> Change {
    let body = format!(
        r#"{{"_id":"{id}","_rev":"{revision}","_attachments":{{"{name}":{{"digest":"md5-{revision}"}}}}}}"#
    );
    let attachment = Attachment {
        name: name.into(),
        digest: Some(format!("md5-{revision}").into()),
        length: Some(length),
        gzipped: false,
        content: Content::Remote("".into()),
    };
    let state =
        DocumentState::Present(Document { body: body.into(), attachments: vec![attachment] });
    Change { state, ..change(id, revision, Some(token)) }
}

fn end(token: &str) -> Vec<Said> {
    vec![Ok(FeedEvent::Position(at(token))), Ok(FeedEvent::CaughtUp)]
}

fn script(rows: Vec<Said>, token: &str) -> Vec<Said> {
    rows.into_iter().chain(end(token)).collect()
}

fn transient() -> SourceError {
    SourceError::transient("the connection was cut")
}

#[tokio::test]
async fn every_write_is_an_event_in_order_and_a_second_run_goes_on_from_the_checkpoint() {
    let home = Home::new();
    let rows = vec![row("a", "1-x", "1"), row("b", "1-x", "2"), deleted("a", "2-x", "3")];
    let run = home.run(vec![script(rows, "3")]).await;
    run.outcome.unwrap();
    // Only the newest state of a document in a batch is written, so `a` never was.
    let told: Vec<_> = run.events.iter().map(|e| (e.event, e.document.to_string())).collect();
    assert_eq!(told, [(1, "b".to_owned())]);
    assert_eq!(home.documents(), ["b"]);
    let run = home.run(vec![script(vec![row("c", "1-x", "4")], "4")]).await;
    assert_eq!(run.opened, [Since::Position(at("3"))]);
    assert_eq!(run.events[0].event, 2);
    assert_eq!(run.events[0].files, ["books/c/document.json"]);
    assert!(run.report.caught_up && run.report.phase == Phase::CaughtUp);
}

#[tokio::test]
async fn a_row_without_a_position_never_moves_the_checkpoint() {
    let home = Home::new();
    let without = Ok(FeedEvent::Change(change("b", "1-x", None)));
    let rows = vec![row("a", "1-x", "1"), without, Err(SourceError::permanent("broken"))];
    let run = home.run(vec![rows]).await;
    assert!(run.outcome.is_err());
    assert_eq!(home.documents(), ["a", "b"]);
    let run = home.run(vec![end("2")]).await;
    assert_eq!(run.opened, [Since::Position(at("1"))]);
}

#[tokio::test]
async fn a_scan_removes_what_was_not_listed_and_only_when_the_listing_is_complete() {
    let home = Home::new();
    let rows = vec![row("a", "5-x", "1"), row("b", "5-x", "2"), row("c", "5-x", "3")];
    home.run(vec![script(rows, "3")]).await.outcome.unwrap();
    let started = || Ok(FeedEvent::ScanStarted { reason: "it was created again".into() });
    let finished = |exhaustive| Ok(FeedEvent::ScanFinished { position: at("9"), exhaustive });
    let expired = || Err(SourceError::Expired { reason: "it was created again".into() });

    // Cut in the middle: everything stays.
    let cut = vec![started(), row("b", "6-x", "1"), Err(SourceError::permanent("broken"))];
    let run = home.run(vec![vec![expired()], cut]).await;
    assert!(run.outcome.is_err());
    assert_eq!(home.documents(), ["a", "b", "c"]);

    // The next run starts the scan over, whatever positions the rows of the first had.
    let whole = vec![started(), row("b", "6-x", "1"), finished(true), Ok(FeedEvent::CaughtUp)];
    let run = home.run(vec![whole]).await;
    run.outcome.unwrap();
    assert_eq!(run.opened, [Since::Scan("it was created again".into())]);
    assert_eq!(home.documents(), ["b"]);
    let gone: Vec<_> =
        run.events.iter().filter(|e| e.deleted).map(|e| e.document.as_str()).collect();
    assert_eq!(gone.len(), 2);

    // A source that cannot list everything removes nothing.
    let partial = vec![started(), finished(false), Ok(FeedEvent::CaughtUp)];
    home.run(vec![vec![expired()], partial]).await.outcome.unwrap();
    assert_eq!(home.documents(), ["b"]);
}

#[tokio::test]
async fn a_scan_that_was_interrupted_over_an_empty_tree_comes_to_its_end() {
    let home = Home::new();
    let started = || Ok(FeedEvent::ScanStarted { reason: "x".into() });
    let broken = Err(SourceError::permanent("broken"));
    let expired = Err(SourceError::Expired { reason: "x".into() });
    home.run(vec![vec![expired], vec![started(), broken]]).await.outcome.unwrap_err();
    let finished = Ok(FeedEvent::ScanFinished { position: at("1"), exhaustive: true });
    let whole = vec![started(), row("a", "1-x", "1"), finished, Ok(FeedEvent::CaughtUp)];
    let run = home.run(vec![whole]).await;
    assert_eq!(run.opened, [Since::Scan("x".into())]);
    assert_eq!(home.run(vec![end("1")]).await.opened, [Since::Position(at("1"))]);
}

#[tokio::test]
async fn a_scan_with_a_row_that_names_nobody_removes_nothing() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let unreadable = Unreadable {
        id: None,
        revision: None,
        place: "row 7".into(),
        position: Some(at("2")),
        reason: "it has no id".into(),
    };
    let scan = vec![
        Ok(FeedEvent::ScanStarted { reason: "x".into() }),
        Ok(FeedEvent::Unreadable(unreadable)),
        Ok(FeedEvent::ScanFinished { position: at("9"), exhaustive: true }),
        Ok(FeedEvent::CaughtUp),
    ];
    let expired = vec![Err(SourceError::Expired { reason: "x".into() })];
    let run = home.run(vec![expired, scan]).await;
    assert_eq!(home.documents(), ["a"]);
    assert_eq!(run.failures.len(), 1);
}

#[tokio::test]
async fn an_older_revision_is_applied_only_when_the_source_confirms_it() {
    let home = Home::new();
    let run = home.run(vec![script(vec![row("a", "3-x", "1"), row("a", "2-y", "2")], "2")]).await;
    run.outcome.unwrap();
    assert!(std::fs::read_to_string(home.path("a/document.json")).unwrap().contains("3-x"));
    // The winner was deleted, and an older branch has won: the source says so.
    let source = Scripted::new(vec![script(vec![row("a", "2-y", "3")], "3")]);
    source.documents.lock().unwrap().insert("a".into(), change("a", "2-y", None));
    let run = home.run_source(source).await;
    assert!(std::fs::read_to_string(home.path("a/document.json")).unwrap().contains("2-y"));
    let position = run.events[0].position.as_ref().map(|position| position.get());
    assert_eq!(position, Some("3"), "where the feed named it");
}

#[tokio::test]
async fn a_source_that_fails_again_and_again_is_not_asked_to_confirm_all_the_rest() {
    let home = Home::new();
    let rows = |revision: &str| (0..6).map(|n| row(&format!("d{n}"), revision, "1")).collect();
    home.run(vec![script(rows("3-x"), "1")]).await.outcome.unwrap();
    let source = Arc::new(Scripted::new(vec![script(rows("2-y"), "2")]));
    *source.away.lock().unwrap() = Some(transient());
    let (pipeline, _received) = pipeline(home.dir.path(), source.clone(), Mode::CatchUp);
    pipeline.run(&CancellationToken::new()).await.unwrap();
    let looked = source.looked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(looked, 3 * QUICK.attempts);
    assert_eq!(pipeline.reporter.report().failures, 6, "all of them are remembered");
}

#[tokio::test]
async fn a_document_that_fails_is_remembered_and_mirrored_when_it_can_be() {
    let home = Home::new();
    let bad = Ok(FeedEvent::Change(row_with("bad", "1-x", "2", "f", 5)));
    let run =
        home.run(vec![script(vec![row("a", "1-x", "1"), bad, row("z", "1-x", "3")], "3")]).await;
    run.outcome.unwrap();
    assert_eq!(home.documents(), ["a", "z"]);
    assert_eq!(run.report.failures, 1);
    assert!(run.failures[0].reason.contains("`f`"), "{}", run.failures[0].reason);

    // Not there yet.
    let source = Scripted::new(vec![end("3")]);
    source.documents.lock().unwrap().insert("bad".into(), row_with("bad", "1-x", "2", "f", 5));
    let run = home.run_source(source).await;
    assert_eq!(run.failures[0].attempts, 2);
    let before = run.failures[0].clone();

    // Or not to be asked for.
    let source = Scripted::new(vec![end("3")]);
    *source.away.lock().unwrap() = Some(SourceError::permanent("nobody is at home"));
    let run = home.run_source(source).await;
    let again = &run.failures[0];
    assert_eq!((again.attempts, again.since), (3, before.since));
    assert!(again.reason.contains("nobody is at home") && again.at > before.at, "{again:?}");

    let source = Scripted::new(vec![end("3")]);
    source.documents.lock().unwrap().insert("bad".into(), row_with("bad", "1-x", "2", "f", 5));
    source.blobs.lock().unwrap().insert("f".into(), (Bytes::from("bytes"), Vec::new()));
    let run = home.run_source(source).await;
    assert!(run.failures.is_empty());
    assert_eq!(std::fs::read_to_string(home.path("bad/attachments/f")).unwrap(), "bytes");
    assert!(home.run(vec![end("3")]).await.failures.is_empty());
}

#[tokio::test]
async fn of_a_document_that_fails_nothing_stays_in_staging() {
    let home = Home::new();
    let mut both = row_with("a", "1-x", "1", "large", 200_000);
    let missing = row_with("a", "1-x", "1", "missing", 200_000);
    if let (DocumentState::Present(both), DocumentState::Present(missing)) =
        (&mut both.state, missing.state)
    {
        both.attachments.extend(missing.attachments);
    }
    let source = Scripted::new(vec![script(vec![Ok(FeedEvent::Change(both))], "1")]);
    let large = (Bytes::from(vec![7; 200_000]), Vec::new());
    source.blobs.lock().unwrap().insert("large".into(), large);
    let run = home.run_source(source).await;
    assert_eq!(run.failures.len(), 1);
    assert_eq!(crate::mirror::staged(home.dir.path()), [""; 0]);
}

#[tokio::test]
async fn a_remembered_failure_ends_when_the_document_is_gone() {
    let home = Home::new();
    let bad = Ok(FeedEvent::Change(row_with("bad", "1-x", "2", "f", 5)));
    assert_eq!(home.run(vec![script(vec![bad], "3")]).await.failures.len(), 1);
    assert!(home.run(vec![end("3")]).await.failures.is_empty());
}

#[tokio::test]
async fn attachments_survive_a_source_that_breaks_in_their_middle() {
    for length in [5, 200_000] {
        let home = Home::new();
        let rows = vec![Ok(FeedEvent::Change(row_with("a", "1-x", "1", "f", length)))];
        let source = Scripted::new(vec![script(rows, "1")]);
        let bytes = Bytes::from(vec![7; length as usize]);
        source.blobs.lock().unwrap().insert("f".into(), (bytes.clone(), vec![transient()]));
        let run = home.run_source(source).await;
        run.outcome.unwrap();
        assert_eq!(std::fs::read(home.path("a/attachments/f")).unwrap(), bytes);
        assert_eq!(crate::mirror::staged(home.dir.path()), [""; 0]);
    }
}

#[tokio::test]
async fn a_request_asks_for_at_most_so_many_attachments_and_so_many_bytes() {
    for (count, length, requests) in [(250, 5, [100, 100, 50]), (40, 60_000, [17, 17, 6])] {
        let home = Home::new();
        let row = |n| FeedEvent::Change(row_with(&format!("d{n}"), "1-x", "1", "f", length));
        let rows = (0..count).map(|n| Ok(row(n))).collect();
        let source = Arc::new(Scripted::new(vec![script(rows, "1")]));
        let blob = (Bytes::from(vec![7; length as usize]), Vec::new());
        source.blobs.lock().unwrap().insert("f".into(), blob);
        let (pipeline, _received) = pipeline(home.dir.path(), source.clone(), Mode::CatchUp);
        pipeline.run(&CancellationToken::new()).await.unwrap();
        assert_eq!(*source.asked.lock().unwrap(), requests);
        assert_eq!(pipeline.reporter.report().attachments, count);
    }
}

#[tokio::test]
async fn what_a_source_says_nothing_of_is_asked_for_again_and_fails_at_last() {
    for (silent, failures) in [(1, 0), (2, 0), (100, 1)] {
        let home = Home::new();
        let rows = || script(vec![Ok(FeedEvent::Change(row_with("a", "1-x", "1", "f", 5)))], "1");
        let source = Scripted::new(vec![rows(), rows(), rows()]);
        *source.silent.lock().unwrap() = silent;
        source.blobs.lock().unwrap().insert("f".into(), (Bytes::from("bytes"), Vec::new()));
        let run = home.run_source(source).await;
        run.outcome.unwrap();
        assert_eq!(run.report.failures, failures, "{silent} times");
        assert_eq!(home.path("a/attachments/f").exists(), failures == 0, "{silent} times");
        assert_eq!(home.path("a").exists(), failures == 0, "{silent} times");
    }
}

#[tokio::test]
async fn a_source_that_fails_again_and_again_is_not_asked_for_all_the_rest() {
    let home = Home::new();
    let name = |n: usize| format!("f{n:02}");
    let rows =
        (0..20).map(|n| Ok(FeedEvent::Change(row_with(&format!("d{n}"), "1-x", "1", &name(n), 5))));
    let source =
        Scripted::new(vec![script(rows.collect(), "1"), vec![Err(SourceError::permanent("away"))]]);
    const ERRORS: usize = 100;
    let blob = |n| (name(n).into(), (Bytes::from("bytes"), vec![transient(); ERRORS]));
    source.blobs.lock().unwrap().extend((0..20).map(blob));
    let source = Arc::new(source);
    let (pipeline, _received) = pipeline(home.dir.path(), source.clone(), Mode::CatchUp);
    pipeline.run(&CancellationToken::new()).await.unwrap_err();
    let blobs = source.blobs.lock().unwrap();
    let asked: usize = blobs.values().map(|(_, left)| ERRORS - left.len()).sum();
    assert_eq!(asked, 20 + 8 * QUICK.attempts, "all together, and then eight one by one");
}

#[tokio::test]
async fn an_attachment_is_tried_as_often_as_the_policy_says_and_not_once_more() {
    for (failures, openings) in [(QUICK.attempts - 1, 1), (QUICK.attempts, 2)] {
        let home = Home::new();
        let rows = || {
            let row = row_with("a", "1-x", "1", "f", 200_000);
            script(vec![Ok(FeedEvent::Change(row))], "1")
        };
        let source = Scripted::new(vec![rows(), rows()]);
        let failing = (Bytes::from(vec![7; 200_000]), vec![transient(); failures]);
        source.blobs.lock().unwrap().insert("f".into(), failing);
        let run = home.run_source(source).await;
        run.outcome.unwrap();
        assert_eq!(run.opened.len(), openings, "{failures} failures");
        assert!(home.path("a/attachments/f").exists());
    }
}

#[tokio::test]
async fn a_revision_that_has_gone_while_it_was_read_is_followed_to_the_newest() {
    for length in [5, 200_000] {
        let home = Home::new();
        let rows = vec![
            Ok(FeedEvent::Change(row_with("a", "1-x", "1", "old", length))),
            Ok(FeedEvent::Change(row_with("b", "1-x", "2", "old", length))),
        ];
        let source = Scripted::new(vec![script(rows, "2")]);
        // The store has forgotten `old`, and knows of no other state of `b` than the one it told.
        let newest =
            [row_with("a", "2-x", "9", "new", length), row_with("b", "1-x", "2", "old", length)];
        let newest = newest.map(|change| (change.id.clone(), change));
        source.documents.lock().unwrap().extend(newest);
        let bytes = Bytes::from(vec![7; length as usize]);
        source.blobs.lock().unwrap().insert("new".into(), (bytes.clone(), Vec::new()));
        let run = home.run_source(source).await;
        run.outcome.unwrap();
        assert_eq!(std::fs::read(home.path("a/attachments/new")).unwrap(), bytes);
        let failed: Vec<_> = run.failures.iter().map(|one| one.place.as_str()).collect();
        assert_eq!(failed, ["document `b`"]);
        let told: Vec<_> = run.events.iter().map(|event| event.revision.as_str()).collect();
        assert_eq!(told, ["2-x"]);
        assert_eq!(run.report.position, Some(2.into()), "the feed is not passed by");
    }
}

#[tokio::test]
async fn a_body_that_changes_without_a_new_revision_is_written_in_whatever_layout_it_stands() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1"), row("b", "1-x", "2")], "2")]).await;
    let migrated = || {
        let body = r#"{"_id":"a","_rev":"1-x","schema":2}"#.into();
        let state = DocumentState::Present(Document { body, attachments: Vec::new() });
        Ok(FeedEvent::Change(Change { state, ..change("a", "1-x", Some("3")) }))
    };
    let run = home.run(vec![script(vec![migrated(), row("b", "1-x", "4")], "4")]).await;
    let told: Vec<_> = run.events.iter().map(|event| event.document.as_str()).collect();
    assert_eq!(told, ["a"]);
    let path = home.path("a/document.json");
    assert!(std::fs::read_to_string(&path).unwrap().contains("schema"));
    // Laid out by an earlier run with another option, it says the same.
    std::fs::write(&path, "{\n  \"_id\": \"a\",\n  \"_rev\": \"1-x\",\n  \"schema\": 2\n}\n")
        .unwrap();
    let run = home.run(vec![script(vec![migrated()], "5")]).await;
    assert_eq!((run.events.len(), run.report.unchanged), (0, 1));
}

#[tokio::test]
async fn a_document_that_breaks_the_feed_again_and_again_is_set_aside() {
    let home = Home::new();
    let rows = || {
        let bad = Ok(FeedEvent::Change(row_with("bad", "1-x", "1", "f", 200_000)));
        script(vec![bad, row("z", "1-x", "2")], "2")
    };
    let source = Scripted::new((0..10).map(|_| rows()).collect());
    let never = vec![transient(); 100];
    source.blobs.lock().unwrap().insert("f".into(), (Bytes::from(vec![7; 200_000]), never));
    let run = home.run_source(source).await;
    run.outcome.unwrap();
    assert_eq!(run.failures.len(), 1);
    assert_eq!(home.documents(), ["z"]);
    assert_eq!(run.opened.len(), 3, "it was patient first");
}

#[tokio::test]
async fn a_lost_state_is_rebuilt_by_writing_only_what_differs() {
    let home = Home::new();
    let rows = || vec![row("a", "1-x", "1"), row("b", "2-x", "2")];
    home.run(vec![script(rows(), "2")]).await.outcome.unwrap();
    std::fs::remove_dir_all(home.dir.path().join(".plainfold/state")).unwrap();
    let mut scan = vec![Ok(FeedEvent::ScanStarted { reason: "lost".into() })];
    scan.extend(rows());
    scan.push(row("c", "1-x", "3"));
    scan.push(Ok(FeedEvent::ScanFinished { position: at("3"), exhaustive: true }));
    scan.push(Ok(FeedEvent::CaughtUp));
    let run = home.run(vec![scan]).await;
    assert!(matches!(run.opened[..], [Since::Scan(_)]));
    assert_eq!((run.report.unchanged, run.report.documents), (2, 1));
    assert!(run.events[0].event > 2, "numbers go on though the journal is gone");
}

#[tokio::test]
async fn a_batch_waits_for_an_earlier_change_of_the_same_document() {
    let home = Home::new();
    // Enough rows for many batches, in which the same few documents change all the time.
    let rows: Vec<_> = (1..=9_000_u32)
        .map(|n| row(&format!("d{}", n % 7), &format!("{n}-x"), &n.to_string()))
        .collect();
    let run = home.run(vec![script(rows, "9000")]).await;
    run.outcome.unwrap();
    let last = std::fs::read_to_string(home.path("d5/document.json")).unwrap();
    assert!(last.contains("\"9000-x\""), "{last}");
    assert!(run.events.len() > 1, "there was more than one batch");
    assert!(run.events.is_sorted_by(|left, right| left.event < right.event));
}

/// Undoes the last commits of a run, as if it had been killed before them: the state is put back as
/// it was when the run had begun to write.
fn forget_commits(home: &Home, open: &Checkpoint) {
    let state = home.dir.path().join(".plainfold/state");
    let state = open_state(&state);
    state.turn().commit(&"books".into(), &Commit::new(open.clone()), &[]).unwrap();
}

#[tokio::test]
async fn what_was_published_and_not_committed_is_told_of_by_the_next_run() {
    let home = Home::new();
    let first = vec![row("old", "1-x", "1"), row("doomed", "1-x", "2")];
    home.run(vec![script(first, "2")]).await.outcome.unwrap();
    let open = Checkpoint {
        position: Some(at("2")),
        attachments: true,
        open_since: Some(jiff::Timestamp::now()),
        ..Checkpoint::default()
    };
    // The first document was written long before.
    let body = std::fs::File::options().append(true).open(home.path("old/document.json")).unwrap();
    body.set_modified(std::time::UNIX_EPOCH).unwrap();

    let more = || {
        vec![
            row("old", "1-x", "3"),
            row("new", "1-x", "4"),
            deleted("doomed", "2-x", "5"),
            deleted("never-seen", "2-x", "5"),
        ]
    };
    home.run(vec![script(more(), "5")]).await.outcome.unwrap();
    // What a kill between publishing and committing leaves: the removed folder is in staging.
    let aside = home.dir.path().join(".plainfold/staging/2/7-removed~books");
    std::fs::create_dir_all(&aside).unwrap();
    std::fs::write(aside.join("document.json"), r#"{"_id":"doomed","_rev":"1-x"}"#).unwrap();
    forget_commits(&home, &open);

    // Somebody only looks, a source does not answer, and a run ends after a part of it.
    drop(pipeline(home.dir.path(), Arc::default(), Mode::CatchUp));
    home.run(vec![vec![Err(SourceError::permanent("away"))]]).await.outcome.unwrap_err();
    let part = vec![row("old", "1-x", "2"), Err(SourceError::permanent("broken"))];
    home.run(vec![part]).await.outcome.unwrap_err();

    let run = home.run(vec![script(more(), "5")]).await;
    assert_eq!(run.opened, [Since::Position(at("2"))]);
    assert_eq!(run.report.documents, 0, "nothing is written again");
    let mut told: Vec<_> =
        run.events.iter().map(|event| (event.document.as_str(), event.deleted)).collect();
    told.sort_unstable();
    assert_eq!(told, [("doomed", true), ("new", false)]);

    // A run that ended in good order leaves nothing to tell.
    let run = home.run(vec![script(more(), "5")]).await;
    assert!(run.events.is_empty());
}

#[tokio::test]
async fn a_repair_writes_what_is_wrong_and_leaves_the_checkpoint_and_what_is_untold_alone() {
    let home = Home::new();
    let rows = || vec![row("old", "1-x", "1"), row("new", "1-x", "2")];
    home.run(vec![script(rows(), "2")]).await.outcome.unwrap();
    let body = std::fs::File::options().append(true).open(home.path("old/document.json")).unwrap();
    body.set_modified(std::time::UNIX_EPOCH).unwrap();
    let open = Checkpoint {
        position: Some(at("1")),
        open_since: Some(jiff::Timestamp::now()),
        ..Checkpoint::default()
    };
    forget_commits(&home, &open);

    let source = Arc::new(Scripted::default());
    source.documents.lock().unwrap().insert("old".into(), change("old", "1-x", None));
    let (pipeline, mut received) = pipeline(home.dir.path(), source.clone(), Mode::CatchUp);
    let damaged = ["old".into(), "unknown".into()].into();
    let wrong = Wrong { damaged, ..Wrong::default() };
    let mut done = pipeline.repair(wrong, Asking::Singly, &CancellationToken::new()).await;
    assert!(done.error.is_none() && source.opened.lock().unwrap().is_empty());
    done.fates.sort_by(|left, right| left.0.cmp(&right.0));
    let written = Fate::Present { revision: Some("1-x".into()), written: true };
    assert_eq!(done.fates, [("old".into(), written), ("unknown".into(), Fate::Unknown)]);
    let event = received.try_recv().unwrap();
    assert_eq!((event.document.as_str(), event.position.is_none()), ("old", true));
    assert!(received.try_recv().is_err());
    let kept = pipeline.checkpoints.checkpoint(&"books".into()).unwrap().unwrap();
    assert_eq!((kept.position, kept.scanning), (open.position, None));
    assert!(!kept.attachments);
    assert_eq!(kept.open_since, open.open_since);
    assert!(pipeline.failures().is_empty());
    assert!(pipeline.checkpoints.failures(&"books".into()).unwrap().is_empty());
}

#[tokio::test]
async fn a_repair_that_was_interrupted_is_told_of_by_the_next_run() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let source = Arc::new(Scripted::default());
    {
        let (pipeline, _received) = pipeline(home.dir.path(), source, Mode::CatchUp);
        let mut batch = Batch::default();
        batch.push(change("a", "1-x", None), crate::mirror::Authority::Repair);
        let prepared = pipeline.prepare(batch, &HashSet::new(), None).await.unwrap();
        let intents = vec![failures::of_repair(&prepared.staged[0].0, None)];
        // The end comes before the document is in its place.
        for path in crate::mirror::staged(home.dir.path()) {
            let path = home.dir.path().join(".plainfold/staging").join(path);
            std::fs::remove_dir_all(path).unwrap();
        }
        pipeline.settle_apart(prepared, intents).await.unwrap_err();
        let left = pipeline.checkpoints.checkpoint(&"books".into()).unwrap().unwrap();
        assert!(left.open_since.is_some() && left.position == Some(at("1")));
    }
    // Or after it.
    let body = std::fs::File::options().append(true).open(home.path("a/document.json")).unwrap();
    body.set_modified(SystemTime::now()).unwrap();
    let source = Scripted::new(vec![end("1")]);
    source.documents.lock().unwrap().insert("a".into(), change("a", "1-x", None));
    let run = home.run_source(source).await;
    let told: Vec<_> = run.events.iter().map(|event| event.document.as_str()).collect();
    assert_eq!((told, run.failures.len()), (vec!["a"], 0));
    let run = home.run(vec![end("1")]).await;
    assert!(run.events.is_empty() && run.failures.is_empty());
}

#[tokio::test]
async fn what_was_repaired_without_a_checkpoint_is_compared_anew() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    std::fs::remove_dir_all(home.dir.path().join(".plainfold/state")).unwrap();
    let source = Arc::new(Scripted::default());
    source.documents.lock().unwrap().insert("a".into(), change("a", "1-x", None));
    let (pipeline, _received) = pipeline(home.dir.path(), source, Mode::CatchUp);
    let wrong = Wrong { damaged: ["a".into()].into(), ..Wrong::default() };
    pipeline.repair(wrong, Asking::Singly, &CancellationToken::new()).await;
    drop(pipeline);
    let run = home.run(vec![end("1")]).await;
    assert!(matches!(&run.opened[..], [Since::Scan(_)]), "{:?}", run.opened);
}

#[tokio::test]
async fn a_repair_by_a_feed_takes_its_last_word_on_each_document() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "2-x", "1"), row("b", "1-x", "2")], "2")])
        .await
        .outcome
        .unwrap();
    let torn = Unreadable {
        id: Some("b".into()),
        revision: None,
        place: "row at byte 9".into(),
        position: Some(at("4")),
        reason: "it is torn".into(),
    };
    let said = || {
        let rows = vec![row("a", "1-x", "1"), row("b", "1-x", "2"), row("a", "2-x", "3")];
        script(rows.into_iter().chain([Ok(FeedEvent::Unreadable(torn.clone()))]).collect(), "4")
    };
    let source = Arc::new(Scripted::new(vec![said(), said()]));
    let (pipeline, mut received) = pipeline(home.dir.path(), source, Mode::CatchUp);
    let wrong = Wrong { damaged: ["a", "b", "c"].map(Into::into).into(), ..Wrong::default() };
    let mut done = pipeline.repair(wrong, Asking::ByFeed, &CancellationToken::new()).await;
    assert!(done.error.is_none());
    done.fates.sort_by(|left, right| left.0.cmp(&right.0));
    let [(_, a), (_, b), (_, c)] = &done.fates[..] else { panic!("{:?}", done.fates) };
    assert_eq!(*a, Fate::Present { revision: Some("2-x".into()), written: true });
    assert_eq!(*b, Fate::Failed("row at byte 9: it is torn".into()));
    assert_eq!(*c, Fate::Unknown);
    assert!(received.try_recv().unwrap().position.is_none(), "the feed is not at its place");
}

#[tokio::test]
async fn a_repair_writes_a_tombstone_where_those_are_kept() {
    let home = Home::new();
    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let source = Arc::new(Scripted::default());
    let state = DocumentState::Deleted(None);
    let gone = Change { state, ..change("a", "2-x", None) };
    source.documents.lock().unwrap().insert("a".into(), gone);
    let kept = crate::document::Kept { revisions: false, deleted: true };
    let keeping = MirrorOptions { kept, ..MirrorOptions::default() };
    let (pipeline, _received) = pipeline_with(home.dir.path(), source, Mode::CatchUp, &keeping);
    let differing = ["a".into()].into();
    let wrong = Wrong { differing, ..Wrong::default() };
    assert!(!wrong.is_empty() && Wrong::default().is_empty());
    let done = pipeline.repair(wrong, Asking::Singly, &CancellationToken::new()).await;
    let buried = Fate::Buried { revision: "2-x".into(), written: true };
    assert_eq!(done.fates, [("a".into(), buried)]);
    assert!(home.path("a/deleted.json").exists());
}

#[tokio::test]
async fn a_document_that_changes_while_it_is_repaired_is_replaced_as_a_whole_all_the_same() {
    let home = Home::new();
    let source = || {
        let rows = ["a", "b"].map(|id| Ok(FeedEvent::Change(row_with(id, "1-x", "1", "kept", 5))));
        let source = Scripted::new(vec![script(rows.into(), "2")]);
        source.blobs.lock().unwrap().insert("kept".into(), (Bytes::from("bytes"), Vec::new()));
        source
    };
    home.run_source(source()).await.outcome.unwrap();
    let attachment = home.path("a/attachments/kept");
    std::fs::write(&attachment, "rot").unwrap();

    let source = Arc::new(source());
    let first = ["a", "b"].map(|id| (id.into(), row_with(id, "2-x", "3", "gone", 5)));
    source.documents.lock().unwrap().extend(first);
    // The attachment is what it was at first.
    let mut changed = row_with("a", "1-x", "4", "kept", 5);
    changed.revision = "3-x".into();
    if let DocumentState::Present(document) = &mut changed.state {
        let body = std::str::from_utf8(&document.body).unwrap();
        document.body = body.replace(r#""_rev":"1-x""#, r#""_rev":"3-x""#).into();
    }
    let deleted = Change { state: DocumentState::Deleted(None), ..change("b", "3-x", None) };
    source.newer.lock().unwrap().extend([("a".into(), changed), ("b".into(), deleted)]);
    let (pipeline, _received) = pipeline(home.dir.path(), source, Mode::CatchUp);
    let wrong = Wrong { damaged: ["a", "b"].map(Into::into).into(), ..Wrong::default() };
    let mut done = pipeline.repair(wrong, Asking::Singly, &CancellationToken::new()).await;
    assert!(done.error.is_none());
    done.fates.sort_by(|left, right| left.0.cmp(&right.0));
    let written = Fate::Present { revision: Some("3-x".into()), written: true };
    let removed = Fate::Deleted { removed: true };
    assert_eq!(done.fates, [("a".into(), written), ("b".into(), removed)]);
    assert_eq!(std::fs::read_to_string(&attachment).unwrap(), "bytes");
    assert_eq!(home.documents(), ["a"]);
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_it_has_read() {
    let home = Home::new();
    let rows = vec![row("a", "1-x", "1"), Ok(FeedEvent::CaughtUp), row("b", "1-x", "2")];
    let mut following = Following::new(&home, Scripted::new(vec![rows]));
    for expected in ["a", "b"] {
        assert_eq!(following.event().await.document.as_str(), expected);
    }
    following.stop().await;
    assert_eq!(home.documents(), ["a", "b"]);
}

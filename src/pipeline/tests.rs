//! A pipeline from a scripted source to a real mirror.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;

use super::*;
use crate::checkpoint::tests::open as open_state;
use crate::checkpoint::{Checkpoint, Checkpoints, Commit, Failure, HeldBack};
use crate::document::{Attachment, Change, Content, Document, DocumentState, Kept, Position};
use crate::event::{Broadcast, Emitted};
use crate::mirror::{Mirror, MirrorOptions};
use crate::source::retry::RetryPolicy;
use crate::source::scripted::{Said, Scripted};
use crate::source::{Capabilities, Feed, FeedEvent, Since, SourceError, Unreadable};
use crate::tree::Holder;

mod acknowledging;
mod beside;
mod branches;
mod counting;
mod deletions;
mod disk;
mod fetching;
mod following;
mod model;
mod opening;
mod phases;
mod remembering;
mod repairs;
mod scanning;
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
    events: Vec<Arc<Emitted>>,
    report: PipelineReport,
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

    fn state_path(&self) -> PathBuf {
        self.dir.path().join(".plainfold/state")
    }

    /// Removes the last run's marks from the inventory.
    fn forget_marks(&self) {
        let path = self.dir.path().join(".plainfold/inventory/books.ndjson");
        let text = std::fs::read_to_string(&path).unwrap();
        let ends = text.rmatch_indices("{\"mark\":\"closed\"");
        let before = ends.map(|(at, _)| at).nth(1).unwrap_or(0);
        let (kept, last) = text.split_at(before);
        let mut lines = last.split_inclusive('\n');
        // The end of the run before it stays.
        let first = if before > 0 { lines.next().unwrap() } else { "" };
        let records: String = lines.filter(|line| !line.starts_with("{\"mark\"")).collect();
        std::fs::write(&path, [kept, first, &records].concat()).unwrap();
    }

    /// The state, while no run uses it.
    fn state(&self) -> Checkpoints {
        open_state(&self.state_path())
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
) -> (Pipeline, broadcast::Receiver<Arc<Emitted>>) {
    pipeline_with(dir, source, mode, &MirrorOptions::default())
}

fn pipeline_with(
    dir: &Path,
    source: Arc<dyn Feed>,
    mode: Mode,
    options: &MirrorOptions,
) -> (Pipeline, broadcast::Receiver<Arc<Emitted>>) {
    pipeline_as(dir, source, options, in_mode(mode))
}

fn in_mode(mode: Mode) -> PipelineOptions {
    let deletions = Some(DeletionLimit { percent: 30, documents: 5 });
    let revisit = Duration::from_secs(3600);
    let capabilities =
        Capabilities { acknowledges: true, single_reads: true, ..Capabilities::default() };
    let (retry, max_failures) = (QUICK, None);
    PipelineOptions { mode, retry, revisit, deletions, max_failures, capabilities }
}

fn pipeline_as(
    dir: &Path,
    source: Arc<dyn Feed>,
    options: &MirrorOptions,
    how: PipelineOptions,
) -> (Pipeline, broadcast::Receiver<Arc<Emitted>>) {
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

/// Options of a mirror that keeps more than the winners.
fn keeping(revisions: bool, deleted: bool) -> MirrorOptions {
    MirrorOptions { kept: Kept { revisions, deleted }, ..MirrorOptions::default() }
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
    // Only the newest state of a document in a batch is written, so `a` never existed in the tree.
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
async fn older_revisions_that_a_source_does_not_confirm_are_remembered() {
    let home = Home::new();
    let rows = |revision: &str| (0..6).map(|n| row(&format!("d{n}"), revision, "1")).collect();
    home.run(vec![script(rows("3-x"), "1")]).await.outcome.unwrap();
    let source = Arc::new(Scripted::new(vec![script(rows("2-y"), "2")]));
    *source.away.lock().unwrap() = Some(transient());
    let (pipeline, _received) = pipeline(home.dir.path(), source.clone(), Mode::CatchUp);
    pipeline.run(&CancellationToken::new()).await.unwrap();
    let looked = source.looked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(looked, 6 * QUICK.attempts);
    assert_eq!(pipeline.reporter.report().failures, 6);
    let bodies = (0..6).map(|n| std::fs::read_to_string(home.path(&format!("d{n}/document.json"))));
    assert!(bodies.into_iter().all(|body| body.unwrap().contains("3-x")), "the newer ones stay");
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

    // Or the source refuses to answer.
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
async fn a_remembered_failure_ends_when_the_document_is_gone() {
    let home = Home::new();
    let bad = Ok(FeedEvent::Change(row_with("bad", "1-x", "2", "f", 5)));
    assert_eq!(home.run(vec![script(vec![bad], "3")]).await.failures.len(), 1);
    assert!(home.run(vec![end("3")]).await.failures.is_empty());
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

/// Undoes the last commits of a run, as if it had been killed before them: the state is as it was
/// when the run began to write.
fn forget_commits(home: &Home, open: &Checkpoint) {
    home.forget_marks();
    home.state().commit(&"books".into(), &Commit::new(open.clone())).unwrap();
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

    // A pipeline is dropped before it starts, a source does not answer, and a run ends early.
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

    // A run that ended normally leaves no events to emit.
    let run = home.run(vec![script(more(), "5")]).await;
    assert!(run.events.is_empty());
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

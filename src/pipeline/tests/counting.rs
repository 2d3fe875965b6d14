//! The source's counts compared with the mirror's.

use super::*;
use crate::document::Tally;
use crate::source::Holds;

fn holds(documents: u64, tombstones: u64) -> Said {
    let (documents, tombstones) = (Some(documents), Some(tombstones));
    Ok(FeedEvent::Holds(Holds { documents, tombstones }))
}

/// An empty feed, and these counts.
fn counted(documents: u64, token: &str) -> Vec<Said> {
    vec![Ok(FeedEvent::Position(at(token))), holds(documents, 0), Ok(FeedEvent::CaughtUp)]
}

/// A full listing of these documents, and these counts after it.
fn listed(names: &[&str], documents: u64, token: &str) -> Vec<Said> {
    let mut scan = vec![Ok(FeedEvent::ScanStarted { reason: "x".into() })];
    scan.extend(names.iter().map(|name| row(name, "1-x", "1")));
    let (position, exhaustive) = (at(token), true);
    scan.push(Ok(FeedEvent::ScanFinished { position, exhaustive }));
    scan.extend([holds(documents, 0), Ok(FeedEvent::CaughtUp)]);
    scan
}

async fn home_with(names: &[&str]) -> Home {
    let home = Home::new();
    let rows = names.iter().map(|name| row(name, "1-x", "1")).collect();
    home.run(vec![script(rows, "1")]).await.outcome.unwrap();
    home
}

impl Home {
    fn checkpoint(&self) -> Checkpoint {
        self.state().checkpoint(&"books".into()).unwrap().unwrap()
    }

    /// The state as an earlier run would have left it.
    fn set_checkpoint(&self, checkpoint: Checkpoint) {
        self.state().commit(&"books".into(), &Commit::new(checkpoint)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_counts_otherwise_is_compared_in_full_in_the_same_run() {
    let home = home_with(&["a", "b", "c"]).await;
    let run = home.run(vec![counted(2, "1"), listed(&["a", "d"], 2, "1")]).await;
    run.outcome.unwrap();
    let reason = "the source says that it holds 2 documents, and the mirror holds 3";
    assert_eq!(run.opened, [Since::Position(at("1")), Since::Scan(reason.into())]);
    assert_eq!(home.documents(), ["a", "d"]);
    assert!(run.report.caught_up);
    let run = home.run(vec![counted(2, "1")]).await;
    assert_eq!(run.opened, [Since::Position(at("1"))], "equal counts are no alarm");
}

#[tokio::test(start_paused = true)]
async fn a_difference_that_a_full_scan_does_not_end_is_reported_and_scanned_for_once_a_run() {
    let home = home_with(&["a"]).await;
    for _ in 0..2 {
        let run = home.run(vec![counted(2, "1"), listed(&["a"], 2, "1")]).await;
        run.outcome.unwrap();
        assert_eq!(run.opened.len(), 2);
        let trouble = run.report.count_trouble.unwrap();
        assert!(trouble.contains("it holds 2 documents, and the mirror holds 1"), "{trouble}");
    }
    let run = home.run(vec![counted(2, "1"), listed(&["a", "b"], 2, "1")]).await;
    assert_eq!((run.opened.len(), run.report.count_trouble), (2, None));
    assert_eq!(home.documents(), ["a", "b"], "a feed that was not whole is made up for");
    let mut rows = listed(&["a", "b"], 3, "1");
    rows.extend([row("c", "1-x", "2"), Ok(FeedEvent::Position(at("2"))), holds(4, 0)]);
    let run = home.run(vec![counted(3, "1"), rows]).await;
    assert_eq!(run.opened.len(), 2, "the same difference again, in the same run");
}

#[tokio::test(start_paused = true)]
async fn a_count_that_is_wrong_is_made_right_by_the_scan_that_it_causes() {
    let home = home_with(&["a", "b"]).await;
    let wrong = Some(Tally { documents: 5, tombstones: 0 });
    home.set_checkpoint(Checkpoint { tally: wrong, ..home.checkpoint() });
    let run = home.run(vec![counted(2, "1"), listed(&["a", "b"], 2, "1")]).await;
    assert_eq!((run.opened.len(), run.report.count_trouble), (2, None));
    assert_eq!(home.checkpoint().tally, Some(Tally { documents: 2, tombstones: 0 }));
}

#[tokio::test(start_paused = true)]
async fn failures_and_deletions_that_are_held_back_explain_a_difference() {
    let home = Home::new();
    let bad = Ok(FeedEvent::Change(row_with("bad", "1-x", "2", "f", 5)));
    let mut rows = vec![row("a", "1-x", "1"), bad, Ok(FeedEvent::Position(at("2")))];
    rows.extend([holds(2, 0), Ok(FeedEvent::CaughtUp)]);
    let run = home.run(vec![rows]).await;
    assert_eq!((run.opened.len(), run.report.failures), (1, 1));

    let names: Vec<String> = (0..20).map(|n| format!("d{n}")).collect();
    let home = home_with(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut gone: Vec<_> = names[..10].iter().map(|name| deleted(name, "2-x", "2")).collect();
    gone.push(Ok(FeedEvent::Position(at("2"))));
    gone.extend([holds(10, 10), Ok(FeedEvent::CaughtUp)]);
    let run = home.run(vec![gone]).await;
    assert_eq!((run.opened.len(), run.report.held_back), (1, 4));
    let run = home.run(vec![counted(9, "2")]).await;
    assert_eq!(run.opened.len(), 2, "one more is missing than is held back");
}

#[tokio::test(start_paused = true)]
async fn tombstones_are_compared_where_they_are_kept() {
    let home = Home::new();
    let rows = || {
        let mut rows = vec![row("a", "1-x", "1"), row("b", "1-x", "2"), deleted("c", "2-x", "3")];
        rows.push(Ok(FeedEvent::Position(at("3"))));
        rows.extend([holds(2, 2), Ok(FeedEvent::CaughtUp)]);
        rows
    };
    let run = home.run(vec![rows()]).await;
    assert_eq!(run.opened.len(), 1, "they are not kept");
    let home = Home::new();
    let run = home.run_with(Scripted::new(vec![rows()]), &keeping(false, true)).await;
    let reason = "the source says that it holds 2 tombstones, and the mirror holds 1";
    assert_eq!(run.opened[1], Since::Scan(reason.into()));
}

#[tokio::test(start_paused = true)]
async fn the_count_is_kept_by_each_commit_whatever_happens_to_a_document() {
    let home = Home::new();
    let run = async |rows: Vec<Said>| {
        let source = Scripted::new(vec![script(rows, "9")]);
        home.run_with(source, &keeping(false, true)).await.outcome.unwrap();
        home.checkpoint().tally.unwrap()
    };
    let tally = |documents, tombstones| Tally { documents, tombstones };
    let three = ["a", "b", "c"].map(|name| row(name, "1-x", "1")).into();
    assert_eq!(run(three).await, tally(3, 0));
    let step = vec![row("a", "2-x", "2"), deleted("b", "2-x", "3"), deleted("n", "1-x", "4")];
    assert_eq!(run(step).await, tally(2, 2));
    assert_eq!(run(vec![row("b", "3-x", "5"), deleted("n", "2-x", "6")]).await, tally(3, 1));
    // Without tombstones the next deletion takes a document away.
    let source = Scripted::new(vec![script(vec![deleted("c", "2-x", "7")], "9")]);
    home.run_source(source).await.outcome.unwrap();
    assert_eq!(home.checkpoint().tally, Some(tally(2, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_count_that_is_not_known_is_taken_from_the_tree() {
    let home = home_with(&["a", "b"]).await;
    let before = home.checkpoint();
    // By a version that did not count, and by a run that was killed after it had published.
    let old = Checkpoint { tally: None, ..before.clone() };
    let wrong = Some(Tally { documents: 7, tombstones: 0 });
    let killed = Checkpoint { tally: wrong, open_since: before.at, ..before.clone() };
    for checkpoint in [old, killed] {
        home.set_checkpoint(checkpoint);
        let run = home.run(vec![counted(2, "1")]).await;
        assert_eq!(run.opened.len(), 1);
        assert_eq!(home.checkpoint().tally, before.tally);
    }
    home.set_checkpoint(Checkpoint { tally: wrong, ..before.clone() });
    let run = home.run(vec![counted(7, "1")]).await;
    assert_eq!(run.opened.len(), 1, "with nothing new no folder is listed");
}

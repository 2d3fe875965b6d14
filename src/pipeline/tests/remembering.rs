//! What is committed although the position in the feed has not moved, and what a run records about
//! itself.

use super::*;

impl Home {
    fn failed(&self) -> Vec<String> {
        let failures = self.state().failures(&"books".into()).unwrap();
        failures.into_iter().map(|failure| failure.place).collect()
    }

    fn held_back(&self) -> u64 {
        self.state().count_held_back(&"books".into()).unwrap()
    }
}

/// Rows without a position in the feed.
fn nowhere(changes: Vec<Change>) -> Scripted {
    let nowhere = |change| Ok(FeedEvent::Change(Change { position: None, ..change }));
    Scripted::new(vec![changes.into_iter().map(nowhere).collect()])
}

fn gone(id: &str) -> Change {
    Change { state: DocumentState::Deleted(None), ..change(id, "2-x", None) }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_until_it_is_mended_or_gone() {
    let home = Home::new();
    let bad = || row_with("bad", "1-x", "1", "f", 5);
    home.run_source(nowhere(vec![bad()])).await.outcome.unwrap();
    assert_eq!(home.failed(), ["document `bad`"]);

    let mending = nowhere(vec![bad()]);
    *mending.away.lock().unwrap() = Some(SourceError::permanent("away"));
    mending.blobs.lock().unwrap().insert("f".into(), (Bytes::from("bytes"), Vec::new()));
    home.run_source(mending).await.outcome.unwrap();
    assert_eq!(home.failed(), [""; 0]);

    home.run_source(nowhere(vec![row_with("bad", "2-x", "1", "g", 5)])).await.outcome.unwrap();
    assert_eq!(home.failed(), ["document `bad`"]);
    home.run_source(nowhere(Vec::new())).await.outcome.unwrap();
    assert_eq!(home.failed(), [""; 0], "the source does not know it any more");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_held_back_is_remembered_until_its_document_is_back() {
    let home = Home::new();
    let names: Vec<_> = (0..20).map(|n| format!("d{n}")).collect();
    let rows = names.iter().map(|name| row(name, "1-x", "1")).collect();
    home.run(vec![script(rows, "1")]).await.outcome.unwrap();
    let deletions = names[..10].iter().map(|name| gone(name)).collect();
    let run = home.run_source(nowhere(deletions)).await;
    assert_eq!((run.report.held_back, run.report.deletions), (4, 6));
    assert_eq!((home.held_back(), run.report.documents), (4, 0));
    let more = home.run_source(nowhere(vec![gone("d10")])).await;
    assert_eq!((more.report.held_back, more.report.deletions), (5, 0));
    assert_eq!(home.held_back(), 5);
    let back = home.run_source(nowhere(vec![change("d9", "1-x", None)])).await;
    assert_eq!((back.report.held_back, back.report.unchanged), (4, 1));
    assert_eq!(home.held_back(), 4);
}

#[tokio::test(start_paused = true)]
async fn while_more_may_be_written_than_is_told_that_is_noted() {
    let home = Home::new();
    let rows = script(vec![row("a", "1-x", "1")], "1");
    let mut following = Following::new(&home, Scripted::new(vec![rows]));
    following.event().await;
    let pipeline = following.pipeline.clone();
    let checkpoint = || pipeline.checkpoints.checkpoint(&"books".into()).unwrap().unwrap();
    assert!(checkpoint().open_since.is_some() && checkpoint().at.is_some());
    following.stop().await;
    assert!(checkpoint().open_since.is_none());
    let written = std::fs::metadata(home.path("a/document.json")).unwrap().len();
    assert_eq!(pipeline.reporter.report().bytes, written);
}

#[tokio::test(start_paused = true)]
async fn failures_are_forgotten_when_everything_is_read_again() {
    let home = Home::new();
    home.run_source(nowhere(vec![row_with("bad", "1-x", "1", "f", 5)])).await.outcome.unwrap();
    let scan = vec![
        Ok(FeedEvent::ScanStarted { reason: "x".into() }),
        row("a", "1-x", "1"),
        Ok(FeedEvent::ScanFinished { position: at("1"), exhaustive: true }),
    ];
    let source = Scripted::new(vec![scan]);
    *source.away.lock().unwrap() = Some(SourceError::permanent("away"));
    home.run_source(source).await.outcome.unwrap();
    assert_eq!(home.failed(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_leaves_the_checkpoint_where_it_is() {
    let home = Home::new();
    let bad = row_with("bad", "1-x", "1", "f", 5);
    home.run(vec![script(vec![Ok(FeedEvent::Change(bad.clone()))], "3")]).await.outcome.unwrap();
    let source = Scripted::new(vec![Vec::new()]);
    source.documents.lock().unwrap().insert("bad".into(), bad);
    source.blobs.lock().unwrap().insert("f".into(), (Bytes::from("bytes"), Vec::new()));
    home.run_source(source).await.outcome.unwrap();
    assert_eq!(home.documents(), ["bad"]);
    let checkpoint = home.state().checkpoint(&"books".into()).unwrap().unwrap();
    assert_eq!(checkpoint.position, Some(at("3")));
}

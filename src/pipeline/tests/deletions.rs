//! Removed documents, held-back deletions, and what follows.

use super::*;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("d{n}")).collect()
}

/// A mirror that holds these documents.
async fn home_with(names: &[String]) -> Home {
    let home = Home::new();
    let rows = names.iter().map(|name| row(name, "1-x", "1")).collect();
    home.run(vec![script(rows, "1")]).await.outcome.unwrap();
    home
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_right_after_a_scan_removed_it_is_written() {
    let names = names(300);
    let home = home_with(&names).await;
    let expired = vec![Err(SourceError::Expired { reason: "x".into() })];
    let mut scan = vec![Ok(FeedEvent::ScanStarted { reason: "x".into() })];
    scan.extend(names[50..].iter().map(|name| row(name, "1-x", "2")));
    scan.push(Ok(FeedEvent::ScanFinished { position: at("3"), exhaustive: true }));
    scan.extend([row("d0", "1-x", "4"), Ok(FeedEvent::CaughtUp)]);
    home.run(vec![expired, scan]).await.outcome.unwrap();
    let documents = home.documents();
    assert_eq!(documents.len(), 251);
    assert!(documents.contains(&"d0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_the_tree_is_waited_for_however_many_batches_ago_it_came() {
    let home = Home::new();
    let mut rows: Vec<_> = names(1_999).iter().map(|name| row(name, "1-x", "1")).collect();
    rows.insert(0, row("a", "5-x", "1"));
    // A separate batch, which is prepared quickly.
    let body =
        format!(r#"{{"_id":"big","_rev":"1-x","filling":"{}"}}"#, "x".repeat(4 << 20)).into();
    let state = DocumentState::Present(Document { body, attachments: Vec::new() });
    rows.push(Ok(FeedEvent::Change(Change { state, ..change("big", "1-x", Some("2")) })));
    rows.push(row("a", "4-y", "3"));
    home.run(vec![script(rows, "3")]).await.outcome.unwrap();
    let body = std::fs::read_to_string(home.path("a/document.json")).unwrap();
    assert!(body.contains("5-x"), "{body}");
    assert_eq!(home.documents().len(), 2_001);
}

/// The first 10 documents of 20 deleted.
fn ten_gone() -> Vec<Said> {
    script(names(10).iter().map(|name| deleted(name, "2-x", "2")).collect(), "2")
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_deleted_once_it_is_released() {
    let home = home_with(&names(20)).await;
    let mut following = Following::new(&home, Scripted::new(vec![ten_gone()]));
    let report = following.report(|report| report.caught_up).await;
    // 6 of 20 are 30 percent.
    assert_eq!((report.held_back, home.documents().len()), (4, 14));
    following.pipeline.checkpoints.release(&"books".into()).unwrap();
    following.pipeline.release();
    following.report(|report| report.held_back == 0 && report.deletions == 10).await;
    let told = following.stop().await;
    assert_eq!(home.documents().len(), 10);
    assert!(told.len() == 10 && told.iter().all(|event| event.deleted));
}

#[tokio::test(start_paused = true)]
async fn what_was_released_while_nobody_ran_is_deleted_by_the_next_run() {
    let home = home_with(&names(20)).await;
    assert_eq!(home.run(vec![ten_gone()]).await.report.held_back, 4);
    assert_eq!(home.run(vec![end("3")]).await.report.held_back, 4, "it is remembered");
    home.state().release(&"books".into()).unwrap();
    let run = home.run(vec![end("4")]).await;
    assert_eq!((run.report.held_back, run.report.deletions), (0, 4));
    assert_eq!(home.documents().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_deleted_when_there_is_no_limit_any_more() {
    let home = home_with(&names(20)).await;
    home.run(vec![ten_gone()]).await.outcome.unwrap();
    let source = Arc::new(Scripted::new(vec![end("3")]));
    let how = PipelineOptions { deletions: None, ..in_mode(Mode::CatchUp) };
    let (pipeline, _received) =
        pipeline_as(home.dir.path(), source, &MirrorOptions::default(), how);
    pipeline.run(&CancellationToken::new()).await.unwrap();
    assert_eq!(pipeline.reporter.report().held_back, 0);
    assert_eq!(home.documents().len(), 10);
}

fn scan_of(names: &[String], position: &str) -> Vec<Vec<Said>> {
    let expired = vec![Err(SourceError::Expired { reason: "x".into() })];
    let mut scan = vec![Ok(FeedEvent::ScanStarted { reason: "x".into() })];
    scan.extend(names.iter().map(|name| row(name, "1-x", position)));
    scan.push(Ok(FeedEvent::ScanFinished { position: at(position), exhaustive: true }));
    scan.push(Ok(FeedEvent::CaughtUp));
    vec![expired, scan]
}

#[tokio::test(start_paused = true)]
async fn what_a_listing_lacks_is_held_back_where_it_is_much() {
    let names = names(20);
    let home = home_with(&names).await;
    let run = home.run(scan_of(&names[..2], "2")).await;
    assert_eq!((run.report.held_back, run.report.deletions), (18, 0));
    assert_eq!(home.documents().len(), 20);
    assert_eq!(home.run(vec![end("3")]).await.report.held_back, 18, "it is remembered");
}

#[tokio::test(start_paused = true)]
async fn what_a_listing_lacks_is_removed_however_much_it_is_where_nothing_brakes() {
    let names = names(1_200);
    let home = home_with(&names).await;
    let source = Arc::new(Scripted::new(scan_of(&names[..100], "2")));
    let how = PipelineOptions { deletions: None, ..in_mode(Mode::CatchUp) };
    let (pipeline, _received) =
        pipeline_as(home.dir.path(), source, &MirrorOptions::default(), how);
    pipeline.run(&CancellationToken::new()).await.unwrap();
    assert_eq!(pipeline.reporter.report().deletions, 1_100);
    assert_eq!(home.documents().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn what_has_come_back_since_is_not_removed_by_a_release() {
    let home = home_with(&names(5)).await;
    let held = |document: &str, revision: &str, unlisted| HeldBack {
        document: document.into(),
        revision: revision.into(),
        position: None,
        unlisted,
        since: jiff::Timestamp::now(),
    };
    let state = home.state();
    let checkpoint = state.checkpoint(&"books".into()).unwrap().unwrap();
    let held = vec![
        held("d0", "2-x", false),
        held("d1", "0-x", false),
        held("d2", "1-x", true),
        held("d3", "2-x", true),
        held("never-seen", "2-x", false),
    ];
    state.commit(&"books".into(), &Commit { held, ..Commit::new(checkpoint) }).unwrap();
    state.release(&"books".into()).unwrap();
    drop(state);
    let run = home.run(vec![end("2")]).await;
    run.outcome.unwrap();
    assert_eq!(home.documents(), ["d1", "d3", "d4"]);
    assert_eq!((run.report.held_back, run.report.deletions), (0, 2));
    let mut told: Vec<_> = run.events.iter().map(|event| event.document.as_str()).collect();
    told.sort_unstable();
    // An interrupted release may have removed the last one.
    assert_eq!(told, ["d0", "d2", "never-seen"]);
}

#[tokio::test(start_paused = true)]
async fn a_released_deletion_brings_the_tombstone_where_those_are_kept() {
    let home = Home::new();
    let keeping = keeping(false, true);
    let rows = names(20).iter().map(|name| row(name, "1-x", "1")).collect();
    home.run_with(Scripted::new(vec![script(rows, "1")]), &keeping).await.outcome.unwrap();
    let held = home.run_with(Scripted::new(vec![ten_gone()]), &keeping).await.report.held_back;
    assert_eq!(held, 4);
    home.state().release(&"books".into()).unwrap();
    let source = Scripted::new(vec![end("3")]);
    let gone = names(10).into_iter().map(|name| {
        let state = DocumentState::Deleted(None);
        (name.as_str().into(), Change { state, ..change(&name, "2-x", None) })
    });
    source.documents.lock().unwrap().extend(gone);
    let run = home.run_with(source, &keeping).await;
    run.outcome.unwrap();
    assert_eq!((run.report.held_back, run.report.failures), (0, 0));
    for name in names(10) {
        assert!(home.path(&format!("{name}/deleted.json")).exists(), "{name}");
    }
    assert_eq!(home.run_with(Scripted::new(vec![end("4")]), &keeping).await.report.held_back, 0);
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_run_removed_is_told_of_by_a_scan_too() {
    let home = home_with(&names(3)).await;
    let aside = home.dir.path().join(".plainfold/staging/2/7-removed~books");
    std::fs::create_dir_all(&aside).unwrap();
    std::fs::write(aside.join("document.json"), r#"{"_id":"doomed","_rev":"1-x"}"#).unwrap();
    let open = Checkpoint {
        position: Some(at("1")),
        attachments: true,
        open_since: Some(jiff::Timestamp::now()),
        ..Checkpoint::default()
    };
    forget_commits(&home, &open);
    let run = home.run(scan_of(&names(3), "2")).await;
    run.outcome.unwrap();
    let told: Vec<_> = run
        .events
        .iter()
        .filter(|event| event.deleted)
        .map(|event| event.document.as_str())
        .collect();
    assert_eq!(told, ["doomed"]);
}

//! Full scans.

use super::*;

#[tokio::test(start_paused = true)]
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

    // The next run starts the scan again, whatever positions the rows of the first had.
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

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
async fn a_lost_state_is_rebuilt_by_writing_only_what_differs() {
    let home = Home::new();
    let rows = || vec![row("a", "1-x", "1"), row("b", "2-x", "2")];
    home.run(vec![script(rows(), "2")]).await.outcome.unwrap();
    std::fs::remove_dir_all(home.state_path()).unwrap();
    let mut scan = vec![Ok(FeedEvent::ScanStarted { reason: "lost".into() })];
    scan.extend(rows());
    scan.push(row("c", "1-x", "3"));
    scan.push(Ok(FeedEvent::ScanFinished { position: at("3"), exhaustive: true }));
    scan.push(Ok(FeedEvent::CaughtUp));
    let run = home.run(vec![scan]).await;
    assert!(matches!(run.opened[..], [Since::Scan(_)]));
    assert_eq!((run.report.unchanged, run.report.documents), (2, 1));
    assert!(run.events[0].event > 2, "numbers continue although the journal is gone");
}

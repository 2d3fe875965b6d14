//! Fetching attachments from sources that fail, forget and fall silent.

use super::*;

#[tokio::test(start_paused = true)]
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
        let body = std::fs::metadata(home.path("a/document.json")).unwrap().len();
        assert_eq!(run.report.bytes, body + length);
        assert_eq!(crate::mirror::staged(home.dir.path()), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
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

/// Documents with an attachment each, `f00` and so on, of this length.
fn with_attachments(count: usize, length: u64) -> Vec<Said> {
    let row = |n| Ok(FeedEvent::Change(row_with(&format!("d{n}"), "1-x", "1", &name(n), length)));
    (0..count).map(row).collect()
}

fn name(n: usize) -> String {
    format!("f{n:02}")
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_for_many_documents_is_waited_for() {
    for length in [5, 200_000] {
        let home = Home::new();
        let row = |n| Ok(FeedEvent::Change(row_with(&format!("d{n}"), "1-x", "1", "f", length)));
        let source = Arc::new(Scripted::new(vec![script((0..20).map(row).collect(), "1")]));
        // Each document fails more often than the limit for a document that fails alone.
        let blob = (Bytes::from(vec![7; length as usize]), vec![transient(); 20 * 4]);
        source.blobs.lock().unwrap().insert("f".into(), blob);
        *source.away.lock().unwrap() = Some(transient());
        let patient = Duration::from_secs(60);
        let pauses = (Duration::from_millis(50), Duration::from_millis(60));
        let retry = RetryPolicy {
            first: pauses.0,
            longest: pauses.1,
            give_up_after: Some(patient),
            attempts: 2,
        };
        let how = PipelineOptions { retry, ..in_mode(Mode::CatchUp) };
        let options = MirrorOptions::default();
        let (pipeline, _received) = pipeline_as(home.dir.path(), source, &options, how);
        pipeline.run(&CancellationToken::new()).await.unwrap();
        let report = pipeline.reporter.report();
        assert_eq!((report.failures, report.in_flight, report.documents), (0, 0, 20));
        assert_eq!(crate::mirror::staged(home.dir.path()), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_failure_is_about_its_own_document() {
    let home = Home::new();
    let source = Scripted::new(vec![script(with_attachments(20, 5), "1")]);
    let error = |n| SourceError::transient(format!("GET /books/d{n}/{} was cut", name(n)));
    let blob = |n| (name(n).into(), (Bytes::from("bytes"), vec![error(n); 10_000]));
    source.blobs.lock().unwrap().extend((0..20).map(blob));
    let run = home.run_source(source).await;
    run.outcome.unwrap();
    assert_eq!(run.failures.len(), 20);
    for failure in run.failures {
        let id = failure.document.unwrap();
        let own: usize = id.as_str()[1..].parse().unwrap();
        let others = (0..20).filter(|n| *n != own);
        let of_another = others.filter(|n| failure.reason.contains(&name(*n))).count();
        assert_eq!(of_another, 0, "{id}: {}", failure.reason);
        assert!(failure.reason.contains(&name(own)), "{id}: {}", failure.reason);
    }
}

#[tokio::test(start_paused = true)]
async fn documents_that_fail_keep_no_other_out() {
    for (spoilt, length) in [(8, 200_000), (30, 200_000), (30, 5)] {
        let home = Home::new();
        let mut rows = with_attachments(spoilt, length);
        let well = |n| Ok(FeedEvent::Change(row_with(&format!("w{n}"), "1-x", "1", "well", 5)));
        rows.extend((0..30).map(well));
        let source = Scripted::new(vec![script(rows, "1")]);
        let spoil = |n| {
            let bytes = Bytes::from(vec![7; length as usize]);
            (name(n).into(), (bytes, vec![SourceError::transient("spoilt"); 10_000]))
        };
        source.blobs.lock().unwrap().extend((0..spoilt).map(spoil));
        source.blobs.lock().unwrap().insert("well".into(), (Bytes::from("bytes"), Vec::new()));
        let run = home.run_source(source).await;
        run.outcome.unwrap();
        assert_eq!((run.failures.len(), run.report.documents), (spoilt, 30), "{length} bytes");
        assert_eq!(run.report.position, Some(1.into()));
        assert_eq!(crate::mirror::staged(home.dir.path()), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_attachment_is_tried_as_often_as_the_policy_says_and_not_once_more() {
    for (failures, failed) in [(QUICK.attempts - 1, 0), (QUICK.attempts, 1)] {
        let home = Home::new();
        let row = row_with("a", "1-x", "1", "f", 200_000);
        let source = Scripted::new(vec![script(vec![Ok(FeedEvent::Change(row))], "1")]);
        let failing = (Bytes::from(vec![7; 200_000]), vec![transient(); failures]);
        source.blobs.lock().unwrap().insert("f".into(), failing);
        let run = home.run_source(source).await;
        run.outcome.unwrap();
        assert_eq!((run.failures.len(), run.opened.len()), (failed, 1), "{failures} failures");
        assert_eq!(home.path("a/attachments/f").exists(), failed == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_has_gone_while_it_was_read_is_followed_to_the_newest() {
    for length in [5, 200_000] {
        let home = Home::new();
        let rows = vec![
            Ok(FeedEvent::Change(row_with("a", "1-x", "1", "old", length))),
            Ok(FeedEvent::Change(row_with("b", "1-x", "2", "old", length))),
        ];
        let source = Scripted::new(vec![script(rows, "2")]);
        // The store has forgotten `old`, and knows no other state of `b` than the one in the feed.
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
        let position = run.events[0].position.as_ref().map(|position| position.get());
        assert_eq!(position, Some("1"), "where the feed named it");
        assert_eq!(run.report.position, Some(2.into()), "the feed is not passed by");
    }
}

#[tokio::test(start_paused = true)]
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

//! Getting attachments from sources that fail, forget and fall silent.

use super::*;
use crate::pipeline::fetch::of_group;

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
        let body = std::fs::metadata(home.path("a/document.json")).unwrap().len();
        assert_eq!(run.report.bytes, body + length);
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
async fn a_reason_speaks_of_its_own_document_and_says_when_it_was_not_asked_for() {
    let home = Home::new();
    let name = |n: usize| format!("f{n:02}");
    let rows = || {
        let row = |n| Ok(FeedEvent::Change(row_with(&format!("d{n}"), "1-x", "1", &name(n), 5)));
        script((0..20).map(row).collect(), "1")
    };
    let source = Scripted::new(vec![rows(), rows(), rows()]);
    let error = |n| SourceError::transient(format!("GET /books/d{n}/{} was cut", name(n)));
    let blob = |n| (name(n).into(), (Bytes::from("bytes"), vec![error(n); 100]));
    source.blobs.lock().unwrap().extend((0..20).map(blob));
    let run = home.run_source(source).await;
    run.outcome.unwrap();
    assert_eq!(run.failures.len(), 20);
    let mut spared = 0;
    for failure in run.failures {
        let id = failure.document.unwrap();
        let own: usize = id.as_str()[1..].parse().unwrap();
        let others = (0..20).filter(|n| *n != own);
        let of_another = others.filter(|n| failure.reason.contains(&name(*n))).count();
        assert_eq!(of_another, 0, "{id}: {}", failure.reason);
        assert!(failure.reason.contains(&name(own)), "{id}: {}", failure.reason);
        spared += usize::from(failure.reason.contains("not requested, because the source failed"));
    }
    assert_eq!(spared, 12, "eight failed by themselves");
}

#[tokio::test]
async fn the_error_of_a_request_for_many_is_not_the_word_on_each() {
    let error = of_group(SourceError::permanent("d7 is broken"), 3);
    assert_eq!(error.to_string(), "the request for it and for 2 others failed: d7 is broken");
    assert_eq!(of_group(SourceError::permanent("broken"), 1).to_string(), "broken");
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
        let position = run.events[0].position.as_ref().map(|position| position.get());
        assert_eq!(position, Some("1"), "where the feed named it");
        assert_eq!(run.report.position, Some(2.into()), "the feed is not passed by");
    }
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

//! The security object of a collection.

use super::*;

const ALL: &[u8] = br#"{"members":{"roles":[]}}"#;
const SOME: &[u8] = br#"{"members":{"roles":["staff"]}}"#;

/// A source of a few documents, with this security object.
fn source(securities: Vec<Result<Option<Bytes>, SourceError>>) -> Scripted {
    let rows = vec![row("a", "1-x", "1"), Ok(FeedEvent::CaughtUp), row("b", "1-x", "2")];
    let source = Scripted::new(vec![script(rows, "2")]);
    source.securities.lock().unwrap().extend(securities.into_iter().rev());
    source
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_for_once_a_run_and_told_of_where_it_has_changed() {
    let home = Home::new();
    let said = |text: &'static [u8]| Ok(Some(Bytes::from_static(text)));
    for (text, news) in [(ALL, true), (ALL, false), (SOME, true)] {
        let run = home.run_source(source(vec![said(text), said(b"not asked for")])).await;
        run.outcome.unwrap();
        let told = run.events.iter().filter(|event| event.document.as_str() == "_security");
        let files: Vec<_> = told.map(|event| event.files.clone()).collect();
        let file = "books/_security.json".to_owned();
        assert_eq!(files, if news { vec![vec![file.clone()]] } else { Vec::new() });
        let held = std::fs::read(home.dir.path().join(file)).unwrap();
        assert_eq!(held.trim_ascii_end(), text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_could_not_tell_is_asked_again_in_its_time() {
    let home = Home::new();
    let mut securities = vec![Err(transient()); QUICK.attempts];
    securities.push(Ok(Some(Bytes::from_static(SOME))));
    let how = PipelineOptions { revisit: Duration::from_millis(1), ..in_mode(Mode::Follow) };
    let options = MirrorOptions::default();
    let mut following = Following::with(&home, source(securities), &options, how);
    while following.event().await.document.as_str() != "_security" {}
    following.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_no_such_thing_is_asked_once() {
    for (answer, trouble) in
        [(Ok(None), None), (Err(SourceError::permanent("not told")), Some("not told"))]
    {
        let home = Home::new();
        let source = Arc::new(source(vec![answer, Ok(Some(Bytes::from_static(SOME)))]));
        let (pipeline, _received) = pipeline(home.dir.path(), source.clone(), Mode::CatchUp);
        pipeline.run(&CancellationToken::new()).await.unwrap();
        assert_eq!(source.securities.lock().unwrap().len(), 1);
        assert_eq!(home.documents(), ["a", "b"]);
        let report = pipeline.reporter.report();
        assert_eq!(report.security_trouble.as_deref(), trouble);
    }
}

//! The phases that a pipeline reports.

use super::*;

/// Follows with this patience.
fn following(home: &Home, scripts: Vec<Vec<Said>>, retry: RetryPolicy) -> Following {
    let how = PipelineOptions { retry, ..in_mode(Mode::Follow) };
    Following::with(home, Scripted::new(scripts), &MirrorOptions::default(), how)
}

fn in_phase(phase: Phase) -> impl Fn(&PipelineReport) -> bool {
    move |report| report.phase == phase
}

#[tokio::test(start_paused = true)]
async fn it_says_whether_it_catches_up_or_compares_everything() {
    let home = Home::new();
    let mut catching_up = following(&home, Vec::new(), QUICK);
    catching_up.report(in_phase(Phase::CatchingUp)).await;
    catching_up.stop().await;

    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    home.state().start_over(&"books".into(), "it is new").unwrap();
    let mut scanning = following(&home, Vec::new(), QUICK);
    scanning.report(in_phase(Phase::Scanning)).await;
    scanning.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_says_that_it_waits_for_its_source_and_why() {
    let home = Home::new();
    let hour = Duration::from_secs(3600);
    let patient = RetryPolicy { first: hour, longest: hour, give_up_after: None, ..QUICK };
    let breaks = vec![row("a", "1-x", "1"), Ok(FeedEvent::CaughtUp), Err(transient())];
    let mut waiting = following(&home, vec![breaks], patient);
    let report = waiting.report(in_phase(Phase::Waiting)).await;
    assert!(report.trouble.unwrap().contains("the connection was cut"));
    waiting.stop().await;
    assert_eq!(home.documents(), ["a"], "what was read is kept");
}

#[tokio::test(start_paused = true)]
async fn it_says_that_its_source_answers_again() {
    let home = Home::new();
    let breaks = vec![row("a", "1-x", "1"), Ok(FeedEvent::CaughtUp), Err(transient())];
    let mut again = following(&home, vec![breaks, vec![row("b", "1-x", "2")]], QUICK);
    while again.event().await.document.as_str() != "b" {}
    let report = again.report(in_phase(Phase::Live)).await;
    assert_eq!((report.trouble, report.caught_up), (None, true));
    again.stop().await;
}

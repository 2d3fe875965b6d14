//! What a pipeline says that it is doing.

use super::*;

/// A run in the background, until it is stopped.
struct Following {
    pipeline: Pipeline,
    received: broadcast::Receiver<Arc<WriteEvent>>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), PipelineError>>,
}

impl Following {
    fn new(home: &Home, scripts: Vec<Vec<Said>>, retry: RetryPolicy) -> Self {
        let source = Arc::new(Scripted { stays_open: true, ..Scripted::new(scripts) });
        let how = PipelineOptions { retry, ..in_mode(Mode::Follow) };
        let (pipeline, received) =
            pipeline_as(home.dir.path(), source, &MirrorOptions::default(), how);
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (pipeline, stop) = (pipeline.clone(), stop.clone());
            async move { pipeline.run(&stop).await }
        });
        Self { pipeline, received, stop, running }
    }

    async fn reports(&self, phase: Phase) -> Report {
        let mut reports = self.pipeline.watch();
        reports.wait_for(|report| report.phase == phase).await.unwrap().clone()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn it_says_whether_it_catches_up_or_compares_everything() {
    let home = Home::new();
    let catching_up = Following::new(&home, Vec::new(), QUICK);
    catching_up.reports(Phase::CatchingUp).await;
    catching_up.stop().await;

    home.run(vec![script(vec![row("a", "1-x", "1")], "1")]).await.outcome.unwrap();
    let state = open_state(&home.dir.path().join(".plainfold/state"));
    state.start_over(&"books".into(), "it is new").unwrap();
    drop(state);
    let scanning = Following::new(&home, Vec::new(), QUICK);
    scanning.reports(Phase::Scanning).await;
    scanning.stop().await;
}

#[tokio::test]
async fn it_says_that_it_waits_for_its_source_and_why() {
    let home = Home::new();
    let hour = Duration::from_secs(3600);
    let patient = RetryPolicy { first: hour, longest: hour, give_up_after: None, ..QUICK };
    let breaks = vec![row("a", "1-x", "1"), Ok(FeedEvent::CaughtUp), Err(transient())];
    let waiting = Following::new(&home, vec![breaks], patient);
    let report = waiting.reports(Phase::Waiting).await;
    assert!(report.trouble.unwrap().contains("the connection was cut"));
    waiting.stop().await;
    assert_eq!(home.documents(), ["a"], "what was read is kept");
}

#[tokio::test]
async fn it_says_that_its_source_answers_again() {
    let home = Home::new();
    let breaks = vec![row("a", "1-x", "1"), Ok(FeedEvent::CaughtUp), Err(transient())];
    let mut again = Following::new(&home, vec![breaks, vec![row("b", "1-x", "2")]], QUICK);
    while again.received.recv().await.unwrap().document.as_str() != "b" {}
    let report = again.reports(Phase::Live).await;
    assert_eq!((report.trouble, report.caught_up), (None, true));
    again.stop().await;
}

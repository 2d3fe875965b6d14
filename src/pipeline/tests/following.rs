//! A pipeline that follows its source in the background. If it ends, every wait on it ends too.

use super::*;

/// A run in the background, until it is stopped.
pub struct Following {
    pub pipeline: Pipeline,
    received: broadcast::Receiver<Arc<Emitted>>,
    reports: watch::Receiver<PipelineReport>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), PipelineError>>,
}

impl Following {
    /// Follows a source whose feed stays open.
    pub fn new(home: &Home, source: Scripted) -> Self {
        Self::with(home, source, &MirrorOptions::default(), in_mode(Mode::Follow))
    }

    pub fn with(
        home: &Home,
        source: Scripted,
        options: &MirrorOptions,
        how: PipelineOptions,
    ) -> Self {
        let source = Arc::new(Scripted { stays_open: true, ..source });
        let (pipeline, received) = pipeline_as(home.dir.path(), source, options, how);
        let (reports, stop) = (pipeline.watch(), CancellationToken::new());
        let running = tokio::spawn({
            let (pipeline, stop) = (pipeline.clone(), stop.clone());
            async move { pipeline.run(&stop).await }
        });
        Self { pipeline, received, reports, stop, running }
    }

    /// The next event.
    pub async fn event(&mut self) -> Arc<Emitted> {
        tokio::select! {
            event = self.received.recv() => event.unwrap(),
            ended = &mut self.running => panic!("it has ended: {ended:?}"),
        }
    }

    /// The next report that fulfils a condition.
    pub async fn report(&mut self, wanted: impl FnMut(&PipelineReport) -> bool) -> PipelineReport {
        tokio::select! {
            report = self.reports.wait_for(wanted) => report.unwrap().clone(),
            ended = &mut self.running => panic!("it has ended: {ended:?}"),
        }
    }

    /// The next report.
    pub async fn next_report(&mut self) -> PipelineReport {
        tokio::select! {
            changed = self.reports.changed() => changed.unwrap(),
            ended = &mut self.running => panic!("it has ended: {ended:?}"),
        }
        self.reports.borrow_and_update().clone()
    }

    /// Stops it, and returns the events that were not looked at.
    pub async fn stop(mut self) -> Vec<Arc<Emitted>> {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        std::iter::from_fn(|| self.received.try_recv().ok()).collect()
    }
}

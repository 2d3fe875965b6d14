//! Requests what no feed reports: the security object, and how the collection was created.
//!
//! It sends its requests beside the feed, so that neither delays a document.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::beside::silence;
use super::work::{Signal, Work};
use super::{FAILED, Pipeline, PipelineError};
use crate::source::retry::attempts;
use crate::source::{Mode, SourceError};

/// The longest pause before a follower requests it again.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// How far the feed has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedState {
    /// The source has not answered yet.
    Silent,
    /// The source has answered.
    Speaks,
    /// The feed is at its end.
    Ended,
}

/// The result of a request.
enum Answered {
    /// Request it again at the usual time.
    Again,
    /// The same, later: the source did not answer.
    Later,
    /// The source does not have it.
    Never,
}

/// Requests it once per run, and repeatedly while following.
pub async fn ask(
    pipeline: Pipeline,
    mut reading: watch::Receiver<FeedState>,
    stop: CancellationToken,
    out: mpsc::Sender<Work<Batch>>,
) -> Result<(), PipelineError> {
    // A source that refuses the feed refuses this too, and must not be asked twice.
    let spoken = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        spoken = reading.wait_for(|reading| *reading != FeedState::Silent) => spoken.is_ok(),
    };
    if !spoken {
        return Ok(());
    }
    let revisit = pipeline.options.revisit;
    let asker = Asker { pipeline, reading, begun: Instant::now(), out };
    let (mut pause, mut first) = (revisit, true);
    loop {
        let asked = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            asked = asker.security() => asked,
        };
        if std::mem::take(&mut first) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = asker.properties() => {}
            }
        }
        pause = match asked {
            Answered::Never => return Ok(()),
            Answered::Again => revisit,
            Answered::Later => (pause * 2).min(LONGEST_PAUSE.max(revisit)),
        };
        if asker.pipeline.options.mode == Mode::CatchUp {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = asker.out.closed() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Asker {
    pipeline: Pipeline,
    reading: watch::Receiver<FeedState>,
    begun: Instant,
    out: mpsc::Sender<Work<Batch>>,
}

impl Asker {
    async fn security(&self) -> Answered {
        let (policy, source) = (&self.pipeline.options.retry, &self.pipeline.source);
        let asking = attempts(policy, || source.security_object());
        let answer = self.patiently(asking).await;
        let trouble = answer.as_ref().err().map(ToString::to_string);
        let is_news = self.pipeline.reporter.says(|report| report.security_trouble != trouble);
        self.pipeline.reporter.update(|report| report.security_trouble = trouble);
        match answer {
            Ok(Some(security)) => {
                self.signal(Signal::Security(security)).await;
                Answered::Again
            }
            Ok(None) => Answered::Never,
            Err(error) => {
                let collection = self.pipeline.collection.name();
                if is_news {
                    tracing::warn!(
                        target: FAILED,
                        %collection,
                        "its security object could not be mirrored: {error}",
                    );
                }
                match error {
                    SourceError::Transient { .. } => Answered::Later,
                    _ => Answered::Never,
                }
            }
        }
    }

    /// The next run requests it again from a source that fails.
    async fn properties(&self) {
        match self.patiently(self.pipeline.source.properties()).await {
            Ok(Some(properties)) => self.signal(Signal::Properties(properties)).await,
            Ok(None) => {}
            Err(error) => {
                let collection = self.pipeline.collection.name();
                tracing::warn!(%collection, "whether the database is partitioned, and its \
                                             `_revs_limit`, could not be read: {error}");
            }
        }
    }

    /// Waits for an answer; at the end of a catch-up, about as long again as everything took.
    async fn patiently<T>(
        &self,
        asking: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let mut reading = self.reading.clone();
        let policy = self.pipeline.options.retry;
        let over = async {
            if policy.give_up_after.is_none() {
                tokio::time::sleep(PATIENCE).await;
                return PATIENCE;
            }
            let asked = Instant::now();
            let _ended = reading.wait_for(|reading| *reading == FeedState::Ended).await.map(drop);
            let took = Some(self.begun.elapsed());
            let patience = silence(&policy, took, 0).unwrap_or(PATIENCE);
            tokio::time::sleep(patience).await;
            asked.elapsed()
        };
        tokio::select! {
            biased;
            answer = asking => answer,
            waited = over => {
                let seconds = waited.as_secs_f32();
                Err(SourceError::transient(format!("the source has not answered for {seconds:.0} s")))
            }
        }
    }

    async fn signal(&self, signal: Signal) {
        // If the next task has ended, it reports the reason, and this one is told to stop.
        let _ended = self.out.send(Work::Signal(signal)).await;
    }
}

//! Catching up in turns: each collection holds batches in memory while it catches up.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::pipeline::{Phase, Pipeline, PipelineError, Report};

/// A pipeline that waits for its turn to catch up.
pub(super) struct Run {
    pub pipeline: Pipeline,
    pub turns: Arc<Semaphore>,
    pub shared: Arc<Shared>,
    pub stop: CancellationToken,
}

impl Run {
    /// Runs the pipeline. A follower gives its turn back once it has reached the end of the source,
    /// or the source does not answer.
    pub async fn in_turn(self) -> Result<(), PipelineError> {
        let turn = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            // The semaphore is never closed.
            turn = self.turns.acquire_owned() => turn.ok(),
        };
        let mut reports = self.pipeline.watch();
        let progress = async {
            let resting = |report: &Report| report.caught_up || report.phase == Phase::Waiting;
            let _ended = reports.wait_for(resting).await.map(drop);
            drop(turn);
            let _ended = reports.wait_for(|report| report.caught_up).await.map(drop);
            self.shared.note_progress();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = self.pipeline.run(&self.stop) => {
                self.shared.note_progress();
                ended
            }
            () = progress => Ok(()),
        }
    }
}

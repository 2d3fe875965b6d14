//! Asks the source how far the checkpoint is behind its end, while the feed itself does not say so: in a
//! catch-up, and where changes come without a pause.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::asker::FeedState;
use super::evidence::Stated;
use super::report::Phase;
use super::{Pipeline, PipelineError};
use crate::clock::Moment;
use crate::source::Behind;

/// The time between two checks whether to ask.
const LOOK: Duration = Duration::from_secs(1);

/// How long the end is not known while rows come, until it is asked for.
const BUSY: Duration = Duration::from_secs(2);

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks until `reading` has ended, or `stop`.
pub async fn measure(
    pipeline: Pipeline,
    mut reading: watch::Receiver<FeedState>,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    let Some(every) = pipeline.source.measured_every() else { return Ok(()) };
    let measuring = async {
        let (begun, mut last) = (Moment::now(), None::<Moment>);
        loop {
            tokio::time::sleep(LOOK).await;
            let evidence = pipeline.reporter.evidence();
            let now = Moment::now();
            let known = evidence.current.unwrap_or(begun).max(begun).age(now);
            let is_quiet = evidence.stated.is_some_and(|stated| stated.behind.is_nothing());
            // The feed of a quiet source says so itself, now and then.
            let wait = if is_quiet { every * 4 + BUSY } else { BUSY };
            if known >= wait && last.is_none_or(|last| last.age(now) >= every) {
                last = Some(now);
                let _late = tokio::time::timeout(PATIENCE, pipeline.measure_once()).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        // It fails if the reading has broken off.
        _over = reading.wait_for(|reading| *reading == FeedState::Ended) => {}
        () = measuring => {}
    }
    Ok(())
}

impl Pipeline {
    async fn measure_once(&self) {
        let ear = self.reporter.ear();
        let evidence = self.reporter.evidence();
        let (at, rows) = (Moment::now(), ear.rows());
        let behind = match self.source.behind(evidence.position.as_ref()).await {
            Ok(Some(behind)) => behind,
            Ok(None) => return,
            Err(error) => {
                let collection = self.collection.name();
                tracing::debug!(%collection, "how far the mirror is behind could not be asked: {error}");
                return;
            }
        };
        ear.hear();
        if let Behind::Changes(changes) = behind {
            // They are counted from the checkpoint, so that rows in flight are counted twice.
            ear.expect(rows.saturating_add(changes), at);
        }
        self.reporter.update(|report| {
            report.evidence.stated = Some(Stated { behind, at, rows });
            if behind.is_nothing() && report.phase == Phase::Live && report.in_flight == 0 {
                report.be_current(at);
            }
        });
    }
}

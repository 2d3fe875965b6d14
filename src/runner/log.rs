//! What the log of a run says while its source does not answer, and of what ended it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Level;

use super::supervisor::Supervisor;
use crate::document::CollectionName;
use crate::pipeline::{ENDED, FAILED, Phase, PipelineError, PipelineReport};
use crate::source::outage::Said;
use crate::source::{SourceError, retry};

impl Supervisor {
    /// Logs that the collections cannot be listed, once for each reason and hour.
    pub(super) fn wait(&mut self, error: &SourceError, pause: Duration) {
        let (_, said) = self.waiting.get_or_insert_with(|| (Instant::now(), Said::default()));
        retry::log_wait(error, pause, self.options.retry, said);
    }

    /// Logs that the collections are listed again, if they were not.
    pub(super) fn note_answer(&mut self) {
        if let Some((since, _)) = self.waiting.take() {
            let seconds = since.elapsed().as_secs_f32();
            tracing::info!("the source answers again after {seconds:.1} s");
        }
    }

    /// Logs why the collections cannot be listed.
    pub(super) fn log_end_of_listing(&mut self, error: &SourceError) {
        let error = error.to_string();
        let waited = self.waiting.take().is_some_and(|(_, said)| said.names(&error));
        let text = if waited && tracing::enabled!(Level::WARN) { self.gave_up() } else { error };
        // The others are stopped first.
        match self.shared.members().is_empty() {
            true => tracing::error!(target: ENDED, "{text}"),
            false => tracing::error!(target: FAILED, "{text}"),
        }
    }

    /// Logs what ended a collection, but not in the words in which the log has said already why it
    /// waited.
    pub(super) fn log_end(&self, collection: &CollectionName, error: &PipelineError) {
        let report = self.shared.members().get(collection).map(|one| one.reporter.report());
        let error = error.to_string();
        let is_known = |report: &PipelineReport| {
            report.phase == Phase::Waiting && report.trouble.as_deref() == Some(&error)
        };
        let said = tracing::enabled!(Level::WARN) && report.is_some_and(|report| is_known(&report));
        let text = if said { self.gave_up() } else { error };
        // While others continue, the summary is far away, and a signal may prevent it.
        match self.shared.members().len() {
            0 | 1 => tracing::error!(target: ENDED, %collection, "{text}"),
            _ => tracing::error!(target: FAILED, %collection, "{text}"),
        }
    }

    /// What the log says of the end of a wait whose reason it has named when the wait began.
    fn gave_up(&self) -> String {
        let after = self.options.retry.give_up_after.unwrap_or_default().as_secs();
        format!(
            "gave up after {after} s without progress (see --give-up-after); a warning above names the \
             reason",
        )
    }
}

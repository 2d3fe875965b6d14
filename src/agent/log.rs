//! What the log of a run says while its source does not answer, and of what ended it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Level;

use super::supervisor::Supervisor;
use crate::document::CollectionName;
use crate::pipeline::{ENDED, FAILED, Phase, PipelineError, Report};
use crate::source::{SourceError, retry};

/// What the log says of the end of a wait whose reason it has named when the wait began.
const GAVE_UP: &str = "gave up, because the source did not answer in time (see --give-up-after); the \
                       warning above names the reason";

impl Supervisor {
    /// Logs that the collections cannot be listed, once for each reason.
    pub(super) fn wait(&mut self, error: &SourceError, pause: Duration) {
        let why = error.to_string();
        let before = self.waiting.take();
        match before.as_ref().is_some_and(|(_, before)| *before == why) {
            true => tracing::debug!("{why}; trying again in {:.1} s", pause.as_secs_f32()),
            false => {
                let until = retry::until(pause, self.options.retry.give_up_after);
                tracing::warn!("{why}; {until}");
            }
        }
        let since = before.map_or_else(Instant::now, |(since, _)| since);
        self.waiting = Some((since, why));
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
        let waited = self.waiting.take().is_some_and(|(_, why)| why == error);
        let text = if waited && tracing::enabled!(Level::WARN) { GAVE_UP } else { &error };
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
        let is_known = |report: &Report| {
            report.phase == Phase::Waiting && report.trouble.as_deref() == Some(&error)
        };
        let said = tracing::enabled!(Level::WARN) && report.is_some_and(|report| is_known(&report));
        let text = if said { GAVE_UP } else { &error };
        // While others continue, the summary is far away, and a signal may prevent it.
        match self.shared.members().len() {
            0 | 1 => tracing::error!(target: ENDED, %collection, "{text}"),
            _ => tracing::error!(target: FAILED, %collection, "{text}"),
        }
    }
}

//! What the log says of documents that failed, and of deletions that are held back.

use super::failures::FailureMention;
use super::{FAILED, Pipeline};
use crate::checkpoint::Failure;
use crate::document::plain::quoted;

impl Pipeline {
    /// Logs what is missing in the mirror and was not logged in this run: failures that an earlier run
    /// has left and this one has not tried again, and deletions that are held back.
    pub fn log_unmentioned(&self) {
        // What is not logged is left to the summary.
        if !tracing::enabled!(target: FAILED, tracing::Level::ERROR) {
            return;
        }
        let (failures, count) = self.failures.unmentioned();
        failures.iter().for_each(|failure| self.log_failure(failure));
        if count > failures.len() {
            let (collection, more) = (self.collection.name(), count - failures.len());
            let command = self.status_command();
            tracing::error!(target: FAILED, %collection, "not mirrored: {more} more; {command} lists them");
        }
        self.log_held_back();
    }

    fn log_failure(&self, failure: &Failure) {
        let collection = self.collection.name();
        let Failure { place, reason, .. } = failure;
        tracing::error!(target: FAILED, %collection, "{place} was not mirrored: {reason}");
    }

    /// The command that lists all failures.
    fn status_command(&self) -> String {
        format!("`plainfold status {}`", quoted(&self.mirror.path().to_string_lossy()))
    }

    /// Notes that documents failed, and logs what the log has not named yet. Gives those that the state
    /// is to keep.
    pub(super) fn note_failures(&self, failed: Vec<Failure>) -> Vec<Failure> {
        let collection = self.collection.name();
        let following = self.reporter.says(|report| report.caught_up);
        let mut noted = Vec::new();
        for failure in failed {
            match self.failures.mention(&failure, following) {
                FailureMention::Name => self.log_failure(&failure),
                FailureMention::More => {
                    let command = self.status_command();
                    tracing::error!(
                        target: FAILED,
                        %collection,
                        "more rows cannot be read; {command} lists them",
                    );
                }
                FailureMention::Nothing => {}
            }
            // A row whose place in the feed was not passed is read again by itself.
            let kept = failure.document.is_some() || failure.position.is_some();
            let failure = self.failures.note(failure);
            if kept {
                noted.push(failure);
            }
        }
        noted
    }

    /// Logs how many deletions are held back, by whichever run, and what to do; once.
    pub(super) fn log_held_back(&self) {
        let held = self.reporter.says(|report| report.held_back);
        if held == 0 || !self.failures.mention_held_back() {
            return;
        }
        match held {
            1 => self.say_held_back("1 deletion is held back"),
            held => self.say_held_back(&format!("{held} deletions are held back")),
        }
    }

    /// Logs that more deletions are held back.
    pub(super) fn log_more_held_back(&self) {
        self.failures.mention_held_back();
        self.say_held_back("further deletions are held back");
    }

    fn say_held_back(&self, what: &str) {
        let collection = self.collection.name();
        let mirror = quoted(&self.mirror.path().to_string_lossy());
        let of = quoted(collection.as_str());
        tracing::warn!(
            target: FAILED,
            %collection,
            "{what}, because the source deleted more than --max-delete allows. Look at the source, \
             then run `plainfold release {mirror} {of}` to apply them",
        );
    }
}

//! Compares the source's counts with the mirror's, as a cheap check for documents or deletions that
//! the feed does not report.

use std::sync::{MutexGuard, PoisonError};

use super::settler::Settler;
use crate::checkpoint::{Checkpoint, Commit};
use crate::document::Tally;
use crate::pipeline::PipelineError;
use crate::source::Holds;

/// The most documents that are counted only to be shown: less than a second's work.
const COUNTED: usize = 100_000;

impl Settler {
    /// Compares the source's counts with the mirror's. If failures and held-back deletions do not
    /// explain the difference, the feed is opened again as a full scan, once per run for each
    /// difference. A difference that remains is reported.
    pub(super) fn compare_counts(&mut self, source: Holds) -> Result<(), PipelineError> {
        let scanned = std::mem::take(&mut self.scanned);
        let ours = match self.checkpoint.tally {
            Some(tally) if !scanned => tally,
            _ => self.count()?,
        };
        let documents = signed(source.documents, ours.documents);
        let tombstones = match self.pipeline.collection.kept().deleted {
            true => signed(source.tombstones, ours.tombstones),
            false => ours.tombstones,
        };
        let difference = Tally { documents, tombstones } - ours;
        if self.explains(difference) {
            self.report(None, None);
            return Ok(());
        }
        let reason = disagreement(difference, ours);
        if scanned {
            self.report(Some(difference), Some(&reason));
            return Ok(());
        }
        if *self.scanned_for() == Some(difference) {
            return Ok(());
        }
        let scanning = Some(reason.clone());
        let checkpoint = Checkpoint { scanning, ..self.checkpoint_now(self.doubted_since) };
        self.commit(Commit::new(checkpoint), Vec::new())?;
        Err(PipelineError::Disagrees(reason))
    }

    /// Reports a difference that remains after a full scan, or clears the report.
    fn report(&self, difference: Option<Tally>, reason: Option<&str>) {
        let before = std::mem::replace(&mut *self.scanned_for(), difference);
        if let Some(reason) = reason
            && before != difference
        {
            tracing::warn!(
                collection = %self.pipeline.collection.name(),
                "{reason}, even after a full scan: check the source",
            );
        }
        let lacks = difference.is_some_and(|difference| difference.documents != 0);
        let trouble = reason.filter(|_| lacks).map(str::to_owned);
        self.pipeline.reporter.update(|report| report.count_trouble = trouble);
    }

    fn scanned_for(&self) -> MutexGuard<'_, Option<Tally>> {
        self.pipeline.scanned_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the tree: from then on, each commit updates the count.
    fn count(&mut self) -> Result<Tally, PipelineError> {
        let tally = self.pipeline.collection.tally()?;
        self.note_count(tally)?;
        Ok(tally)
    }

    /// Counts a tree whose count was lost, for those who look at it. A large one is not counted for that.
    pub(super) fn count_if_small(&mut self) -> Result<(), PipelineError> {
        if self.checkpoint.tally.is_some() || self.too_many_to_count {
            return Ok(());
        }
        match self.pipeline.collection.tally_up_to(COUNTED)? {
            Some(tally) => self.note_count(tally),
            None => {
                self.too_many_to_count = true;
                Ok(())
            }
        }
    }

    fn note_count(&mut self, tally: Tally) -> Result<(), PipelineError> {
        let checkpoint = Checkpoint { tally: Some(tally), ..self.checkpoint.clone() };
        self.commit(Commit::new(checkpoint), Vec::new())?;
        let held = Some(u64::try_from(tally.documents).unwrap_or_default());
        self.pipeline.reporter.update(|report| report.held = held);
        Ok(())
    }

    /// Whether failed documents and held-back deletions explain the difference.
    fn explains(&self, difference: Tally) -> bool {
        let failures = i64::try_from(self.pipeline.failures.count()).unwrap_or(i64::MAX);
        let held = i64::try_from(self.pipeline.brake.held()).unwrap_or(i64::MAX);
        let most = failures.saturating_add(held);
        // A held-back document is still in the tree, and its tombstone is not.
        (-most..=failures).contains(&difference.documents)
            && (-failures..=most).contains(&difference.tombstones)
    }
}

/// The source's counts; the mirror's, if the source does not count.
fn signed(source: Option<u64>, ours: i64) -> i64 {
    source.map_or(ours, |count| i64::try_from(count).unwrap_or(i64::MAX))
}

/// The difference, as a clause for people.
fn disagreement(difference: Tally, ours: Tally) -> String {
    let what = |count: i64, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let (difference, ours, kind) = match difference.documents {
        0 => (difference.tombstones, ours.tombstones, "tombstone"),
        documents => (documents, ours.documents, "document"),
    };
    let theirs = what(ours.saturating_add(difference), kind);
    format!("the source says that it holds {theirs}, and the mirror holds {ours}")
}

//! The durable end of a batch: sync, publish, sync, commit, broadcast.
//!
//! A crash between any two of these leaves every document at its old or its new version, and the
//! checkpoint at or before what the tree holds.

mod removals;
mod security;
mod settler;
mod steps;
mod tally;

use std::collections::HashMap;

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::events::Told;
use super::evidence::Reached;
use super::prepared::Prepared;
use super::report::{Phase, RunState};
use super::work::{Signal, Work};
use super::{Pipeline, PipelineError};
use crate::checkpoint::{Checkpoint, Commit, Failure};
use crate::document::{DocumentId, Position, Revision};
use crate::source::Mode;

use settler::Settler;
use steps::Placed;

impl Pipeline {
    /// Settles batch after batch, in order, counts them in `settled`, and passes on each new position
    /// that is `committed`.
    pub(super) async fn settle_all(
        self,
        moved: HashMap<DocumentId, Revision>,
        mut prepared: mpsc::Receiver<Work<Prepared>>,
        settled: watch::Sender<u64>,
        committed: watch::Sender<Option<Position>>,
    ) -> Result<(), PipelineError> {
        let mut settler = Settler::of_feed(self, moved)?;
        // To count the folders would take too long for something that is only shown.
        let tally = settler.checkpoint.tally;
        let held = tally.map(|tally| u64::try_from(tally.documents).unwrap_or_default());
        settler.pipeline.reporter.update(|report| report.held = held);
        while let Some(work) = prepared.recv().await {
            let reporter = settler.pipeline.reporter.clone();
            let counts = match &work {
                Work::Batch(_) => true,
                Work::Signal(signal) => signal.removes(),
            };
            reporter.update(|report| report.busy_since = Some(Instant::now()));
            settler = spawn_blocking(move || settler.settle(work)).await??;
            reporter.update(|report| report.busy_since = None);
            let position = &settler.checkpoint.position;
            // A document that has failed can only be requested again as long as its row is there.
            let may_discard = settler.pipeline.options.capabilities.single_reads
                || settler.pipeline.failures.count() == 0;
            if may_discard && position.is_some() && *committed.borrow() != *position {
                committed.send_replace(position.clone());
            }
            if counts {
                settled.send_modify(|count| *count += 1);
            }
        }
        spawn_blocking(move || settler.close()).await?
    }

    /// Settles a batch that did not come from the feed: the checkpoint stays where it is, and events
    /// that an interrupted run may not have emitted are left to the next run. Because the feed does
    /// not bring these documents again, `intents` are recorded as failures until all is committed.
    /// Returns the documents that the file system refused to publish, each with the reason.
    pub(super) async fn settle_apart(
        &self,
        batch: Prepared,
        intents: Vec<Failure>,
    ) -> Result<HashMap<DocumentId, String>, PipelineError> {
        let mut settler = Settler::apart(self)?;
        let settle = move || {
            if !intents.is_empty() {
                let noted = intents.into_iter().map(|one| settler.pipeline.failures.note(one));
                let failed = noted.collect();
                let since = settler.checkpoint.open_since.unwrap_or(batch.begun);
                let checkpoint =
                    Checkpoint { open_since: Some(since), ..settler.checkpoint.clone() };
                settler.commit(Commit { failed, ..Commit::new(checkpoint) }, Vec::new())?;
            }
            let refused = settler.batch(batch)?;
            settler.close()?;
            Ok(refused)
        };
        spawn_blocking(settle).await?
    }
}

impl Settler {
    fn settle(mut self, work: Work<Prepared>) -> Result<Self, PipelineError> {
        let signal = match work {
            Work::Batch(batch) => return self.batch(batch).map(|_refused| self),
            Work::Signal(signal) => signal,
        };
        match signal {
            Signal::BeginScan(reason) => self.begin_scan(reason)?,
            Signal::EndScan { position, seen } => self.end_scan(position, seen)?,
            Signal::Holds(holds) => self.compare_counts(holds)?,
            Signal::CaughtUp(end) => {
                self.pipeline.brake.caught_up();
                self.pipeline.mirror.sweep_trash()?;
                self.pipeline.log_unmentioned();
                self.count_if_small()?;
                self.caught_up(end);
            }
            Signal::Told => {
                self.moved.clear();
                self.doubted_since = None;
                self.pipeline.collection.forget_interrupted()?;
                self.pipeline.collection.note_emitted()?;
            }
            Signal::Security(security) => self.security(&security)?,
            Signal::Properties(properties) => {
                self.pipeline.collection.note_properties(properties)?;
            }
            Signal::Release => self.release()?,
        }
        Ok(self)
    }

    /// Returns the documents that the file system refused to publish, each with the reason.
    fn batch(&mut self, batch: Prepared) -> Result<HashMap<DocumentId, String>, PipelineError> {
        if !batch.staged.is_empty() {
            self.open(batch.begun)?;
        }
        let Placed { metas, published, refused } = self.publish(batch.staged, batch.sync)?;
        let named = |one: &Failure| Some((one.document.clone()?, one.reason.clone()));
        let reasons: HashMap<DocumentId, String> = refused.iter().filter_map(named).collect();
        let mut settled = batch.settled;
        settled.retain(|id| !reasons.contains_key(id));
        let absent = batch.absent.iter().map(DocumentId::as_str);
        self.pipeline.collection.record_absent(absent)?;
        let position = match self.checkpoint.scanning {
            Some(_) => None,
            None => batch.position.filter(|new| self.checkpoint.position.as_ref() != Some(new)),
        };
        let deletions = metas.iter().filter(|meta| meta.deleted).count() as u64;
        let documents = metas.len() as u64 - deletions;
        let (failures, held) = (&self.pipeline.failures, batch.held);
        // The brake may hold back a document that the source does not know.
        let unheld = match self.pipeline.brake.held() {
            0 => Vec::new(),
            _ => settled.iter().filter(|id| !batch.gone.contains(*id)).cloned().collect(),
        };
        // A held-back document has not failed.
        let settled = settled.into_iter().chain(held.iter().map(|one| one.document.clone()));
        let mended: Vec<_> = settled.filter(|id| failures.forget(id)).collect();
        // As in the state: failures recorded in the same commit count.
        let failed = self.pipeline.note_failures(batch.failed.into_iter().chain(refused).collect());
        let news =
            !failed.is_empty() || !mended.is_empty() || !held.is_empty() || !unheld.is_empty();
        let mut told: Vec<Told> = metas.into_iter().zip(&published).map(Told::of).collect();
        told.extend(batch.untold.into_iter().map(|(meta, files)| Told { meta, files }));
        if position.is_some() || !told.is_empty() || news {
            let open_since = self.checkpoint.open_since;
            let checkpoint = match &self.stays {
                Some(stays) => {
                    let since = stays.open_since.unwrap_or(batch.begun);
                    let (open_since, tally) = (open_since.map(|_| since), self.checkpoint.tally);
                    Checkpoint { open_since, tally, ..stays.clone() }
                }
                None => Checkpoint {
                    position: position.or_else(|| self.checkpoint.position.clone()),
                    scanning: self.checkpoint.scanning.clone(),
                    ..self.checkpoint_now(open_since.and(self.doubted_since.or(Some(batch.begun))))
                },
            };
            let forget_failures = false;
            self.commit(
                Commit { checkpoint, failed, mended, forget_failures, held, unheld },
                told,
            )?;
        }
        self.pipeline.brake.settled(deletions);
        let bytes = published.iter().map(|change| change.bytes).sum::<u64>();
        if documents + deletions > 0 {
            let collection = self.pipeline.collection.name();
            tracing::debug!(%collection, documents, deletions, bytes, "committed a batch");
        }
        self.pipeline.reporter.update(|report| {
            report.documents += documents;
            report.deletions += deletions;
            report.unchanged += batch.unchanged;
            report.attachments += published.iter().map(|change| change.attachments).sum::<u64>();
            report.bytes += bytes;
        });
        self.pipeline.mirror.dispose(&published)?;
        Ok(reasons)
    }

    fn begin_scan(&mut self, reason: String) -> Result<(), PipelineError> {
        let collection = self.pipeline.collection.name();
        tracing::warn!(%collection, "full scan: {reason}");
        self.pipeline.failures.forget_all();
        self.pipeline.remove_portable()?;
        let checkpoint = Checkpoint {
            scanning: Some(reason),
            ..self.checkpoint_now(self.checkpoint.open_since)
        };
        let commit = Commit { forget_failures: true, ..Commit::new(checkpoint) };
        self.commit(commit, Vec::new())?;
        self.pipeline.reporter.update(|report| report.phase = Phase::Scanning);
        Ok(())
    }

    fn caught_up(&self, end: Reached) {
        tracing::debug!(collection = %self.pipeline.collection.name(), "caught up");
        let live = self.pipeline.options.mode == Mode::Follow;
        let nothing = self.pipeline.source.nothing_behind();
        self.pipeline.reporter.update(|report| {
            report.phase = if live { Phase::Live } else { Phase::CaughtUp };
            report.caught_up = true;
            report.be_current(end.at);
            report.evidence.stated = end.stated(nothing).or(report.evidence.stated);
            report.trouble = None;
        });
        self.pipeline.run_state.send_replace(RunState::AtEnd);
    }
}

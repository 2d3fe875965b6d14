//! Steps 2 to 6 of the durable order: sync, publish, sync, commit, broadcast.

use jiff::Timestamp;

use super::settler::Settler;
use crate::checkpoint::{Commit, Failure};
use crate::clock::Moment;
use crate::document::DocumentId;
use crate::mirror::{Published, Staged, Sync};
use crate::pipeline::PipelineError;
use crate::pipeline::events::{self, Meta, Told};
use crate::pipeline::failures::{self, blame};
use crate::pipeline::report::shown;
use crate::tree::MirrorError;
use crate::trial;

/// The outcome of staged changes.
#[derive(Debug, Default)]
pub struct Placed {
    /// The changes that were published.
    pub metas: Vec<Meta>,
    /// The results of publishing, in the same order.
    pub published: Vec<Published>,
    /// The documents that the file system refused to publish.
    pub refused: Vec<Failure>,
}

impl Settler {
    /// Steps 2 to 4 of the durable order.
    pub(super) fn publish(
        &mut self,
        staged: Vec<(Meta, Staged)>,
        sync: Sync,
    ) -> Result<Placed, MirrorError> {
        let (mirror, collection) = (&self.pipeline.mirror, &self.pipeline.collection);
        let (metas, staged): (Vec<Meta>, Vec<Staged>) = staged.into_iter().unzip();
        if !staged.is_empty() {
            collection.check_place()?;
        }
        collection.record_staged(&staged, sync)?;
        trial::pass("sync");
        mirror.sync_staged(&staged, sync)?;
        trial::pass("synced");
        let mut placed = Placed::default();
        let mut unpublished = Vec::new();
        for (meta, staged) in metas.into_iter().zip(staged) {
            trial::pass("publish");
            match collection.publish(staged, sync) {
                Ok(published) => {
                    placed.metas.push(meta);
                    placed.published.push(published);
                }
                Err(error) => {
                    unpublished.push(meta.id.clone());
                    let reason = blame(collection, error)?;
                    placed.refused.push(failures::of_publishing(meta, reason));
                }
            }
        }
        collection.record_unpublished(unpublished.iter().map(DocumentId::as_str))?;
        let published = &placed.published;
        trial::pass("published");
        mirror.sync_published(collection, published, sync)?;
        trial::pass("published-synced");
        for one in published {
            self.more += one.tally.map_or(0, |tally| tally.documents);
            let tally = self.checkpoint.tally.zip(one.tally);
            self.checkpoint.tally = tally.map(|(mut tally, more)| {
                tally += more;
                tally
            });
        }
        Ok(placed)
    }

    /// Steps 5 and 6: published changes are committed, and then their events are emitted.
    pub(super) fn commit(
        &mut self,
        mut commit: Commit,
        told: Vec<Told>,
    ) -> Result<(), PipelineError> {
        let pipeline = &self.pipeline;
        let name = pipeline.collection.name();
        let at = Timestamp::now();
        let changed = (!told.is_empty()).then_some(at);
        commit.checkpoint.changed = changed.or(commit.checkpoint.changed);
        let events = events::of_commit(told, at, name.clone(), pipeline.events.clone());
        trial::pass("commit");
        let more = pipeline.checkpoints.commit_with(name, &commit, events)?;
        pipeline.collection.note_committed()?;
        trial::pass("told");
        self.checkpoint = commit.checkpoint;
        let failures = pipeline.failures.failed();
        let in_flight = pipeline.failures.count() - failures;
        let (held, braked) = pipeline.brake.note_held(more);
        let position = self.checkpoint.position.clone();
        let more = std::mem::take(&mut self.more);
        let counted = pipeline.source.counted();
        pipeline.reporter.update(|report| {
            report.held = report.held.map(|held| held.saturating_add_signed(more));
            report.counted = counted;
            report.failures = failures;
            report.in_flight = in_flight;
            report.held_back = held;
            report.position = position.as_ref().map(shown);
            report.evidence.position = position;
            report.evidence.committed = Some(Moment::now());
            report.evidence.changed_at = changed.or(report.evidence.changed_at);
        });
        if braked && pipeline.reporter.says(|report| report.caught_up) {
            pipeline.log_more_held_back();
        }
        Ok(())
    }
}

//! Removes documents without a row of the feed: those that are missing from a full listing, and
//! those whose deletion was held back and released.
//!
//! They go through the same durable steps as a batch.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;

use super::settler::Settler;
use super::steps::Placed;
use crate::checkpoint::{Checkpoint, Commit, HeldBack};
use crate::document::{Position, Revision};
use crate::mirror::{Plan, Sync};
use crate::pipeline::PipelineError;
use crate::pipeline::batch::Seen;
use crate::pipeline::events::{Meta, Told};
use crate::pipeline::failures::{self, blame};

/// The number of removals that are made durable together.
const REMOVALS: usize = 1_000;

impl Settler {
    /// Removes the documents that the complete listing did not contain, and ends the scan.
    pub(super) fn end_scan(
        &mut self,
        position: Position,
        seen: Option<Seen>,
    ) -> Result<(), PipelineError> {
        let collection = self.pipeline.collection.name().clone();
        match seen {
            Some(seen) if seen.blind => tracing::warn!(
                %collection,
                "rows without an id were in the listing, so nothing is removed by it",
            ),
            Some(seen) => {
                let is_there = |id: &str| seen.contains(&id.into());
                self.pipeline.collection.forget_absent(is_there)?;
                let removed = self.remove_unseen(&seen, &position)?;
                if removed > 0 {
                    tracing::warn!(
                        %collection,
                        "removed the documents that the source does not hold any more: {removed}",
                    );
                }
            }
            None => {}
        }
        let checkpoint = Checkpoint {
            position: Some(position),
            ..self.checkpoint_now(self.checkpoint.open_since)
        };
        self.scanned = true;
        self.commit(Commit::new(checkpoint), Vec::new())
    }

    fn remove_unseen(&mut self, seen: &Seen, position: &Position) -> Result<usize, PipelineError> {
        let collection = self.pipeline.collection.clone();
        let brake = Arc::clone(&self.pipeline.brake);
        let mut unseen = 0;
        for id in collection.documents() {
            unseen += u64::from(!seen.contains(&id?));
        }
        let mut removed = 0;
        if unseen == 0 {
            return self.tell_of_removals(seen, position).map(|()| removed);
        }
        let holds = brake.holds(unseen, || collection.count())?;
        let mut gone: Vec<HeldBack> = Vec::new();
        for id in collection.documents() {
            let id = id?;
            if seen.contains(&id) {
                continue;
            }
            // An entry without a body is not one of our documents.
            let revision = match collection.held(id.as_str()) {
                Ok(Some(held)) => held.revision,
                Ok(None) => continue,
                // It fails by its name when it is to be removed.
                Err(error) => blame(&collection, error).map(|_| None)?,
            };
            gone.push(HeldBack {
                document: id,
                revision: revision.unwrap_or_else(|| Revision::from("")),
                position: Some(position.clone()),
                unlisted: true,
                since: Timestamp::now(),
            });
            if gone.len() >= REMOVALS {
                removed += self.remove_or_hold(std::mem::take(&mut gone), holds)?;
            }
        }
        removed += self.remove_or_hold(gone, holds)?;
        brake.settled(removed as u64);
        self.tell_of_removals(seen, position)?;
        Ok(removed)
    }

    fn remove_or_hold(&mut self, gone: Vec<HeldBack>, hold: bool) -> Result<usize, PipelineError> {
        if !hold {
            return self.remove(gone);
        }
        if !gone.is_empty() {
            self.commit(Commit { held: gone, ..Commit::new(self.checkpoint.clone()) }, Vec::new())?;
        }
        Ok(0)
    }

    /// Deletes what the brake holds back, and lifts the brake.
    pub(super) fn release(&mut self) -> Result<(), PipelineError> {
        let (state, collection) =
            (Arc::clone(&self.pipeline.checkpoints), self.pipeline.collection.clone());
        let mut removed = 0;
        loop {
            let held = state.held_back(collection.name(), REMOVALS)?;
            if held.is_empty() {
                break;
            }
            // A tombstone has to be fetched first.
            let (wanting, gone): (Vec<_>, Vec<_>) =
                held.into_iter().partition(|one| collection.kept().deleted && !one.unlisted);
            removed += self.remove(gone)?;
            let unheld: Vec<_> = wanting.iter().map(|one| one.document.clone()).collect();
            if unheld.is_empty() {
                continue;
            }
            let noted = wanting.into_iter().map(failures::of_release);
            let failed = noted.map(|failure| self.pipeline.failures.note(failure)).collect();
            let commit = Commit { failed, unheld, ..Commit::new(self.checkpoint.clone()) };
            self.commit(commit, Vec::new())?;
        }
        state.end_release(collection.name())?;
        self.pipeline.brake.release();
        if removed > 0 {
            let collection = collection.name();
            tracing::warn!(%collection, "removed the documents whose deletion was released: {removed}");
        }
        Ok(())
    }

    /// Emits the events of removals that an interrupted run made and may not have emitted.
    fn tell_of_removals(&mut self, seen: &Seen, at: &Position) -> Result<(), PipelineError> {
        let mut told = Vec::new();
        for (id, revision) in std::mem::take(&mut self.moved) {
            if !seen.contains(&id) && self.pipeline.collection.held(id.as_str())?.is_none() {
                let meta = Meta { id, revision, position: Some(at.clone()), deleted: true };
                told.push(Told { meta, files: Vec::new() });
            }
        }
        if told.is_empty() {
            return Ok(());
        }
        self.commit(Commit::new(self.checkpoint.clone()), told)
    }

    /// Removes documents, and returns the number that the tree held. For documents that are already
    /// gone, the event is emitted too: an interrupted release may have removed them.
    fn remove(&mut self, gone: Vec<HeldBack>) -> Result<usize, PipelineError> {
        if gone.is_empty() {
            return Ok(0);
        }
        let collection = self.pipeline.collection.clone();
        let begun = Timestamp::now();
        let (mut told, mut staged) = (Vec::new(), Vec::new());
        let mut unheld = Vec::with_capacity(gone.len());
        let mut refused = Vec::new();
        for one in gone {
            unheld.push(one.document.clone());
            let HeldBack { document: id, revision, position, unlisted, .. } = one;
            let meta = Meta { id, revision, position, deleted: true };
            let held = match collection.held(meta.id.as_str()) {
                Ok(Some(held)) => held,
                Ok(None) => {
                    told.push(Told { meta, files: Vec::new() });
                    continue;
                }
                Err(error) => {
                    let reason = blame(&collection, error)?;
                    refused.push(failures::of_publishing(meta, reason));
                    continue;
                }
            };
            let age = held.revision.as_ref().and_then(|held| held.age(&meta.revision));
            if age == Some(Ordering::Greater) || (unlisted && age == Some(Ordering::Less)) {
                // It was created again meanwhile.
                continue;
            }
            let removal = Plan::Remove(collection.document_name(meta.id.as_str()));
            staged.extend(collection.stage_removal(removal).map(|staged| (meta, staged)));
        }
        self.open(begun)?;
        let sync = Sync::for_batch(staged.len());
        let Placed { metas, published, refused: unmoved } = self.publish(staged, sync)?;
        refused.extend(unmoved);
        let failed = self.pipeline.note_failures(refused);
        told.extend(metas.into_iter().zip(&published).map(Told::of));
        let count = published.len();
        let commit = Commit { unheld, failed, ..Commit::new(self.checkpoint.clone()) };
        self.commit(commit, told)?;
        self.pipeline.reporter.update(|report| report.deletions += count as u64);
        self.pipeline.mirror.dispose(&published)?;
        Ok(count)
    }
}

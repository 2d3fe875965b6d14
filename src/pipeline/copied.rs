//! Handles a mirror that was copied, restored, or had a folder replaced: the checkpoint was
//! committed for another folder, so it may be ahead of this one.

use super::{Pipeline, PipelineError};
use crate::checkpoint::{Checkpoint, Commit, PortableCheckpoint};
use crate::tree::unless_disk;

/// The reason for the full scan, as a clause.
pub(super) const REASON: &str = "the collection's folder is not the one that the last run wrote: \
                                 the mirror was copied or restored, or the folder was replaced";

impl Pipeline {
    /// Whether the checkpoint was committed for another folder.
    pub(super) fn is_another_folder(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.folder.is_some_and(|folder| !folder.is(&self.collection.identity()))
    }

    /// The checkpoint to start with. A checkpoint of another folder stays valid only if every file
    /// is known to be as the last run left it; otherwise a full scan is recorded durably. A folder
    /// that was just created is empty, so it cannot be behind.
    pub(super) fn settle_copy(&self, checkpoint: Checkpoint) -> Result<Checkpoint, PipelineError> {
        if self.collection.is_new() {
            return Ok(checkpoint);
        }
        if checkpoint.is_unknown() {
            return self.without_state(checkpoint);
        }
        if !self.is_another_folder(&checkpoint) {
            return Ok(checkpoint);
        }
        let collection = self.collection.name();
        let is_right = self.is_as_it_was_left(&checkpoint)?;
        let folder = Some(self.collection.identity());
        let now = if is_right {
            tracing::info!(
                %collection,
                "the mirror was copied or restored; every file is as the last run left it, so that it \
                 continues without a full scan",
            );
            Checkpoint { folder, ..checkpoint }
        } else {
            // A file that is not listed and has no checksum is fetched again.
            self.collection.restart_inventory()?;
            let (position, inventory) = (None, None);
            let scanning = checkpoint.scanning.clone().or_else(|| Some(REASON.to_owned()));
            Checkpoint { folder, position, inventory, scanning, ..checkpoint }
        };
        self.checkpoints.commit(collection, &Commit::new(now.clone()))?;
        Ok(now)
    }

    /// Whether the last run ended normally, and the inventory of that very run lists exactly what
    /// the folder holds, byte for byte.
    fn is_as_it_was_left(&self, checkpoint: &Checkpoint) -> Result<bool, PipelineError> {
        match checkpoint.at_rest() {
            Some(token) => Ok(self.collection.agrees_with_inventory(token)?),
            None => Ok(false),
        }
    }

    /// The same if the state knows nothing of the collection. A copy that was made without its state
    /// has a checkpoint beside the tree. In the folder that it was written for, a state that is
    /// missing was lost, and what else was lost is not known.
    fn without_state(&self, checkpoint: Checkpoint) -> Result<Checkpoint, PipelineError> {
        let collection = self.collection.name();
        let Some(text) = unless_disk(self.collection.portable())? else {
            return Ok(checkpoint);
        };
        let source = self.collection.followed()?.unwrap_or_default();
        let ignored = match PortableCheckpoint::read(&text, &source) {
            Ok(found) if !self.is_another_folder(&found) => return Ok(checkpoint),
            Ok(found) if self.is_as_it_was_left(&found)? => {
                tracing::info!(
                    %collection,
                    "the mirror was copied without its state; every file is as the last run left it, \
                     so that it continues without a full scan",
                );
                let folder = Some(self.collection.identity());
                let now = Checkpoint { folder, ..found };
                self.checkpoints.commit(collection, &Commit::new(now.clone()))?;
                return Ok(now);
            }
            Ok(_) => "the collection's folder is not as the last run left it".to_owned(),
            Err(why) => why,
        };
        tracing::warn!(
            %collection,
            "the checkpoint in `.plainfold/checkpoints` is ignored, and a full scan follows: {ignored}",
        );
        Ok(checkpoint)
    }

    /// Writes the checkpoint of a run that ended normally beside the tree. Failures and deletions that
    /// are held back are in the state alone, so it is removed while there are any.
    pub(super) fn write_portable(&self, checkpoint: &Checkpoint) -> Result<(), PipelineError> {
        let held = self.checkpoints.count_held_back(self.collection.name())?;
        let source = self.collection.followed()?.unwrap_or_default();
        let text = PortableCheckpoint::text(&source, checkpoint)
            .filter(|_| !self.removals_only && held == 0 && self.failures.count() == 0);
        let written = match text.map(|text| self.collection.write_portable(&text)) {
            // The error itself is that of the run, which reports it.
            Some(Err(error)) if error.is_full() => {
                tracing::info!(
                    "there is no room for the checkpoint beside the tree, so that a copy without its \
                     state is scanned"
                );
                return self.remove_portable();
            }
            Some(written) => written,
            None => return self.remove_portable(),
        };
        // Something in its place is no reason to fail: a copy is then scanned.
        Ok(unless_disk(written)?)
    }

    /// Without a checkpoint beside the tree, a copy without a state is scanned.
    pub(super) fn remove_portable(&self) -> Result<(), PipelineError> {
        Ok(unless_disk(self.collection.remove_portable())?)
    }
}

//! Handles a mirror that was copied, restored, or had a folder replaced: the checkpoint was
//! committed for another folder, so it may be ahead of this one.

use super::{Pipeline, PipelineError};
use crate::checkpoint::{Checkpoint, Commit};

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
        if self.collection.is_new() || !self.is_another_folder(&checkpoint) {
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
        let Checkpoint { inventory, open_since, scanning, .. } = checkpoint;
        let (Some(token), None, None) = (inventory, open_since, scanning) else {
            return Ok(false);
        };
        Ok(self.collection.agrees_with_inventory(token)?)
    }
}

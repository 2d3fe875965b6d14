//! What an interrupted run may have published without emitting its events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Pipeline, PipelineError};
use crate::document::{Change, DocumentId, Revision};
use crate::mirror::Collection;
use crate::tree::MirrorError;

/// Changes that an interrupted run may have published and not committed. Their events are emitted
/// again: twice is better than never.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// The names of the folders that it may have written, according to the inventory.
    pub written: Arc<HashSet<String>>,
    /// Documents that were being replaced or removed.
    pub moved: HashMap<DocumentId, Revision>,
}

impl Doubt {
    /// The files of a change that is in the tree already, if the interrupted run wrote it.
    pub fn files_of(
        &self,
        collection: &Collection,
        change: &Change,
    ) -> Result<Option<Vec<String>>, MirrorError> {
        let id = change.id.as_str();
        let was_written = collection.is_among(id, &self.written);
        let written = if was_written { collection.files_of(id)? } else { None };
        let removed = change.is_deletion() && self.moved.contains_key(&change.id);
        Ok(written.or_else(|| removed.then(Vec::new)))
    }
}

impl Pipeline {
    /// Changes that the previous run may have published without emitting their events.
    pub(super) fn doubt(&self) -> Result<Option<Doubt>, PipelineError> {
        let checkpoint = self.checkpoints.checkpoint(self.collection.name())?.unwrap_or_default();
        let interrupted = checkpoint.open_since.is_some();
        let written = Arc::new(self.collection.silent(interrupted)?);
        let moved = self.collection.interrupted();
        Ok(interrupted.then_some(Doubt { written, moved }))
    }
}

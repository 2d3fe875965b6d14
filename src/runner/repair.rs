//! Fetches single documents of a mirror at rest again: the mirror is locked, with a pipeline for
//! each collection, and no feed is followed.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::options::SessionOptions;
use crate::checkpoint::{Checkpoint, Checkpoints, Commit};
use crate::document::{CollectionName, DocumentId, Kept};
use crate::event::Broadcast;
use crate::mirror::Mirror;
use crate::mirror::Stamped;
use crate::pipeline::{
    Asking, Pipeline, PipelineError, PipelineOptions, Repaired, Reporter, WrongDocument,
};
use crate::source::{Mode, Store};
use crate::tree::MirrorError;

/// A mirror that is repaired, locked for as long as this value lives.
#[derive(Debug)]
pub struct Repairer {
    mirror: Arc<Mirror>,
    checkpoints: Arc<Checkpoints>,
}

impl Repairer {
    /// Opens a mirror that no other process works on.
    pub fn new(mirror: Arc<Mirror>, checkpoints: Arc<Checkpoints>) -> Self {
        Self { mirror, checkpoints }
    }

    /// The source that an existing collection follows, without credentials, if known.
    pub fn followed(&self, name: &CollectionName) -> Result<Option<String>, MirrorError> {
        self.mirror.collection(name)?.followed()
    }

    /// Which revisions an existing collection keeps in addition to the winners.
    pub fn kept(&self, name: &CollectionName) -> Result<Kept, MirrorError> {
        Ok(self.mirror.collection(name)?.as_recorded()?.kept())
    }

    /// The documents that an interrupted run was replacing or removing, and may have left unchanged.
    pub fn interrupted(&self, name: &CollectionName) -> Result<Vec<DocumentId>, MirrorError> {
        Ok(self.mirror.collection(name)?.interrupted().into_keys().collect())
    }

    /// Fetches what is wrong in an existing collection from the store that it follows. Any other
    /// store is refused: documents that it does not hold would be lost.
    pub async fn repair(
        &self,
        store: &Arc<dyn Store>,
        name: &CollectionName,
        wrong: WrongDocument,
        stop: &CancellationToken,
    ) -> Repaired {
        let asking =
            if store.capabilities().single_reads { Asking::Singly } else { Asking::ByFeed };
        let repaired = match self.pipeline(store, name) {
            Ok(pipeline) => pipeline.repair(wrong, asking, stop).await,
            Err(error) => Repaired { fates: Vec::new(), error: Some(error) },
        };
        match self.mirror.check_epoch() {
            Ok(()) => repaired,
            Err(error) => Repaired { error: Some(error.into()), ..repaired },
        }
    }

    /// Records the present content of a collection in its inventory, except under the `doubtful`
    /// names. Blocks.
    pub fn stamp(
        &self,
        name: &CollectionName,
        doubtful: &HashSet<String>,
    ) -> Result<Stamped, PipelineError> {
        let collection = self.mirror.collection(name)?;
        let stamped = collection.stamp_tree(doubtful)?;
        let checkpoint = self.checkpoints.checkpoint(name)?;
        if let Some(checkpoint) = checkpoint.filter(|one| one.open_since.is_none()) {
            let inventory = collection.close_inventory()?;
            let commit = Commit::new(Checkpoint { inventory, ..checkpoint });
            self.checkpoints.commit(name, &commit)?;
        }
        self.mirror.check_epoch()?;
        Ok(stamped)
    }

    /// Fetches the security object of a collection again. `false` if the source has none: the mirror
    /// keeps its version.
    pub async fn repair_security(
        &self,
        store: &Arc<dyn Store>,
        name: &CollectionName,
    ) -> Result<bool, PipelineError> {
        self.pipeline(store, name)?.repair_security().await
    }

    fn pipeline(
        &self,
        store: &Arc<dyn Store>,
        name: &CollectionName,
    ) -> Result<Pipeline, PipelineError> {
        let collection = self.mirror.collection(name)?.as_recorded()?;
        let given = store.origin(name);
        if let Some(recorded) = collection.followed()?
            && recorded != given
        {
            let collection = name.to_string();
            return Err(MirrorError::OtherSource { collection, recorded, given }.into());
        }
        let SessionOptions { mode, retry, revisit, .. } = SessionOptions::new(Mode::CatchUp);
        // The user has requested exactly this.
        let deletions = None;
        let (max_failures, capabilities) = (None, store.capabilities());
        let options =
            PipelineOptions { mode, retry, revisit, deletions, max_failures, capabilities };
        let (events, reporter) = (Broadcast::new(), Reporter::new(name.clone()));
        let (source, state) = (store.open(name), &self.checkpoints);
        Ok(Pipeline::new(source, &self.mirror, collection, state, &events, reporter, options)?)
    }
}

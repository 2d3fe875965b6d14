//! The worker that does the work on the disk, and what it knows from one item to the next.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::checkpoint::{Checkpoint, Commit};
use crate::document::{DocumentId, Revision};
use crate::pipeline::{Pipeline, PipelineError, copied};

/// Does the work on the disk, one item at a time.
pub struct Settler {
    pub pipeline: Arc<Pipeline>,
    /// The checkpoint in the state.
    pub checkpoint: Checkpoint,
    /// Documents that an interrupted run was replacing or removing, until they are settled.
    pub moved: HashMap<DocumentId, Revision>,
    /// Whether an interrupted run may have written the security object without emitting an event.
    pub in_doubt: bool,
    /// The time since which an interrupted run may have published without emitting events. It is
    /// kept until the feed has been read to its end: a run that ends earlier leaves the rest to the
    /// next one.
    pub doubted_since: Option<Timestamp>,
    /// The checkpoint that stays, if the batch does not come from the feed.
    pub stays: Option<Checkpoint>,
    /// Whether a full scan has ended since the source reported its counts.
    pub scanned: bool,
    /// How many documents more, or fewer, the tree holds than at the last commit.
    pub more: i64,
    /// Whether the tree has too many documents to be counted only to be shown.
    pub too_many_to_count: bool,
}

impl Settler {
    /// The settler of a feed. `moved` names what an interrupted run was replacing or removing.
    pub fn of_feed(
        pipeline: Pipeline,
        moved: HashMap<DocumentId, Revision>,
    ) -> Result<Self, PipelineError> {
        let mut checkpoint =
            pipeline.checkpoints.checkpoint(pipeline.collection.name())?.unwrap_or_default();
        let in_doubt = checkpoint.open_since.is_some();
        if in_doubt {
            checkpoint.tally = None;
        } else if pipeline.collection.is_new() && checkpoint.position.is_none() {
            checkpoint.tally.get_or_insert_default();
        }
        Ok(Self {
            pipeline: Arc::new(pipeline),
            doubted_since: checkpoint.open_since,
            checkpoint,
            moved,
            in_doubt,
            stays: None,
            scanned: false,
            more: 0,
            too_many_to_count: false,
        })
    }

    /// A settler for changes that do not come from the feed.
    pub fn apart(pipeline: &Pipeline) -> Result<Self, PipelineError> {
        let mut checkpoint =
            pipeline.checkpoints.checkpoint(pipeline.collection.name())?.unwrap_or_default();
        if checkpoint.position.is_none() && checkpoint.scanning.is_none() {
            checkpoint.scanning = Some("it was repaired while it had no checkpoint".to_owned());
        }
        if pipeline.is_another_folder(&checkpoint) {
            // A repair must not make this folder look like the one that the last run wrote.
            checkpoint.scanning.get_or_insert_with(|| copied::REASON.to_owned());
        }
        // A repaired document may have been counted although it was missing.
        checkpoint.tally = None;
        let (pipeline, stays) = (Arc::new(pipeline.clone()), Some(checkpoint.clone()));
        let (moved, in_doubt, doubted_since, scanned) = (HashMap::new(), false, None, false);
        Ok(Self {
            pipeline,
            checkpoint,
            moved,
            in_doubt,
            doubted_since,
            stays,
            scanned,
            more: 0,
            too_many_to_count: false,
        })
    }

    /// Records durably, once per run, that more may be published than is committed.
    pub fn open(&mut self, since: Timestamp) -> Result<(), PipelineError> {
        if self.checkpoint.open_since.is_some() {
            return Ok(());
        }
        let checkpoint =
            Checkpoint { open_since: Some(since), inventory: None, ..self.checkpoint.clone() };
        self.commit(Commit::new(checkpoint), Vec::new())
    }

    /// Records that everything published is committed, except what an interrupted run left to the
    /// next one.
    pub fn close(mut self) -> Result<(), PipelineError> {
        let open_since = match &self.stays {
            Some(stays) => stays.open_since,
            None => self.doubted_since,
        };
        let inventory = match open_since {
            None => {
                self.pipeline.collection.note_committed()?;
                self.pipeline.collection.close_inventory()?
            }
            Some(_) => None,
        };
        // A state of an older version does not say which folder it was written for: this one.
        let here = self.checkpoint.position.as_ref().map(|_| self.pipeline.collection.identity());
        let folder = self.checkpoint.folder.or(here);
        let now = Checkpoint { open_since, inventory, folder, ..self.checkpoint.clone() };
        if self.checkpoint != now {
            self.commit(Commit::new(now.clone()), Vec::new())?;
        }
        self.pipeline.write_portable(&now)
    }

    /// A checkpoint with the present time, without a position.
    pub fn checkpoint_now(&self, open_since: Option<Timestamp>) -> Checkpoint {
        Checkpoint {
            attachments: self.pipeline.collection.mirrors_attachments(),
            kept: self.pipeline.collection.kept(),
            at: Some(Timestamp::now()),
            open_since,
            inventory: self.checkpoint.inventory.clone(),
            tally: self.checkpoint.tally,
            folder: Some(self.pipeline.collection.identity()),
            changed: self.checkpoint.changed,
            ..Checkpoint::default()
        }
    }
}

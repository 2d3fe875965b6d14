//! A round in progress.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::checkpoint::Failure;
use crate::document::{DocumentId, Position};
use crate::mirror::Sync;
use crate::pipeline::pending::Pending;
use crate::pipeline::prepare::Planned;
use crate::pipeline::prepared::{Answer, Prepared};

/// A round in progress.
pub struct Round {
    pub planned: Planned,
    pub complete: Vec<Pending>,
    pub failed: Vec<Failure>,
    /// Documents that are in the tree as at the source, or gone.
    pub settled: Vec<DocumentId>,
    pub moved_on: HashMap<DocumentId, Answer>,
    /// The documents of this round.
    pub ids: HashSet<DocumentId>,
    /// Documents whose other states must wait, because planning would not see the present one.
    pub done: HashSet<DocumentId>,
    /// Documents that the source does not know. Such a document stays held back if its deletion is.
    pub gone: HashSet<DocumentId>,
    pub sync: Sync,
}

impl Round {
    /// A round of about this number of changes.
    pub fn new(changes: usize) -> Self {
        Self {
            planned: Planned::default(),
            complete: Vec::new(),
            failed: Vec::new(),
            settled: Vec::new(),
            moved_on: HashMap::new(),
            ids: HashSet::new(),
            done: HashSet::new(),
            gone: HashSet::new(),
            sync: Sync::for_batch(changes),
        }
    }

    /// What passes on to the disk.
    pub fn prepared(self, position: Option<Position>, begun: Timestamp) -> Prepared {
        let Self { planned, mut failed, mut settled, moved_on, gone, sync, .. } = self;
        failed.extend(planned.failed);
        let unchanged = planned.unchanged.len() as u64;
        settled.extend(planned.unchanged);
        settled.extend(planned.staged.iter().map(|(meta, _)| meta.id.clone()));
        Prepared {
            absent: planned.absent,
            staged: planned.staged,
            untold: planned.untold,
            failed,
            held: planned.held,
            settled,
            gone,
            unchanged,
            moved_on,
            position,
            sync,
            begun,
        }
    }
}

//! What passes from rounds to the disk: a batch whose files are staged.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::events::Meta;
use crate::checkpoint::{Failure, HeldBack};
use crate::document::{Change, DocumentId, DocumentState, Head, Position, Revision};
use crate::mirror::{Staged, Sync};

/// A batch whose files are staged.
#[derive(Debug)]
pub struct Prepared {
    pub staged: Vec<(Meta, Staged)>,
    /// Changes that an interrupted run published and may not have emitted, with their files.
    pub untold: Vec<(Meta, Vec<String>)>,
    pub failed: Vec<Failure>,
    /// Deletions that the brake holds back.
    pub held: Vec<HeldBack>,
    /// Documents that are in the tree as at the source, or gone.
    pub settled: Vec<DocumentId>,
    /// Documents that the source does not know.
    pub gone: HashSet<DocumentId>,
    /// Deleted documents of which the tree holds nothing.
    pub absent: Vec<DocumentId>,
    pub unchanged: u64,
    /// New answers from the source for documents that changed while they were read.
    pub moved_on: HashMap<DocumentId, Answer>,
    pub position: Option<Position>,
    pub sync: Sync,
    /// The time when writing the batch began.
    pub begun: Timestamp,
}

/// The source's answer for a document.
#[derive(Debug)]
pub enum Answer {
    /// The document exists. The revision is the one in the body.
    Present(Option<Revision>),
    Deleted(Revision),
}

impl Answer {
    /// The answer that a change is.
    pub fn of(change: &Change) -> Self {
        match &change.state {
            DocumentState::Deleted(_) => Self::Deleted(change.revision.clone()),
            DocumentState::Present(document) => {
                let head = Head::read(&document.body).unwrap_or_default();
                Self::Present(head.revision.as_deref().map(Revision::from))
            }
        }
    }
}

impl Prepared {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.position.is_none()
            && self.staged.is_empty()
            && self.untold.is_empty()
            && self.failed.is_empty()
            && self.held.is_empty()
            && self.settled.is_empty()
            && self.absent.is_empty()
    }
}

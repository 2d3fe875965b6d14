//! What the supervisor is told while it works: by runs, by news, and by people.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::mending::Mend;
use crate::clock::Moment;
use crate::document::CollectionName;

/// A message to the supervisor.
#[derive(Debug)]
pub(super) enum Order {
    /// A run has reached the end of its source: others may have its place.
    AtEnd(CollectionName),
    /// A run waits for its source, or for the disk: others may have its place.
    Waits(CollectionName),
    /// A run has something to do again.
    Busy(CollectionName),
    /// A collection has changed at its source.
    Visit(CollectionName),
    /// The source speaks. Of the collections that sleep, only those that were named before have changed since
    /// the moment `since`, if there is one.
    InStep {
        /// Since when nothing else has changed, as far as the source has said.
        since: Option<Moment>,
        /// When it spoke.
        heard: Moment,
    },
    /// Deletions of a collection that are held back were released.
    Release(CollectionName),
    /// Documents are to be fetched again.
    Mend(CollectionName, Mend),
    /// An errand has ended: nothing may be left to wait for.
    ErrandEnded,
    /// A person orders something.
    Given(Given),
}

/// What a person orders.
#[derive(Debug)]
pub(super) struct Given {
    pub action: Action,
    /// For which collection; for all if there is no name.
    pub collection: Option<CollectionName>,
    /// Receives what was done; `None` if there is no such collection.
    pub answer: oneshot::Sender<Option<Vec<Ordered>>>,
}

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the run, and start no other one in this process.
    Pause,
    /// Run again after a pause.
    Resume,
    /// Ask the source now, whatever pause is left.
    CatchUp,
    /// Make a full scan.
    Rescan,
}

impl Action {
    /// Its name as a command.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::CatchUp => "catch-up",
            Self::Rescan => "rescan",
        }
    }
}

/// What has become of an order for one collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ordered {
    /// The collection.
    pub collection: CollectionName,
    /// What was done.
    pub effect: Effect,
}

/// What an order did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It is obeyed now.
    Done,
    /// The next run obeys it.
    Later,
    /// It is as ordered already.
    Already,
    /// The collection is paused, so that it does nothing.
    Paused,
    /// Nothing more is done for the collection in this process: it has ended, or the source has none.
    Ended,
    /// Its source is a stream that cannot be read twice, and does not wait.
    Unrepeatable,
}

/// What was ordered of collections.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub paused: HashSet<CollectionName>,
    /// Whether collections that appear are paused.
    pub all_paused: bool,
    /// Whose runs are being ended, to run again.
    pub again: HashSet<CollectionName>,
    /// The same, with a full scan.
    pub rescans: HashSet<CollectionName>,
    /// Whose next runs first fetch documents again.
    pub mends: HashMap<CollectionName, Vec<Mend>>,
}

impl Orders {
    /// Whether any collection is paused: the process waits for it.
    pub fn pause_any(&self) -> bool {
        !self.paused.is_empty()
    }

    /// Whether a collection is paused.
    pub fn pause(&self, name: &CollectionName) -> bool {
        self.paused.contains(name)
    }
}

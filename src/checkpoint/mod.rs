//! What a mirror remembers between runs, in sled: checkpoints, the journal of write events, the
//! documents that could not be mirrored, and the deletions that are held back.
//!
//! There is no record per document: the tree is the index. A lost or damaged state is set aside
//! and rebuilt by a catch-up that writes only what differs. It must not know bodies, the mirror's
//! paths, how positions are ordered, or what an event says.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::document::{
    CollectionName, DocumentId, FolderIdentity, Kept, Position, Revision, Tally,
};

mod contained;
mod copied;
mod error;
mod held;
mod journal;
mod numbers;
mod recovery;
mod store;
mod turn;

pub use contained::Escaped;
pub use copied::Copied;
pub use error::StateError;
pub use held::HeldBack;
pub use journal::{Bounds, JournalRange};
pub(crate) use numbers::Before;
use numbers::HighWater;
use store::{Store, Trees};
pub use turn::Turn;

/// What the checkpoint of one collection says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last position whose effects are durable in the mirror; none before the first, and none
    /// while a scan has not been finished.
    pub position: Option<Position>,
    /// Why a full listing is under way, if one is. Interrupted, it starts over.
    pub scanning: Option<String>,
    /// Whether attachments were mirrored up to here.
    pub attachments: bool,
    /// What was kept up to here beside the winning revisions.
    #[serde(default)]
    pub kept: Kept,
    /// When this was committed.
    pub at: Option<Timestamp>,
    /// Set while a run may have published more than it has committed: when the last batch that was
    /// committed began to be written. A run that ends in good order clears it.
    #[serde(default)]
    pub open_since: Option<Timestamp>,
    /// The token with which the inventory was closed by the last run that ended in good order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<String>,
    /// How many documents and tombstones the mirror holds; none where that is not known. After a run
    /// that did not end in good order it is not to be relied on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tally: Option<Tally>,
    /// Since when the source does not have the collection any more, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vanished: Option<Timestamp>,
    /// The collection's folder that this was committed for; `None` in a state of an older version.
    /// A copy of the mirror has another folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderIdentity>,
}

impl Checkpoint {
    /// Whether a run has read anything of the source.
    pub fn was_followed(&self) -> bool {
        self.position.is_some() || self.scanning.is_some()
    }
}

/// A document, or a row of a feed, that could not be mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The document, where its id is known.
    pub document: Option<DocumentId>,
    /// The revision that could not be mirrored, where known.
    pub revision: Option<Revision>,
    /// Where the feed named it, in words.
    pub place: String,
    /// What is wrong, and what can be done about it.
    pub reason: String,
    /// The place in the feed after it, where the source gave one.
    pub position: Option<Position>,
    /// How often it was tried; 0 while it is fetched for the first time.
    pub attempts: u32,
    /// When it failed first.
    pub since: Timestamp,
    /// When it failed last.
    pub at: Timestamp,
}

impl Failure {
    /// Whether it has not failed yet: it is still being fetched, or was when the last run ended.
    pub fn is_in_flight(&self) -> bool {
        self.attempts == 0
    }

    /// What tells it from the other failures of its collection.
    fn key(&self) -> Vec<u8> {
        match &self.document {
            Some(id) => [b"d", id.as_str().as_bytes()].concat(),
            None => [b"p", self.place.as_bytes()].concat(),
        }
    }
}

/// Everything that one commit makes true at once.
#[derive(Debug)]
pub struct Commit {
    /// The collection's checkpoint after it.
    pub checkpoint: Checkpoint,
    /// Documents that failed.
    pub failed: Vec<Failure>,
    /// Documents that are mirrored or gone now, and may have failed before.
    pub mended: Vec<DocumentId>,
    /// Forget all earlier failures of the collection: everything is being read again.
    pub forget_failures: bool,
    /// Deletions that are held back.
    pub held: Vec<HeldBack>,
    /// Documents whose deletion is held back no more, if it was.
    pub unheld: Vec<DocumentId>,
}

impl Commit {
    /// A commit of a checkpoint alone.
    pub fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            failed: Vec::new(),
            mended: Vec::new(),
            forget_failures: false,
            held: Vec::new(),
            unheld: Vec::new(),
        }
    }
}

/// The state of a mirror. The mirror's lock makes sure that one process has it.
#[derive(Debug)]
pub struct Checkpoints {
    path: PathBuf,
    bounds: Bounds,
    /// The clock by which events expire.
    clock: Arc<Clock>,
    /// None after it had failed, until it could be opened again.
    store: RwLock<Option<Arc<Store>>>,
    /// sled failed, and once it has, it goes on failing.
    broken: AtomicBool,
    /// Held from drawing numbers to broadcasting them, so that both happen in the same order.
    turn: Mutex<HighWater>,
}

/// What opening the state found.
#[derive(Debug)]
pub struct Opened {
    /// The state.
    pub state: Checkpoints,
    /// The damaged state that was in its place, if one was.
    pub damaged: Option<SetAside>,
}

/// A damaged state that was moved out of the way. What it prints is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state could not be read ({reason}); it was set aside as {} and is rebuilt", path.display())]
pub struct SetAside {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Checkpoints {
    /// Opens or creates the state in the folder `path`, keeping the journal within `bounds`.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Opened, StateError> {
        Self::open_with(path, bounds, Arc::new(Clock::unwritten()), Before::Unknown)
    }

    /// The same with the clock by which events grow old, and what is known of the mirror's past.
    pub(crate) fn open_with(
        path: &Path,
        bounds: Bounds,
        clock: Arc<Clock>,
        before: Before,
    ) -> Result<Opened, StateError> {
        let noted = HighWater::noted(path)?;
        let (store, damaged) = Store::open(path, bounds, noted.as_ref())?;
        let (range, newest) = store
            .read(|trees| Ok((trees.journal.range()?, trees.journal.newest()?)))
            .map_err(|what| StateError::Escaped { path: path.to_owned(), what })?
            .map_err(|source| StateError::Store { path: path.to_owned(), source })?;
        let last = range.map_or(0, |range| range.last);
        if let Some(newest) = newest {
            clock.begin_at(newest);
        }
        let turn = HighWater::open(path, last, damaged.is_some(), before)?;
        let state = Self {
            path: path.to_owned(),
            bounds,
            clock,
            store: RwLock::new(Some(Arc::new(store))),
            broken: AtomicBool::new(false),
            turn: Mutex::new(turn),
        };
        Ok(Opened { state, damaged })
    }

    fn store(&self) -> Result<Arc<Store>, StateError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or_else(|| StateError::Closed { path: self.path.clone() })
    }

    /// The checkpoint of a collection. One that cannot be read counts as none: a scan follows.
    pub fn checkpoint(&self, name: &CollectionName) -> Result<Option<Checkpoint>, StateError> {
        let text = self.read(|trees| trees.checkpoints.get(name.as_str()))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Forgets how far a collection is: the next opening of its feed is a scan, for this reason.
    pub fn start_over(&self, name: &CollectionName, reason: &str) -> Result<(), StateError> {
        let scanning = Some(reason.to_owned());
        let checkpoint = Checkpoint { scanning, ..Checkpoint::default() };
        self.turn().commit(name, &Commit::new(checkpoint), &[]).map(drop)
    }

    /// Notes durably that the source does not have a collection any more, or that it has it again.
    /// Returns the time since which the source does not have it.
    pub fn note_vanished(
        &self,
        name: &CollectionName,
        vanished: bool,
    ) -> Result<Option<Timestamp>, StateError> {
        let before = self.checkpoint(name)?.unwrap_or_default();
        let since = vanished.then(|| before.vanished.unwrap_or_else(Timestamp::now));
        if before.vanished != since {
            let checkpoint = Checkpoint { vanished: since, ..before };
            self.turn().commit(name, &Commit::new(checkpoint), &[])?;
        }
        Ok(since)
    }

    /// The collections that have a checkpoint.
    pub fn collections(&self) -> Result<Vec<CollectionName>, StateError> {
        let name = |key: sled::IVec| CollectionName::from(&*String::from_utf8_lossy(&key));
        self.read(|trees| trees.checkpoints.iter().keys().map(|key| Ok(name(key?))).collect())
    }

    /// Up to where the collections of a store have been listed, if that was noted.
    pub fn listed(&self, store: &str) -> Result<Option<Position>, StateError> {
        let text = self.read(|trees| trees.listings.get(store))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Notes up to where the collections of a store have been listed. It becomes durable with what
    /// is committed later, or not: it saves work only.
    pub fn note_listed(&self, store: &str, position: &Position) -> Result<(), StateError> {
        self.check_room(&*self.store()?)?;
        let text = encode(position).map_err(|error| self.failed(error))?;
        let store = store.to_owned();
        self.write(move |trees| trees.listings.insert(store, text)).map(drop)
    }

    /// The failures of a collection.
    pub fn failures(&self, name: &CollectionName) -> Result<Vec<Failure>, StateError> {
        self.read(|trees| {
            let mut failures = Vec::new();
            for value in trees.failures.scan_prefix(prefix(name)).values() {
                failures.extend(serde_json::from_slice::<Failure>(&value?).ok());
            }
            Ok(failures)
        })
    }

    /// The numbers of the events in the journal; `None` while it is empty.
    pub fn journal_range(&self) -> Result<Option<JournalRange>, StateError> {
        self.read(|trees| trees.journal.range())
    }

    /// Up to about `limit` records of events after number `since`, in order.
    pub fn journal_after(&self, since: u64, limit: usize) -> Result<Vec<Record>, StateError> {
        self.read(|trees| trees.journal.after(since, limit))
    }

    /// The highest number that an event of this mirror can have so far, whether the journal still
    /// holds it or not.
    pub fn last_number(&self) -> u64 {
        self.turn().numbers.last()
    }

    /// Waits for the turn to commit.
    pub fn turn(&self) -> Turn<'_> {
        let numbers = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { state: self, numbers }
    }

    /// Runs a call that only reads.
    fn read<T>(
        &self,
        call: impl FnOnce(&Trees) -> Result<T, sled::Error>,
    ) -> Result<T, StateError> {
        self.came_back(self.store()?.read(call))
    }

    /// Runs a call that writes.
    fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Trees) -> Result<T, sled::Error> + Send + 'static,
    ) -> Result<T, StateError> {
        self.came_back(self.store()?.write(call))
    }

    fn came_back<T>(&self, called: Result<sled::Result<T>, Escaped>) -> Result<T, StateError> {
        called.map_err(|what| self.escaped(what))?.map_err(|source| self.failed(source))
    }

    fn escaped(&self, what: Escaped) -> StateError {
        self.broken.store(true, Ordering::Release);
        StateError::Escaped { path: self.path.clone(), what }
    }

    fn failed(&self, source: sled::Error) -> StateError {
        self.broken.store(true, Ordering::Release);
        StateError::Store { path: self.path.clone(), source }
    }

    /// After this, what was committed survives a power loss.
    fn flush(&self) -> Result<(), StateError> {
        self.write(|trees| trees.db.flush())?;
        self.store()?.file.sync_data().map_err(|source| StateError::Io {
            action: "sync",
            path: self.path.join("db"),
            source,
        })
    }
}

/// One event of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub number: u64,
    /// What it says: a line of JSON, without a newline.
    pub text: String,
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, sled::Error> {
    serde_json::to_vec(value).map_err(|error| sled::Error::Unsupported(error.to_string()))
}

/// Collection names hold any character but, as keys, each ends where its length says.
fn prefix(name: &CollectionName) -> Vec<u8> {
    let mut prefix = (name.as_str().len() as u64).to_be_bytes().to_vec();
    prefix.extend_from_slice(name.as_str().as_bytes());
    prefix
}

fn failure_key(name: &CollectionName, key: &[u8]) -> Vec<u8> {
    let mut whole = prefix(name);
    whole.extend_from_slice(key);
    whole
}

impl Bounds {
    /// What a mirror keeps unless told otherwise.
    pub const DEFAULT: Self = Self { events: 100_000, age: Duration::from_secs(7 * 24 * 60 * 60) };
}

#[cfg(test)]
pub(crate) mod tests;

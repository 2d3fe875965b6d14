//! The state of a mirror between runs, in sled: checkpoints, the journal of write events, the
//! documents that could not be mirrored, and the deletions that are held back.
//!
//! There is no record per document: the tree is the index. A lost or damaged state is set aside and
//! rebuilt by a catch-up that writes only differences.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::document::{
    CollectionName, DocumentId, FolderIdentity, Kept, Position, Revision, Tally,
};
use crate::place::Desk;

mod contained;
mod copied;
mod error;
mod held;
mod journal;
mod numbers;
mod portable;
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
pub use portable::PortableCheckpoint;
use store::{StateStore, Trees};
use turn::Queue;
pub use turn::{NewEvents, Numbered};

/// The checkpoint of one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last position whose effects are durable in the mirror; `None` before the first, and until
    /// a scan has finished.
    pub position: Option<Position>,
    /// The reason for the full listing in progress, if any. An interrupted listing starts again.
    pub scanning: Option<String>,
    /// Whether attachments were mirrored up to this point.
    pub attachments: bool,
    /// Which revisions were kept up to this point in addition to the winners.
    #[serde(default)]
    pub kept: Kept,
    /// The time of the commit.
    pub at: Option<Timestamp>,
    /// The time when the last committed batch began to be written, set while a run may have
    /// published more than it has committed. A run that ends normally clears it.
    #[serde(default)]
    pub open_since: Option<Timestamp>,
    /// The token with which the last run that ended normally closed the inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<String>,
    /// The number of documents and tombstones in the mirror; `None` if unknown. After a run that did
    /// not end normally it is unreliable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tally: Option<Tally>,
    /// The time since which the source no longer has the collection, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vanished: Option<Timestamp>,
    /// The folder that this was committed for; `None` in a state of an older version. A copy of the
    /// mirror has another folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderIdentity>,
}

impl Checkpoint {
    /// Whether a run has read anything from the source.
    pub fn was_followed(&self) -> bool {
        self.position.is_some() || self.scanning.is_some()
    }
}

/// A document, or a row of a feed, that could not be mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The document, if its id is known.
    pub document: Option<DocumentId>,
    /// The revision that could not be mirrored, if known.
    pub revision: Option<Revision>,
    /// The place in the feed, in words.
    pub place: String,
    /// The problem, and the remedy.
    pub reason: String,
    /// The position in the feed after it, if the source gave one.
    pub position: Option<Position>,
    /// The number of attempts; 0 while it is fetched for the first time.
    pub attempts: u32,
    /// The time of the first failure.
    pub since: Timestamp,
    /// The time of the last failure.
    pub at: Timestamp,
}

impl Failure {
    /// Whether it has not failed yet: it is being fetched, or was when the last run ended.
    pub fn is_in_flight(&self) -> bool {
        self.attempts == 0
    }

    /// What sorts failures as they came: rows that failed at the same moment by their places.
    pub fn turn(&self) -> (Timestamp, usize, &str) {
        // The number at the end of a place has no leading zeros.
        (self.since, self.place.len(), &self.place)
    }

    /// The key that distinguishes it from the other failures of its collection.
    fn key(&self) -> Vec<u8> {
        match &self.document {
            Some(id) => [b"d", id.as_str().as_bytes()].concat(),
            None => [b"p", self.place.as_bytes()].concat(),
        }
    }
}

/// Everything that becomes durable in one commit.
#[derive(Debug)]
pub struct Commit {
    /// The collection's checkpoint after the commit.
    pub checkpoint: Checkpoint,
    /// Documents that failed.
    pub failed: Vec<Failure>,
    /// Documents that are now mirrored or gone, and may have failed before.
    pub mended: Vec<DocumentId>,
    /// Removes all earlier failures of the collection: everything is being read again.
    pub forget_failures: bool,
    /// Deletions that are held back.
    pub held: Vec<HeldBack>,
    /// Documents whose deletion is no longer held back, if it was.
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

/// The state of a mirror. The mirror's lock ensures that only one process uses it.
#[derive(Debug)]
pub struct Checkpoints {
    path: PathBuf,
    /// Where files are prepared before they are renamed into place.
    desk: Desk,
    bounds: Bounds,
    /// The clock that determines the age of events.
    clock: Arc<Clock>,
    /// `None` after a failure, until it is reopened.
    store: RwLock<Option<Arc<StateStore>>>,
    /// Set when sled has failed; it does not recover.
    broken: AtomicBool,
    /// Held from assigning numbers to emitting the events, so that both happen in the same order.
    numbers: Mutex<HighWater>,
    /// The commits that wait.
    queue: Queue,
    /// The highest number of a durable event, or that an event of an earlier run can have.
    last: AtomicU64,
}

/// The result of opening the state.
#[derive(Debug)]
pub struct Opened {
    /// The state.
    pub state: Checkpoints,
    /// The damaged state that was set aside, if any.
    pub damaged: Option<SetAside>,
}

/// A damaged state that was set aside. Its text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state could not be read ({reason}); it was set aside as {} and is rebuilt", path.display())]
pub struct SetAside {
    /// Its new path.
    pub path: PathBuf,
    /// The damage.
    pub reason: String,
}

impl Checkpoints {
    /// Opens or creates the state in the folder `path`, with a journal within `bounds`.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Opened, StateError> {
        let clock = Arc::new(Clock::unwritten());
        Self::open_with(path, bounds, clock, Before::Unknown, Desk::default())
    }

    /// The same with the clock that determines the age of events, with what is known about earlier
    /// runs, and with the desk in the folder that holds the state. If an earlier process may be
    /// alive, it keeps the old files, and this state is a copy of them with higher event numbers.
    pub(crate) fn open_with(
        path: &Path,
        bounds: Bounds,
        clock: Arc<Clock>,
        before: Before,
        desk: Desk,
    ) -> Result<Opened, StateError> {
        let noted = HighWater::noted(path)?;
        let (store, damaged) = StateStore::open(path, &desk, bounds, noted.as_ref())?;
        let (range, newest) = store
            .read(|trees| Ok((trees.journal.range()?, trees.journal.newest()?)))
            .map_err(|what| StateError::Escaped { path: path.to_owned(), what })?
            .map_err(|source| StateError::Store { path: path.to_owned(), source })?;
        let last = range.map_or(0, |range| range.last);
        if let Some(newest) = newest {
            clock.begin_at(newest);
        }
        let numbers = HighWater::open(path, &desk, last, damaged.is_some(), before)?;
        desk.settle();
        let state = Self {
            path: path.to_owned(),
            desk,
            bounds,
            clock,
            store: RwLock::new(Some(Arc::new(store))),
            broken: AtomicBool::new(false),
            last: AtomicU64::new(numbers.last()),
            numbers: Mutex::new(numbers),
            queue: Queue::default(),
        };
        Ok(Opened { state, damaged })
    }

    fn store(&self) -> Result<Arc<StateStore>, StateError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or_else(|| StateError::Closed { path: self.path.clone() })
    }

    /// The checkpoint of a collection. An unreadable one counts as missing, so a scan follows.
    pub fn checkpoint(&self, name: &CollectionName) -> Result<Option<Checkpoint>, StateError> {
        let text = self.read(|trees| trees.checkpoints.get(name.as_str()))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Drops the progress of a collection: the next opening of its feed is a scan, for this reason.
    pub fn start_over(&self, name: &CollectionName, reason: &str) -> Result<(), StateError> {
        let scanning = Some(reason.to_owned());
        let checkpoint = Checkpoint { scanning, ..Checkpoint::default() };
        self.commit(name, &Commit::new(checkpoint)).map(drop)
    }

    /// Records durably that the source no longer has a collection, or that it has it again. Returns
    /// the time since which it is gone.
    pub fn note_vanished(
        &self,
        name: &CollectionName,
        vanished: bool,
    ) -> Result<Option<Timestamp>, StateError> {
        let before = self.checkpoint(name)?.unwrap_or_default();
        let since = vanished.then(|| before.vanished.unwrap_or_else(Timestamp::now));
        if before.vanished != since {
            let checkpoint = Checkpoint { vanished: since, ..before };
            self.commit(name, &Commit::new(checkpoint))?;
        }
        Ok(since)
    }

    /// The collections that have a checkpoint.
    pub fn collections(&self) -> Result<Vec<CollectionName>, StateError> {
        let name = |key: sled::IVec| CollectionName::from(&*String::from_utf8_lossy(&key));
        self.read(|trees| trees.checkpoints.iter().keys().map(|key| Ok(name(key?))).collect())
    }

    /// The position up to which the collections of a store have been listed, if recorded.
    pub fn listed(&self, store: &str) -> Result<Option<Position>, StateError> {
        let text = self.read(|trees| trees.listings.get(store))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Records the position up to which the collections of a store have been listed. It becomes
    /// durable with a later commit, or not at all: it only saves work.
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

    /// Roughly up to `limit` records of events after number `since`, in order.
    pub fn journal_after(&self, since: u64, limit: usize) -> Result<Vec<Record>, StateError> {
        self.read(|trees| trees.journal.after(since, limit))
    }

    /// The highest number that a durable event of this mirror can have, whether or not the journal
    /// still holds it.
    pub fn last_number(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Waits until nobody commits; nobody does while it is held.
    fn numbers(&self) -> MutexGuard<'_, HighWater> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a reading call.
    fn read<T>(
        &self,
        call: impl FnOnce(&Trees) -> Result<T, sled::Error>,
    ) -> Result<T, StateError> {
        self.came_back(self.store()?.read(call))
    }

    /// Runs a writing call.
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

    /// Makes all commits survive a power loss.
    fn flush(&self) -> Result<(), StateError> {
        self.write(|trees| {
            #[cfg(test)]
            tests::FLUSHES.set(tests::FLUSHES.get() + 1);
            trees.db.flush()
        })?;
        let synced = self.store()?.file.sync_data();
        synced.map_err(|source| StateError::io("sync", &self.path.join("db"), source))
    }
}

/// One event of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub number: u64,
    /// Its content: a line of JSON, without a newline.
    pub text: Bytes,
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, sled::Error> {
    serde_json::to_vec(value).map_err(|error| sled::Error::Unsupported(error.to_string()))
}

/// Collection names contain any character, so each key starts with the length of the name.
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
    /// The default limits of the journal.
    pub const DEFAULT: Self = Self { events: 100_000, age: Duration::from_secs(7 * 24 * 60 * 60) };
}

#[cfg(test)]
pub(crate) mod tests;

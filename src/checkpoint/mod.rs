//! The state of a mirror between runs, in sled: checkpoints, the journal of write events, the cursors
//! of its subscribers, the documents that could not be mirrored, and the deletions that are held back.
//!
//! There is no record per document: the tree is the index. A lost or damaged state is set aside and
//! rebuilt by a catch-up that writes only differences.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;

use crate::clock::Clock;
use crate::document::{CollectionName, Position};
use crate::place::Desk;

mod commit;
mod contained;
mod copied;
mod copy;
mod cursor;
mod cursors;
mod error;
mod held;
mod journal;
mod numbers;
mod portable;
mod queue;
mod recovery;
mod store;
mod turn;
mod verification;

pub use commit::{Checkpoint, Commit, Failure, HeldBack};
pub use contained::Escaped;
pub use copied::{Copied, CopiedFiles};
pub use cursor::{CursorError, CursorFilter, CursorStart, CursorStatus, MOST_CURSORS};
pub use error::StateError;
pub use journal::{Bounds, JournalRange, JournalRecord};
pub(crate) use numbers::Before;
pub use portable::PortableCheckpoint;
pub use queue::{NewEvents, Numbered};
pub use store::SetAside;
pub use verification::Verification;

use commit::{encode, prefix};
use cursor::Cursors;
use numbers::HighWater;
use queue::Queue;
use store::{StateStore, Trees};

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
    /// The number of the oldest event in the journal; 0 while it is empty.
    first: AtomicU64,
    cursors: Cursors,
}

/// The result of opening the state.
#[derive(Debug)]
pub struct Opened {
    /// The state.
    pub state: Checkpoints,
    /// The damaged state that was set aside, if any.
    pub damaged: Option<SetAside>,
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
        let cursors = Cursors::default();
        cursors.load(&store);
        let state = Self {
            path: path.to_owned(),
            desk,
            bounds,
            clock,
            store: RwLock::new(Some(Arc::new(store))),
            broken: AtomicBool::new(false),
            last: AtomicU64::new(numbers.last()),
            first: AtomicU64::new(range.map_or(0, |range| range.first)),
            cursors,
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

    /// The next opening of a collection's feed is a scan, for this reason. What an interrupted run left
    /// stays known.
    pub fn rescan(&self, name: &CollectionName, reason: &str) -> Result<(), StateError> {
        let before = self.checkpoint(name)?.unwrap_or_default();
        let checkpoint = Checkpoint { scanning: Some(reason.to_owned()), position: None, ..before };
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

    /// When a collection was last known to be current, by the wall clock.
    pub fn current(&self, name: &CollectionName) -> Result<Option<Timestamp>, StateError> {
        let text = self.read(|trees| trees.current.get(name.as_str()))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Notes when these collections were as their source. It becomes durable with a later commit, or when the
    /// state is closed, or not at all: it only says how old the mirror is.
    pub fn note_current(&self, times: Vec<(CollectionName, Timestamp)>) -> Result<(), StateError> {
        self.check_room(&*self.store()?)?;
        let mut batch = sled::Batch::default();
        for (name, at) in times {
            let text = encode(&at).map_err(|error| self.failed(error))?;
            batch.insert(name.as_str().as_bytes(), text);
        }
        self.write(move |trees| trees.current.apply_batch(batch))
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
    pub fn journal_after(
        &self,
        since: u64,
        limit: usize,
    ) -> Result<Vec<JournalRecord>, StateError> {
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

#[cfg(test)]
pub(crate) mod tests;

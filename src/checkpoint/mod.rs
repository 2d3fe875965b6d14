//! What a mirror remembers between runs, in sled: checkpoints, the journal of write events, the
//! documents that could not be mirrored, and the deletions that are held back.
//!
//! There is no record per document: the tree is the index. A lost or damaged state is set aside
//! and rebuilt by a catch-up that writes only what differs. It must not know bodies, the mirror's
//! paths, how positions are ordered, or what an event says.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sled::Transactional as _;
use sled::transaction::{ConflictableTransactionError, TransactionError};

use crate::clock::Clock;
use crate::document::{
    CollectionName, DocumentId, FolderIdentity, Kept, Position, Revision, Tally,
};
use crate::trial;

mod copied;
mod held;
mod journal;
mod numbers;
mod recovery;

pub use copied::Copied;
pub use held::HeldBack;
use journal::Journal;
pub use journal::{Bounds, JournalRange};
pub(crate) use numbers::Before;
use numbers::HighWater;

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
    /// How often it was tried.
    pub attempts: u32,
    /// When it failed first.
    pub since: Timestamp,
    /// When it failed last.
    pub at: Timestamp,
}

impl Failure {
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

/// What is wrong with the state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// sled, or the file system below it.
    #[error("the state in {}: {source}", path.display())]
    Store {
        /// The state's folder.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// A file of the state.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// To be read without writing to it, it is copied.
    #[error(
        "the state in {} cannot be copied into {} to be read ({source}): {}",
        path.display(),
        to.display(),
        copied::advice(source)
    )]
    Copy {
        /// The state's folder.
        path: PathBuf,
        /// The folder of temporary files.
        to: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// sled must not meet a full disk: it may wait for ever.
    #[error("the state in {} has no room: {free} bytes are left on its file system", path.display())]
    NoRoom {
        /// The state's folder.
        path: PathBuf,
        /// Bytes that are left.
        free: u64,
    },
    /// It failed, and could not be opened again yet.
    #[error("the state in {} is closed until its disk can be written again", path.display())]
    Closed {
        /// The state's folder.
        path: PathBuf,
    },
}

impl StateError {
    /// Whether the disk is at fault, so that waiting may mend it.
    pub fn is_disk(&self) -> bool {
        match self {
            // sled keeps no more of it than that the file system failed.
            Self::Store { source, .. } => matches!(source, sled::Error::Io(_)),
            Self::Io { .. } | Self::NoRoom { .. } | Self::Closed { .. } => true,
            Self::Copy { .. } => false,
        }
    }

    /// Whether there is no room left, so that what is removed may mend it.
    pub fn is_full(&self) -> bool {
        let full = |error: &std::io::Error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        };
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { source, .. } => full(source),
            Self::Store { source: sled::Error::Io(error), .. } => full(error),
            _ => false,
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

/// sled, opened.
#[derive(Debug)]
struct Store {
    checkpoints: sled::Tree,
    failures: sled::Tree,
    held: sled::Tree,
    released: sled::Tree,
    listings: sled::Tree,
    journal: Journal,
    /// sled's own file, to be synced: its flush alone leaves the last half second to the kernel.
    file: File,
    db: sled::Db,
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

/// sled's own default is 1 GiB.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

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
        let (store, damaged) = Store::open(path, bounds)?;
        let failed = |source| StateError::Store { path: path.to_owned(), source };
        let last = store.journal.range().map_err(failed)?.map_or(0, |range| range.last);
        if let Some(newest) = store.journal.newest().map_err(failed)? {
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
        let text =
            self.store()?.checkpoints.get(name.as_str()).map_err(|error| self.failed(error))?;
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
        let mut names = Vec::new();
        let store = self.store()?;
        for key in store.checkpoints.iter().keys() {
            let key = key.map_err(|error| self.failed(error))?;
            names.push(CollectionName::from(&*String::from_utf8_lossy(&key)));
        }
        Ok(names)
    }

    /// Up to where the collections of a store have been listed, if that was noted.
    pub fn listed(&self, store: &str) -> Result<Option<Position>, StateError> {
        let text = self.store()?.listings.get(store).map_err(|error| self.failed(error))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Notes up to where the collections of a store have been listed. It becomes durable with what
    /// is committed later, or not: it saves work only.
    pub fn note_listed(&self, store: &str, position: &Position) -> Result<(), StateError> {
        let state = self.store()?;
        self.check_room(&state)?;
        let noted = encode(position).and_then(|text| state.listings.insert(store, text));
        noted.map(drop).map_err(|error| self.failed(error))
    }

    /// The failures of a collection.
    pub fn failures(&self, name: &CollectionName) -> Result<Vec<Failure>, StateError> {
        let mut failures = Vec::new();
        let store = self.store()?;
        for value in store.failures.scan_prefix(prefix(name)).values() {
            let value = value.map_err(|error| self.failed(error))?;
            failures.extend(serde_json::from_slice::<Failure>(&value).ok());
        }
        Ok(failures)
    }

    /// The numbers of the events in the journal; `None` while it is empty.
    pub fn journal_range(&self) -> Result<Option<JournalRange>, StateError> {
        self.store()?.journal.range().map_err(|error| self.failed(error))
    }

    /// Up to about `limit` records of events after number `since`, in order.
    pub fn journal_after(&self, since: u64, limit: usize) -> Result<Vec<Record>, StateError> {
        self.store()?.journal.after(since, limit).map_err(|error| self.failed(error))
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

    fn failed(&self, source: sled::Error) -> StateError {
        self.broken.store(true, Ordering::Release);
        StateError::Store { path: self.path.clone(), source }
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

/// The turn to commit: nobody else commits, or draws numbers, while it is held.
#[derive(Debug)]
pub struct Turn<'a> {
    state: &'a Checkpoints,
    numbers: MutexGuard<'a, HighWater>,
}

impl Turn<'_> {
    /// The first of `count` numbers for events, none of which was ever drawn before.
    pub fn draw(&mut self, count: usize) -> Result<u64, StateError> {
        self.numbers.draw(count as u64)
    }

    /// Makes a commit and its events durable. `records` carry consecutive numbers of this turn.
    /// Gives by how many the deletions that are held back have become more.
    pub fn commit(
        &self,
        name: &CollectionName,
        commit: &Commit,
        records: &[Record],
    ) -> Result<i64, StateError> {
        let state = self.state;
        let store = state.store()?;
        state.check_room(&store)?;
        let now = state.clock.stamp();
        let chunks = journal::chunks(records, now);
        let forgotten = self.forgotten(name, commit)?;
        let checkpoint = encode(&commit.checkpoint).map_err(|error| state.failed(error))?;
        let mut failed = Vec::with_capacity(commit.failed.len());
        for failure in &commit.failed {
            let value = encode(failure).map_err(|error| state.failed(error))?;
            failed.push((failure_key(name, &failure.key()), value));
        }
        let mut held_back = Vec::with_capacity(commit.held.len());
        for one in &commit.held {
            let value = encode(one).map_err(|error| state.failed(error))?;
            held_back.push((failure_key(name, one.document.as_str().as_bytes()), value));
        }
        let unheld = commit.unheld.iter().map(|id| failure_key(name, id.as_str().as_bytes()));
        let unheld: Vec<_> = unheld.collect();
        let trees = (&store.checkpoints, &store.failures, &store.held, store.journal.tree());
        let more = trees
            .transaction(|(checkpoints, failures, held, journal)| {
                checkpoints.insert(name.as_str(), checkpoint.as_slice())?;
                for key in &forgotten {
                    failures.remove(key.as_slice())?;
                }
                for (key, value) in &failed {
                    failures.insert(key.as_slice(), value.as_slice())?;
                }
                let mut more = 0;
                for key in &unheld {
                    more -= i64::from(held.remove(key.as_slice())?.is_some());
                }
                for (key, value) in &held_back {
                    more += i64::from(held.insert(key.as_slice(), value.as_slice())?.is_none());
                }
                for (key, value) in &chunks {
                    journal.insert(key, value.as_slice())?;
                }
                Ok::<i64, ConflictableTransactionError<()>>(more)
            })
            .map_err(|error| match error {
                TransactionError::Storage(error) => state.failed(error),
                TransactionError::Abort(()) => {
                    state.failed(sled::Error::ReportableBug("a commit was aborted".to_owned()))
                }
            })?;
        store.journal.trim(now).map_err(|error| state.failed(error))?;
        trial::pass("flush");
        state.flush()?;
        trial::committed(&state.path);
        Ok(more)
    }

    fn forgotten(
        &self,
        name: &CollectionName,
        commit: &Commit,
    ) -> Result<Vec<Vec<u8>>, StateError> {
        if commit.forget_failures {
            let store = self.state.store()?;
            let keys = store.failures.scan_prefix(prefix(name)).keys();
            let keys = keys.map(|key| key.map(|key| key.to_vec()));
            return keys.collect::<Result<_, _>>().map_err(|error| self.state.failed(error));
        }
        let key = |id: &DocumentId| failure_key(name, &[b"d", id.as_str().as_bytes()].concat());
        Ok(commit.mended.iter().map(key).collect())
    }
}

impl Checkpoints {
    /// After this, what was committed survives a power loss.
    fn flush(&self) -> Result<(), StateError> {
        let store = self.store()?;
        store.db.flush().map_err(|error| self.failed(error))?;
        store.file.sync_data().map_err(|source| StateError::Io {
            action: "sync",
            path: self.path.join("db"),
            source,
        })
    }
}

impl Store {
    /// Opens or creates the store in the folder `path`; a damaged one is set aside first.
    fn open(path: &Path, bounds: Bounds) -> Result<(Self, Option<SetAside>), StateError> {
        let mut damaged = None;
        if let Some(reason) = in_the_way(path)? {
            damaged = Some(SetAside { path: set_aside(path)?, reason: reason.to_owned() });
        }
        let db = match open_store(path)? {
            Ok(db) => db,
            Err(reason) => {
                let aside = set_aside(path)?;
                damaged = Some(SetAside { path: aside, reason });
                open_store(path)?.map_err(|reason| StateError::Store {
                    path: path.to_owned(),
                    source: sled::Error::Unsupported(reason),
                })?
            }
        };
        let failed = |source| StateError::Store { path: path.to_owned(), source };
        let tree = |name| db.open_tree(name).map_err(failed);
        let (checkpoints, failures) = (tree("checkpoints")?, tree("failures")?);
        let (held, released, listings) = (tree("held")?, tree("released")?, tree("listings")?);
        let journal = Journal::new(tree("journal")?, bounds);
        let file = path.join("db");
        let file = File::open(&file).map_err(|source| StateError::Io {
            action: "open",
            path: file,
            source,
        })?;
        Ok((Self { checkpoints, failures, held, released, listings, journal, file, db }, damaged))
    }
}

/// What stands in the place of the state's folder, or of its file, if it is something else. A link
/// is not followed.
fn in_the_way(path: &Path) -> Result<Option<&'static str>, StateError> {
    let look = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { action: "look at", path: path.to_owned(), source }),
    };
    Ok(match look(path)? {
        None => None,
        Some(folder) if !folder.is_dir() => Some("it is not a folder"),
        Some(_) => match look(&path.join("db"))? {
            Some(file) if !file.is_file() => Some("its `db` is not a file"),
            _ => None,
        },
    })
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

/// Opens sled. The inner error says that the store is damaged; the outer one that the file system
/// failed, which setting the store aside would not mend.
fn open_store(path: &Path) -> Result<Result<sled::Db, String>, StateError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // Every commit is flushed by us.
        .flush_every_ms(None);
    // sled panics on some damaged files. Its message would only alarm: the damage is reported by us.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
    std::panic::set_hook(hook);
    match opened {
        Ok(Ok(db)) => Ok(Ok(db)),
        Ok(Err(sled::Error::Io(source))) => {
            Err(StateError::Store { path: path.to_owned(), source: sled::Error::Io(source) })
        }
        Ok(Err(error)) => Ok(Err(error.to_string())),
        Err(_) => Ok(Err("its files are damaged".to_owned())),
    }
}

/// Moves a damaged state out of the way, so that somebody can look at it.
fn set_aside(path: &Path) -> Result<PathBuf, StateError> {
    let aside = path.with_extension(format!("damaged-{}", Timestamp::now().as_millisecond()));
    std::fs::rename(path, &aside).map_err(|source| StateError::Io {
        action: "move aside",
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

impl Bounds {
    /// What a mirror keeps unless told otherwise.
    pub const DEFAULT: Self = Self { events: 100_000, age: Duration::from_secs(7 * 24 * 60 * 60) };
}

#[cfg(test)]
pub(crate) mod tests;

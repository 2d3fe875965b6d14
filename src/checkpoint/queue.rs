//! Commits that wait for their turn.

use std::collections::HashSet;
use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sled::transaction::{TransactionalTree, UnabortableTransactionError};

use super::commit::{Commit, encode, failure_key};
use super::error::StateError;
use super::journal::JournalRecord;
use crate::document::CollectionName;

/// The events of a commit. They get their numbers when the commit's turn comes.
pub struct NewEvents {
    pub(super) count: usize,
    pub(super) number: Box<dyn FnOnce(u64) -> Numbered + Send>,
}

/// Events with their numbers.
pub struct Numbered {
    /// The events as the journal stores them.
    pub records: Vec<JournalRecord>,
    /// Emits the events, once they are durable. It must not wait for anything.
    pub emit: Box<dyn FnOnce() + Send>,
}

impl NewEvents {
    /// `count` events, to which `number` gives consecutive numbers from the given one on.
    pub fn new(count: usize, number: impl FnOnce(u64) -> Numbered + Send + 'static) -> Self {
        Self { count, number: Box::new(number) }
    }
}

/// The most events, failures and held-back deletions of commits that are made together: not more
/// than a full batch has, because the disk must have room for them.
const TOGETHER: usize = 2_000;

/// The commits that wait for their turn.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    /// Notified when commits have ended.
    pub(super) ended: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub waiting: Vec<Waiting>,
    /// Whether somebody commits.
    pub is_busy: bool,
}

pub(super) struct Waiting {
    pub name: CollectionName,
    pub encoded: Encoded,
    pub events: NewEvents,
    pub done: Done,
}

/// Receives the change in the number of held-back deletions.
pub(super) type Done = Sender<Result<i64, StateError>>;

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.name).field(&self.events.count).finish()
    }
}

impl Queue {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes commits that wait, the first one always. Of each collection it takes one: a commit may
    /// remove what the one before it has added.
    pub(super) fn take(&self) -> Vec<Waiting> {
        let (mut names, mut values) = (HashSet::new(), 0);
        let mut state = self.state();
        let fits = |one: &mut Waiting| {
            let Encoded { failed, mended, held, unheld, .. } = &one.encoded;
            let changes = failed.len() + mended.len() + held.len() + unheld.len();
            let more = 1 + one.events.count + changes;
            let fits =
                names.insert(one.name.clone()) && (names.len() == 1 || values + more <= TOGETHER);
            values += if fits { more } else { 0 };
            fits
        };
        state.waiting.extract_if(.., fits).collect()
    }

    /// The number of commits that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }
}

/// Held while somebody commits. Dropping it lets the next one commit, even after a panic.
pub(super) struct Busy<'a>(pub &'a Queue);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state().is_busy = false;
        self.0.ended.notify_all();
    }
}

/// A commit as the store takes it.
pub(super) struct Encoded {
    checkpoint: Vec<u8>,
    pub forget_failures: bool,
    /// Keys of failures to remove.
    pub mended: Vec<Vec<u8>>,
    failed: Vec<(Vec<u8>, Vec<u8>)>,
    unheld: Vec<Vec<u8>>,
    held: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Encoded {
    pub fn new(name: &CollectionName, commit: &Commit) -> Result<Self, sled::Error> {
        let key = |key: &[&[u8]]| failure_key(name, &key.concat());
        let failed = commit.failed.iter().map(|one| Ok((key(&[&one.key()]), encode(one)?)));
        let held = commit.held.iter();
        let held = held.map(|one| Ok((key(&[one.document.as_str().as_bytes()]), encode(one)?)));
        let mended = commit.mended.iter().map(|id| key(&[b"d", id.as_str().as_bytes()]));
        Ok(Self {
            checkpoint: encode(&commit.checkpoint)?,
            forget_failures: commit.forget_failures,
            mended: mended.collect(),
            failed: failed.collect::<Result<_, sled::Error>>()?,
            unheld: commit.unheld.iter().map(|id| key(&[id.as_str().as_bytes()])).collect(),
            held: held.collect::<Result<_, sled::Error>>()?,
        })
    }

    /// Returns the change in the number of held-back deletions.
    pub fn insert(
        &self,
        name: &CollectionName,
        [checkpoints, failures, held]: [&TransactionalTree; 3],
    ) -> Result<i64, UnabortableTransactionError> {
        checkpoints.insert(name.as_str(), self.checkpoint.as_slice())?;
        for key in &self.mended {
            failures.remove(key.as_slice())?;
        }
        for (key, value) in &self.failed {
            failures.insert(key.as_slice(), value.as_slice())?;
        }
        let mut more = 0;
        for key in &self.unheld {
            more -= i64::from(held.remove(key.as_slice())?.is_some());
        }
        for (key, value) in &self.held {
            more += i64::from(held.insert(key.as_slice(), value.as_slice())?.is_none());
        }
        Ok(more)
    }
}

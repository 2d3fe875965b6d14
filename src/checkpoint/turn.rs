//! Commits: events, checkpoints, failures and held deletions become durable together.
//!
//! A commit that finds nobody committing begins at once. Those that come meanwhile wait, and the next
//! one of them commits all that wait: one transaction, one flush. Then it emits their events, in the
//! order of their numbers.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sled::Transactional as _;
use sled::transaction::{TransactionError, TransactionalTree, UnabortableTransactionError};

use super::contained::Escaped;
use super::numbers::HighWater;
use super::store::Trees;
use super::{Checkpoints, Commit, Record, StateError, encode, failure_key, journal, prefix};
use crate::document::CollectionName;
use crate::trial;

/// The events of a commit. They get their numbers when the commit's turn comes.
pub struct NewEvents {
    count: usize,
    number: Box<dyn FnOnce(u64) -> Numbered + Send>,
}

/// Events with their numbers.
pub struct Numbered {
    /// The events as the journal stores them.
    pub records: Vec<Record>,
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
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Waiting>,
    /// Whether somebody commits.
    is_busy: bool,
}

struct Waiting {
    name: CollectionName,
    encoded: Encoded,
    events: NewEvents,
    done: Sender<Result<i64, StateError>>,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.name).field(&self.events.count).finish()
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes commits that wait, the first one always. Of each collection it takes one: a commit may
    /// remove what the one before it has added.
    fn take(&self) -> Vec<Waiting> {
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
struct Busy<'a>(&'a Queue);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state().is_busy = false;
        self.0.ended.notify_all();
    }
}

impl Checkpoints {
    /// Makes a commit durable. Returns the change in the number of held-back deletions.
    pub fn commit(&self, name: &CollectionName, commit: &Commit) -> Result<i64, StateError> {
        let number = |_| Numbered { records: Vec::new(), emit: Box::new(|| ()) };
        self.commit_with(name, commit, NewEvents::new(0, number))
    }

    /// Makes a commit and its events durable, and then emits the events. Numbers, commits and events
    /// have one order over all collections. Returns the change in the number of held-back deletions.
    pub fn commit_with(
        &self,
        name: &CollectionName,
        commit: &Commit,
        events: NewEvents,
    ) -> Result<i64, StateError> {
        let encoded = Encoded::new(name, commit).map_err(|error| self.failed(error))?;
        let (done, told) = channel();
        let mut queue = self.queue.state();
        queue.waiting.push(Waiting { name: name.clone(), encoded, events, done });
        loop {
            match told.try_recv() {
                Ok(result) => return result,
                Err(TryRecvError::Disconnected) => {
                    let what = Escaped::Stuck("a commit was abandoned".to_owned());
                    return Err(self.escaped(what));
                }
                Err(TryRecvError::Empty) => {}
            }
            if queue.is_busy {
                queue = self.queue.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.is_busy = true;
            drop(queue);
            let busy = Busy(&self.queue);
            self.commit_all();
            drop(busy);
            queue = self.queue.state();
        }
    }

    /// Commits all that waits.
    fn commit_all(&self) {
        let mut numbers = self.numbers();
        let group = self.queue.take();
        let mut done = Vec::with_capacity(group.len());
        let mut commits = Vec::with_capacity(group.len());
        for one in group {
            done.push(one.done);
            commits.push((one.name, one.encoded, one.events));
        }
        // Somebody who has been abandoned is not told.
        match self.commit_together(&mut numbers, commits) {
            Ok(more) => done.iter().zip(more).for_each(|(done, more)| drop(done.send(Ok(more)))),
            Err(error) => done.iter().for_each(|done| drop(done.send(Err(error.clone())))),
        }
    }

    fn commit_together(
        &self,
        numbers: &mut HighWater,
        commits: Vec<(CollectionName, Encoded, NewEvents)>,
    ) -> Result<Vec<i64>, StateError> {
        self.check_room(&*self.store()?)?;
        let count = commits.iter().map(|(_, _, events)| events.count as u64).sum();
        let mut first = match count {
            0 => 0,
            count => numbers.draw(count)?,
        };
        let (mut records, mut emits) = (Vec::new(), Vec::with_capacity(commits.len()));
        let mut encoded = Vec::with_capacity(commits.len());
        for (name, one, events) in commits {
            let numbered = (events.number)(first);
            first += events.count as u64;
            records.extend(numbered.records);
            emits.push(numbered.emit);
            encoded.push((name, one));
        }
        if encoded.len() > 1 {
            tracing::debug!("{} commits are made together", encoded.len());
        }
        let now = self.clock.stamp();
        let chunks = journal::chunks(&records, now);
        let last = records.last().map(|record| record.number);
        let more = self.write(move |trees| {
            let more = insert(trees, encoded, &chunks)?;
            if let Some(last) = last {
                trees.journal.trim(last, now)?;
            }
            Ok(more)
        })?;
        trial::pass("flush");
        self.flush()?;
        trial::committed(&self.path);
        if let Some(last) = last {
            self.last.store(last, Ordering::Release);
        }
        emits.into_iter().for_each(|emit| emit());
        Ok(more)
    }
}

/// A commit as the store takes it.
struct Encoded {
    checkpoint: Vec<u8>,
    forget_failures: bool,
    /// Keys of failures to remove.
    mended: Vec<Vec<u8>>,
    failed: Vec<(Vec<u8>, Vec<u8>)>,
    unheld: Vec<Vec<u8>>,
    held: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Encoded {
    fn new(name: &CollectionName, commit: &Commit) -> Result<Self, sled::Error> {
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
    fn insert(
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

/// Writes commits of different collections, and their events, in one transaction.
fn insert(
    trees: &Trees,
    mut commits: Vec<(CollectionName, Encoded)>,
    chunks: &[journal::Chunk],
) -> Result<Vec<i64>, sled::Error> {
    for (name, commit) in commits.iter_mut().filter(|(_, commit)| commit.forget_failures) {
        for key in trees.failures.scan_prefix(prefix(name)).keys() {
            commit.mended.push(key?.to_vec());
        }
    }
    let stores = (&trees.checkpoints, &trees.failures, &trees.held, trees.journal.tree());
    let inserted = stores.transaction(|(checkpoints, failures, held, journal)| {
        for (key, value) in chunks {
            journal.insert(key, value.as_slice())?;
        }
        let trees = [checkpoints, failures, held];
        let more = commits.iter().map(|(name, commit)| commit.insert(name, trees));
        Ok(more.collect::<Result<Vec<i64>, _>>()?)
    });
    inserted.map_err(|error: TransactionError<()>| match error {
        TransactionError::Storage(error) => error,
        TransactionError::Abort(()) => {
            sled::Error::ReportableBug("a commit was aborted".to_owned())
        }
    })
}

//! Commits: events, checkpoints, failures and held deletions become durable together.
//!
//! A commit that finds nobody committing begins at once. Those that come meanwhile wait, and the next
//! one of them commits all that wait: one transaction, one flush. Then it emits their events, in the
//! order of their numbers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{TryRecvError, channel};

use sled::Transactional as _;
use sled::transaction::TransactionError;

use super::commit::{Commit, prefix};
use super::numbers::HighWater;
use super::queue::{Busy, Done, Encoded, NewEvents, Numbered, Waiting};
use super::store::Trees;
use super::{Checkpoints, StateError, journal};
use crate::document::CollectionName;
use crate::trial;

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
                Err(TryRecvError::Disconnected) => return Err(StateError::Abandoned),
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
            done.push(Some(one.done));
            commits.push((one.name, one.encoded, one.events));
        }
        let made = self.commit_together(&mut numbers, commits, &mut done);
        let done = done.into_iter().flatten();
        // Somebody who has been abandoned is not told.
        match made {
            Ok(more) => done.zip(more).for_each(|(done, more)| drop(done.send(Ok(more)))),
            Err(error) => done.for_each(|done| drop(done.send(Err(error.clone())))),
        }
    }

    /// Makes these commits, but those whose events panic when they get their numbers, which leave `done`.
    fn commit_together(
        &self,
        numbers: &mut HighWater,
        commits: Vec<(CollectionName, Encoded, NewEvents)>,
        done: &mut [Option<Done>],
    ) -> Result<Vec<i64>, StateError> {
        self.check_room(&*self.store()?)?;
        let count = commits.iter().map(|(_, _, events)| events.count as u64).sum();
        let mut first = match count {
            0 => 0,
            count => numbers.draw(count)?,
        };
        let (mut records, mut emits) = (Vec::new(), Vec::with_capacity(commits.len()));
        let mut encoded = Vec::with_capacity(commits.len());
        for ((name, one, events), done) in commits.into_iter().zip(done) {
            let numbering = AssertUnwindSafe(move || (events.number)(first));
            first += events.count as u64;
            let Ok(numbered) = catch_unwind(numbering) else {
                // The others are committed.
                *done = None;
                continue;
            };
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
        let (more, oldest) = self.write(move |trees| {
            let more = insert(trees, encoded, &chunks)?;
            if let Some(last) = last {
                trees.journal.trim(last, now)?;
            }
            Ok((more, trees.journal.first()?))
        })?;
        trial::pass("flush");
        self.flush()?;
        trial::committed(&self.path);
        if let Some(last) = last {
            self.last.store(last, Ordering::Release);
            self.first.store(oldest.unwrap_or(0), Ordering::Release);
        }
        for emit in emits {
            // The commit is durable, and its events are in the journal.
            let _panicked = catch_unwind(AssertUnwindSafe(emit));
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

//! One commit at a time: events, checkpoint, failures and held deletions become durable together.

use std::sync::MutexGuard;

use sled::Transactional as _;
use sled::transaction::{ConflictableTransactionError, TransactionError};

use super::numbers::HighWater;
use super::{Checkpoints, Commit, Record, StateError, encode, failure_key, journal, prefix};
use crate::document::{CollectionName, DocumentId};
use crate::trial;

/// The turn to commit: nobody else commits, or assigns numbers, while it is held.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(super) state: &'a Checkpoints,
    pub(super) numbers: MutexGuard<'a, HighWater>,
}

impl Turn<'_> {
    /// The first of `count` numbers for events, none of which was ever assigned before.
    pub fn draw(&mut self, count: usize) -> Result<u64, StateError> {
        self.numbers.draw(count as u64)
    }

    /// Makes a commit and its events durable. `records` have consecutive numbers of this turn.
    /// Returns the change in the number of held-back deletions.
    pub fn commit(
        &self,
        name: &CollectionName,
        commit: &Commit,
        records: &[Record],
    ) -> Result<i64, StateError> {
        let state = self.state;
        state.check_room(&*state.store()?)?;
        let now = state.clock.stamp();
        let chunks = journal::chunks(records, now);
        let last = records.last().map(|record| record.number);
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
        let name = name.clone();
        let more = state.write(move |trees| {
            let stores = (&trees.checkpoints, &trees.failures, &trees.held, trees.journal.tree());
            let more = stores.transaction(|(checkpoints, failures, held, journal)| {
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
            });
            let more = more.map_err(|error| match error {
                TransactionError::Storage(error) => error,
                TransactionError::Abort(()) => {
                    sled::Error::ReportableBug("a commit was aborted".to_owned())
                }
            })?;
            if let Some(last) = last {
                trees.journal.trim(last, now)?;
            }
            Ok(more)
        })?;
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
            return self.state.read(|trees| {
                let keys = trees.failures.scan_prefix(prefix(name)).keys();
                keys.map(|key| Ok(key?.to_vec())).collect()
            });
        }
        let key = |id: &DocumentId| failure_key(name, &[b"d", id.as_str().as_bytes()].concat());
        Ok(commit.mended.iter().map(key).collect())
    }
}

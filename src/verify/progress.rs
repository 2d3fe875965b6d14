//! How far a verification is, for somebody who watches it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is done to a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Every stored byte of it is read.
    Read,
    /// The source lists it.
    List,
}

/// How far one collection is.
#[derive(Clone, Debug)]
pub struct Step {
    /// The collection.
    pub collection: String,
    /// What is done to it.
    pub work: Work,
    /// Documents that have been read or listed.
    pub documents: u64,
    /// Documents that there are, where that is known.
    pub total: Option<u64>,
    /// Bytes that have been read of the mirror.
    pub bytes: u64,
    /// Whether it is done.
    pub ended: bool,
}

/// How far a verification is, a step for each collection and each kind of work.
#[derive(Debug, Default)]
pub struct VerifyProgress(Mutex<Vec<Step>>);

impl VerifyProgress {
    /// The steps that have begun, in their order.
    pub fn steps(&self) -> Vec<Step> {
        self.all().clone()
    }

    /// Begins a step, and gives its number.
    pub(super) fn begin(&self, collection: &str, work: Work, total: Option<u64>) -> usize {
        let collection = collection.to_owned();
        let mut all = self.all();
        all.push(Step { collection, work, documents: 0, total, bytes: 0, ended: false });
        all.len() - 1
    }

    /// Sets how many documents there are.
    pub(super) fn count(&self, step: usize, total: u64) {
        if let Some(step) = self.all().get_mut(step) {
            step.total = Some(total);
        }
    }

    /// Adds to what a step has done.
    pub(super) fn add(&self, step: usize, documents: u64, bytes: u64) {
        if let Some(step) = self.all().get_mut(step) {
            step.documents += documents;
            step.bytes += bytes;
        }
    }

    /// Ends a step.
    pub(super) fn end(&self, step: usize) {
        if let Some(step) = self.all().get_mut(step) {
            step.ended = true;
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

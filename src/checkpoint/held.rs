//! Deletions that the brake holds back, and collections whose deletions were released: the tree
//! cannot record these.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Checkpoints, StateError, prefix};
use crate::document::{CollectionName, DocumentId, Position, Revision};

/// A document that the source no longer holds, and the mirror still does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The document.
    pub document: DocumentId,
    /// The revision that deleted it; if it was only missing from a listing, the revision in the
    /// mirror.
    pub revision: Revision,
    /// The position of the deletion in the feed, if the feed gave one.
    pub position: Option<Position>,
    /// Whether it was missing from a listing, so that there is no tombstone.
    pub unlisted: bool,
    /// The time since which it is held back.
    pub since: Timestamp,
}

impl Checkpoints {
    /// The first `limit` held-back deletions of a collection.
    pub fn held_back(
        &self,
        name: &CollectionName,
        limit: usize,
    ) -> Result<Vec<HeldBack>, StateError> {
        self.read(|trees| {
            let mut held = Vec::new();
            for value in trees.held.scan_prefix(prefix(name)).values().take(limit) {
                held.extend(serde_json::from_slice::<HeldBack>(&value?).ok());
            }
            Ok(held)
        })
    }

    /// The number of held-back deletions of a collection. Reads all of them.
    pub fn count_held_back(&self, name: &CollectionName) -> Result<u64, StateError> {
        self.read(|trees| {
            let mut keys = trees.held.scan_prefix(prefix(name)).keys();
            keys.try_fold(0, |count, key| key.map(|_| count + 1))
        })
    }

    /// Records durably that the held-back deletions of a collection are released.
    pub fn release(&self, name: &CollectionName) -> Result<(), StateError> {
        self.check_room(&*self.store()?)?;
        let name = name.clone();
        self.write(move |trees| trees.released.insert(name.as_str(), &[]))?;
        self.flush()
    }

    /// Whether the held-back deletions of a collection are released.
    pub fn is_released(&self, name: &CollectionName) -> Result<bool, StateError> {
        self.read(|trees| trees.released.contains_key(name.as_str()))
    }

    /// Records durably that the released deletions are applied.
    pub fn end_release(&self, name: &CollectionName) -> Result<(), StateError> {
        let name = name.clone();
        match self.write(move |trees| trees.released.remove(name.as_str()))? {
            Some(_) => self.flush(),
            None => Ok(()),
        }
    }
}

//! Deletions that the brake holds back, and collections whose deletions were released: what the
//! tree cannot say of itself. It must not know why a deletion is held back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Checkpoints, StateError, prefix};
use crate::document::{CollectionName, DocumentId, Position, Revision};

/// A document that the source holds no more, and the mirror still does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// Which document.
    pub document: DocumentId,
    /// The revision that deleted it, or, where only a listing lacked it, that of the mirror.
    pub revision: Revision,
    /// Where the feed told of the deletion, where it gave a place.
    pub position: Option<Position>,
    /// Whether a listing lacked it, so that there is no tombstone.
    pub unlisted: bool,
    /// Since when.
    pub since: Timestamp,
}

impl Checkpoints {
    /// The first `limit` deletions of a collection that are held back.
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

    /// How many deletions of a collection are held back. Reads all of them.
    pub fn count_held_back(&self, name: &CollectionName) -> Result<u64, StateError> {
        self.read(|trees| {
            let mut keys = trees.held.scan_prefix(prefix(name)).keys();
            keys.try_fold(0, |count, key| key.map(|_| count + 1))
        })
    }

    /// Notes durably that what is held back of a collection may be deleted.
    pub fn release(&self, name: &CollectionName) -> Result<(), StateError> {
        self.check_room(&*self.store()?)?;
        let name = name.clone();
        self.write(move |trees| trees.released.insert(name.as_str(), &[]))?;
        self.flush()
    }

    /// Whether what is held back of a collection may be deleted.
    pub fn is_released(&self, name: &CollectionName) -> Result<bool, StateError> {
        self.read(|trees| trees.released.contains_key(name.as_str()))
    }

    /// Notes durably that what was released is deleted.
    pub fn end_release(&self, name: &CollectionName) -> Result<(), StateError> {
        let name = name.clone();
        match self.write(move |trees| trees.released.remove(name.as_str()))? {
            Some(_) => self.flush(),
            None => Ok(()),
        }
    }
}

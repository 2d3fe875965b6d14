//! Deletions that the brake holds back, and collections whose deletions were released: the tree
//! cannot record these.

use std::ops::Bound;

use super::commit::prefix;
use super::{Checkpoints, HeldBack, StateError};
use crate::document::{CollectionName, DocumentId};

impl Checkpoints {
    /// The first `limit` held-back deletions of a collection.
    pub fn held_back(
        &self,
        name: &CollectionName,
        limit: usize,
    ) -> Result<Vec<HeldBack>, StateError> {
        self.held_back_after(name, None, limit)
    }

    /// The first `limit` held-back deletions of a collection of documents whose ids come after
    /// `after`, by id.
    pub fn held_back_after(
        &self,
        name: &CollectionName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<HeldBack>, StateError> {
        let prefix = prefix(name);
        let from = match after {
            Some(id) => Bound::Excluded([&prefix, id.as_str().as_bytes()].concat()),
            None => Bound::Included(prefix.clone()),
        };
        self.read(|trees| {
            let mut held = Vec::new();
            for entry in trees.held.range((from, Bound::Unbounded)).take(limit) {
                let (key, value) = entry?;
                if !key.starts_with(&prefix) {
                    break;
                }
                held.extend(serde_json::from_slice::<HeldBack>(&value).ok());
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

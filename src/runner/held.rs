//! Documents whose deletion is held back; `restore --undelete` asks for them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::session::Watcher;
use crate::checkpoint::{Checkpoints, HeldBack, StateError};
use crate::document::{CollectionName, DocumentId};

/// A document whose deletion is held back, so that the mirror still has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldDocument {
    /// Its collection.
    pub collection: CollectionName,
    /// Its id.
    pub document: DocumentId,
    /// The time since which it is held back.
    pub since: Timestamp,
}

impl HeldDocument {
    /// All documents of a mirror whose deletion is held back.
    pub fn all(state: &Checkpoints) -> Result<Vec<Self>, StateError> {
        let mut all = Vec::new();
        for collection in state.collections()? {
            let held = state.held_back(&collection, usize::MAX)?.into_iter();
            all.extend(held.map(|held| Self::of(&collection, held)));
        }
        Ok(all)
    }

    fn of(collection: &CollectionName, HeldBack { document, since, .. }: HeldBack) -> Self {
        Self { collection: collection.clone(), document, since }
    }
}

impl Watcher {
    /// The first `limit` documents of a collection whose deletion is held back and whose ids come after
    /// `after`, by id.
    pub fn held_of(
        &self,
        collection: &CollectionName,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<HeldDocument>, StateError> {
        let held = self.shared.checkpoints.held_back_after(collection, after, limit)?.into_iter();
        Ok(held.map(|held| HeldDocument::of(collection, held)).collect())
    }

    /// All documents whose deletion is held back.
    pub fn held(&self) -> Result<Vec<HeldDocument>, StateError> {
        HeldDocument::all(&self.shared.checkpoints)
    }
}

//! Releases the deletions that the brake holds back: records the release durably, so that the
//! pipeline of the running process, or the next run, applies them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::order::Order;
use super::session::Watcher;
use crate::checkpoint::{Checkpoints, StateError};
use crate::document::CollectionName;

/// The result of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// The number of deletions that were held back.
    pub held_back: u64,
    /// The number of them that are still pending.
    pub left: u64,
}

impl Release {
    /// Releases the held-back deletions of a collection in a mirror at rest: the next run applies
    /// them. `None` if the mirror has no such collection.
    pub fn at_rest(state: &Checkpoints, name: &CollectionName) -> Result<Option<Self>, StateError> {
        if state.checkpoint(name)?.is_none() {
            return Ok(None);
        }
        let held_back = state.count_held_back(name)?;
        if held_back > 0 {
            state.release(name)?;
        }
        Ok(Some(Self { held_back, left: held_back }))
    }
}

impl Watcher {
    /// Releases the held-back deletions of a collection, and waits a while until they are applied.
    /// `None` if there is no such collection.
    pub async fn release(&self, name: &CollectionName) -> Result<Option<Release>, StateError> {
        /// Deletions that are not applied by then are applied later.
        const PATIENCE: Duration = Duration::from_secs(5);
        let brake = self.shared.members().get(name).and_then(|member| member.brake.clone());
        let Some(released) = Release::at_rest(&self.shared.checkpoints, name)? else {
            return Ok(None);
        };
        let told = self.shared.orders.send(Order::Release(name.clone()));
        let Some(brake) = brake.filter(|_| told.is_ok() && released.held_back > 0) else {
            return Ok(Some(released));
        };
        // Too late, or no run comes: the state remembers the release.
        let _late = tokio::time::timeout(PATIENCE, brake.is_free()).await;
        Ok(Some(Release { left: brake.held(), ..released }))
    }
}

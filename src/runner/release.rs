//! Releases the deletions that the brake holds back: records the release durably, so that the
//! pipeline of the running process, or the next run, applies them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Watcher;
use super::order::Order;
use crate::checkpoint::{Checkpoints, StateError};
use crate::document::CollectionName;
use crate::pipeline::Pipeline;

/// The result of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        let member = self.shared.members().get(name).cloned();
        let pipeline = member.and_then(|member| member.pipeline);
        let Some(released) = Release::at_rest(&self.shared.checkpoints, name)? else {
            return Ok(None);
        };
        let Some(pipeline) = pipeline.filter(|_| released.held_back > 0) else {
            // If it sleeps, it wakes up and applies them.
            let _ended = self.shared.orders.send(Order::Visit(name.clone()));
            return Ok(Some(released));
        };
        Pipeline::release(&pipeline);
        let mut reports = pipeline.watch();
        let done = reports.wait_for(|report| report.held_back == 0);
        // Too late, or the pipeline has ended: the state remembers the release.
        let _late = tokio::time::timeout(PATIENCE, done).await.map(drop);
        let left = pipeline.watch().borrow().held_back;
        Ok(Some(Release { left, ..released }))
    }
}

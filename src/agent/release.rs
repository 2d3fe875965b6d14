//! What the brake on mass deletion holds back, released: noted durably, and then deleted by the
//! pipeline of the running process, or of the next run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Watcher;
use crate::checkpoint::{Checkpoints, StateError};
use crate::document::CollectionName;
use crate::pipeline::Pipeline;

/// What came of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// How many deletions were held back.
    pub held_back: u64,
    /// How many of them are still to be made.
    pub left: u64,
}

impl Release {
    /// Releases what is held back of a collection of a mirror at rest: the next run deletes it.
    /// `None` where the mirror has no such collection.
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
    /// Releases what is held back of a collection, and waits a while until it is deleted. `None`
    /// where there is no such collection.
    pub async fn release(&self, name: &CollectionName) -> Result<Option<Release>, StateError> {
        /// What is not deleted by then is deleted all the same.
        const PATIENCE: Duration = Duration::from_secs(5);
        let member = self.shared.members().get(name).cloned();
        let pipeline = member.and_then(|member| member.failures);
        let Some(released) = Release::at_rest(&self.shared.checkpoints, name)? else {
            return Ok(None);
        };
        let Some(pipeline) = pipeline.filter(|_| released.held_back > 0) else {
            return Ok(Some(released));
        };
        Pipeline::release(&pipeline);
        let mut reports = pipeline.watch();
        let done = reports.wait_for(|report| report.held_back == 0);
        // Late or ended: the state remembers it.
        let _late = tokio::time::timeout(PATIENCE, done).await.map(drop);
        let left = pipeline.watch().borrow().held_back;
        Ok(Some(Release { left, ..released }))
    }
}

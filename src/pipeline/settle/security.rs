//! The security object of a collection: written if it has changed, with an event.

use bytes::Bytes;
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::settler::Settler;
use crate::checkpoint::Commit;
use crate::document::{DocumentId, Revision};
use crate::pipeline::events::{Meta, Told};
use crate::pipeline::failures::{self, blame};
use crate::pipeline::{Pipeline, PipelineError};
use crate::source::retry::attempts;

impl Pipeline {
    /// Fetches the security object again, and writes it whatever the tree holds. `false` if the
    /// source has none.
    pub async fn repair_security(&self) -> Result<bool, PipelineError> {
        let policy = &self.options.retry;
        let Some(security) = attempts(policy, || self.source.security_object()).await? else {
            return Ok(false);
        };
        self.settle_security_apart(security).await.map(|()| true)
    }

    /// Writes the security object apart from the feed.
    async fn settle_security_apart(&self, security: Bytes) -> Result<(), PipelineError> {
        let mut settler = Settler::apart(self)?;
        let settle = move || {
            settler.write_security(&security)?;
            settler.close()
        };
        spawn_blocking(settle).await?
    }
}

impl Settler {
    /// Stores the security object, and emits an event if it has changed.
    pub(super) fn security(&mut self, security: &[u8]) -> Result<(), PipelineError> {
        let collection = self.pipeline.collection.clone();
        let in_doubt = std::mem::take(&mut self.in_doubt);
        match (collection.holds_security(security)?, in_doubt) {
            (true, false) => Ok(()),
            (true, true) => self.tell_of_security(),
            (false, _) => match self.write_security(security) {
                Err(PipelineError::Mirror(error)) => {
                    let reason = blame(&collection, error)?;
                    self.pipeline.note_failures(vec![failures::of_security(reason)]);
                    let failures = self.pipeline.failures.failed();
                    self.pipeline.reporter.update(|report| report.failures = failures);
                    Ok(())
                }
                written => {
                    self.pipeline.failures.forget_security();
                    written
                }
            },
        }
    }

    fn write_security(&mut self, security: &[u8]) -> Result<(), PipelineError> {
        self.open(Timestamp::now())?;
        self.pipeline.collection.write_security(security)?;
        self.tell_of_security()
    }

    fn tell_of_security(&mut self) -> Result<(), PipelineError> {
        let (id, revision) = (DocumentId::from("_security"), Revision::from(""));
        let meta = Meta { id, revision, position: None, deleted: false };
        let told = Told { meta, files: vec![self.pipeline.collection.security_path()] };
        self.commit(Commit::new(self.checkpoint.clone()), vec![told])
    }
}

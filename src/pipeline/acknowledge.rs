//! Tells the source which position is durable, so that it may discard its history up to there.
//!
//! Beside the batches, so that a source that is slow to listen delays no document.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::PipelineError;
use crate::document::{CollectionName, Position};
use crate::source::outage::Said;
use crate::source::{Feed, SourceError};

/// The longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest wait for an answer once the run ends.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// Acknowledges the newest position that was committed, until no more commits come. A failure is
/// logged: the next acknowledgement counts for it.
pub async fn acknowledge(
    feed: Arc<dyn Feed>,
    collection: CollectionName,
    mut committed: watch::Receiver<Option<Position>>,
    halt: CancellationToken,
) -> Result<(), PipelineError> {
    let mut said = Said::default();
    while committed.changed().await.is_ok() {
        let Some(position) = committed.borrow_and_update().clone() else { continue };
        let ending = async {
            halt.cancelled().await;
            sleep(LAST_PATIENCE).await;
        };
        let silent = || Err(SourceError::transient("the source has not answered"));
        let answer = tokio::select! {
            answer = feed.acknowledge(&position) => answer,
            () = sleep(PATIENCE) => silent(),
            () = ending => silent(),
        };
        let Err(error) = answer else {
            said = Said::default();
            continue;
        };
        let why = format!("the source was not told what it may discard: {error}");
        match said.is_due(&why) {
            true => tracing::warn!(%collection, "{why}"),
            false => tracing::debug!(%collection, "{why}"),
        }
    }
    Ok(())
}

//! Runs what reads the tree where that holds nothing else up.

use super::RestoreError;

/// Runs blocking work on a separate thread.
pub(super) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, RestoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RestoreError::Task(error.to_string()))
}

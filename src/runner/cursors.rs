//! The cursors of a running mirror: each change is durable before it is answered.

use std::sync::Arc;

use super::session::Watcher;
use crate::checkpoint::{
    Checkpoints, CursorError, CursorFilter, CursorStart, CursorStatus, StateError,
};
use crate::document::CursorName;
use crate::tree::MirrorError;

/// Why a cursor of a running mirror was not changed.
#[derive(Debug, thiserror::Error)]
pub enum CursorRefusal {
    /// The cursor, or the state.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// Another process has taken the mirror over.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl Watcher {
    /// All cursors, by name. Reads no disk.
    pub fn cursors(&self) -> Vec<CursorStatus> {
        self.shared.checkpoints.cursors()
    }

    /// One cursor. Reads no disk.
    pub fn cursor(&self, name: &CursorName) -> Option<CursorStatus> {
        self.shared.checkpoints.cursor(name)
    }

    /// Creates a cursor, and says whether it did.
    pub async fn create_cursor(
        &self,
        name: CursorName,
        start: CursorStart,
        filter: CursorFilter,
    ) -> Result<(CursorStatus, bool), CursorRefusal> {
        self.change(move |state| state.create_cursor(&name, start, filter)).await
    }

    /// Acknowledges all events up to this one.
    pub async fn acknowledge(
        &self,
        name: CursorName,
        event: u64,
    ) -> Result<CursorStatus, CursorRefusal> {
        self.change(move |state| state.acknowledge(&name, event)).await
    }

    /// Removes a cursor.
    pub async fn remove_cursor(&self, name: CursorName) -> Result<CursorStatus, CursorRefusal> {
        self.change(move |state| state.remove_cursor(&name)).await
    }

    /// Changes one after another: a disk that hangs takes one thread.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Checkpoints) -> Result<T, CursorError> + Send + 'static,
    ) -> Result<T, CursorRefusal> {
        let turn = Arc::clone(&self.shared.cursor_turn).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        let changed = tokio::task::spawn_blocking(move || {
            let changed = change(&shared.checkpoints)?;
            // What this process has written is lost if another one has taken over before.
            shared.mirror.check_epoch()?;
            drop(turn);
            Ok(changed)
        });
        changed.await.unwrap_or_else(|_| Err(CursorError::from(StateError::Abandoned).into()))
    }
}

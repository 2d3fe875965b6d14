//! Errors of the state, with the path and the remedy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contained::Escaped;
use super::copied;

/// An error of the state. Commits that are made together share it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// sled, or the file system below it.
    #[error("the state in {}: {source}", path.display())]
    Store {
        /// The state's folder.
        path: PathBuf,
        /// The error of sled.
        source: sled::Error,
    },
    /// sled cannot recover from a failure.
    #[error(
        "the state in {} failed ({}): check the disk and its free space, and run again",
        path.display(),
        match what {
            Escaped::Panicked(words) | Escaped::Stuck(words) => words,
        }
    )]
    Escaped {
        /// The state's folder.
        path: PathBuf,
        /// How it failed.
        what: Escaped,
    },
    /// A file operation on the state failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: Arc<std::io::Error>,
    },
    /// The state could not be copied for reading.
    #[error(
        "the state in {} cannot be copied into {} to be read ({source}): {}",
        path.display(),
        to.display(),
        copied::advice(source)
    )]
    Copy {
        /// The state's folder.
        path: PathBuf,
        /// The folder of temporary files.
        to: PathBuf,
        /// The error of the file system.
        source: Arc<std::io::Error>,
    },
    /// The disk is full: sled must not write now, because it may wait forever.
    #[error("the state in {} has no room: {free} bytes are left on its file system", path.display())]
    NoRoom {
        /// The state's folder.
        path: PathBuf,
        /// Bytes that are left.
        free: u64,
    },
    /// It failed, and has not been reopened yet.
    #[error("the state in {} is closed until its disk can be written again", path.display())]
    Closed {
        /// The state's folder.
        path: PathBuf,
    },
}

impl StateError {
    pub(super) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// Whether the disk is the cause, so that waiting may help.
    pub fn is_disk(&self) -> bool {
        match self {
            // sled only keeps the fact that the file system failed.
            Self::Store { source, .. } => matches!(source, sled::Error::Io(_)),
            // It panics where it does not expect a failure of the file system.
            Self::Escaped { .. } => true,
            Self::Io { .. } | Self::NoRoom { .. } | Self::Closed { .. } => true,
            Self::Copy { .. } => false,
        }
    }

    /// Whether the disk is full, so that removing files may help.
    pub fn is_full(&self) -> bool {
        let full = |error: &std::io::Error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        };
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { source, .. } => full(source),
            Self::Store { source: sled::Error::Io(error), .. } => full(error),
            _ => false,
        }
    }
}

//! What can be wrong with the state, in words that name the path and the remedy.

use std::path::PathBuf;

use super::contained::Escaped;
use super::copied;

/// What is wrong with the state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// sled, or the file system below it.
    #[error("the state in {}: {source}", path.display())]
    Store {
        /// The state's folder.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// sled did not come back from a failure.
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
    /// A file of the state.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// To be read without writing to it, it is copied.
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
        /// What the file system said.
        source: std::io::Error,
    },
    /// sled must not meet a full disk: it may wait for ever.
    #[error("the state in {} has no room: {free} bytes are left on its file system", path.display())]
    NoRoom {
        /// The state's folder.
        path: PathBuf,
        /// Bytes that are left.
        free: u64,
    },
    /// It failed, and could not be opened again yet.
    #[error("the state in {} is closed until its disk can be written again", path.display())]
    Closed {
        /// The state's folder.
        path: PathBuf,
    },
}

impl StateError {
    /// Whether the disk is at fault, so that waiting may mend it.
    pub fn is_disk(&self) -> bool {
        match self {
            // sled keeps no more of it than that the file system failed.
            Self::Store { source, .. } => matches!(source, sled::Error::Io(_)),
            // It does so where it does not expect the file system to fail.
            Self::Escaped { .. } => true,
            Self::Io { .. } | Self::NoRoom { .. } | Self::Closed { .. } => true,
            Self::Copy { .. } => false,
        }
    }

    /// Whether there is no room left, so that what is removed may mend it.
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

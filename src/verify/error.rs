//! Why a verification ends early.

use std::io;

use crate::source::SourceError;
use crate::tree::MirrorError;

/// Why a verification could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The mirror cannot be read at all.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The selection is empty or cannot be compared.
    #[error("{0}")]
    Selection(String),
    /// A temporary file failed: listings that are too large for memory go to temporary files.
    #[error(
        "a temporary file could not be used: {0}; free some space there, or set TMPDIR to another directory"
    )]
    Temporary(#[source] io::Error),
    /// It was told to end.
    #[error("the verification was ended before it was complete")]
    Cancelled,
}

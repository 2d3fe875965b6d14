//! Why a pipeline ended early.

use tokio::task::JoinError;

use super::report::Awaited;
use crate::checkpoint::StateError;
use crate::source::SourceError;
use crate::tree::MirrorError;

/// Why a pipeline ended early.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The source failed permanently.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The mirror on disk.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// An internal error.
    #[error("a task of the pipeline ended unexpectedly: {0}; please report this")]
    Task(#[from] JoinError),
    /// The source and the mirror have different counts: the feed is opened again as a full scan.
    #[error("{0}")]
    Disagrees(String),
    /// The feed has more rows that cannot be read than a catch-up passes by.
    #[error(
        "the run ended after {limit} {} that could not be read, and has read nothing from the {place} \
         on: repair the feed, or raise --max-failures (0 is no limit) and run it again",
        if *limit == 1 { "row" } else { "rows" }
    )]
    TooManyFailures {
        /// The number of rows that were passed by.
        limit: u64,
        /// The next such row.
        place: String,
    },
}

impl PipelineError {
    /// Whether the disk is the cause, so that waiting may help.
    pub fn is_disk(&self) -> bool {
        match self {
            Self::Mirror(error) => error.is_disk(),
            Self::State(error) => error.is_disk(),
            Self::Source(_) | Self::Task(_) | Self::Disagrees(_) | Self::TooManyFailures { .. } => {
                false
            }
        }
    }

    /// Whether the disk is full, so that deletions may help.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Mirror(error) => error.is_full(),
            Self::State(error) => error.is_full(),
            _ => false,
        }
    }

    /// What a pipeline waits for that ends with it.
    pub fn awaited(&self) -> Awaited {
        match self {
            Self::Source(_) => Awaited::Source,
            error if error.is_full() => Awaited::Room,
            _ => Awaited::Disk,
        }
    }

    /// Whether it concerns this collection alone, so that others can be worked on.
    pub fn is_of_collection(&self) -> bool {
        matches!(self, Self::Mirror(error) if error.is_of_collection())
    }
}

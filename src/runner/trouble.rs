//! What is known of a collection whose runs fail while the mirror follows its source.

use tokio::time::Instant;

use super::policy::Remedy;
use crate::pipeline::{Pauses, PipelineError};
use crate::source::outage::Said;

/// How the runs of a collection have failed.
pub(super) struct Trouble {
    pub remedy: Remedy,
    /// The pauses before the next tries, if there is one.
    pub pauses: Option<Pauses>,
    /// The time of the next try, if it is known.
    pub again: Option<Instant>,
    /// The last error, until the next run begins.
    pub error: Option<PipelineError>,
    /// What the log has said of it.
    pub said: Said,
}

impl Trouble {
    /// Whether the collection waits, and nothing that this process does helps it.
    pub fn is_hopeless(&self) -> bool {
        self.error.is_some() && self.remedy.is_hopeless()
    }
}

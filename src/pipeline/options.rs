//! The options of a pipeline.

use std::time::Duration;

use crate::document::DeletionLimit;
use crate::source::retry::RetryPolicy;
use crate::source::{Capabilities, Mode};

/// The options of a pipeline.
#[derive(Clone, Copy, Debug)]
pub struct PipelineOptions {
    /// Whether it ends when it has caught up.
    pub mode: Mode,
    /// When it tries again.
    pub retry: RetryPolicy,
    /// The interval at which failed documents are tried again while following.
    pub revisit: Duration,
    /// The limit on deletions; `None` is no limit.
    pub deletions: Option<DeletionLimit>,
    /// After this number of rows that cannot be read, a catch-up ends; `None` is no limit.
    pub max_failures: Option<u64>,
    /// What the source can do.
    pub capabilities: Capabilities,
}

//! How a mirror is verified while it runs.

use std::sync::Arc;
use std::time::Duration;

use super::tree_watch::TreeWatch;

/// How a mirror is verified while it runs.
#[derive(Clone, Debug)]
pub struct DriftOptions {
    /// Every document is verified once in this time.
    pub every: Duration,
    /// The most bytes that are read in a second; without it, as many as the period needs.
    pub rate: Option<u64>,
    /// Whether damaged documents are fetched again.
    pub repair: bool,
    /// What watches the folders, if anything does.
    pub watch: Option<Arc<TreeWatch>>,
}

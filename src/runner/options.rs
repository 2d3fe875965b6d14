//! The options of a session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::drift::DriftOptions;
use crate::document::DeletionLimit;
use crate::source::retry::RetryPolicy;
use crate::source::{Mode, SourceError, Store};

/// Opens a source once more.
#[derive(Clone)]
pub struct Reopen(Arc<dyn Fn() -> Result<Arc<dyn Store>, SourceError> + Send + Sync>);

impl Reopen {
    /// Opens it by this function.
    pub fn new(
        open: impl Fn() -> Result<Arc<dyn Store>, SourceError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(open))
    }

    /// Opens it.
    pub fn open(&self) -> Result<Arc<dyn Store>, SourceError> {
        (self.0)()
    }
}

impl fmt::Debug for Reopen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reopen")
    }
}

/// The options of a session.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Whether it ends when all collections have caught up.
    pub mode: Mode,
    /// When it tries again.
    pub retry: RetryPolicy,
    /// The interval at which failed documents are tried again while following.
    pub revisit: Duration,
    /// The number of collections that catch up at the same time; each holds a few batches in memory.
    pub catch_ups: usize,
    /// Shared with other sessions of this process: bounds how many collections of all of them catch up at
    /// the same time.
    pub turns: Option<Arc<Semaphore>>,
    /// The number of collections of a server that run at the same time, at most; the others are queued, or
    /// sleep until they change. `None` is no limit.
    pub max_runs: Option<usize>,
    /// Accept that the source has moved: follow it although the mirror followed another one.
    pub source_moved: bool,
    /// The limit on deletions in a collection; `None` is no limit.
    pub deletions: Option<DeletionLimit>,
    /// After this number of rows of a collection that cannot be read, its catch-up ends; `None` is no
    /// limit.
    pub max_failures: Option<u64>,
    /// How the mirror is verified while it runs; `None` is not at all.
    pub drift: Option<DriftOptions>,
    /// Opens the source once more, where single documents are only found by reading its whole feed.
    pub reopen: Option<Reopen>,
    /// Treat it as success if something is [`Absent`](super::Absent).
    pub allow_empty: bool,
}

impl SessionOptions {
    /// The default options for a mode.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            retry: match mode {
                Mode::CatchUp => RetryPolicy::CATCH_UP,
                Mode::Follow => RetryPolicy::FOLLOW,
            },
            revisit: Duration::from_secs(60),
            catch_ups: 3,
            turns: None,
            max_runs: None,
            source_moved: false,
            deletions: Some(DeletionLimit::DEFAULT),
            max_failures: None,
            drift: None,
            reopen: None,
            allow_empty: false,
        }
    }
}

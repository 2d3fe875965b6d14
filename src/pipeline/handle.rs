//! The pipeline of one collection: what its tasks share, and what its owner can ask.

use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use super::brake::Brake;
use super::failures::Failures;
use super::options::PipelineOptions;
use super::report::{PipelineReport, Reporter, RunState};
use crate::checkpoint::{Checkpoints, Failure, StateError};
use crate::document::Tally;
use crate::event::Broadcast;
use crate::mirror::{Collection, Mirror};
use crate::source::retry::RetryPolicy;
use crate::source::{Feed, Mode};

/// Everything that one collection's pipeline works with.
#[derive(Clone)]
pub struct Pipeline {
    pub(super) source: Arc<dyn Feed>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) collection: Collection,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) events: Broadcast,
    pub(super) reporter: Reporter,
    pub(super) failures: Arc<Failures>,
    pub(super) brake: Arc<Brake>,
    /// Receives a message when held-back deletions were released.
    pub(super) released: Arc<Notify>,
    /// What it does, for its owner.
    pub(super) run_state: Arc<watch::Sender<RunState>>,
    /// Whether only removals are applied: the disk has no space for more.
    pub(super) removals_only: bool,
    /// Whether no document is removed, or replaced by a tombstone: that is left to the feed.
    pub(super) removes_nothing: bool,
    /// The difference of the counts that remained after the last full scan.
    pub(super) scanned_for: Arc<Mutex<Option<Tally>>>,
    pub(super) options: PipelineOptions,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pipeline({})", self.collection.name())
    }
}

impl Pipeline {
    /// A pipeline that has not started.
    pub fn new(
        source: Arc<dyn Feed>,
        mirror: &Arc<Mirror>,
        collection: Collection,
        checkpoints: &Arc<Checkpoints>,
        events: &Broadcast,
        reporter: Reporter,
        options: PipelineOptions,
    ) -> Result<Self, StateError> {
        let failures = Failures::new(checkpoints.failures(collection.name())?);
        let held = checkpoints.count_held_back(collection.name())?;
        let before = checkpoints.checkpoint(collection.name())?.unwrap_or_default();
        // If there are documents without a checkpoint, an earlier run has brought them.
        let first = before.position.is_none()
            && before.scanning.is_none()
            && matches!(collection.is_empty(), Ok(true));
        reporter.update(|report| {
            report.failures = failures.failed();
            report.in_flight = failures.count() - failures.failed();
            report.held_back = held;
        });
        let brake = Arc::new(Brake::new(options.deletions, held, first && held == 0));
        Ok(Self {
            source,
            mirror: Arc::clone(mirror),
            collection,
            checkpoints: Arc::clone(checkpoints),
            events: events.clone(),
            reporter,
            failures: Arc::new(failures),
            brake,
            released: Arc::default(),
            run_state: Arc::default(),
            removals_only: false,
            removes_nothing: false,
            scanned_for: Arc::default(),
            options,
        })
    }

    /// The report of this pipeline.
    pub fn watch(&self) -> watch::Receiver<PipelineReport> {
        self.reporter.subscribe()
    }

    /// The brake on deletions, which outlives this pipeline: its hour continues in the next run.
    pub fn brake(&self) -> Arc<Brake> {
        Arc::clone(&self.brake)
    }

    /// The same with the brake of an earlier run in this process.
    pub fn with_brake(self, brake: Arc<Brake>) -> Self {
        Self { brake, ..self }
    }

    /// The same for documents that are fetched again while it runs: it removes nothing, because the feed brings
    /// every deletion and the brake counts them there, and a source that does not answer is given up. `source`
    /// is another opening of its source, if there is one.
    pub fn to_repair(&self, source: Option<Arc<dyn Feed>>) -> Self {
        let mut options = self.options;
        (options.mode, options.retry) = (Mode::CatchUp, RetryPolicy::CATCH_UP);
        let source = source.unwrap_or_else(|| Arc::clone(&self.source));
        Self { source, options, removes_nothing: true, ..self.clone() }
    }

    /// What this pipeline does.
    pub fn run_state(&self) -> watch::Receiver<RunState> {
        self.run_state.subscribe()
    }

    /// Deletes what the brake holds back, after the batches in flight. The release is already
    /// durable.
    pub fn release(&self) {
        self.released.notify_one();
    }

    /// The documents that could not be mirrored, without those in flight.
    pub fn failures(&self) -> Vec<Failure> {
        let mut failures = self.failures.all();
        failures.retain(|failure| !failure.is_in_flight());
        failures
    }
}

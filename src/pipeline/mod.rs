//! One collection: source -> mirror -> checkpoint -> events.
//!
//! Three tasks overlap: `gather` reads the feed into batches; `rounds` plans them and stages files;
//! `settle` makes them durable, publishes, commits and emits events. Two batches may be in flight,
//! and they commit in order. The parts that documents need from the source are fetched `beside` the
//! feed, and so is what no feed reports (`asker`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoints, Failure, StateError};
use crate::document::{DocumentId, Position, Properties, Revision, Tally};
use crate::event::Broadcast;
use crate::mirror::{Collection, Mirror};
use crate::source::retry::RetryPolicy;
use crate::source::{Capabilities, Feed, Holds, Mode, Since, SourceError};
use crate::tree::MirrorError;

mod acknowledge;
mod asker;
mod batch;
mod beside;
mod brake;
mod copied;
mod evidence;
mod failures;
mod fetch;
mod gather;
mod measure;
mod prepare;
mod removals;
mod repair;
mod report;
mod room;
mod rounds;
mod settle;
mod tally;

pub use crate::document::DeletionLimit;
pub use brake::Brake;
pub use evidence::{Evidence, Stated};
pub use repair::{Asking, Fate, Repaired, WrongDocument};
pub use report::{Awaited, ENDED, FAILED, Phase, PipelineReport, Reporter, RunState};
pub use report::{seconds_since, shown};
pub(crate) use room::{Pauses, without_numbers};

use asker::FeedState;
use batch::Seen;
use evidence::Reached;
use failures::Failures;
use rounds::Rounds;

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

/// Everything that one collection's pipeline works with.
#[derive(Clone)]
pub struct Pipeline {
    source: Arc<dyn Feed>,
    mirror: Arc<Mirror>,
    collection: Collection,
    checkpoints: Arc<Checkpoints>,
    events: Broadcast,
    reporter: Reporter,
    failures: Arc<Failures>,
    brake: Arc<Brake>,
    /// Receives a message when held-back deletions were released.
    released: Arc<Notify>,
    /// What it does, for its owner.
    run_state: Arc<watch::Sender<RunState>>,
    /// Whether only removals are applied: the disk has no space for more.
    removals_only: bool,
    /// The difference of the counts that remained after the last full scan.
    scanned_for: Arc<Mutex<Option<Tally>>>,
    options: PipelineOptions,
}

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

/// Changes that an interrupted run may have published and not committed. Their events are emitted
/// again: twice is better than never.
#[derive(Clone, Debug)]
struct Doubt {
    /// The names of the folders that it may have written, according to the inventory.
    written: Arc<HashSet<String>>,
    /// Documents that were being replaced or removed.
    moved: HashMap<DocumentId, Revision>,
}

/// Items that pass from the reader of the feed to the disk, in order.
#[derive(Debug)]
enum Work<B> {
    Batch(B),
    Signal(Signal),
}

/// An item with a fixed place between the batches.
#[derive(Debug)]
enum Signal {
    /// A full listing begins.
    BeginScan(String),
    /// The listing is complete. Documents not in `seen` are gone, if there is a `seen`.
    EndScan { position: Position, seen: Option<Seen> },
    /// The number of documents at the source, including everything before this item.
    Holds(Holds),
    /// The end of the source has been reached.
    CaughtUp(Reached),
    /// The events that an interrupted run may not have emitted have been emitted.
    Told,
    /// The security object of the collection, as the source sends it.
    Security(Bytes),
    /// How the collection was created, as the source reports it.
    Properties(Properties),
    /// Delete what the brake holds back.
    Release,
}

impl Signal {
    /// Whether documents may overtake it.
    fn removes(&self) -> bool {
        matches!(self, Self::EndScan { .. } | Self::Release)
    }
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
            scanned_for: Arc::default(),
            options,
        })
    }

    /// Works until it has caught up (or forever, when following), until `stop`, or until an error
    /// that waiting does not solve. Complete batches are made durable in any case.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), PipelineError> {
        let mut again = false;
        let mut disk = Pauses::new(self.options.retry);
        if self.mirror.saves_room() {
            self.make_room(stop).await?;
        }
        loop {
            match self.work(stop, std::mem::replace(&mut again, true)).await {
                // The checkpoint records the full scan and its reason.
                Err(PipelineError::Disagrees(_)) => {}
                Err(error) if error.is_disk() && self.options.mode == Mode::Follow => {
                    self.wait_for_disk(error, &mut disk, stop).await?;
                    if stop.is_cancelled() {
                        return Ok(());
                    }
                }
                Err(error) if error.is_full() => {
                    self.make_room(stop).await?;
                    return Err(error);
                }
                ended => return ended.map_err(|error| self.blamed(error)),
            }
        }
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

    /// Opens the feed once and reads it to its end; `again` if the same run has opened it before.
    async fn work(&self, stop: &CancellationToken, again: bool) -> Result<(), PipelineError> {
        if again {
            self.failures.reload(self.checkpoints.failures(self.collection.name())?);
        }
        let since = self.since(again)?;
        let doubt = self.doubt()?;
        let (gathered, batches) = mpsc::channel(1);
        let (prepared, settling) = mpsc::channel(1);
        let (settled, settled_count) = watch::channel(0_u64);
        let mut tasks: JoinSet<Result<(), PipelineError>> = JoinSet::new();
        let halt = stop.child_token();
        let (reading, spoken) = watch::channel(FeedState::Silent);
        if !self.removals_only {
            tasks.spawn(measure::measure(self.clone(), spoken.clone(), halt.clone()));
            tasks.spawn(asker::ask(self.clone(), spoken, halt.clone(), gathered.clone()));
        }
        tasks.spawn(gather::gather(self.clone(), since, halt.clone(), gathered, reading));
        let moved = doubt.as_ref().map(|doubt| doubt.moved.clone()).unwrap_or_default();
        let rounds = Rounds::new(self.clone(), doubt, settled_count, halt.clone());
        tasks.spawn(rounds.make_all(batches, prepared));
        let (committed, durable) = watch::channel(None);
        if self.options.capabilities.acknowledges {
            let (source, name) = (Arc::clone(&self.source), self.collection.name().clone());
            tasks.spawn(acknowledge::acknowledge(source, name, durable, halt.clone()));
        }
        tasks.spawn(self.clone().settle_all(moved, settling, settled, committed));
        let mut outcome = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or_else(|error| Err(error.into()));
            if let Err(error) = ended
                && outcome.is_ok()
            {
                outcome = Err(error);
                // The other tasks finish the batches in flight; their channels close behind them.
                halt.cancel();
            }
            if self.removals_only {
                // The end of the feed does not depend on further answers.
                halt.cancel();
            }
        }
        outcome
    }

    /// Where to open the feed, according to the state and the tree.
    fn since(&self, again: bool) -> Result<Since, PipelineError> {
        let checkpoint = self.checkpoints.checkpoint(self.collection.name())?.unwrap_or_default();
        let checkpoint = self.settle_copy(checkpoint)?;
        if let Some(reason) = checkpoint.scanning {
            return Ok(Since::Scan(reason));
        }
        // A collection that was new at the start of the run counts as empty until its end.
        let filled = again && checkpoint.position.is_some();
        if !filled && self.collection.is_empty()? {
            return Ok(match (checkpoint.position, self.collection.is_new()) {
                // All its documents are deleted, or it never had any.
                (Some(position), false) => Since::Position(position),
                (_, true) if !again && self.collection.has_inventory()? => {
                    Since::Scan("the folder of the collection was gone".to_owned())
                }
                (_, _) => Since::Start,
            });
        }
        let Some(position) = checkpoint.position else {
            if checkpoint.open_since.is_some() {
                // The first run was interrupted before its first checkpoint.
                return Ok(Since::Start);
            }
            return Ok(Since::Scan("the mirror holds documents but no checkpoint".to_owned()));
        };
        let (kept, before) = (self.collection.kept(), checkpoint.kept);
        let news = [
            (
                self.collection.mirrors_attachments() && !checkpoint.attachments,
                "attachments are mirrored",
            ),
            (kept.revisions && !before.revisions, "all revisions are kept"),
            (kept.deleted && !before.deleted, "deleted documents are kept"),
        ];
        if let Some((_, what)) = news.iter().find(|(is_new, _)| *is_new) {
            return Ok(Since::Scan(format!("{what} from now on")));
        }
        self.reporter.update(|report| {
            report.position = Some(shown(&position));
            report.evidence.position = Some(position.clone());
        });
        Ok(Since::Position(position))
    }

    /// Changes that the previous run may have published without emitting their events.
    fn doubt(&self) -> Result<Option<Doubt>, PipelineError> {
        let checkpoint = self.checkpoints.checkpoint(self.collection.name())?.unwrap_or_default();
        let interrupted = checkpoint.open_since.is_some();
        let written = Arc::new(self.collection.silent(interrupted)?);
        let moved = self.collection.interrupted();
        Ok(interrupted.then_some(Doubt { written, moved }))
    }
}

#[cfg(test)]
mod tests;

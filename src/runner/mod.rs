//! Supervises one pipeline per collection: starts them as collections appear, stops them together,
//! and reports their status.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoints, Failure};
use crate::document::CollectionName;
use crate::event::{Broadcast, Emitted};
use crate::mirror::Mirror;
pub use crate::pipeline::DeletionLimit;
use crate::pipeline::{Brake, Phase, Pipeline, PipelineError, Report, Reporter};
use crate::source::retry::RetryPolicy;
use crate::source::{Mode, SourceError, Store};
use crate::tree::{Holder, MirrorError};

mod absent;
mod held;
mod log;
mod news;
mod order;
mod policy;
mod release;
mod repair;
mod scheduler;
mod status;
mod subscription;
mod supervisor;
mod turn;
mod wait;

pub use absent::Absent;
pub use held::HeldDocument;
use order::Order;
pub use release::Release;
pub use repair::Repairer;
pub use status::{CollectionStatus, FailureStatus, Keeps, Status};
use subscription::Pages;
pub use subscription::{Notice, Subscription};
use supervisor::Supervisor;

/// The options of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Whether it ends when all collections have caught up.
    pub mode: Mode,
    /// When it tries again.
    pub retry: RetryPolicy,
    /// The interval at which failed documents are tried again while following.
    pub revisit: Duration,
    /// The number of collections that catch up at the same time; each holds a few batches in memory.
    pub catch_ups: usize,
    /// The number of collections of a server that run at the same time, at most; the others sleep until
    /// they change. `None` is no limit.
    pub max_runs: Option<usize>,
    /// Accept that the source has moved: follow it although the mirror followed another one.
    pub source_moved: bool,
    /// The limit on deletions in a collection; `None` is no limit.
    pub deletions: Option<DeletionLimit>,
    /// After this number of rows of a collection that cannot be read, its catch-up ends; `None` is no
    /// limit.
    pub max_failures: Option<u64>,
    /// Treat it as success if something is [`Absent`].
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
            max_runs: None,
            source_moved: false,
            deletions: Some(DeletionLimit::DEFAULT),
            max_failures: None,
            allow_empty: false,
        }
    }
}

/// A running mirror. Dropping it cancels it.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: Option<JoinHandle<Outcome>>,
}

/// The shared status of a running mirror.
#[derive(Clone, Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mirror: Arc<Mirror>,
    checkpoints: Arc<Checkpoints>,
    events: Broadcast,
    pages: Arc<Pages>,
    source: String,
    started_at: Timestamp,
    collections: Mutex<BTreeMap<CollectionName, Member>>,
    /// Collections that the source does not have; only recorded if the mirror does not follow.
    absent: Mutex<Vec<Absent>>,
    /// Whether the source has listed all its collections.
    listed: AtomicBool,
    progress: watch::Sender<Progress>,
    /// Receives what the supervisor is to do.
    orders: mpsc::UnboundedSender<Order>,
    /// Cancelled when no more events will be emitted.
    ended: CancellationToken,
}

#[derive(Clone, Debug)]
struct Member {
    reporter: Reporter,
    /// Its pipeline, while it runs.
    pipeline: Option<Pipeline>,
    /// The brake of its runs.
    brake: Option<Arc<Brake>>,
    /// Whether it waits, and nothing that this process does helps it.
    is_hopeless: bool,
}

impl Member {
    /// A collection that has not run.
    fn new(reporter: Reporter) -> Self {
        Self { reporter, pipeline: None, brake: None, is_hopeless: false }
    }

    /// Whether the collection is caught up with its source, or its source has vanished.
    fn has_caught_up(&self) -> bool {
        self.reporter.says(|report| report.caught_up || report.phase == Phase::Vanished)
    }

    /// Whether a service does not have to wait for the collection before it is ready.
    fn is_done(&self) -> bool {
        self.is_hopeless || self.has_caught_up()
    }
}

/// The phase of the whole session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    listed: bool,
    /// Whether everything has caught up that can.
    ready: bool,
    caught_up: bool,
    ended: bool,
}

/// Why a collection, or the whole session, ended early.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The collections could not be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The mirror cannot be used.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// A collection's pipeline ended.
    #[error("{collection}: {error}")]
    Collection {
        /// The collection.
        collection: CollectionName,
        /// The error.
        error: PipelineError,
    },
}

/// The outcome of a session.
#[derive(Debug)]
pub struct Outcome {
    /// The reports, one per collection.
    pub reports: Vec<Report>,
    /// The documents that could not be mirrored, remembered from any run.
    pub failures: Vec<(CollectionName, Failure)>,
    /// Collections that were requested or followed before, and are missing; only in a mirror that
    /// does not follow.
    pub absent: Vec<Absent>,
    /// The errors that ended collections, or everything, early.
    pub errors: Vec<SessionError>,
    /// Whether everything had caught up at least once.
    pub caught_up: bool,
    /// The duration.
    pub took: Duration,
}

impl Outcome {
    /// Whether the mirror holds everything that the source holds and everything that was requested.
    pub fn is_complete(&self) -> bool {
        let Self { failures, absent, errors, .. } = self;
        let lacks_nothing =
            failures.is_empty() && self.in_flight() == 0 && absent.is_empty() && errors.is_empty();
        let secured = self.unsecured().next().is_none();
        let counted = self.miscounted() == 0;
        lacks_nothing && secured && counted && self.held_back() == 0 && self.behind() == 0
    }

    /// The collections whose security object could not be mirrored, each with the reason.
    pub fn unsecured(&self) -> impl Iterator<Item = (&CollectionName, &str)> {
        let trouble = |report: &Report| report.security_trouble.is_some();
        let unsecured = self.reports.iter().filter(move |report| trouble(report));
        unsecured.filter_map(|one| Some((&one.collection, one.security_trouble.as_deref()?)))
    }

    /// The number of collections in which the source counts more or fewer documents than the mirror
    /// holds.
    pub fn miscounted(&self) -> usize {
        self.reports.iter().filter(|report| report.count_trouble.is_some()).count()
    }

    /// The number of collections that had caught up and are now behind their source.
    pub fn behind(&self) -> usize {
        let at_end = [Phase::Live, Phase::CaughtUp, Phase::Vanished];
        self.reports.iter().filter(|report| !at_end.contains(&report.phase)).count()
    }

    /// The number of documents that have not been fetched yet, because the run was told to end.
    pub fn in_flight(&self) -> u64 {
        self.reports.iter().map(|report| report.in_flight).sum()
    }

    /// The number of deletions that the brake holds back, from any run.
    pub fn held_back(&self) -> u64 {
        self.reports.iter().map(|report| report.held_back).sum()
    }
}

impl Session {
    /// Starts to mirror `store` into `mirror`.
    pub fn start(
        store: Arc<dyn Store>,
        mirror: Arc<Mirror>,
        checkpoints: Arc<Checkpoints>,
        options: SessionOptions,
    ) -> Self {
        let (orders, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            mirror,
            checkpoints,
            events: Broadcast::new(),
            pages: Arc::default(),
            source: store.identity(),
            started_at: Timestamp::now(),
            collections: Mutex::default(),
            absent: Mutex::default(),
            listed: AtomicBool::new(false),
            progress: watch::Sender::default(),
            orders,
            ended: CancellationToken::new(),
        });
        let stop = CancellationToken::new();
        let supervisor =
            Supervisor::new(store, options, Arc::clone(&shared), received, stop.clone());
        let task = Some(tokio::spawn(supervisor.run()));
        Self { shared, stop, task }
    }

    /// The write events from now on, as a channel.
    pub fn events(&self) -> broadcast::Receiver<Arc<Emitted>> {
        self.shared.events.subscribe()
    }

    /// The write events from now on, as a stream.
    pub fn event_stream(&self) -> BroadcastStream<Arc<Emitted>> {
        BroadcastStream::new(self.events())
    }

    /// The default path of the socket where this mirror's process answers requests.
    pub fn socket_path(&self) -> PathBuf {
        self.shared.mirror.socket_path()
    }

    /// Records the path of the socket where this process answers requests, so that other commands
    /// find it.
    pub fn announce(&self, socket: &Path) -> Result<(), MirrorError> {
        let socket = Some(std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned()));
        let holder = Holder { socket, ..Holder::this_process("mirror") };
        self.shared.mirror.describe_holder(&holder)
    }

    /// The status, for observers of the session.
    pub fn watcher(&self) -> Watcher {
        Watcher { shared: Arc::clone(&self.shared) }
    }

    /// Waits until every collection has caught up once; `false` if the session ended before that.
    pub async fn caught_up(&self) -> bool {
        self.watcher().caught_up().await
    }

    /// Asks it to stop: the batches in flight are finished.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// A token whose cancellation is the same as [`Session::cancel`], for code that cannot hold the
    /// session.
    pub fn canceller(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until it has ended.
    pub async fn join(mut self) -> Outcome {
        match self.task.take() {
            Some(task) => match task.await {
                Ok(outcome) => outcome,
                // The supervisor does nothing that panics; if it did, the panic is passed on here.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            None => self.shared.outcome(Vec::new()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Watcher {
    /// The present status.
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The write events after number `since`, or from now on: first those in the journal.
    pub fn subscribe(&self, since: Option<u64>) -> Subscription {
        let Shared { checkpoints, events, pages, ended, .. } = &*self.shared;
        Subscription::new(checkpoints, events, pages, since, ended.clone())
    }

    /// Whether a mirror that has caught up holds no collection of this name.
    pub fn lacks(&self, name: &CollectionName) -> bool {
        let Shared { progress, checkpoints, .. } = &*self.shared;
        progress.borrow().caught_up
            && !self.shared.members().contains_key(name)
            && matches!(checkpoints.checkpoint(name), Ok(None))
    }

    /// Waits until every collection has caught up once; `false` if the session ended before that.
    pub async fn caught_up(&self) -> bool {
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.caught_up || progress.ended).await;
        reached.is_ok_and(|progress| progress.caught_up)
    }

    /// Waits until every collection has caught up once, but those that only somebody else can help; `false`
    /// if the session ended before that.
    pub async fn ready(&self) -> bool {
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.ready || progress.ended).await;
        reached.is_ok_and(|progress| progress.ready)
    }

    /// Waits until the source has named all its collections; `false` if the session ended before that.
    pub async fn listed(&self) -> bool {
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.listed || progress.ended).await;
        reached.is_ok_and(|progress| progress.listed)
    }

    /// What each collection reports.
    pub fn reports(&self) -> Vec<Report> {
        self.shared.reports()
    }

    /// The source, without credentials.
    pub fn source(&self) -> &str {
        &self.shared.source
    }

    /// The age of the batch that has been in flight longest, if there is one.
    pub fn longest_busy(&self) -> Option<Duration> {
        let members = self.shared.members();
        let busy = members.values().filter_map(|member| member.reporter.report().busy_since);
        busy.map(|since| since.elapsed()).max()
    }
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, BTreeMap<CollectionName, Member>> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn absent(&self) -> MutexGuard<'_, Vec<Absent>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    fn reports(&self) -> Vec<Report> {
        self.members().values().map(|member| member.reporter.report()).collect()
    }

    fn pipelines(&self) -> Vec<Pipeline> {
        self.members().values().filter_map(|member| member.pipeline.clone()).collect()
    }

    fn failures(&self) -> Vec<(CollectionName, Failure)> {
        let members = self.members();
        let with_name = members.iter().flat_map(|(name, member)| {
            self.failures_of(name, member).into_iter().map(|failure| (name.clone(), failure))
        });
        with_name.collect()
    }

    /// The documents of a collection that could not be mirrored: as its run knows them, or as the state
    /// remembers them.
    fn failures_of(&self, name: &CollectionName, member: &Member) -> Vec<Failure> {
        if let Some(pipeline) = &member.pipeline {
            return pipeline.failures();
        }
        let mut failures = self.checkpoints.failures(name).unwrap_or_default();
        failures.retain(|failure| !failure.is_in_flight());
        failures
    }

    /// Notices when the last collection has caught up.
    fn note_progress(&self) {
        let listed = self.is_listed();
        if self.progress.borrow().caught_up {
            return;
        }
        let ready = listed && self.members().values().all(Member::is_done);
        let caught_up = ready && self.members().values().all(Member::has_caught_up);
        self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.listed |= listed;
            progress.ready |= ready;
            progress.caught_up |= caught_up;
            *progress != before
        });
    }

    fn outcome(&self, errors: Vec<SessionError>) -> Outcome {
        let took = Timestamp::now().duration_since(self.started_at);
        Outcome {
            reports: self.reports(),
            failures: self.failures(),
            absent: self.absent().clone(),
            errors,
            caught_up: self.progress.borrow().caught_up,
            took: took.try_into().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ready_without_a_collection_that_waits_hopelessly() {
        let mut member = Member::new(Reporter::new("a".into()));
        assert!(!member.is_done());
        member.is_hopeless = true;
        assert!(member.is_done() && !member.has_caught_up());
    }
}

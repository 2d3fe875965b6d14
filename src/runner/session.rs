//! A running mirror, for its owner and for its observers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

use super::lag::Lag;
use super::options::SessionOptions;
use super::outcome::Outcome;
use super::shared::Shared;
use super::status::{CollectionStatus, Status};
use super::subscription::Subscription;
use super::supervisor::Supervisor;
use crate::checkpoint::Checkpoints;
use crate::clock::Moment;
use crate::document::CollectionName;
use crate::event::Emitted;
use crate::mirror::Mirror;
use crate::pipeline::PipelineReport;
use crate::source::Store;
use crate::tree::{Holder, MirrorError};

/// A running mirror. Dropping it cancels it.
#[derive(Debug)]
pub struct Session {
    pub(super) shared: Arc<Shared>,
    stop: CancellationToken,
    task: Option<JoinHandle<Outcome>>,
}

/// The shared status of a running mirror.
#[derive(Clone, Debug)]
pub struct Watcher {
    pub(super) shared: Arc<Shared>,
}

impl Session {
    /// Starts to mirror `store` into `mirror`.
    pub fn start(
        store: Arc<dyn Store>,
        mirror: Arc<Mirror>,
        checkpoints: Arc<Checkpoints>,
        options: SessionOptions,
    ) -> Self {
        let (shared, received) = Shared::new(mirror, checkpoints, store.identity());
        let shared = Arc::new(shared);
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

    /// Whether a process from which this one has taken the mirror over may answer at this path. Fails
    /// if another process has taken it over from this one.
    pub fn displaces(&self, socket: &Path) -> Result<bool, MirrorError> {
        self.shared.mirror.check_epoch()?;
        let own = self.socket_path();
        Ok(self.shared.mirror.displaced().is_some_and(|holder| {
            socket == own || holder.socket.as_deref().is_some_and(|path| path == socket)
        }))
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

    /// The status of a collection; `None` if there is no such collection.
    pub fn collection(&self, name: &CollectionName) -> Option<CollectionStatus> {
        self.shared.collection(name)
    }

    /// The first `limit` collections whose names come after `after`, by name, without the list of their
    /// failures.
    pub fn collections(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Vec<CollectionStatus> {
        self.shared.collections_after(after, limit)
    }

    /// The write events after number `since`, or from now on: first those in the journal.
    pub fn subscribe(&self, since: Option<u64>) -> Subscription {
        let Shared { checkpoints, events, pages, ended, .. } = &*self.shared;
        Subscription::new(checkpoints, events, pages, since, ended.clone())
    }

    /// Whether there is a collection of this name.
    pub fn has(&self, name: &CollectionName) -> bool {
        self.shared.members().contains_key(name)
    }

    /// A token that is cancelled when the session has ended.
    pub fn ended(&self) -> CancellationToken {
        self.shared.ended.clone()
    }

    /// Waits until nobody else keeps the session's mirror open any more, and closes it. What is dropped
    /// before that closes it later.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        const MOMENT: Duration = Duration::from_millis(10);
        let Shared { mirror, checkpoints, .. } = &*self.shared;
        let (mirror, state) = (Arc::clone(mirror), Arc::clone(checkpoints));
        async move {
            while Arc::strong_count(&mirror) > 1 || Arc::strong_count(&state) > 1 {
                tokio::time::sleep(MOMENT).await;
            }
            // Closing writes to the disk: the last owner is the one that waits for it.
            let closing = tokio::task::spawn_blocking(move || drop((mirror, state)));
            let _closed = closing.await;
        }
    }

    /// Whether a mirror that has caught up holds no collection of this name.
    pub fn lacks(&self, name: &CollectionName) -> bool {
        let Shared { progress, checkpoints, .. } = &*self.shared;
        progress.borrow().caught_up
            && !self.has(name)
            && matches!(checkpoints.checkpoint(name), Ok(None))
    }

    /// Whether every collection has caught up once.
    pub fn has_caught_up(&self) -> bool {
        self.shared.progress.borrow().caught_up
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

    /// Notes in the mirror that a catch-up which began at this time has reached its end. Blocks.
    pub fn note_catch_up(&self, began: Timestamp) -> Result<(), MirrorError> {
        let holder =
            Holder { since: began.to_string(), caught_up: true, ..Holder::this_process("mirror") };
        self.shared.mirror.describe_holder(&holder)
    }

    /// What each collection reports.
    pub fn reports(&self) -> Vec<PipelineReport> {
        self.shared.reports()
    }

    /// What each collection reports, and how old its copy is.
    pub fn lags(&self) -> Vec<(PipelineReport, Lag)> {
        let with_lag = |report| {
            let lag = Lag::of(&report);
            (report, lag)
        };
        self.reports().into_iter().map(with_lag).collect()
    }

    /// How long the session has run.
    pub fn runs_for(&self) -> Duration {
        self.shared.began.age(Moment::now())
    }

    /// The source, without credentials.
    pub fn source(&self) -> &str {
        &self.shared.source
    }

    /// Whether every collection has caught up, but those that only somebody else can help.
    pub fn is_ready(&self) -> bool {
        self.shared.progress.borrow().ready
    }

    /// The number of collections.
    pub fn count(&self) -> usize {
        self.shared.members().len()
    }

    /// The number of the last write event.
    pub fn last_event(&self) -> u64 {
        self.shared.checkpoints.last_number()
    }

    /// The number of the last write event before the session.
    pub fn began_after(&self) -> u64 {
        self.shared.began_after
    }

    /// The number of the last write event that is no longer in the journal.
    pub fn before_journal(&self) -> u64 {
        self.shared.checkpoints.before_journal()
    }

    /// The mirror's directory.
    pub fn directory(&self) -> PathBuf {
        self.shared.mirror.path().to_owned()
    }

    /// The last part of the path of the mirror's directory.
    pub fn directory_name(&self) -> String {
        let path = self.shared.mirror.path();
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        path.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// The age of the batch that has been in flight longest, if there is one.
    pub fn longest_busy(&self) -> Option<Duration> {
        let members = self.shared.members();
        let busy =
            members.values().filter_map(|member| member.reporter.says(|report| report.busy_since));
        busy.map(|since| since.elapsed()).max()
    }
}

//! The mirrors of the agent, for those who observe them: API, metrics, and the page.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::state::{LastRun, MirrorState, MirrorSummary};
use crate::checkpoint::CursorStatus;
use crate::config::file::Schedule;
use crate::document::MirrorName;
use crate::runner::Watcher;

/// The mirrors of the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The path of the config.
    config: PathBuf,
    mirrors: Mutex<Vec<MirrorHandle>>,
    /// Why the config on disk is not in force.
    trouble: Mutex<Option<String>>,
    changes: Changes,
    ended: CancellationToken,
}

/// Counts what changes in a roster or in one of its mirrors.
pub(super) type Changes = watch::Sender<u64>;

/// One mirror of the agent. Cheap to clone. A mirror whose entry in the config changes gets a new one.
#[derive(Clone, Debug)]
pub struct MirrorHandle(Arc<Mirror>);

#[derive(Debug)]
struct Mirror {
    name: MirrorName,
    directory: PathBuf,
    source: String,
    schedule: Schedule,
    seen: watch::Sender<Seen>,
    changes: Changes,
    wake: Notify,
    /// Who copies its state while it is at rest, one at a time.
    copying: Arc<Semaphore>,
}

/// What is known of a mirror.
#[derive(Clone, Debug)]
struct Seen {
    state: MirrorState,
    watcher: Option<Watcher>,
    starts: u64,
    last: Option<LastRun>,
    /// The number of the last event of the last session that has ended.
    last_event: Option<u64>,
    /// Its cursors as the last session left them, or as they were read of the mirror at rest.
    cursors: Option<Vec<CursorStatus>>,
}

impl Roster {
    /// A roster without mirrors, of the config at this path.
    pub(super) fn empty(config: PathBuf) -> Self {
        let (mirrors, trouble) = (Mutex::default(), Mutex::default());
        let (changes, ended) = (Changes::default(), CancellationToken::new());
        Self(Arc::new(Shared { config, mirrors, trouble, changes, ended }))
    }

    /// The path of the config. Absolute.
    pub fn config(&self) -> &Path {
        &self.0.config
    }

    /// The mirrors, in the order of the config.
    pub fn mirrors(&self) -> Vec<MirrorHandle> {
        held(&self.0.mirrors).clone()
    }

    /// The mirror of this name.
    pub fn get(&self, name: &MirrorName) -> Option<MirrorHandle> {
        held(&self.0.mirrors).iter().find(|mirror| mirror.name() == name).cloned()
    }

    /// Notices that a mirror was added or removed, or that the state of one has changed. The value only
    /// counts.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Why the config on disk is not in force, if it is not.
    pub fn trouble(&self) -> Option<String> {
        held(&self.0.trouble).clone()
    }

    /// Waits until all mirrors have ended with the agent.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    pub(super) fn note_end(&self) {
        self.0.ended.cancel();
    }

    pub(super) fn changes(&self) -> Changes {
        self.0.changes.clone()
    }

    pub(super) fn set(&self, mirrors: Vec<MirrorHandle>) {
        *held(&self.0.mirrors) = mirrors;
        self.0.changes.send_modify(count);
    }

    pub(super) fn note_trouble(&self, trouble: Option<String>) {
        *held(&self.0.trouble) = trouble;
        self.0.changes.send_modify(count);
    }
}

impl MirrorHandle {
    pub(super) fn new(
        name: MirrorName,
        directory: &Path,
        source: String,
        schedule: Schedule,
        changes: Changes,
    ) -> Self {
        let state = MirrorState::Starting;
        let (last, last_event, cursors) = (None, None, None);
        let seen = Seen { state, watcher: None, starts: 0, last, last_event, cursors };
        Self(Arc::new(Mirror {
            name,
            directory: directory.to_owned(),
            source,
            schedule,
            seen: watch::Sender::new(seen),
            changes,
            wake: Notify::new(),
            copying: Arc::new(Semaphore::new(1)),
        }))
    }

    /// The name.
    pub fn name(&self) -> &MirrorName {
        &self.0.name
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// The source, without credentials.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// When it runs.
    pub fn schedule(&self) -> &Schedule {
        &self.0.schedule
    }

    /// What it is doing.
    pub fn state(&self) -> MirrorState {
        self.0.seen.borrow().state.clone()
    }

    /// How its last session ended, if it has had one in this process.
    pub fn last_run(&self) -> Option<LastRun> {
        self.0.seen.borrow().last.clone()
    }

    /// The observer of its session, while one runs. It holds the mirror open, so keep it no longer than the
    /// session: a subscription ends with it.
    pub fn watcher(&self) -> Option<Watcher> {
        self.0.seen.borrow().watcher.clone()
    }

    /// The number of its last event, if it has had a session in this process.
    pub fn last_event(&self) -> Option<u64> {
        let seen = self.0.seen.borrow();
        seen.watcher.as_ref().map(Watcher::last_event).or(seen.last_event)
    }

    /// Its cursors, if they are known without reading its state: of its session, of the last one in this
    /// process, or as they were noted at rest.
    pub fn cursors(&self) -> Option<Vec<CursorStatus>> {
        let seen = self.0.seen.borrow();
        seen.watcher.as_ref().map(Watcher::cursors).or_else(|| seen.cursors.clone())
    }

    /// Notes its cursors as they were read while it was at rest, unless a session has left them since then.
    pub fn note_cursors(&self, cursors: Vec<CursorStatus>) {
        self.0.seen.send_if_modified(|seen| {
            seen.cursors.get_or_insert(cursors);
            false
        });
    }

    /// The right to lock the mirror and to copy its state while it is at rest. Its session starts only when
    /// nobody has it.
    pub async fn copying(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.copying).acquire_owned().await.ok()
    }

    /// Starts a mirror that is parked, or that waits for the time of its next start, at once. `false` if
    /// its session runs or ends.
    pub fn start_now(&self) -> bool {
        // The state cannot change before the keeper is woken.
        let seen = self.0.seen.borrow();
        let waits = match seen.state {
            MirrorState::Waiting { .. }
            | MirrorState::Failed { .. }
            | MirrorState::Parked { .. } => true,
            MirrorState::Starting | MirrorState::Running { .. } | MirrorState::Stopping => false,
        };
        if waits {
            self.0.wake.notify_one();
        }
        waits
    }

    /// The mirror in a line.
    pub fn summary(&self) -> MirrorSummary {
        let Seen { state, watcher, starts, last, .. } = self.0.seen.borrow().clone();
        let mut summary = MirrorSummary {
            name: self.name().clone(),
            directory: self.directory().to_owned(),
            source: self.source().to_owned(),
            schedule: self.schedule().to_string(),
            state,
            starts,
            last_run: last,
            collections: None,
            documents: None,
            failures: None,
            held_back: None,
            damaged: None,
            caught_up: false,
            lag_seconds: None,
            trouble: None,
        };
        if let Some(watcher) = watcher {
            let reports = watcher.reports();
            summary.collections = Some(reports.len());
            let held = reports.iter().map(|report| report.held);
            summary.documents = held.sum();
            summary.failures = Some(reports.iter().map(|report| report.failures).sum());
            summary.held_back = Some(reports.iter().map(|report| report.held_back).sum());
            summary.damaged = Some(reports.iter().map(|report| report.damaged).sum());
            summary.caught_up = watcher.has_caught_up();
            let lags = reports.iter().filter_map(|report| report.lag_seconds());
            summary.lag_seconds = lags.reduce(f64::max);
            let troubled = reports.iter().find_map(|report| {
                Some(format!("{}: {}", report.collection, report.trouble.as_deref()?))
            });
            summary.trouble = troubled;
        }
        summary
    }

    /// Ends when somebody wants the mirror to start at once.
    pub(super) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    pub(super) fn note_state(&self, state: MirrorState) {
        self.0.seen.send_modify(|seen| seen.state = state);
        self.0.changes.send_modify(count);
    }

    /// Notes that a session has started.
    pub(super) fn note_session(&self, watcher: Watcher) {
        self.0.seen.send_modify(|seen| {
            seen.state = MirrorState::Running { since: Timestamp::now() };
            seen.watcher = Some(watcher);
            seen.starts += 1;
        });
        self.0.changes.send_modify(count);
    }

    /// Notes what has failed after the last session.
    pub(super) fn note_trouble(&self, trouble: String) {
        self.0.seen.send_modify(|seen| {
            if let Some(last) = &mut seen.last {
                last.trouble.get_or_insert(trouble);
            }
        });
        self.0.changes.send_modify(count);
    }

    /// Notes that the session has ended, or that none could be started.
    pub(super) fn note_end(&self, last: LastRun) {
        let mut watcher = None;
        self.0.seen.send_modify(|seen| {
            watcher = seen.watcher.take();
            let number = watcher.as_ref().map(Watcher::last_event);
            seen.last_event = number.or(seen.last_event);
            if let Some(watcher) = &watcher {
                seen.cursors = Some(watcher.cursors());
            }
            seen.last = Some(last);
        });
        // The last one closes the mirror, which may take a while: nobody waits for that.
        drop(watcher);
        self.0.changes.send_modify(count);
    }
}

fn count(changes: &mut u64) {
    *changes += 1;
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

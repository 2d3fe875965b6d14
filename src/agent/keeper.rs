//! Keeps one mirror: starts its session when it is due, waits for its end, and does what follows from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::after::AfterRun;
use super::due::{Due, Turn};
use super::home::Home;
use super::program::Program;
use super::roster::MirrorHandle;
use super::state::{LastRun, MirrorState};
use crate::clock::ClockReading;
use crate::config::file::MirrorEntry;
use crate::document::plain;
use crate::mirror;
use crate::runner::{Session, TreeWatch, Watcher};
use crate::tree::{AgentMirror, MirrorError};

/// Ends what was begun for a session.
pub type SessionEnd = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Begins what observes a session and answers requests about it, within the session's runtime.
pub type Begin = Arc<dyn for<'a> Fn(&'a Session, &'a MirrorEntry) -> Beginning<'a> + Send + Sync>;

/// What [`Begin`] gives.
type Beginning<'a> = BoxFuture<'a, Result<SessionEnd, MirrorError>>;

/// What all keepers share.
pub(super) struct Means {
    /// Begins what observes a session.
    pub begin: Begin,
    /// Bounds how many mirrors start at the same time.
    pub starts: Arc<Semaphore>,
    /// Bounds how many collections of all mirrors catch up at the same time.
    pub turns: Arc<Semaphore>,
    /// What watches the folders of all mirrors, if that is possible.
    pub watch: Option<Arc<TreeWatch>>,
    /// The path of the config.
    pub path: PathBuf,
    /// Cancelled when the agent ends, with all its mirrors.
    pub ends: CancellationToken,
    /// The threads of a session.
    pub threads: usize,
    /// The bytes that the state of a session caches.
    pub cache: u64,
}

/// Keeps one mirror.
pub(super) struct Keeper {
    pub entry: MirrorEntry,
    pub handle: MirrorHandle,
    pub means: Arc<Means>,
    pub stop: CancellationToken,
    /// Whether its entry was another one before: the last catch-up says nothing about this one.
    pub has_changed: bool,
    /// The keepers that still work on the same directory: this one starts when they have ended.
    pub before: Vec<CancellationToken>,
    /// Cancelled when this one has ended.
    pub gone: CancellationToken,
}

/// For what a mirror waits.
enum Wait {
    Due,
    Until(Instant),
    Somebody,
}

/// A mirror keeps its turn to start at most for this time.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// A session that ran for this long has begun well: the pauses before the next tries are short again.
const LONG: Duration = Duration::from_secs(600);

/// What answers requests about a session is given this time to end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// The mirror of a session that has ended is awaited for this time: nobody can open it before that.
const CLOSES_WITHIN: Duration = Duration::from_secs(3);

impl Keeper {
    /// Keeps the mirror until it is told to stop.
    pub async fn keep(self) {
        let _gone = self.gone.clone().drop_guard();
        for one in &self.before {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = one.cancelled() => {}
            }
        }
        let mut due = self.due().await;
        let (mut wait, mut attempts) = (Wait::Due, 0);
        while self.until(&wait, &due).await {
            due.begin(&ClockReading::now());
            let (begun, began) = (Instant::now(), Timestamp::now());
            let fate = match self.before().await {
                None => self.run().await,
                Some(fate) => fate,
            };
            // A start that was wanted while the wait before ended has been made. From here on, a start is
            // wanted because of the state that follows.
            let _made = self.handle.woken().now_or_never();
            if begun.elapsed() > LONG {
                attempts = 0;
            }
            let closed = self.handle.watcher().map(|watcher| watcher.closed());
            let last = self.note(&fate, began);
            let ended = match closed {
                // No session was started.
                None => None,
                Some(closed) => {
                    self.handle.note_state(MirrorState::Stopping);
                    // Who reads events has a moment to read the last ones.
                    let is_closed = timeout(CLOSES_WITHIN, closed).await.is_ok();
                    Some((last, is_closed))
                }
            };
            match fate {
                AfterRun::Stopped => {
                    self.after(ended).await;
                    break;
                }
                AfterRun::Done { trouble } => {
                    (wait, attempts) = (Wait::Due, 0);
                    let next = due.turn(&ClockReading::now()).next();
                    self.handle.note_state(MirrorState::Waiting { next });
                    match trouble {
                        None => tracing::info!("caught up; the mirror is complete"),
                        Some(trouble) => tracing::warn!("caught up, but {trouble}"),
                    }
                }
                AfterRun::Again { error, pauses } => {
                    let pause = pauses.pause(attempts);
                    attempts += 1;
                    wait = Wait::Until(Instant::now() + pause);
                    let next = Timestamp::now().checked_add(pause).unwrap_or(Timestamp::MAX);
                    tracing::error!("{error}; starting again in {} s", pause.as_secs());
                    self.handle.note_state(MirrorState::Failed { error, next });
                }
                AfterRun::Park { error, remedy } => {
                    attempts = 0;
                    wait = Wait::Somebody;
                    let remedy = remedy.replace("NAME", self.handle.name().as_str());
                    tracing::error!("{error}; the mirror is parked: {remedy}");
                    self.handle.note_state(MirrorState::Parked { error, remedy });
                }
            }
            self.after(ended).await;
        }
        self.handle.note_state(MirrorState::Stopping);
    }

    /// When the mirror is due, by the last catch-up of any process that is known.
    async fn due(&self) -> Due {
        let (schedule, now) = (self.entry.schedule.clone(), ClockReading::now());
        if self.has_changed {
            return Due::new(schedule, None, &now);
        }
        let directory = self.entry.directory.clone();
        let look = move || mirror::Ours::find(&directory).ok()?.last_catch_up();
        let last = tokio::task::spawn_blocking(look).await.ok().flatten();
        Due::new(schedule, last, &now)
    }

    /// Waits until the mirror is to start; `false` if it is to stop.
    async fn until(&self, wait: &Wait, due: &Due) -> bool {
        let due = async {
            match wait {
                Wait::Due => self.until_due(due).await,
                Wait::Until(at) => tokio::time::sleep_until(*at).await,
                Wait::Somebody => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = due => true,
            () = self.handle.woken() => true,
        }
    }

    async fn until_due(&self, due: &Due) {
        let mut shown = None;
        loop {
            let now = ClockReading::now();
            let turn = due.turn(&now);
            if turn == Turn::Now {
                return;
            }
            let next = turn.next();
            if shown != Some(next) {
                shown = Some(next);
                self.handle.note_state(MirrorState::Waiting { next });
            }
            sleep(turn.look_in(&now)).await;
        }
    }

    /// One session, from its start to its end. One that panics is one that has ended.
    async fn run(&self) -> AfterRun {
        self.handle.note_state(MirrorState::Starting);
        let turn = tokio::select! {
            () = self.stop.cancelled() => return AfterRun::Stopped,
            // The semaphore is never closed.
            turn = Arc::clone(&self.means.starts).acquire_owned() => turn.ok(),
        };
        let home = match Home::start(self.handle.name(), self.means.threads) {
            Ok(home) => home,
            Err(error) => {
                return AfterRun::of_start(
                    MirrorError::io("start threads for", &self.entry.directory, error).into(),
                );
            }
        };
        let Some(threads) = home.handle() else { return AfterRun::Stopped };
        let run = Run {
            entry: self.entry.clone(),
            handle: self.handle.clone(),
            means: Arc::clone(&self.means),
            stop: self.stop.clone(),
        };
        match threads.spawn(run.whole(turn)).await {
            Ok(fate) => fate,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => AfterRun::of_panic(&*panic),
                Err(_) => AfterRun::Stopped,
            },
        }
    }

    /// Runs what the config has run before each session. What follows if it fails.
    async fn before(&self) -> Option<AfterRun> {
        let command = self.entry.hooks.before.as_ref()?;
        let now = Timestamp::now();
        self.handle.note_state(MirrorState::Waiting { next: Some(now) });
        let ran = tokio::select! {
            () = self.stop.cancelled() => return Some(AfterRun::Stopped),
            ran = self.hook(command, None) => ran,
        };
        ran.err().map(|error| AfterRun::of_hook(format!("`before` of `hooks`: {error}")))
    }

    /// Runs what the config has run after each session that has ended, if its mirror is closed.
    async fn after(&self, ended: Option<(LastRun, bool)>) {
        let (Some(command), Some((last, is_closed))) = (&self.entry.hooks.after, ended) else {
            return;
        };
        let ran = match is_closed {
            false => Err("it did not run, because the mirror is still open".to_owned()),
            true => tokio::select! {
                biased;
                () = self.means.ends.cancelled() => {
                    tracing::warn!("`after` of `hooks` does not run to its end, because the agent stops");
                    return;
                }
                ran = self.hook(command, Some(&last)) => ran,
            },
        };
        if let Err(error) = ran {
            let trouble = format!("`after` of `hooks`: {error}");
            self.handle.note_trouble(trouble.clone());
            tracing::error!("{trouble}");
        }
    }

    /// Runs a program for the mirror. An error names the program without its arguments, which may be secret.
    async fn hook(&self, command: &[String], last: Option<&LastRun>) -> Result<(), String> {
        let (name, directory) = (self.handle.name().as_str(), self.entry.directory.as_path());
        let document = serde_json::json!({
            "mirror": name,
            "directory": directory.display().to_string(),
            "last_run": last,
        });
        let document = document.to_string();
        let variables = [("PLAINFOLD_MIRROR", name)];
        let program = Program { command, variables: &variables };
        let ran = program.run(plain::json(&document).as_bytes(), self.entry.hooks.timeout).await;
        let named = command.first().map(String::as_str).unwrap_or_default();
        ran.map_err(|error| format!("the program {} has failed: {error}", plain::quoted(named)))
    }

    /// Notes how a session ended.
    fn note(&self, fate: &AfterRun, started_at: Timestamp) -> LastRun {
        let (complete, trouble) = match fate {
            AfterRun::Stopped => (false, Some("it was told to stop".to_owned())),
            AfterRun::Done { trouble } => (trouble.is_none(), trouble.clone()),
            AfterRun::Again { error, .. } | AfterRun::Park { error, .. } => {
                (false, Some(error.clone()))
            }
        };
        let ended_at = Timestamp::now();
        let last = LastRun { started_at, ended_at, complete, trouble };
        self.handle.note_end(last.clone());
        last
    }
}

/// One session.
struct Run {
    entry: MirrorEntry,
    handle: MirrorHandle,
    means: Arc<Means>,
    stop: CancellationToken,
}

impl Run {
    async fn whole(self, turn: Option<OwnedSemaphorePermit>) -> AfterRun {
        let Self { entry, handle, means, stop } = self;
        let (follows, started_at) = (entry.schedule.is_live(), Timestamp::now());
        let (started, is_started) = oneshot::channel();
        tokio::spawn(give_back(turn, is_started));
        let lowered = entry.clone();
        let lowered = match tokio::task::spawn_blocking(move || lowered.lower()).await {
            Ok(lowered) => lowered,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let config = match lowered {
            Ok(config) => {
                let agent = AgentMirror { name: entry.name.clone(), config: means.path.clone() };
                let drift = entry.verify.as_ref().map(|verify| verify.lower(means.watch.clone()));
                let turns = Arc::clone(&means.turns);
                config.cache(means.cache).turns(turns).drift(drift).agent(agent)
            }
            Err(error) => return AfterRun::of_entry(&error),
        };
        // A copy of the state that was asked for locks the mirror; none begins while the mirror starts.
        drop(timeout(STARTS_WITHIN, handle.copying()).await);
        let session = tokio::select! {
            started = config.start() => match started {
                Ok(session) => session,
                Err(error) => return AfterRun::of_start(error),
            },
            () = stop.cancelled() => return AfterRun::Stopped,
        };
        let end = match (means.begin)(&session, &entry).await {
            Ok(end) => end,
            Err(error) => {
                session.cancel();
                session.join().await;
                return AfterRun::of_start(error.into());
            }
        };
        let (watcher, canceller) = (session.watcher(), session.canceller());
        handle.note_session(watcher.clone());
        // Nobody waits for it any more if the start took too long.
        let _late = started.send(watcher.clone());
        let ending = tokio::spawn({
            let (stop, handle) = (stop.clone(), handle.clone());
            async move {
                stop.cancelled().await;
                handle.note_state(MirrorState::Stopping);
                canceller.cancel();
            }
        });
        let outcome = session.join().await;
        ending.abort();
        if !follows && outcome.caught_up && outcome.errors.is_empty() {
            let noted = tokio::task::spawn_blocking(move || watcher.note_catch_up(started_at));
            if let Ok(Err(error)) = noted.await {
                tracing::warn!("the catch-up is not noted, so a restart repeats it: {error}");
            }
        }
        // The mirror is open as long as something observes it.
        let _late = timeout(ENDS_WITHIN, end()).await;
        match stop.is_cancelled() {
            true => AfterRun::Stopped,
            false => AfterRun::of_outcome(outcome, follows),
        }
    }
}

/// Holds a turn to start until a session has started and its source has named its collections, until the start
/// has failed, or for some seconds: whatever a start waits for, others get their turn.
async fn give_back(turn: Option<OwnedSemaphorePermit>, started: oneshot::Receiver<Watcher>) {
    let listed = async {
        if let Ok(watcher) = started.await {
            watcher.listed().await;
        }
    };
    let _late = timeout(STARTS_WITHIN, listed).await;
    drop(turn);
}

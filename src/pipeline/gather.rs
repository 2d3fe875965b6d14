//! Reading the feed into batches.
//!
//! A batch is handed on as soon as the next task is free and the feed has nothing more at hand; so
//! a live change is not held up, and a catch-up fills its batches by itself.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Seen};
use super::failures;
use super::report::Phase;
use super::{Pipeline, PipelineError, Signal, Work};
use crate::checkpoint::Failure;
use crate::mirror::Authority;
use crate::source::retry::{Fed, attempts, resilient};
use crate::source::{FeedEvent, Mode, Reading, Since, SourceError};

/// While catching up, a batch waits so long for more: a sync is worth many documents.
const LINGER: Duration = Duration::from_millis(20);

/// Reads the feed from `since` until it ends or `stop`; what was read is handed on even then.
pub async fn gather(
    pipeline: Pipeline,
    since: Since,
    stop: CancellationToken,
    out: mpsc::Sender<Work<Batch>>,
) -> Result<(), PipelineError> {
    let mut gatherer = Gatherer {
        pipeline,
        out,
        batch: Batch::default(),
        seen: None,
        catching_up: true,
        waiting: false,
        security: Security::Due,
        properties_due: true,
        deadline: Instant::now(),
    };
    let name = gatherer.pipeline.collection.name();
    if gatherer.pipeline.checkpoints.is_released(name)? || gatherer.pipeline.brake.is_obsolete() {
        gatherer.release(&stop).await;
    }
    gatherer.revisit(&stop).await?;
    gatherer.read(since, &stop).await
}

/// What the reader of the feed does next.
enum Next {
    Fed(Result<Fed, SourceError>),
    Revisit,
    Release,
    Again,
    Stop,
}

/// What is known of who may do what with the collection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Security {
    /// It is to be asked for.
    Due,
    /// It was told, or will be asked for again in its time.
    Told,
    /// The source does not tell it.
    Untold,
}

struct Gatherer {
    pipeline: Pipeline,
    out: mpsc::Sender<Work<Batch>>,
    batch: Batch,
    /// The documents of the scan that is under way.
    seen: Option<Seen>,
    catching_up: bool,
    /// The feed is broken, and is opened again.
    waiting: bool,
    security: Security,
    /// Whether the source is still to be asked how the collection was created.
    properties_due: bool,
    /// When the batch is handed on at the latest, if there is room.
    deadline: Instant,
}

impl Gatherer {
    async fn read(&mut self, since: Since, stop: &CancellationToken) -> Result<(), PipelineError> {
        let options = self.pipeline.options;
        self.phase_of(&since);
        let source = self.pipeline.source.clone();
        let feed = resilient(source, since, options.mode, options.retry);
        tokio::pin!(feed);
        let mut revisits = tokio::time::interval(options.revisit);
        revisits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        revisits.reset();
        let released = self.pipeline.released.clone();
        loop {
            let (some, full) = (!self.batch.is_empty(), self.batch.is_full());
            let ripe = some && (full || !self.catching_up || Instant::now() >= self.deadline);
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => Next::Stop,
                () = released.notified() => Next::Release,
                fed = feed.next(), if !full => fed.map_or(Next::Stop, Next::Fed),
                permit = self.out.reserve(), if ripe => match permit {
                    Ok(permit) => {
                        permit.send(Work::Batch(std::mem::take(&mut self.batch)));
                        Next::Again
                    }
                    // The next task has ended, and says itself why.
                    Err(_) => Next::Stop,
                },
                () = tokio::time::sleep_until(self.deadline), if some && !ripe => Next::Again,
                _ = revisits.tick(), if options.mode == Mode::Follow => Next::Revisit,
            };
            match next {
                Next::Stop => break,
                Next::Again => {}
                Next::Fed(Ok(fed)) => {
                    // Not before the feed has spoken: a source that refuses one of them refuses both,
                    // and must not be asked twice.
                    if matches!(fed, Fed::Event(_)) && self.security == Security::Due {
                        self.security(stop).await;
                    }
                    if matches!(fed, Fed::Event(_)) && std::mem::take(&mut self.properties_due) {
                        self.properties(stop).await;
                    }
                    self.take(fed).await;
                }
                Next::Fed(Err(error)) => {
                    self.hand_on().await;
                    return Err(error.into());
                }
                Next::Release => {
                    self.release(stop).await;
                    self.revisit(stop).await?;
                }
                Next::Revisit => {
                    self.security(stop).await;
                    self.revisit(stop).await?;
                }
            }
        }
        self.hand_on().await;
        Ok(())
    }

    async fn take(&mut self, fed: Fed) {
        match fed {
            Fed::Event(event) => {
                if std::mem::take(&mut self.waiting) {
                    self.say_working();
                }
                self.take_event(event).await;
            }
            Fed::Waiting { error, pause } => {
                // Whatever was read before the break is worth keeping.
                self.hand_on().await;
                self.say_waiting(&error, pause);
            }
        }
    }

    async fn take_event(&mut self, event: FeedEvent) {
        if self.batch.is_empty() {
            self.deadline = Instant::now() + LINGER;
        }
        match event {
            FeedEvent::Change(change) => {
                if let Some(seen) = &mut self.seen {
                    seen.insert(&change.id);
                }
                if self.batch.conflicts_with(&change) {
                    self.hand_on().await;
                }
                self.batch.push(change, Authority::Feed);
            }
            FeedEvent::Unreadable(row) => {
                if let Some(seen) = &mut self.seen {
                    match &row.id {
                        Some(id) => seen.insert(id),
                        None => seen.blind = true,
                    }
                }
                self.batch.push_unreadable(row);
            }
            FeedEvent::Position(position) => self.batch.position = Some(position),
            FeedEvent::ScanStarted { reason } => {
                self.hand_on().await;
                self.catching_up = true;
                self.seen = Some(Seen::default());
                self.signal(Signal::BeginScan(reason)).await;
            }
            FeedEvent::ScanFinished { position, exhaustive } => {
                self.hand_on().await;
                let seen = self.seen.take().filter(|_| exhaustive);
                self.signal(Signal::EndScan { position, seen }).await;
            }
            FeedEvent::Holds(holds) => {
                self.hand_on().await;
                self.signal(Signal::Holds(holds)).await;
            }
            FeedEvent::CaughtUp => {
                self.hand_on().await;
                self.catching_up = false;
                self.signal(Signal::CaughtUp).await;
            }
            FeedEvent::Progress(progress) => {
                self.pipeline.reporter.update(|report| report.progress = Some(progress));
            }
        }
    }

    async fn hand_on(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.send(Work::Batch(batch)).await;
        }
    }

    async fn signal(&self, signal: Signal) {
        self.send(Work::Signal(signal)).await;
    }

    async fn send(&self, work: Work<Batch>) {
        // When the next task has ended it says itself why, and this one is told to stop.
        let _ended = self.out.send(work).await;
    }

    /// Asks who may do what with the collection: no feed tells when that changes.
    async fn security(&mut self, stop: &CancellationToken) {
        if self.security == Security::Untold {
            return;
        }
        let (policy, source) = (&self.pipeline.options.retry, &self.pipeline.source);
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = attempts(policy, || source.security()) => answer,
        };
        let trouble = answer.as_ref().err().map(ToString::to_string);
        self.pipeline.reporter.update(|report| report.security_trouble = trouble);
        self.security = match answer {
            Ok(Some(security)) => {
                self.signal(Signal::Security(security)).await;
                Security::Told
            }
            Ok(None) => Security::Untold,
            Err(error) => {
                let collection = self.pipeline.collection.name();
                tracing::warn!(%collection, "its security object could not be mirrored: {error}");
                match error {
                    SourceError::Transient { .. } => Security::Told,
                    _ => Security::Untold,
                }
            }
        };
    }

    /// Asks how the collection was created, so that a restore creates it so. Once a run, and a source
    /// that fails is asked by the next one.
    async fn properties(&mut self, stop: &CancellationToken) {
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = self.pipeline.source.properties() => answer,
        };
        match answer {
            Ok(Some(properties)) => self.signal(Signal::Properties(properties)).await,
            Ok(None) => {}
            Err(error) => {
                let collection = self.pipeline.collection.name();
                tracing::warn!(%collection, "whether the database is partitioned, and its \
                                             `_revs_limit`, could not be read: {error}");
            }
        }
    }

    /// Has deleted what the brake held back. Where tombstones are kept, that makes documents to be
    /// revisited, so it is waited for.
    async fn release(&mut self, stop: &CancellationToken) {
        self.hand_on().await;
        self.signal(Signal::Release).await;
        let mut reports = self.pipeline.watch();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.out.closed() => {}
            _released = reports.wait_for(|report| report.held_back == 0) => {}
        }
    }

    /// Tries the documents again that could not be mirrored.
    async fn revisit(&mut self, stop: &CancellationToken) -> Result<(), PipelineError> {
        let failures = self.pipeline.failures.all();
        for failure in failures {
            let Some(id) = &failure.document else { continue };
            // Once each: it is the next round's turn to try again, and the feed waits meanwhile.
            let reading = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                reading = self.pipeline.source.document(id, failure.position.as_ref()) => reading,
            };
            match reading {
                Ok(Reading::Found(change)) => {
                    if self.batch.is_full() {
                        self.hand_on().await;
                    }
                    let change = crate::document::Change { position: None, ..change };
                    self.batch.push(change, Authority::Confirmed);
                }
                Ok(Reading::Unknown) => self.batch.gone.push(id.clone()),
                Err(error @ SourceError::Refused { .. }) => return Err(error.into()),
                Err(error) => {
                    let reason = error.to_string();
                    let failure = Failure { reason, at: jiff::Timestamp::now(), ..failure };
                    self.batch.failed.push(failure);
                }
            }
        }
        self.hand_on().await;
        Ok(())
    }

    fn phase_of(&self, since: &Since) {
        if self.pipeline.removals_only {
            return;
        }
        let phase = match since {
            Since::Scan(_) => Phase::Scanning,
            Since::Start | Since::Position(_) => Phase::CatchingUp,
        };
        self.pipeline.reporter.update(|report| report.phase = phase);
    }

    fn say_working(&self) {
        let phase = match (&self.seen, self.catching_up) {
            (Some(_), _) => Phase::Scanning,
            (None, true) => Phase::CatchingUp,
            (None, false) => Phase::Live,
        };
        tracing::info!(collection = %self.pipeline.collection.name(), "the source answers again");
        if self.pipeline.removals_only {
            return;
        }
        self.pipeline.reporter.update(|report| {
            report.phase = phase;
            report.trouble = None;
        });
    }

    fn say_waiting(&mut self, error: &SourceError, pause: Duration) {
        let collection = self.pipeline.collection.name();
        if pause.is_zero() {
            tracing::warn!(%collection, "the feed is opened again: {error}");
            return;
        }
        self.waiting = true;
        let seconds = pause.as_secs_f32();
        tracing::warn!(%collection, "{error}; trying again in {seconds:.1} s");
        self.pipeline.reporter.update(|report| {
            report.phase = Phase::Waiting;
            report.trouble = Some(error.to_string());
        });
    }
}

impl Batch {
    /// The failures that this batch brings, apart from those that come up as it is prepared.
    pub fn take_failures(&mut self) -> Vec<Failure> {
        let rows = std::mem::take(&mut self.unreadable);
        let mut failed = std::mem::take(&mut self.failed);
        failed.extend(rows.into_iter().map(failures::of_row));
        failed
    }
}

//! Reading the feed into batches.
//!
//! A batch is handed on as soon as the next task is free and the feed has no more rows ready. So a
//! live change is not delayed, and a catch-up fills its batches.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::asker::FeedState;
use super::batch::{Batch, Seen};
use super::failures;
use super::report::{Awaited, Phase, RunState};
use super::work::{Signal, Work};
use super::{Pipeline, PipelineError};
use crate::checkpoint::Failure;
use crate::mirror::Authority;
use crate::source::outage::{Mention, Said};
use crate::source::retry::{self, Fed, resilient};
use crate::source::{FeedEvent, ServerProgress, Since, SourceError};

/// While catching up, a batch waits this long for more changes: one sync for many documents is
/// cheaper.
const LINGER: Duration = Duration::from_millis(20);

/// Reads the feed from `since` until it ends or `stop` is cancelled; changes that were read are
/// handed on even then.
pub async fn gather(
    pipeline: Pipeline,
    since: Since,
    stop: CancellationToken,
    out: mpsc::Sender<Work<Batch>>,
    reading: watch::Sender<FeedState>,
) -> Result<(), PipelineError> {
    let mut gatherer = Gatherer {
        pipeline,
        out,
        batch: Batch::default(),
        seen: None,
        catching_up: true,
        waiting: None,
        said: Said::default(),
        server_away: false,
        named: false,
        reading,
        deadline: Instant::now(),
        unreadable: 0,
    };
    let name = gatherer.pipeline.collection.name();
    if gatherer.pipeline.checkpoints.is_released(name)? || gatherer.pipeline.brake.is_obsolete() {
        gatherer.release(&stop).await;
    }
    gatherer.read(since, &stop).await
}

/// The next step of the reader of the feed.
enum Next {
    Fed(Result<Fed, SourceError>),
    Release,
    Again,
    Stop,
}

struct Gatherer {
    pipeline: Pipeline,
    out: mpsc::Sender<Work<Batch>>,
    batch: Batch,
    /// The documents of the scan in progress.
    seen: Option<Seen>,
    catching_up: bool,
    /// The time since which the feed has been broken, if it is.
    waiting: Option<Instant>,
    /// What the log has said of this wait.
    said: Said,
    /// Whether it waits for the whole server, which the log names once for all collections.
    server_away: bool,
    /// Whether the log has named a trouble of this collection alone.
    named: bool,
    /// Receives the progress of reading.
    reading: watch::Sender<FeedState>,
    /// The latest time to hand on the batch, if there is room.
    deadline: Instant,
    /// The rows of this catch-up that could not be read.
    unreadable: u64,
}

impl Gatherer {
    async fn read(&mut self, since: Since, stop: &CancellationToken) -> Result<(), PipelineError> {
        let options = self.pipeline.options;
        let collection = self.pipeline.collection.name();
        match &since {
            Since::Position(_) => tracing::debug!(%collection, "resuming the feed"),
            Since::Start | Since::Scan(_) => {
                tracing::debug!(%collection, "reading the feed from its beginning");
            }
        }
        self.phase_of(&since);
        let source = self.pipeline.source.clone();
        let feed = resilient(source, since, options.mode, options.retry);
        tokio::pin!(feed);
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
                    // The next task has ended, and reports the reason itself.
                    Err(_) => Next::Stop,
                },
                () = tokio::time::sleep_until(self.deadline), if some && !ripe => Next::Again,
            };
            match next {
                Next::Stop => break,
                Next::Again => {}
                Next::Fed(Ok(fed)) => {
                    if matches!(fed, Fed::Event(_)) {
                        let silent = |reading: &mut FeedState| {
                            *reading == FeedState::Silent && {
                                *reading = FeedState::Speaks;
                                true
                            }
                        };
                        self.reading.send_if_modified(silent);
                    }
                    if let Fed::Event(FeedEvent::Unreadable(row)) = &fed
                        && let Err(error) = self.count_unreadable(&row.place)
                    {
                        self.hand_on().await;
                        return Err(error);
                    }
                    self.take(fed).await;
                }
                Next::Fed(Err(error)) => {
                    self.hand_on().await;
                    return Err(error.into());
                }
                Next::Release => self.release(stop).await,
            }
        }
        self.hand_on().await;
        self.reading.send_replace(FeedState::Ended);
        Ok(())
    }

    async fn take(&mut self, fed: Fed) {
        match fed {
            Fed::Event(event) => {
                let ear = self.pipeline.reporter.ear();
                match event {
                    FeedEvent::Change(_) | FeedEvent::Unreadable(_) => ear.hear_row(),
                    _ => ear.hear(),
                }
                if let Some(since) = self.waiting.take() {
                    self.say_working(since.elapsed());
                }
                self.take_event(event).await;
            }
            Fed::Waiting { error, pause } => {
                self.pipeline.reporter.ear().expect_nothing();
                // The changes that were read before the break are kept.
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
                self.note_passed();
            }
            FeedEvent::Unreadable(row) => {
                if let Some(seen) = &mut self.seen {
                    match &row.id {
                        Some(id) => seen.insert(id),
                        None => seen.blind = true,
                    }
                }
                self.batch.push_unreadable(row);
                self.note_passed();
            }
            FeedEvent::Position(position) => self.batch.position = Some(position),
            FeedEvent::ScanStarted { reason } => {
                self.hand_on().await;
                self.catching_up = true;
                self.unreadable = 0;
                self.seen = Some(Seen::default());
                // It keeps its place until the scan is complete.
                self.pipeline.run_state.send_replace(RunState::Works);
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
            // CouchDB says so after each change. The batch may grow until it is handed on.
            FeedEvent::CaughtUp if !self.catching_up => {
                self.batch.at_end = Some(self.pipeline.reporter.ear().at_end());
            }
            FeedEvent::CaughtUp => {
                let end = self.pipeline.reporter.ear().at_end();
                self.hand_on().await;
                self.catching_up = false;
                self.signal(Signal::CaughtUp(end)).await;
            }
            FeedEvent::Progress(progress) => {
                self.pipeline.reporter.update(|report| report.progress = Some(progress));
            }
        }
    }

    /// Notes that the feed has passed an end that the source stated earlier. While rows come without a pause,
    /// the source reports no other end.
    fn note_passed(&mut self) {
        if !self.catching_up
            && let Some(end) = self.pipeline.reporter.ear().passes()
        {
            self.batch.at_end = Some(end);
        }
    }

    /// Counts a row that cannot be read; an error if there have been too many in this catch-up.
    fn count_unreadable(&mut self, place: &str) -> Result<(), PipelineError> {
        let limit = self.pipeline.options.max_failures.filter(|_| self.catching_up);
        match limit {
            Some(limit) if self.unreadable >= limit => {
                Err(PipelineError::TooManyFailures { limit, place: place.to_owned() })
            }
            _ => {
                self.unreadable += 1;
                Ok(())
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
        // If the next task has ended, it reports the reason, and this one is told to stop.
        let _ended = self.out.send(work).await;
    }

    /// Requests the deletion of what the brake held back. If tombstones are kept, this adds
    /// documents to look up, so it waits for the deletion.
    async fn release(&mut self, stop: &CancellationToken) {
        self.hand_on().await;
        self.signal(Signal::Release).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.out.closed() => {}
            () = self.pipeline.brake.is_free() => {}
        }
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

    fn say_working(&mut self, waited: Duration) {
        let phase = match (&self.seen, self.catching_up) {
            (Some(_), _) => Phase::Scanning,
            (None, true) => Phase::CatchingUp,
            (None, false) => Phase::Live,
        };
        let (collection, seconds) = (self.pipeline.collection.name(), waited.as_secs_f32());
        let outage = match std::mem::take(&mut self.server_away) {
            true => self.pipeline.source.server().and_then(ServerProgress::end_outage),
            false => None,
        };
        self.said = Said::default();
        match (outage, std::mem::take(&mut self.named)) {
            (Some(ended), _) if ended.waited > 1 => tracing::info!("{ended}"),
            (Some(_), _) | (None, true) => {
                tracing::info!(%collection, "the source answers again after {seconds:.1} s");
            }
            (None, false) => {
                tracing::debug!(%collection, "the source answers again after {seconds:.1} s");
            }
        }
        if self.pipeline.removals_only {
            return;
        }
        self.pipeline.reporter.update(|report| {
            report.phase = phase;
            report.trouble = None;
        });
        let run_state = if phase == Phase::Live { RunState::AtEnd } else { RunState::Works };
        self.pipeline.run_state.send_replace(run_state);
    }

    fn say_waiting(&mut self, error: &SourceError, pause: Duration) {
        let collection = self.pipeline.collection.name();
        if pause.is_zero() {
            tracing::warn!(%collection, "the feed is opened again: {error}");
            return;
        }
        let trouble = error.to_string();
        self.waiting.get_or_insert_with(Instant::now);
        let until = retry::until(pause, self.pipeline.options.retry.give_up_after);
        let server = self.pipeline.source.server();
        let of_server =
            server.and_then(|server| server.mention(Some(collection), error, &mut self.said));
        self.server_away |= of_server.is_some();
        self.named |= of_server.is_none();
        let mention = of_server.unwrap_or_else(|| match self.said.is_due(&trouble) {
            true => Mention::Reason(1),
            false => Mention::Nothing,
        });
        match mention {
            Mention::Reason(waiting @ 2..) => {
                tracing::warn!(%collection, "{error}; {until}; {waiting} collections wait for the server");
            }
            Mention::Reason(_) => tracing::warn!(%collection, "{error}; {until}"),
            Mention::Others => tracing::warn!(
                "more collections wait for the server for the same reason; the log does not name them",
            ),
            Mention::Nothing => tracing::debug!(%collection, "{error}; {until}"),
        }
        let awaited = match error {
            SourceError::Missing { .. } => Awaited::Database,
            _ => Awaited::Source,
        };
        self.pipeline.reporter.update(|report| report.wait(awaited, trouble, pause));
        self.pipeline.run_state.send_replace(RunState::Waits);
    }
}

impl Batch {
    /// The failures in this batch, without those that occur while it is prepared.
    pub fn take_failures(&mut self) -> Vec<Failure> {
        let rows = std::mem::take(&mut self.unreadable);
        rows.into_iter().map(failures::of_row).collect()
    }
}

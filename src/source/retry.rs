//! The one place that waits and tries again: an adaptor over a feed, and one over a single request.
//!
//! Sources say what kind of error it is; this decides what follows from it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use tokio::time::Instant;

use super::outage::Said;
use super::{Feed, FeedEvent, Mode, ServerProgress, Since, SourceError, Store, StoreEvent};
use crate::document::Position;

/// How long to wait between tries, and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first pause. Each further one is about twice as long, with jitter.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// After this time without any progress the run gives up; `None` means never.
    pub give_up_after: Option<Duration>,
    /// How often a single document or attachment is tried.
    pub attempts: usize,
}

impl RetryPolicy {
    /// For a catch-up: somebody waits for the exit code.
    pub const CATCH_UP: Self = Self {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(10),
        give_up_after: Some(Duration::from_secs(30)),
        attempts: 4,
    };

    /// For a service: the source will come back.
    pub const FOLLOW: Self = Self {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(30),
        give_up_after: None,
        attempts: 4,
    };

    /// The pause after this number of failed attempts and one.
    pub fn pause(&self, attempts: usize) -> Duration {
        self.pauses().nth(attempts).unwrap_or(self.longest)
    }

    fn pauses(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// An item of a resilient feed.
#[derive(Clone, Debug)]
pub enum Fed {
    /// An event of the feed itself.
    Event(FeedEvent),
    /// The feed broke, and is opened again after a pause.
    Waiting {
        /// What broke it.
        error: SourceError,
        /// The pause.
        pause: Duration,
    },
}

/// A feed that survives transient errors. Its only errors are final.
///
/// It opens the feed again after the last position that was yielded, so that nothing is lost and
/// rows may be repeated.
pub fn resilient(
    source: Arc<dyn Feed>,
    since: Since,
    mode: Mode,
    policy: RetryPolicy,
) -> impl Stream<Item = Result<Fed, SourceError>> + Send {
    let feed = Resilient {
        mode,
        since,
        state: State::Closed,
        patience: Patience::new(policy),
        source,
        stuck_at: None,
        broke_at: VecDeque::new(),
        at_end: false,
        expired: None,
    };
    stream::unfold(feed, |mut feed| async move { Some((feed.step().await?, feed)) })
}

struct Resilient {
    source: Arc<dyn Feed>,
    mode: Mode,
    /// From where it would be opened now.
    since: Since,
    state: State,
    patience: Patience,
    /// From where it was opened when it broke last, until it gets ahead.
    stuck_at: Option<Since>,
    /// Where it broke recently: to reach these positions again does not count as progress.
    broke_at: VecDeque<Since>,
    /// Whether it has been at the source's end since it was opened.
    at_end: bool,
    /// When a position was last of no use.
    expired: Option<Instant>,
}

/// How many places are remembered at which a feed broke.
const PLACES: usize = 64;

/// The longest pause that a source may ask for. One that asks for more is tried again after this.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// The longest pause after refused credentials.
const LONGEST_REFUSED: Duration = Duration::from_secs(600);

/// A source may ask, once, for a pause that is this number of times as long as our patience.
const OBEDIENCE: u32 = 10;

/// If a position is of no use again within this time, several servers answer under one address.
const STEADY: Duration = Duration::from_secs(60);

enum State {
    Closed,
    Open(BoxStream<'static, Result<FeedEvent, SourceError>>),
    Pausing(Duration),
    Over,
}

impl Resilient {
    async fn step(&mut self) -> Option<Result<Fed, SourceError>> {
        loop {
            match &mut self.state {
                State::Over => return None,
                State::Pausing(pause) => {
                    tokio::select! {
                        () = tokio::time::sleep(*pause) => {}
                        () = self.source.recovers() => {}
                    }
                    self.state = State::Closed;
                }
                State::Closed => {
                    self.at_end = false;
                    self.state = State::Open(self.source.changes(self.since.clone(), self.mode));
                }
                State::Open(stream) => match stream.next().await {
                    Some(Ok(event)) => {
                        self.note(&event);
                        return Some(Ok(Fed::Event(event)));
                    }
                    None if self.mode == Mode::CatchUp => {
                        self.step_noted();
                        self.state = State::Over;
                    }
                    None => {
                        let error = SourceError::transient("the feed ended by itself");
                        return Some(self.broken(error));
                    }
                    Some(Err(error)) => return Some(self.broken(error)),
                },
            }
        }
    }

    /// Moves the place from which the feed would be opened again.
    fn note(&mut self, event: &FeedEvent) {
        let position = match event {
            FeedEvent::ScanStarted { reason } => {
                self.since = Since::Scan(reason.clone());
                return;
            }
            FeedEvent::ScanFinished { position, .. } => Some(position),
            // An interrupted scan starts over: what it had seen is not remembered.
            _ if matches!(self.since, Since::Scan(_)) => None,
            FeedEvent::Position(position) => Some(position),
            FeedEvent::Change(change) => change.position.as_ref(),
            FeedEvent::Unreadable(row) => row.position.as_ref(),
            FeedEvent::Holds(_) | FeedEvent::CaughtUp | FeedEvent::Progress(_) => None,
        };
        if let Some(position) = position {
            self.since = Since::Position(position.clone());
            if self.stuck_at.is_none() {
                self.step_noted();
            }
        }
        let moved = self.stuck_at.is_some() && !self.broke_at.contains(&self.since);
        // The first end after an opening says only that the source can be opened.
        let lives =
            matches!(event, FeedEvent::CaughtUp) && std::mem::replace(&mut self.at_end, true);
        if moved || lives {
            self.stuck_at = None;
            self.patience.renew();
            self.step_noted();
        }
    }

    /// The other collections of the server see that it serves this one.
    fn step_noted(&self) {
        if let Some(server) = self.source.server() {
            server.note();
        }
    }

    fn broken(&mut self, error: SourceError) -> Result<Fed, SourceError> {
        if let SourceError::Expired { reason } = &error
            && !matches!(self.since, Since::Scan(_))
        {
            // A scan follows at once; if the source refuses even that, it waits. If another server
            // answers each time, there is a pause between scans.
            self.since = Since::Scan(reason.clone());
            let before = self.expired.replace(Instant::now());
            if before.is_some_and(|before| before.elapsed() < STEADY) {
                let pause = self.patience.policy.longest;
                self.state = State::Pausing(pause);
                return Ok(Fed::Waiting { error, pause });
            }
            self.state = State::Closed;
            return Ok(Fed::Waiting { error, pause: Duration::ZERO });
        }
        self.stuck_at.get_or_insert_with(|| self.since.clone());
        if !self.broke_at.contains(&self.since) {
            self.broke_at.truncate(PLACES - 1);
            self.broke_at.push_front(self.since.clone());
        }
        match self.patience.pause(error, self.mode, self.source.server()) {
            Ok((error, pause)) => {
                self.state = State::Pausing(pause);
                Ok(Fed::Waiting { error, pause })
            }
            Err(error) => {
                self.state = State::Over;
                Err(error)
            }
        }
    }
}

/// Decides how long to wait after an error, and when to wait no longer.
struct Patience {
    policy: RetryPolicy,
    pauses: ExponentialBackoff,
    stuck_since: Option<Instant>,
    /// How far the server's other collections were at the last error.
    others: u64,
    /// Whether a pause longer than the patience has been waited for.
    obeyed: bool,
}

impl Patience {
    fn new(policy: RetryPolicy) -> Self {
        Self { policy, pauses: policy.pauses(), stuck_since: None, others: 0, obeyed: false }
    }

    /// There was progress: the next error starts with a short pause again.
    fn renew(&mut self) {
        *self = Self { others: self.others, ..Self::new(self.policy) };
    }

    /// The pause before the next try; or the error back, when it is final.
    fn pause(
        &mut self,
        error: SourceError,
        mode: Mode,
        server: Option<&ServerProgress>,
    ) -> Result<(SourceError, Duration), SourceError> {
        let asked = match &error {
            SourceError::Transient { retry_after, .. } => retry_after.unwrap_or_default(),
            SourceError::Expired { .. } => Duration::ZERO,
            // A service waits for a database that may be created again.
            SourceError::Missing { .. } if mode == Mode::Follow => Duration::ZERO,
            SourceError::Missing { .. }
            | SourceError::Refused { .. }
            | SourceError::NotAFeed { .. }
            | SourceError::Permanent { .. } => return Err(error),
        };
        let now = Instant::now();
        let others = server.map_or(0, ServerProgress::of_others);
        if std::mem::replace(&mut self.others, others) != others {
            // The server is there: it serves other collections.
            self.stuck_since = Some(now);
        }
        let too_long = asked > LONGEST_REFUSED;
        let asked = if too_long { LONGEST_ASKED } else { asked };
        let pause = self.pauses.next().unwrap_or(self.policy.longest).max(asked);
        let stuck_for = now - *self.stuck_since.get_or_insert(now);
        match self.policy.give_up_after {
            None => Ok((error, pause)),
            // Once, the source may ask for more than our patience.
            Some(patience)
                if !self.obeyed
                    && asked > patience.saturating_sub(stuck_for)
                    && asked <= (patience * OBEDIENCE).min(LONGEST_ASKED)
                    && !too_long =>
            {
                self.obeyed = true;
                Ok((error, pause))
            }
            Some(patience) if stuck_for >= patience => Err(error),
            // One last try when patience ends.
            Some(patience) => Ok((error, pause.min(patience - stuck_for))),
        }
    }
}

/// What a resilient list of collections says.
#[derive(Debug)]
pub enum Listed {
    /// The list itself spoke.
    Event(StoreEvent),
    /// The list broke, and is requested again after a pause.
    Waiting {
        /// What broke it.
        error: SourceError,
        /// The pause.
        pause: Duration,
    },
}

/// When, and for how long, a source that does not answer is tried again, as a clause for people.
pub fn until(pause: Duration, give_up_after: Option<Duration>) -> String {
    let seconds = pause.as_secs_f32();
    match give_up_after {
        Some(patience) => {
            format!("trying again in {seconds:.1} s, and for up to {} s", patience.as_secs())
        }
        None => format!("trying again in {seconds:.1} s, and until it works"),
    }
}

/// Logs that a source is tried again: a warning for each new reason, and again after an hour.
pub fn log_wait(error: &SourceError, pause: Duration, policy: RetryPolicy, said: &mut Said) {
    let until = until(pause, policy.give_up_after);
    match said.is_due(&error.to_string()) {
        true => tracing::warn!("{error}; {until}"),
        false => tracing::debug!("{error}; {until}"),
    }
}

/// A store's list of collections that survives transient errors. It may name a collection again after
/// a break.
pub fn listing(
    store: Arc<dyn Store>,
    mode: Mode,
    since: Option<Position>,
    policy: RetryPolicy,
) -> impl Stream<Item = Result<Listed, SourceError>> + Send {
    let start = (store, None::<BoxStream<'static, _>>, Some(Patience::new(policy)), None);
    stream::unfold(start, move |(store, mut open, patience, pause)| {
        let since = since.clone();
        async move {
            let mut patience = patience?;
            if let Some(pause) = pause {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = store.recovers() => {}
                }
            }
            let listing = open.get_or_insert_with(|| store.collections(mode, since));
            match listing.next().await? {
                Ok(event) => {
                    patience.renew();
                    Some((Ok(Listed::Event(event)), (store, open, Some(patience), None)))
                }
                Err(error) => match patience.pause(error, mode, None) {
                    Ok((error, pause)) => {
                        let next = (store, None, Some(patience), Some(pause));
                        Some((Ok(Listed::Waiting { error, pause }), next))
                    }
                    Err(error) => Some((Err(error), (store, None, None, None))),
                },
            }
        }
    })
}

/// Tries a single request again while its error is transient, or while what it asks for is missing
/// (a cluster may lag), up to `policy.attempts` times. A source that asks for a longer pause than the
/// policy's own is not asked again: it would hold up others.
pub async fn attempts<T, F>(
    policy: &RetryPolicy,
    mut request: impl FnMut() -> F,
) -> Result<T, SourceError>
where
    F: Future<Output = Result<T, SourceError>>,
{
    let mut pauses = policy.pauses().take(policy.attempts.saturating_sub(1));
    loop {
        let error = match request().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let asked = match &error {
            SourceError::Transient { retry_after, .. } => retry_after.unwrap_or_default(),
            SourceError::Missing { .. } => Duration::ZERO,
            _ => return Err(error),
        };
        let Some(pause) = pauses.next() else { return Err(error) };
        if asked > policy.longest {
            return Err(error);
        }
        tokio::time::sleep(pause.max(asked)).await;
    }
}

#[cfg(test)]
mod tests;

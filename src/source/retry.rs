//! The one place that waits and tries again: an adaptor over a feed, and one over a single request.
//!
//! Sources say what kind of error it is; here it is decided what follows from that. It must not
//! know any store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use super::{FeedEvent, Mode, ServerProgress, Since, Source, SourceError, Store, StoreEvent};
use crate::document::Position;

/// How long to wait between tries, and when to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first pause. Each further one is about twice as long, with jitter.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// After so long without any progress a feed is given up; `None` is never.
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

    /// For a service: the source comes back one day.
    pub const FOLLOW: Self = Self {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(30),
        give_up_after: None,
        attempts: 4,
    };

    fn pauses(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_jitter()
            .without_max_times()
            .build()
    }
}

/// What a resilient feed says.
#[derive(Clone, Debug)]
pub enum Fed {
    /// The feed itself spoke.
    Event(FeedEvent),
    /// The feed broke, and is opened again after a pause.
    Waiting {
        /// What broke it.
        error: SourceError,
        /// The pause.
        pause: Duration,
    },
}

/// A feed that survives what can be survived. Its only errors are final.
///
/// It opens the feed again after the last position that was yielded, so that nothing is lost and
/// rows may be repeated.
pub fn resilient(
    source: Arc<dyn Source>,
    since: Since,
    mode: Mode,
    policy: RetryPolicy,
) -> impl Stream<Item = Result<Fed, SourceError>> + Send {
    let feed = Feed {
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

struct Feed {
    source: Arc<dyn Source>,
    mode: Mode,
    /// From where it would be opened now.
    since: Since,
    state: State,
    patience: Patience,
    /// From where it was opened when it broke last, until it gets ahead.
    stuck_at: Option<Since>,
    /// Where it broke of late: to come there once more is no progress.
    broke_at: VecDeque<Since>,
    /// Whether it has been at the source's end since it was opened.
    at_end: bool,
    /// When a position was of no use last.
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

/// A position that is of no use again within this time shows a source that is not one and the same.
const STEADY: Duration = Duration::from_secs(60);

enum State {
    Closed,
    Open(BoxStream<'static, Result<FeedEvent, SourceError>>),
    Pausing(Duration),
    Over,
}

impl Feed {
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
            // A scan follows at once; should the source refuse even that, it waits. One that is
            // another each time it is asked is not scanned without a rest.
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
    /// Whether a pause longer than our patience was waited for.
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
            | SourceError::Permanent { .. } => return Err(error),
        };
        let now = Instant::now();
        let others = server.map_or(0, ServerProgress::of_others);
        if std::mem::replace(&mut self.others, others) != others {
            // The server is not gone: it serves others.
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

/// A store's list of collections that survives what can be survived. It may name a collection
/// again after a break.
pub fn listing(
    store: Arc<dyn Store>,
    mode: Mode,
    since: Option<Position>,
    policy: RetryPolicy,
) -> impl Stream<Item = Result<StoreEvent, SourceError>> + Send {
    let start = (store, None::<BoxStream<'static, _>>, Some(Patience::new(policy)));
    stream::unfold(start, move |(store, mut open, patience)| {
        let since = since.clone();
        async move {
            let mut patience = patience?;
            loop {
                let listing = open.get_or_insert_with(|| store.collections(mode, since.clone()));
                let error = match listing.next().await? {
                    Ok(event) => {
                        patience.renew();
                        return Some((Ok(event), (store, open, Some(patience))));
                    }
                    Err(error) => error,
                };
                open = None;
                match patience.pause(error, mode, None) {
                    Ok((error, pause)) => {
                        let seconds = pause.as_secs_f32();
                        tracing::warn!("{error}; trying again in {seconds:.1} s");
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            () = store.recovers() => {}
                        }
                    }
                    Err(error) => return Some((Err(error), (store, None, None))),
                }
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
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::document::Position;
    use crate::source::scripted::{Said, Scripted};

    fn at(token: &str) -> Position {
        Position::new(token, "".into(), None)
    }

    fn position(token: &str) -> Said {
        Ok(FeedEvent::Position(at(token)))
    }

    fn cut() -> Said {
        Err(SourceError::transient("the connection was cut"))
    }

    const QUICK: RetryPolicy = RetryPolicy {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(2),
        give_up_after: Some(Duration::from_millis(40)),
        attempts: 3,
    };

    async fn run(
        scripts: Vec<Vec<Said>>,
        since: Since,
        mode: Mode,
    ) -> (Vec<Result<Fed, SourceError>>, Vec<Since>) {
        let source = Arc::new(Scripted::new(scripts));
        let feed = resilient(Arc::clone(&source) as Arc<dyn Source>, since, mode, QUICK);
        let said = feed.take(200).collect().await;
        let opened = source.opened.lock().unwrap().clone();
        (said, opened)
    }

    #[tokio::test]
    async fn a_broken_feed_goes_on_after_the_last_position() {
        let scripts = vec![
            vec![position("1"), position("2"), cut()],
            vec![position("3"), Ok(FeedEvent::CaughtUp)],
        ];
        let (said, opened) = run(scripts, Since::Start, Mode::CatchUp).await;
        assert_eq!(opened, [Since::Start, Since::Position(at("2"))]);
        assert!(matches!(said[2], Ok(Fed::Waiting { .. })));
        assert!(matches!(said.last(), Some(Ok(Fed::Event(FeedEvent::CaughtUp)))));
    }

    #[tokio::test]
    async fn a_feed_that_makes_no_progress_is_given_up() {
        let scripts = (0..100).map(|_| vec![position("1"), cut()]).collect();
        let (said, opened) = run(scripts, Since::Start, Mode::CatchUp).await;
        assert!(opened.len() > 2, "it was tried again");
        assert!(matches!(said.last(), Some(Err(SourceError::Transient { .. }))));
    }

    #[tokio::test]
    async fn a_feed_that_goes_round_in_circles_is_given_up() {
        let round = |n: usize| vec![position(["1", "2"][n % 2]), cut()];
        let (said, opened) = run((0..200).map(round).collect(), Since::Start, Mode::CatchUp).await;
        assert!(opened.len() < 200, "it went round and round");
        assert!(matches!(said.last(), Some(Err(SourceError::Transient { .. }))));
    }

    #[tokio::test]
    async fn a_follower_that_is_sent_away_at_the_end_waits_longer_each_time() {
        let end = || vec![position("1"), Ok(FeedEvent::CaughtUp), cut()];
        let (said, opened) =
            run((0..200).map(|_| end()).collect(), Since::Position(at("1")), Mode::Follow).await;
        assert!(opened.len() < 100, "it is always told the same end");
        assert!(matches!(said.last(), Some(Err(SourceError::Transient { .. }))));
    }

    #[tokio::test]
    async fn a_source_that_is_another_each_time_is_scanned_with_a_rest_between() {
        let scan = || {
            let reason = "it was created again".to_owned();
            let expired = SourceError::Expired { reason: reason.clone() };
            let finished = FeedEvent::ScanFinished { position: at("9"), exhaustive: true };
            let started = FeedEvent::ScanStarted { reason };
            vec![Ok(started), Ok(finished), Ok(FeedEvent::CaughtUp), Err(expired)]
        };
        let expired = vec![Err(SourceError::Expired { reason: "it was created again".into() })];
        let scripts = vec![expired, scan(), scan()];
        let (said, _) = run(scripts, Since::Position(at("5")), Mode::Follow).await;
        let pauses: Vec<_> = said
            .iter()
            .filter_map(|said| match said {
                Ok(Fed::Waiting { error: SourceError::Expired { .. }, pause }) => Some(*pause),
                _ => None,
            })
            .collect();
        assert_eq!(pauses, [Duration::ZERO, QUICK.longest, QUICK.longest]);
    }

    #[tokio::test]
    async fn a_wait_that_is_longer_than_we_are_patient_is_not_begun() {
        let tries = Mutex::new(0);
        let busy = |seconds| SourceError::Transient {
            what: "busy".into(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let answer: Result<(), _> = attempts(&QUICK, || {
            *tries.lock().unwrap() += 1;
            async { Err(busy(3600)) }
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(*tries.lock().unwrap(), 1);
    }

    fn asking(pause: Duration) -> SourceError {
        SourceError::Transient { what: "busy".into(), retry_after: Some(pause) }
    }

    #[test]
    fn a_pause_that_the_source_asks_for_is_kept_to_once_even_if_we_are_less_patient() {
        let ms = Duration::from_millis;
        let mut patience = Patience::new(QUICK);
        let pause = |patience: &mut Patience, asked| {
            patience.pause(asking(asked), Mode::CatchUp, None).map(|(_, pause)| pause)
        };
        assert_eq!(pause(&mut patience, ms(300)).unwrap(), ms(300));
        assert!(pause(&mut patience, ms(300)).unwrap() <= ms(40), "not a second time");
        patience.renew();
        let hour = Duration::from_secs(3600);
        assert!(pause(&mut patience, hour).unwrap() <= ms(40), "and not for ever");
        let mut follower = Patience::new(RetryPolicy { give_up_after: None, ..QUICK });
        assert_eq!(pause(&mut follower, hour).unwrap(), LONGEST_ASKED);
        assert_eq!(pause(&mut follower, LONGEST_REFUSED).unwrap(), LONGEST_REFUSED);
    }

    #[test]
    fn patience_is_renewed_by_the_servers_other_collections_alone() {
        let own = ServerProgress::default();
        let other = own.for_another();
        other.note();
        own.note();
        assert_eq!((own.of_others(), other.of_others()), (1, 1));
        let patient = RetryPolicy { give_up_after: Some(Duration::from_secs(3600)), ..QUICK };
        let mut patience = Patience::new(patient);
        patience.stuck_since = Instant::now().checked_sub(Duration::from_secs(7200));
        assert!(patience.pause(cut().unwrap_err(), Mode::CatchUp, Some(&own)).is_ok());
        patience.stuck_since = Instant::now().checked_sub(Duration::from_secs(7200));
        assert!(patience.pause(cut().unwrap_err(), Mode::CatchUp, Some(&own)).is_err());
    }

    #[tokio::test]
    async fn an_expired_position_leads_to_a_scan_which_an_interruption_starts_over() {
        let expired = || Err(SourceError::Expired { reason: "it was created again".into() });
        let scan = || Ok(FeedEvent::ScanStarted { reason: "it was created again".into() });
        let finished = Ok(FeedEvent::ScanFinished { position: at("9"), exhaustive: true });
        let scripts = vec![
            vec![expired()],
            vec![scan(), position("1"), cut()],
            vec![scan(), position("1"), finished, cut()],
            vec![Ok(FeedEvent::CaughtUp)],
        ];
        let (_, opened) = run(scripts, Since::Position(at("5")), Mode::CatchUp).await;
        let scanning = Since::Scan("it was created again".into());
        let expected =
            [Since::Position(at("5")), scanning.clone(), scanning, Since::Position(at("9"))];
        assert_eq!(opened, expected);
    }

    #[tokio::test]
    async fn refused_credentials_are_never_tried_twice() {
        for mode in [Mode::CatchUp, Mode::Follow] {
            let refused = SourceError::Refused { what: "wrong password".into() };
            let (said, opened) = run(vec![vec![Err(refused)]], Since::Start, mode).await;
            assert_eq!(opened.len(), 1);
            assert!(matches!(said[..], [Err(SourceError::Refused { .. })]));
        }
    }

    #[tokio::test]
    async fn a_single_request_is_tried_so_often_and_no_oftener() {
        let tries = Mutex::new(0);
        let answer: Result<(), _> = attempts(&QUICK, || {
            *tries.lock().unwrap() += 1;
            async { Err(SourceError::transient("busy")) }
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(*tries.lock().unwrap(), 3);
    }
}

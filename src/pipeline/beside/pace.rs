//! Decides when a fetch counts as stalled, when it is given up, and when a source is spared.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::document::DocumentId;
use crate::source::retry::RetryPolicy;

/// A fetch that has received nothing for this long is stalled: another one may start.
pub const STALL: Duration = Duration::from_millis(500);

/// A fetch that receives less than this in that time is stalled too.
const PIECE: u64 = 64 << 10;

/// A stalled fetch that delays others is cancelled after this time at the earliest.
const SLOW: Duration = Duration::from_secs(1);

/// A group of documents that a follower waits for is split after this time, so that one of them
/// does not hold up the others.
const GROUP_FOLLOWING: Duration = Duration::from_secs(1);

/// The same of a catch-up.
const GROUP_CATCHING_UP: Duration = Duration::from_secs(5);

/// A follower's fetch that has received nothing for this long has failed, unless the policy says
/// otherwise.
const SILENCE: Duration = Duration::from_secs(30);

/// At the end of a catch-up a fetch may be silent for this long, unless the policy is less patient.
pub const LEAST_SILENCE: Duration = Duration::from_secs(10);

/// The longest wait for the next byte of a fetch.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// A source may take one second longer before it begins to send, for each multiple of this number of
/// bytes.
const BYTES_A_SECOND: u64 = 1 << 20;

/// Records when a fetch last received data.
#[derive(Clone, Debug)]
pub struct Pulse {
    begun: Instant,
    /// Milliseconds after `begun`.
    last: Arc<AtomicU64>,
    /// The time when it last had received enough to be worth its place, in milliseconds after
    /// `begun`.
    last_piece: Arc<AtomicU64>,
    /// The bytes that have arrived since then.
    bytes: Arc<AtomicU64>,
    /// Whether a newer state of the document is known.
    superseded: Arc<AtomicBool>,
}

impl Pulse {
    /// A fetch that starts now.
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: Arc::default(),
            last_piece: Arc::default(),
            bytes: Arc::default(),
            superseded: Arc::default(),
        }
    }

    /// A part has arrived completely.
    pub fn beat(&self) {
        self.beat_for(PIECE);
    }

    /// This many bytes of a part have arrived.
    pub fn beat_for(&self, bytes: u64) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.last.store(millis, Ordering::Relaxed);
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= PIECE {
            self.bytes.store(0, Ordering::Relaxed);
            self.last_piece.store(millis, Ordering::Relaxed);
        }
    }

    /// The time during which too little has arrived for the place that the fetch takes.
    pub fn stalled_for(&self) -> Duration {
        (self.begun + Duration::from_millis(self.last_piece.load(Ordering::Relaxed))).elapsed()
    }

    /// The time when data last arrived, or when the fetch started.
    pub fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Whether any data has arrived.
    pub fn has_beaten(&self) -> bool {
        self.last.load(Ordering::Relaxed) > 0
    }

    /// A newer state of the document is known.
    pub fn supersede(&self) {
        self.superseded.store(true, Ordering::Relaxed);
    }

    /// Whether a newer state of the document is known.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    /// The time since data last arrived.
    pub fn silent_for(&self) -> Duration {
        self.last().elapsed()
    }
}

/// Estimates how long the source's answers may take, from its recent answers.
#[derive(Debug, Default)]
pub struct Speed {
    slowest: Duration,
}

impl Speed {
    /// The source has answered after this time.
    pub fn note(&mut self, took: Duration) {
        // One slow answer counts for the next few only.
        self.slowest = took.max(self.slowest.mul_f32(0.9));
    }

    /// The time that a group may take before it is split.
    pub fn of_group(&self, following: bool) -> Duration {
        let least = if following { GROUP_FOLLOWING } else { GROUP_CATCHING_UP };
        least.max(self.slowest * 4).min(LONGEST_SILENCE)
    }

    /// The time that a fetch may be stalled while others wait for its place.
    pub fn of_place(&self) -> Duration {
        SLOW.max(self.slowest * 4).min(LONGEST_SILENCE)
    }
}

/// The time that a fetch of this number of bytes may be silent before it has failed. A follower can
/// wait. At the end of a catch-up, the fetch may take about as long as everything before it.
pub fn silence(
    policy: &RetryPolicy,
    since_start: Option<Duration>,
    bytes: u64,
) -> Option<Duration> {
    let most = LONGEST_SILENCE.min(policy.give_up_after.unwrap_or(LONGEST_SILENCE) * 4);
    let larger = Duration::from_secs(bytes / BYTES_A_SECOND);
    let silence = match since_start {
        None => SILENCE,
        // The policy allows waiting forever.
        Some(_) if policy.give_up_after.is_none() => return None,
        Some(took) => policy.give_up_after.unwrap_or(LEAST_SILENCE).min(LEAST_SILENCE).max(took),
    };
    Some((silence + larger).min(most))
}

/// Spares a source after failures of many documents in a row: then the source itself fails.
/// Documents that were not requested yet are still requested.
#[derive(Debug)]
pub struct Breaker {
    policy: RetryPolicy,
    /// Documents that failed for a transient reason since data last arrived.
    failed: HashSet<DocumentId>,
    open: Option<Open>,
    /// The time until which the source is known to answer.
    lives_until: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    pause: Duration,
}

/// The time for which one answer shows that a source answers.
const LIVES: Duration = Duration::from_secs(10);

/// The number of documents that fail in a row before the source itself counts as failing.
const TROUBLE: usize = 8;

impl Breaker {
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, failed: HashSet::new(), open: None, lives_until: None }
    }

    /// Data has arrived.
    pub fn succeed(&mut self) {
        self.failed.clear();
        self.open = None;
    }

    /// A document failed for a transient reason. Returns whether to ask the source for something
    /// else, to see whether it answers at all.
    pub fn fail(&mut self, id: &DocumentId) -> bool {
        self.failed.insert(id.clone());
        let now = Instant::now();
        let opens = self.failed.len() >= TROUBLE && self.open.is_none() && self.is_doubtful();
        if opens {
            self.open = Some(Open { since: now, pause: self.policy.first });
        }
        opens
    }

    /// Whether the source has not answered recently.
    pub fn is_doubtful(&self) -> bool {
        self.lives_until.is_none_or(|until| until < Instant::now())
    }

    /// The source has answered something else: the documents are failing, not the source.
    pub fn lives(&mut self) {
        self.succeed();
        self.lives_until = Some(Instant::now() + LIVES);
    }

    /// Whether to wait for the source.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The pause before a document is requested again, if the source itself is failing. The failure
    /// does not count for the document.
    pub fn pause(&mut self) -> Option<Duration> {
        let open = self.open.as_mut()?;
        if open.since.elapsed() >= self.policy.give_up_after.unwrap_or(SILENCE) {
            return None;
        }
        let pause = open.pause;
        open.pause = (pause.mul_f32(1.2)).min(self.policy.longest);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy::CATCH_UP;

    #[test]
    fn a_pulse_shows_for_how_long_nothing_has_come() {
        let begun = Instant::now() - Duration::from_secs(3);
        let pulse = Pulse { begun, ..Pulse::new() };
        assert!(!pulse.has_beaten() && pulse.silent_for() >= Duration::from_secs(3));
        pulse.beat_for(1);
        let seconds = Duration::from_secs(1);
        assert!(pulse.has_beaten() && pulse.silent_for() < seconds);
        assert!(pulse.stalled_for() > seconds, "a trickle counts as stalled");
        pulse.beat_for(PIECE);
        assert!(pulse.stalled_for() < seconds);
    }

    #[test]
    fn a_source_that_was_slow_before_may_be_slow_again() {
        let mut speed = Speed::default();
        assert_eq!(speed.of_group(true), GROUP_FOLLOWING);
        assert_eq!((speed.of_group(false), speed.of_place()), (GROUP_CATCHING_UP, SLOW));
        speed.note(Duration::from_secs(3));
        assert_eq!(speed.of_group(true), Duration::from_secs(12));
        (0..100).for_each(|_| speed.note(Duration::from_millis(1)));
        assert_eq!(speed.of_group(true), GROUP_FOLLOWING);
    }

    #[test]
    fn a_catch_up_waits_about_as_long_as_it_took_and_longer_for_what_is_large() {
        let seconds = Duration::from_secs;
        let after = |took, bytes| silence(&POLICY, Some(seconds(took)), bytes).unwrap();
        assert_eq!([after(1, 0), after(25, 0)], [seconds(10), seconds(25)]);
        assert_eq!([after(1, 100 << 20), after(1, u64::MAX)], [seconds(110), seconds(120)]);
        assert_eq!(silence(&RetryPolicy::FOLLOW, None, 0), Some(SILENCE));
        let patient = RetryPolicy { give_up_after: None, ..POLICY };
        assert_eq!(silence(&patient, Some(seconds(1)), 0), None);
    }

    #[test]
    fn a_source_that_fails_for_many_is_waited_for_until_something_comes_or_patience_ends() {
        let mut breaker = Breaker::new(POLICY);
        let fail = |breaker: &mut Breaker, n: usize| breaker.fail(&format!("d{n}").as_str().into());
        assert!(!(0..TROUBLE * 2).any(|_| fail(&mut breaker, 0)));
        assert_eq!(breaker.pause(), None, "one document is not the source");
        assert_eq!((0..TROUBLE).filter(|n| fail(&mut breaker, *n)).count(), 1, "it opens once");
        assert_eq!(breaker.pause(), Some(POLICY.first));
        assert!(breaker.pause() > Some(POLICY.first));
        breaker.succeed();
        assert_eq!(breaker.pause(), None);
        assert!((0..TROUBLE).any(|n| fail(&mut breaker, n)));
        assert!(breaker.pause().is_some());
        breaker.policy.give_up_after = Some(Duration::ZERO);
        assert_eq!(breaker.pause(), None);
        breaker.lives();
        assert!(!(0..TROUBLE).any(|n| fail(&mut breaker, n)), "the source itself answers");
    }
}

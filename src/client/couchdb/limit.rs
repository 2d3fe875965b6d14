//! The limit of a server that refuses requests: found by its refusals, and kept until it answers again.
//!
//! Pure: each moment is given.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The longest pause that a server may ask for. A longer one is cut to this.
pub const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// The first interval between requests once a server limits them.
pub(super) const FIRST_INTERVAL: Duration = Duration::from_millis(50);

/// The longest interval between requests.
const LONGEST_INTERVAL: Duration = Duration::from_secs(2);

/// Below this interval, a server counts as no longer limiting.
const NO_INTERVAL: Duration = Duration::from_millis(5);

/// The factors of the interval: after a refusal whose probe is refused too, after one whose probe
/// is answered, and after an answer.
const LIMITED: f64 = 1.5;
const UNLIMITED: f64 = 0.6;
const ANSWERED: f64 = 0.97;

/// The first and the longest pause where the server does not ask for one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The number of requests that may wait for their answers to begin once a server limits them, at first
/// and at most.
pub(super) const ROOM: (usize, usize) = (4, 64);

/// A request that waits for longer than this does not hold up another one.
pub(super) const STALLED: Duration = Duration::from_secs(1);

/// How many refused paths are remembered.
const PATHS: usize = 4096;

/// After this number of refusals, a path of a server that limits requests counts as always refused.
const REFUSALS: usize = 3;

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server limits requests: the request may be repeated in its turn.
    Limited,
    /// The server refuses this request alone.
    Own,
    /// A probe has to show it.
    Probe,
}

/// The answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// It was refused too, perhaps with a time to wait.
    Refused(Option<Duration>),
    /// It was answered.
    Answered,
    /// It was not answered in time.
    Silent,
}

/// A path that was refused, and not answered since.
#[derive(Debug)]
pub(super) struct Refused {
    path: u64,
    /// The number of other answers by then.
    served: u64,
    times: usize,
}

/// What is known of the limit of one server.
#[derive(Debug, Default)]
pub(super) struct Limit {
    /// Zero while the server does not limit requests.
    pub interval: Duration,
    next: Option<Instant>,
    paused_until: Option<Instant>,
    /// The next pause where the server does not ask for one.
    pause: Duration,
    slowed_at: Option<Instant>,
    pub probing: bool,
    room: usize,
    served: usize,
    /// The requests whose answers have not begun: their numbers, and since when.
    pub waiting: VecDeque<(u64, Instant)>,
    numbers: u64,
    pub refused: VecDeque<Refused>,
}

impl Limit {
    /// The number of a request that may be sent now, or when that can be asked again.
    pub fn enter(&mut self, now: Instant) -> Result<Option<u64>, Instant> {
        if self.interval.is_zero() {
            return Ok(None);
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(until);
        }
        self.paused_until = None;
        if let Some(next) = self.next.filter(|next| *next > now) {
            return Err(next);
        }
        let lively = |since: &&(u64, Instant)| now < since.1 + STALLED;
        let mut lively = self.waiting.iter().filter(lively);
        if let Some((_, oldest)) = lively.next()
            && lively.count() + 1 >= self.room.max(1)
        {
            return Err(*oldest + STALLED);
        }
        self.next = Some(now + self.interval);
        self.numbers += 1;
        self.waiting.push_back((self.numbers, now));
        Ok(Some(self.numbers))
    }

    pub fn served(&mut self, path: u64) {
        self.pause = PAUSES.0;
        self.refused.retain(|one| one.path != path);
        if self.interval.is_zero() {
            return;
        }
        self.served += 1;
        if self.served.is_multiple_of(8) {
            self.room = (self.room + 1).min(ROOM.1);
        }
        self.shorten(ANSWERED);
    }

    fn shorten(&mut self, factor: f64) {
        self.interval = self.interval.mul_f64(factor);
        if self.interval < NO_INTERVAL {
            self.interval = Duration::ZERO;
            self.next = None;
        }
    }

    pub fn refused(&mut self, path: u64, began: Instant, served: u64) -> Verdict {
        let is_limited = !self.interval.is_zero();
        match self.refused.iter_mut().find(|one| one.path == path) {
            Some(known) => {
                known.times += 1;
                let most = if is_limited { REFUSALS } else { 1 };
                // Others were answered since.
                if known.served < served && known.times > most {
                    return Verdict::Own;
                }
            }
            None => {
                self.refused.truncate(PATHS - 1);
                self.refused.push_front(Refused { path, served, times: 1 });
            }
        }
        if !is_limited {
            return self.probe().unwrap_or(Verdict::Own);
        }
        // It was sent before the pace was slowed.
        if self.slowed_at.is_some_and(|slowed| began < slowed) {
            return Verdict::Limited;
        }
        self.probe().unwrap_or(Verdict::Limited)
    }

    fn probe(&mut self) -> Option<Verdict> {
        let free = !std::mem::replace(&mut self.probing, true);
        free.then_some(Verdict::Probe)
    }

    fn slow(&mut self, now: Instant) {
        self.interval = self.interval.mul_f64(LIMITED).clamp(FIRST_INTERVAL, LONGEST_INTERVAL);
        self.room = (self.room / 2).max(1);
        self.slowed_at = Some(now);
    }

    pub fn probed(
        &mut self,
        probed: Probed,
        asked: Option<Duration>,
        most: Duration,
        now: Instant,
    ) -> Verdict {
        self.probing = false;
        let Probed::Refused(again) = probed else {
            if self.interval.is_zero() {
                return Verdict::Own;
            }
            // Right after a refusal a server that has a limit refuses whatever comes.
            self.shorten(UNLIMITED);
            return Verdict::Limited;
        };
        if self.interval.is_zero() {
            (self.room, self.pause) = (ROOM.0, PAUSES.0);
        }
        self.slow(now);
        let pause = match (again, asked) {
            (Some(again), Some(asked)) => again.min(asked),
            (Some(asked), None) | (None, Some(asked)) => asked,
            (None, None) => {
                let pause = self.pause.max(PAUSES.0);
                self.pause = (pause * 2).min(PAUSES.1);
                pause
            }
        };
        self.paused_until = Some(now + pause.min(most));
        Verdict::Limited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = LONGEST_ASKED;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A state whose server was found to limit requests.
    fn limited(now: Instant) -> Limit {
        let mut state = Limit::default();
        assert_eq!(state.refused(1, now, 0), Verdict::Probe);
        assert_eq!(state.probed(Probed::Refused(None), None, MOST, now), Verdict::Limited);
        state
    }

    #[test]
    fn without_refusals_nothing_waits() {
        let mut state = Limit::default();
        for _ in 0..1000 {
            assert_eq!(state.enter(Instant::now()), Ok(None));
        }
    }

    #[test]
    fn a_refusal_of_one_path_alone_slows_nothing() {
        let (mut state, now) = (Limit::default(), Instant::now());
        for path in 0..100 {
            assert_eq!(state.refused(path, now, path), Verdict::Probe);
            let asked = Some(seconds(3600));
            assert_eq!(state.probed(Probed::Answered, asked, MOST, now), Verdict::Own);
            assert_eq!(state.refused(path, now, path + 1), Verdict::Own, "it is known");
            assert_eq!(state.enter(now), Ok(None));
        }
    }

    #[test]
    fn while_a_probe_is_on_its_way_no_other_is_sent() {
        let (mut state, now) = (Limit::default(), Instant::now());
        assert_eq!(state.refused(1, now, 0), Verdict::Probe);
        assert_eq!(state.refused(2, now, 0), Verdict::Own);
        assert_eq!(state.probed(Probed::Silent, None, MOST, now), Verdict::Own);
        assert_eq!(state.enter(now), Ok(None), "silence is not a limit");
    }

    #[test]
    fn a_refused_probe_pauses_all_for_as_long_as_the_server_asks_up_to_a_limit() {
        let now = Instant::now();
        for (asked, again, pause) in [
            (None, None, PAUSES.0),
            (Some(7), None, seconds(7)),
            (None, Some(8), seconds(8)),
            (Some(7), Some(6), seconds(6)),
            (Some(3600), Some(3600), MOST),
            (Some(0), Some(0), Duration::ZERO),
        ] {
            let mut state = Limit::default();
            assert_eq!(state.refused(1, now, 0), Verdict::Probe);
            let (asked, again) = (asked.map(seconds), again.map(seconds));
            assert_eq!(state.probed(Probed::Refused(again), asked, MOST, now), Verdict::Limited);
            match pause.is_zero() {
                true => assert!(state.enter(now).is_ok()),
                false => assert_eq!(state.enter(now), Err(now + pause)),
            }
            assert!(state.enter(now + pause + FIRST_INTERVAL).is_ok(), "{asked:?}");
        }
    }

    #[test]
    fn one_that_hangs_gives_its_room_back() {
        let now = Instant::now();
        let mut state = limited(now);
        state.room = 2;
        let mut at = now + seconds(1);
        for _ in 0..2 {
            assert!(matches!(state.enter(at), Ok(Some(_))));
            at += LONGEST_INTERVAL / 4;
        }
        assert_eq!(state.enter(at), Ok(Some(3)), "the first one hangs");
        at += state.interval;
        let until = state.enter(at).unwrap_err();
        assert!(until <= at + STALLED);
        assert!(state.enter(until).is_ok());
    }

    #[test]
    fn answers_end_the_limit() {
        let now = Instant::now();
        let mut state = limited(now);
        let mut answers = 0;
        while !state.interval.is_zero() {
            state.served(9);
            answers += 1;
            assert!(answers < 1000, "{state:?}");
        }
        assert!(answers > 10, "not by one answer alone");
        assert_eq!(state.enter(now), Ok(None));
    }

    /// Asks a server that takes a request or refuses it, as `takes` says at its time, until 450 were served.
    /// Each takes this long. Gives the time that it took, and how many were refused.
    fn ask(mut takes: impl FnMut(Instant) -> bool, each: Duration) -> (Duration, u64) {
        let (mut state, mut now) = (Limit::default(), Instant::now());
        let (mut served, mut refused, mut path) = (0_u64, 0, 0);
        let begun = now;
        while served < 450 {
            if let Err(until) = state.enter(now) {
                now = until;
                continue;
            }
            state.waiting.clear();
            path += 1;
            now += each;
            if takes(now) {
                served += 1;
                state.served(path);
                continue;
            }
            refused += 1;
            if state.refused(path, now, served) == Verdict::Probe {
                let probed = if takes(now) { Probed::Answered } else { Probed::Refused(None) };
                state.probed(probed, None, MOST, now);
            }
        }
        (now - begun, refused)
    }

    /// Slowing down does not help there, and would never end.
    #[test]
    fn a_server_that_refuses_each_third_request_whatever_the_pace_is_not_slowed_down() {
        let mut count = 0;
        let takes = |_| {
            count += 1;
            count % 3 != 0
        };
        let (took, _) = ask(takes, Duration::from_millis(2));
        assert!(took.as_secs() < 30, "{took:?}");
    }

    /// A token bucket refuses a few requests only, once the pace is found, and its rate is used.
    #[test]
    fn the_pace_of_a_token_bucket_is_found() {
        let (rate, burst) = (5.0, 3.0);
        let (mut tokens, mut filled) = (burst, None);
        let takes = |now: Instant| {
            let before = filled.replace(now).unwrap_or(now);
            tokens = f64::min(burst, tokens + rate * (now - before).as_secs_f64());
            let is_there = tokens >= 1.0;
            tokens -= if is_there { 1.0 } else { 0.0 };
            is_there
        };
        let (took, refused) = ask(takes, Duration::ZERO);
        let took = took.as_secs_f64();
        assert!(took < 450.0 / rate * 1.6, "{took} s for 450 requests, {refused} refused");
        assert!(refused < 150, "{refused} refused");
    }
}

//! When a mirror runs next by its schedule, whatever is done to the wall clock.
//!
//! Pure: it compares readings of the clocks. An interval is measured by the time that has passed. A cron
//! expression is about the wall clock; if that was set back by a whole period or more, the period is
//! measured by the time that has passed, so that the schedule does not stop.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::ClockReading;
use crate::config::file::Schedule;

/// When a mirror runs next.
#[derive(Debug)]
pub struct Due {
    schedule: Schedule,
    last: Option<Begun>,
}

/// When a run began.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// By the wall clock.
    wall: Timestamp,
    /// In milliseconds since the machine was started.
    boottime: i64,
}

/// Whether a run is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is.
    Now,
    /// It is due at this time, as things are.
    At(Timestamp),
    /// The schedule names no further time.
    Never,
}

impl Due {
    /// A mirror whose last run began at this time, if it has had one. Without one it is due at once.
    pub fn new(schedule: Schedule, last: Option<Timestamp>, now: &ClockReading) -> Self {
        let begun = |wall: Timestamp| {
            let ago = now.wall.saturating_sub(wall.as_millisecond()).max(0);
            Begun { wall, boottime: now.boottime.saturating_sub(ago) }
        };
        Self { schedule, last: last.map(begun) }
    }

    /// Notes that a run begins.
    pub fn begin(&mut self, now: &ClockReading) {
        let wall = Timestamp::from_millisecond(now.wall).unwrap_or_default();
        self.last = Some(Begun { wall, boottime: now.boottime });
    }

    /// Whether a run is due. Times that were missed are made up for by one run.
    pub fn turn(&self, now: &ClockReading) -> Turn {
        let Some(last) = self.last else { return Turn::Now };
        if self.schedule == Schedule::Live {
            return Turn::Now;
        }
        let Some(next) = self.schedule.next(last.wall) else { return Turn::Never };
        let wall = last.wall.as_millisecond();
        let period = next.as_millisecond().saturating_sub(wall);
        let passed = now.boottime.saturating_sub(last.boottime).max(0);
        let left = match self.schedule {
            Schedule::Every(_) => period - passed,
            _ => {
                let set_back = wall.saturating_add(passed).saturating_sub(now.wall);
                let by_wall = next.as_millisecond().saturating_sub(now.wall);
                if set_back >= period { by_wall.min(period - passed) } else { by_wall }
            }
        };
        match left {
            ..=0 => Turn::Now,
            left => Timestamp::from_millisecond(now.wall.saturating_add(left))
                .map_or(Turn::Never, Turn::At),
        }
    }
}

impl Turn {
    /// The time of the next run, if there is one.
    pub fn next(self) -> Option<Timestamp> {
        match self {
            Self::Now => Some(Timestamp::now()),
            Self::At(next) => Some(next),
            Self::Never => None,
        }
    }

    /// The time until the clocks should be read again: until the run is due, but not long, because the
    /// wall clock may be set meanwhile, and the machine may sleep.
    pub fn look_in(self, now: &ClockReading) -> Duration {
        const LONGEST: Duration = Duration::from_secs(20);
        let Self::At(next) = self else { return LONGEST };
        let left = next.as_millisecond().saturating_sub(now.wall);
        Duration::from_millis(u64::try_from(left).unwrap_or_default()).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;

    /// A machine whose wall clock may be set.
    struct Machine {
        now: ClockReading,
        /// The starts of runs, in milliseconds since the machine was started.
        runs: Vec<i64>,
    }

    impl Machine {
        fn at(wall: &str) -> Self {
            let wall = wall.parse::<Timestamp>().unwrap().as_millisecond();
            let now = ClockReading { boot: "a".to_owned(), boottime: 1_000_000, wall };
            Self { now, runs: Vec::new() }
        }

        fn pass(&mut self, due: &mut Due, time: i64) {
            let end = self.now.boottime + time;
            while self.now.boottime < end {
                if due.turn(&self.now) == Turn::Now {
                    due.begin(&self.now);
                    self.runs.push(self.now.boottime);
                }
                let step = i64::try_from(due.turn(&self.now).look_in(&self.now).as_millis());
                let step = step.unwrap().clamp(1, end - self.now.boottime);
                self.now.boottime += step;
                self.now.wall += step;
            }
        }

        fn set_wall(&mut self, by: i64) {
            self.now.wall += by;
        }

        fn gaps(&self) -> Vec<i64> {
            self.runs.windows(2).map(|pair| pair[1] - pair[0]).collect()
        }
    }

    fn cron(text: &str) -> Schedule {
        Schedule::cron(text, "UTC").unwrap()
    }

    fn every(time: i64) -> Schedule {
        Schedule::every(Duration::from_millis(time.try_into().unwrap())).unwrap()
    }

    #[test]
    fn without_a_last_run_it_is_due_at_once_and_then_by_the_schedule() {
        let mut machine = Machine::at("2026-01-01T12:30:00Z");
        let mut due = Due::new(cron("0 * * * *"), None, &machine.now);
        machine.pass(&mut due, 3 * HOUR);
        assert_eq!(machine.gaps(), [30 * MINUTE, HOUR, HOUR]);
    }

    #[test]
    fn times_that_were_missed_are_made_up_for_once() {
        for schedule in [cron("0 * * * *"), every(HOUR)] {
            let mut machine = Machine::at("2026-01-05T12:30:00Z");
            let last = "2026-01-01T12:00:00Z".parse().ok();
            let mut due = Due::new(schedule, last, &machine.now);
            machine.pass(&mut due, MINUTE);
            assert_eq!(machine.runs.len(), 1);
            machine.pass(&mut due, 20 * MINUTE);
            assert_eq!(machine.runs.len(), 1);
        }
        let mut machine = Machine::at("2026-01-01T12:30:00Z");
        let last = "2026-01-01T12:00:00Z".parse().ok();
        let mut due = Due::new(cron("0 3 * * *"), last, &machine.now);
        machine.pass(&mut due, HOUR);
        assert!(machine.runs.is_empty(), "nothing was missed");
    }

    #[test]
    fn a_clock_set_back_an_hour_neither_repeats_nor_stops_a_schedule() {
        for (schedule, period) in [
            (cron("*/5 * * * *"), 5 * MINUTE),
            (every(5 * MINUTE), 5 * MINUTE),
            (cron("0 * * * *"), HOUR),
            (every(HOUR), HOUR),
            (cron("0 */2 * * *"), 2 * HOUR),
            (cron("0 12 * * *"), 24 * HOUR),
            (every(24 * HOUR), 24 * HOUR),
        ] {
            for set_after in [0, MINUTE, 10 * MINUTE, 55 * MINUTE] {
                let mut machine = Machine::at("2026-01-01T12:00:00Z");
                let mut due = Due::new(schedule.clone(), None, &machine.now);
                machine.pass(&mut due, set_after + SECOND);
                machine.set_wall(-HOUR);
                machine.pass(&mut due, 50 * HOUR);
                let gaps = machine.gaps();
                assert!(gaps.len() >= 2, "{schedule}: {gaps:?}");
                for gap in gaps {
                    assert!(gap >= period.min(period - 20 * SECOND), "{schedule}: after {gap}");
                    assert!(gap <= period + HOUR + 20 * SECOND, "{schedule}: only after {gap}");
                    assert!(period >= HOUR || gap <= 2 * period, "{schedule}: only after {gap}");
                }
            }
        }
    }

    #[test]
    fn a_clock_set_ahead_runs_a_cron_once_and_an_interval_not_at_all() {
        for (schedule, runs) in [(cron("0 * * * *"), 1), (every(HOUR), 0)] {
            let mut machine = Machine::at("2026-01-01T12:00:00Z");
            let mut due = Due::new(schedule, None, &machine.now);
            machine.pass(&mut due, MINUTE);
            machine.set_wall(10 * HOUR);
            machine.pass(&mut due, 30 * MINUTE);
            assert_eq!(machine.runs.len(), 1 + runs);
        }
    }

    #[test]
    fn the_clocks_are_read_again_before_long() {
        let machine = Machine::at("2026-01-01T12:00:00Z");
        let mut due = Due::new(every(24 * HOUR), None, &machine.now);
        due.begin(&machine.now);
        assert!(due.turn(&machine.now).look_in(&machine.now) <= Duration::from_secs(20));
        assert!(Turn::Never.look_in(&machine.now) <= Duration::from_secs(20));
    }
}

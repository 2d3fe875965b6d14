//! Measures the time that has passed while Plainfold could see it, whatever the wall clock says.
//!
//! Everything that is kept for a time is removed by this clock alone: a jump of the wall clock
//! makes nothing older. Within one boot of the machine the kernel's count of seconds decides;
//! across a restart at most one day is counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::place::{Desk, Place};

/// The longest time that is counted across a restart of the machine.
const MOST_OVER_A_RESTART: Duration = Duration::from_secs(24 * 60 * 60);

/// The elapsed time is saved when it is this much more than the saved value.
const WRITTEN_EVERY: Duration = Duration::from_secs(60 * 60);

/// The most that is read of the file: it may have come from somebody else.
const LONGEST: u64 = 16 * 1024 * 1024;

/// A mark that has moved by less than this does not cause a write.
const MARKED_EVERY: Duration = Duration::from_secs(60);

/// The machine's clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The boot id of the machine; empty if the kernel does not provide it.
    pub boot: String,
    /// Milliseconds since that boot, including the time that the machine has slept.
    pub boottime: i64,
    /// The wall clock, in milliseconds since 1970.
    pub wall: i64,
}

impl ClockReading {
    /// Now.
    pub fn now() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            boot: boot.trim().to_owned(),
            boottime: boottime(),
            wall: Timestamp::now().as_millisecond(),
        }
    }
}

/// Milliseconds since the boot, including the time that the machine has slept.
fn boottime() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000)
}

/// A moment of this boot of the machine. The wall clock moves none, and the time that the machine has slept
/// counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Milliseconds since the boot.
    boottime: u64,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { boottime: u64::try_from(boottime()).unwrap_or_default() }
    }

    /// This number of milliseconds after the boot.
    pub fn at(boottime: u64) -> Self {
        Self { boottime }
    }

    /// The milliseconds since the boot.
    pub fn millis(self) -> u64 {
        self.boottime
    }

    /// The time since this moment; nothing, if `now` is before it.
    pub fn age(self, now: Self) -> Duration {
        Duration::from_millis(now.boottime.saturating_sub(self.boottime))
    }

    /// What the wall clock would have shown then, if it had never been set since.
    pub fn on_the_wall(self) -> Timestamp {
        let (age, now) = (self.age(Self::now()), Timestamp::now());
        now.checked_sub(age).unwrap_or(now)
    }
}

/// The elapsed time, by the readings so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Passed {
    /// The boot of the last reading.
    boot: String,
    /// The milliseconds since that boot.
    boottime: i64,
    /// The wall clock of the last reading.
    wall: i64,
    /// Milliseconds that have passed since the first reading.
    seen: i64,
    /// The wall clock of the first reading, so that earlier dates by the wall clock stay comparable.
    base: i64,
    /// The elapsed time when an entry was last put under a name.
    #[serde(default)]
    marks: BTreeMap<String, i64>,
}

impl Passed {
    fn first(now: &ClockReading) -> Self {
        Self {
            boot: now.boot.clone(),
            boottime: now.boottime,
            wall: now.wall,
            seen: 0,
            base: now.wall,
            marks: BTreeMap::new(),
        }
    }

    /// Adds a reading.
    fn advance(&mut self, now: &ClockReading) {
        let same = !now.boot.is_empty() && now.boot == self.boot;
        let elapsed = if same {
            now.boottime.saturating_sub(self.boottime).max(0)
        } else {
            let most = MOST_OVER_A_RESTART.as_millis() as i64;
            now.wall.saturating_sub(self.wall).clamp(0, most)
        };
        self.seen = self.seen.saturating_add(elapsed);
        (self.boot, self.boottime, self.wall) = (now.boot.clone(), now.boottime, now.wall);
    }
}

/// A clock that continues from run to run.
#[derive(Debug)]
pub struct Clock {
    /// The file where it is saved, if any.
    path: Option<PathBuf>,
    desk: Desk,
    state: Mutex<State>,
    read: fn() -> ClockReading,
}

#[derive(Debug)]
struct State {
    passed: Passed,
    /// Whether this clock started with this process.
    new: bool,
    /// The elapsed time when it was last saved.
    written: Option<i64>,
}

impl Clock {
    /// The clock that is saved in the file at `path`, or a new one. An unreadable file counts as
    /// missing: then everything is kept for longer.
    pub fn open(path: &Path, desk: Desk) -> Self {
        Self { desk, ..Self::with(Some(path.to_owned()), ClockReading::now) }
    }

    /// A clock that starts now and is not saved.
    pub fn unwritten() -> Self {
        Self::with(None, ClockReading::now)
    }

    /// The same with other readings.
    pub(crate) fn with(path: Option<PathBuf>, read: fn() -> ClockReading) -> Self {
        let read_file = |path: &PathBuf| {
            let (place, name) = Place::of(path)?;
            place.read(&name, LONGEST)
        };
        let text = path.as_ref().and_then(|path| read_file(path).ok().flatten());
        let known: Option<Passed> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let now = read();
        let state = match known {
            Some(mut passed) => {
                let written = Some(passed.seen);
                passed.advance(&now);
                State { passed, new: false, written }
            }
            None => State { passed: Passed::first(&now), new: true, written: None },
        };
        Self { path, desk: Desk::default(), state: Mutex::new(state), read }
    }

    /// Milliseconds since 1970, by elapsed time: it never runs faster than time does.
    pub fn stamp(&self) -> i64 {
        let mut state = self.advanced();
        self.write(&mut state, false);
        state.passed.base.saturating_add(state.passed.seen)
    }

    /// Lets a new clock continue from the newest known stamp.
    pub fn begin_at(&self, stamp: i64) {
        let mut state = self.state();
        if state.new {
            state.passed.base = stamp;
            state.written = None;
        }
    }

    /// Records that an entry was just put under a name.
    pub fn mark(&self, name: &str) {
        let mut state = self.advanced();
        let seen = state.passed.seen;
        let before = state.passed.marks.insert(name.to_owned(), seen);
        let stale = before.is_none_or(|before| seen - before >= MARKED_EVERY.as_millis() as i64);
        self.write(&mut state, stale);
    }

    /// The time since an entry was last put under each of these names. An unknown name counts from
    /// now on, and a name that no longer exists is dropped.
    pub fn ages(&self, names: &[String]) -> Vec<Duration> {
        let mut state = self.advanced();
        let Passed { seen, marks, .. } = &mut state.passed;
        let before = marks.clone();
        marks.retain(|name, _| names.contains(name));
        let age = |name: &String| {
            let since = *marks.entry(name.clone()).or_insert(*seen);
            Duration::from_millis(seen.saturating_sub(since).max(0) as u64)
        };
        let ages = names.iter().map(age).collect();
        let changed = *marks != before;
        self.write(&mut state, changed);
        ages
    }

    /// Saves the elapsed time.
    #[cfg(test)]
    pub fn save(&self) {
        let mut state = self.advanced();
        self.write(&mut state, true);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advanced(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.passed.advance(&(self.read)());
        state
    }

    fn write(&self, state: &mut State, now: bool) {
        let (Some(path), seen) = (&self.path, state.passed.seen) else { return };
        let late = |written: i64| seen - written >= WRITTEN_EVERY.as_millis() as i64;
        if !now && !state.written.is_none_or(late) {
            return;
        }
        // If the time cannot be saved, everything is kept longer. Other writes report a disk that
        // fails.
        if let Err(error) = replace(path, &self.desk, &state.passed) {
            tracing::debug!("{} could not be written: {error}", path.display());
        }
        state.written = Some(seen);
    }
}

/// Replaces the file in one durable step.
fn replace(path: &Path, desk: &Desk, passed: &Passed) -> std::io::Result<()> {
    let mut text = serde_json::to_vec_pretty(passed)?;
    text.push(b'\n');
    let (place, name) = Place::with_desk(path, desk)?;
    place.replace(&name, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 60 * 60 * 1_000;
    const DAY: i64 = 24 * HOUR;

    fn reading(boot: &str, boottime: i64, wall: i64) -> ClockReading {
        ClockReading { boot: boot.to_owned(), boottime, wall }
    }

    #[test]
    fn within_one_boot_only_the_kernels_seconds_count() {
        let start = reading("a", 5 * HOUR, 100 * DAY);
        for wall in [0, 60 * DAY, 100 * DAY, 140 * DAY, 40_000 * DAY, i64::MAX, i64::MIN] {
            let mut passed = Passed::first(&start);
            passed.advance(&reading("a", 7 * HOUR, wall));
            assert_eq!(passed.seen, 2 * HOUR, "the wall clock says {wall}");
            passed.advance(&reading("a", 8 * HOUR, 100 * DAY));
            assert_eq!(passed.seen, 3 * HOUR);
        }
    }

    #[test]
    fn over_a_restart_at_most_a_day_is_believed_and_never_less_than_nothing() {
        let start = reading("a", 5 * HOUR, 100 * DAY);
        let later = [(HOUR, HOUR), (DAY, DAY), (DAY + 1, DAY), (40 * DAY, DAY), (-40 * DAY, 0)];
        for (difference, believed) in later {
            let mut passed = Passed::first(&start);
            passed.advance(&reading("b", 0, 100 * DAY + difference));
            assert_eq!(passed.seen, believed, "{difference}");
        }
        let mut passed = Passed::first(&start);
        for wall in [i64::MAX, i64::MIN, i64::MAX] {
            passed.advance(&reading("", 0, wall));
        }
        assert!((DAY..=2 * DAY).contains(&passed.seen), "{}", passed.seen);
    }

    #[test]
    fn a_count_of_seconds_that_goes_back_in_one_boot_counts_nothing() {
        let mut passed = Passed::first(&reading("a", 5 * HOUR, 0));
        passed.advance(&reading("a", HOUR, 50 * DAY));
        assert_eq!(passed.seen, 0);
        passed.advance(&reading("a", 2 * HOUR, 0));
        assert_eq!(passed.seen, HOUR);
    }

    #[test]
    fn a_clock_counts_on_from_run_to_run_and_a_damaged_one_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock.json");
        let first = || reading("a", HOUR, 10 * DAY);
        let clock = Clock::with(Some(path.clone()), first);
        assert_eq!(clock.stamp(), 10 * DAY);
        clock.mark("old");
        let jumped = || reading("a", 2 * HOUR, 50 * DAY);
        let clock = Clock::with(Some(path.clone()), jumped);
        clock.begin_at(0);
        assert_eq!(clock.stamp(), 10 * DAY + HOUR, "it is not new");
        let names = ["old".to_owned(), "unknown".to_owned()];
        let hour = Duration::from_millis(HOUR as u64);
        assert_eq!(clock.ages(&names), [hour, Duration::ZERO]);
        let later = || reading("a", 3 * HOUR, 0);
        assert_eq!(Clock::with(Some(path.clone()), later).ages(&names), [2 * hour, hour]);
        fs::write(&path, "{").unwrap();
        let clock = Clock::with(Some(path.clone()), later);
        clock.begin_at(7);
        assert_eq!((clock.stamp(), clock.ages(&names)), (7, vec![Duration::ZERO; 2]));
    }

    #[test]
    fn a_link_in_its_place_is_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("clock.json"), dir.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        std::os::unix::fs::symlink(&victim, path.with_extension("json.new")).unwrap();
        Clock::open(&path, Desk::default()).save();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_moment_only_gets_older() {
        let (earlier, later) = (Moment::at(1_000), Moment::at(4_500));
        assert_eq!(earlier.age(later), Duration::from_millis(3_500));
        assert_eq!(later.age(earlier), Duration::ZERO);
        let now = Moment::now();
        assert!(now <= Moment::now() && now.millis() > 0);
        assert!(now.on_the_wall() <= Timestamp::now());
    }

    #[test]
    fn the_machines_clocks_are_read() {
        let (before, after) = (ClockReading::now(), ClockReading::now());
        assert!(!before.boot.is_empty() && before.boot == after.boot);
        assert!(before.boottime > 0 && before.boottime <= after.boottime);
    }
}

//! Progress on a terminal: what each collection is doing, its speed, and the lines redrawn.
//!
//! [`bar`](super::bar) lays the lines out.

use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use console::Term;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bar;
use super::footer::Footer;
use crate::pipeline::{Phase, Report};
use crate::restore::{Counts, Progress};
use crate::verify;

/// When bars are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

/// The bars of all collections.
pub struct Bars {
    footer: Footer,
    term: Term,
    speeds: HashMap<(String, Option<verify::Work>), Speedometer>,
}

/// Bars that are being drawn.
pub struct Drawing {
    ended: CancellationToken,
    task: JoinHandle<()>,
}

/// What a line shows of a collection.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: String,
    /// Which of several kinds of work, each with a speed of its own.
    pub work: Option<verify::Work>,
    pub state: State,
    /// What is being done, where that is not plain from the rest.
    pub word: &'static str,
    /// Documents that the destination holds by now.
    pub documents: u64,
    /// Documents that it is to hold, if that is known.
    pub total: Option<u64>,
    /// How much is done of how much, in whatever unit, if that is known.
    pub measured: Option<(u64, u64)>,
    /// Documents that this run has worked on.
    pub worked: u64,
    /// Bytes that were read or written, where they are worth a word.
    pub bytes: u64,
    /// The lag of a collection that is followed, in seconds.
    pub lag: Option<f64>,
    /// Documents that failed.
    pub failures: u64,
}

/// What a collection is doing, as far as its line differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Queued,
    Busy,
    Live,
    Waiting,
    Done,
    Failed,
}

/// How fast a collection is, by what this run has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Documents a second.
    pub per_second: Option<u64>,
    /// The time that is left at this speed.
    pub seconds_left: Option<u64>,
    /// Documents of the last minute.
    pub last_minute: u64,
}

/// What was done of a collection at some moments of the last minute.
#[derive(Debug, Default)]
struct Speedometer {
    moments: VecDeque<(Instant, u64, u64)>,
    speed: Speed,
}

impl Bars {
    /// Bars on standard error, when they are wanted; `Always` also where that is no terminal.
    pub fn wanted(when: When) -> Option<Self> {
        let wanted = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => std::io::stderr().is_terminal(),
        };
        wanted.then(Self::new)
    }

    fn new() -> Self {
        let term = Term::stderr();
        let footer = Footer::new(Box::new(term.clone())).noted();
        Self { footer, term, speeds: HashMap::new() }
    }

    /// Where log lines have to be written so that they do not tear the bars.
    pub fn footer(&self) -> Footer {
        self.footer.clone()
    }

    /// Draws what `look` sees until the drawing is ended.
    pub fn start(mut self, look: impl Fn() -> Vec<Shown> + Send + 'static) -> Drawing {
        const EVERY: Duration = Duration::from_millis(200);
        let ended = CancellationToken::new();
        let over = ended.clone();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            while over.run_until_cancelled(ticks.tick()).await.is_some() {
                self.show(look(), Instant::now());
            }
            self.show(look(), Instant::now());
            // The report says all that is left to say.
            self.footer.clear();
        });
        Drawing { ended, task }
    }

    /// Draws how far a verification is.
    pub fn of_verification(self, progress: &Arc<verify::Progress>) -> Drawing {
        let progress = Arc::clone(progress);
        self.start(move || progress.steps().iter().map(Shown::of_verification).collect())
    }

    fn show(&mut self, all: Vec<Shown>, now: Instant) {
        let speeds = &mut self.speeds;
        let measure = |shown: Shown| {
            let speed = speeds.entry((shown.name.clone(), shown.work)).or_default();
            let speed = speed.measure(&shown, now);
            (shown, speed)
        };
        let all: Vec<_> = all.into_iter().map(measure).collect();
        let (height, width) = self.term.size();
        let (height, width) = (usize::from(height), usize::from(width));
        self.footer.draw(bar::lines(&all, width, height), width);
    }
}

impl Drawing {
    /// Ends it, and clears what is drawn.
    pub async fn end(self) {
        self.ended.cancel();
        // It only ends.
        let _ended = self.task.await;
    }
}

impl Speedometer {
    /// Notes how far a collection is now, once a second, and gives its speed.
    fn measure(&mut self, shown: &Shown, now: Instant) -> Speed {
        const EVERY: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        /// The speed is that of the last moments: it may have changed before.
        const RECENT: Duration = Duration::from_secs(10);
        let done = shown.measured.map_or(0, |(done, _)| done);
        let last = self.moments.back().map(|(at, ..)| *at);
        if last.is_some_and(|last| now.duration_since(last) < EVERY) {
            return self.speed;
        }
        self.moments.push_back((now, shown.worked, done));
        while self.moments.front().is_some_and(|(at, ..)| now.duration_since(*at) > MINUTE) {
            self.moments.pop_front();
        }
        let since = |age: Duration| {
            self.moments.iter().find(|(at, ..)| now.duration_since(*at) <= age).copied()
        };
        let mut speed = Speed::default();
        if let Some((_, worked, _)) = since(MINUTE) {
            speed.last_minute = shown.worked.saturating_sub(worked);
        }
        if let Some((at, worked, before)) = since(RECENT).filter(|(at, ..)| *at < now) {
            let seconds = now.duration_since(at).as_secs_f64();
            let rate = |more: u64| more as f64 / seconds;
            speed.per_second = Some(rate(shown.worked.saturating_sub(worked)).round() as u64);
            let pace = rate(done.saturating_sub(before));
            // What the first moments say of the rest is a guess.
            let known = shown.measured.filter(|_| pace > 0.0 && seconds >= 3.0);
            speed.seconds_left =
                known.map(|(done, total)| (total.saturating_sub(done) as f64 / pace).ceil() as u64);
        }
        self.speed = speed;
        speed
    }
}

impl Shown {
    /// What a pipeline reports.
    pub fn of_pipeline(report: &Report) -> Self {
        let lacks = report.failures + report.in_flight + report.held_back > 0;
        let (state, word) = match report.phase {
            Phase::Queued => (State::Queued, "queued"),
            Phase::CatchingUp => (State::Busy, ""),
            Phase::Scanning => (State::Busy, "full scan"),
            Phase::Live => (State::Live, "live"),
            Phase::Waiting => (State::Waiting, "waiting"),
            Phase::CaughtUp if lacks => (State::Done, "ended"),
            Phase::CaughtUp => (State::Done, "caught up"),
            Phase::Stopped => (State::Queued, "stopped"),
            Phase::Failed => (State::Failed, "failed"),
            Phase::Vanished => (State::Failed, "vanished"),
        };
        let worked = report.documents + report.deletions + report.unchanged;
        let held = report.held.zip(report.counted);
        let read = report.progress.map(|progress| (progress.done, progress.total));
        // A scan compares documents that the mirror holds already.
        let measured = if report.phase == Phase::Scanning { read } else { held.or(read) };
        Self {
            name: report.collection.to_string(),
            work: None,
            state,
            word,
            documents: report.held.unwrap_or(worked),
            total: report.held.and(report.counted),
            measured,
            worked,
            bytes: 0,
            lag: report.lag_seconds(Timestamp::now()),
            failures: report.failures,
        }
    }

    /// How far a collection is restored.
    pub fn of_restore(progress: &Progress) -> Self {
        let report = &progress.report;
        let Counts { create, replace, skip, deleted_there, bytes, .. } = report.counts;
        let documents = create + replace + skip + deleted_there;
        let done = documents + report.problems;
        Self {
            name: report.collection.clone(),
            work: None,
            state: if progress.ended { State::Done } else { State::Busy },
            word: if progress.ended { "restored" } else { "" },
            documents,
            total: progress.total,
            measured: progress.total.map(|total| (done, total)),
            worked: done,
            bytes,
            lag: None,
            failures: report.problems,
        }
    }

    /// How far a collection is read, or listed by the source.
    pub fn of_verification(step: &verify::Step) -> Self {
        let (busy, done) = match step.work {
            verify::Work::Read => ("reading", "read"),
            verify::Work::List => ("comparing", "compared"),
        };
        let is_read = step.total.is_some_and(|total| step.documents >= total);
        let (state, word) = match step.work {
            _ if step.ended => (State::Done, done),
            verify::Work::Read if is_read => (State::Done, done),
            verify::Work::Read if step.documents == 0 => (State::Queued, "queued"),
            _ => (State::Busy, busy),
        };
        Self {
            name: step.collection.clone(),
            work: Some(step.work),
            state,
            word,
            documents: step.documents,
            total: step.total,
            measured: step.total.map(|total| (step.documents, total)),
            worked: step.documents,
            bytes: step.bytes,
            lag: None,
            failures: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_what_this_run_has_done() {
        let at = Instant::now();
        let shown = |worked: u64| Shown {
            measured: Some((9_000 + worked, 10_000)),
            worked,
            ..Shown::of_pipeline(&Report::new("books".into()))
        };
        let mut meter = Speedometer::default();
        assert_eq!(meter.measure(&shown(0), at), Speed::default(), "9,000 were there before");
        let later = meter.measure(&shown(100), at + Duration::from_secs(4));
        let expected = Speed { per_second: Some(25), seconds_left: Some(36), last_minute: 100 };
        assert_eq!(later, expected);
        let much_later = meter.measure(&shown(100), at + Duration::from_secs(90));
        assert_eq!(much_later.last_minute, 0);
    }

    #[test]
    fn reading_and_comparing_have_a_speed_each() {
        let term = Term::stderr();
        let footer = Footer::new(Box::new(std::io::sink()));
        let mut bars = Bars { footer, term, speeds: HashMap::new() };
        let at = Instant::now();
        let step = |work, documents| {
            let total = Some(1_000);
            let step = verify::Step {
                collection: "books".to_owned(),
                work,
                documents,
                total,
                bytes: 0,
                ended: false,
            };
            Shown::of_verification(&step)
        };
        for (second, compared) in [(0, 0), (4, 100)] {
            let both = vec![step(verify::Work::Read, 1_000), step(verify::Work::List, compared)];
            bars.show(both, at + Duration::from_secs(second));
        }
        let speed = |work| bars.speeds[&("books".to_owned(), Some(work))].speed;
        assert_eq!(speed(verify::Work::Read).per_second, Some(0));
        assert_eq!(speed(verify::Work::List).per_second, Some(25));
        assert_eq!(speed(verify::Work::List).seconds_left, Some(36));
    }

    #[test]
    fn a_resumed_copy_begins_with_what_the_mirror_holds() {
        let mut report = Report::new("books".into());
        (report.phase, report.held, report.counted) = (Phase::CatchingUp, Some(500), Some(1_000));
        let shown = Shown::of_pipeline(&report);
        assert_eq!((shown.measured, shown.documents), (Some((500, 1_000)), 500));
    }
}

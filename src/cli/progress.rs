//! Progress on a terminal: the speed of each collection, and the lines redrawn.
//!
//! [`bar`](super::bar) lays the lines out.

use std::collections::{HashMap, VecDeque};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use console::Term;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bar;
use super::footer::Footer;
use super::shown::{Shown, Speed};
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
    pub fn of_verification(self, progress: &Arc<verify::VerifyProgress>) -> Drawing {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline;

    #[test]
    fn a_speed_is_what_this_run_has_done() {
        let at = Instant::now();
        let shown = |worked: u64| Shown {
            measured: Some((9_000 + worked, 10_000)),
            worked,
            ..Shown::of_pipeline(&pipeline::PipelineReport::new("books".into()))
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
}

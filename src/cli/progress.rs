//! Progress bars: one a collection, with rate, position and time left.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::document::plain;
use crate::pipeline::{Phase, Report};
use crate::restore::{Counts, Progress};

/// When bars are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

/// The bars of all collections.
pub struct Bars {
    bars: MultiProgress,
    by_name: HashMap<String, ProgressBar>,
}

/// What a bar shows.
pub struct Shown {
    name: String,
    documents: u64,
    /// How much is done of how much, if that is known.
    measured: Option<(u64, u64)>,
    ended: bool,
    /// What is being done.
    word: &'static str,
    /// Where the source is.
    position: Option<String>,
}

impl Bars {
    /// Bars on standard error, when they are wanted; `Always` also where that is no terminal.
    pub fn wanted(when: When) -> Option<Self> {
        let wanted = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => std::io::stderr().is_terminal(),
        };
        wanted.then(|| Self::new(when == When::Always))
    }

    fn new(always: bool) -> Self {
        /// Frames a second.
        const RATE: u8 = 10;
        let target = match always {
            true => ProgressDrawTarget::term_like_with_hz(Box::new(terminal()), RATE),
            false => ProgressDrawTarget::stderr_with_hz(RATE),
        };
        Self { bars: MultiProgress::with_draw_target(target), by_name: HashMap::new() }
    }

    /// Where log lines have to be written so that they do not tear the bars.
    pub fn lines(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// Draws what `look` sees until `ended`.
    pub async fn draw(
        mut self,
        look: impl Fn() -> Vec<Shown> + Send + 'static,
        ended: CancellationToken,
    ) {
        const EVERY: Duration = Duration::from_millis(100);
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            let last = tokio::select! {
                () = ended.cancelled() => true,
                _ = ticks.tick() => false,
            };
            for shown in look() {
                self.show(shown);
            }
            if last {
                for bar in self.by_name.values() {
                    bar.abandon();
                }
                return;
            }
        }
    }

    fn show(&mut self, shown: Shown) {
        let Shown { name, documents, measured, ended, word, position } = shown;
        let bars = &self.bars;
        let bar = self.by_name.entry(name).or_insert_with_key(|name| {
            let bar = bars.add(ProgressBar::no_length());
            bar.set_prefix(shortened(&plain::text(name), 20));
            bar.set_style(style(Drawn::Counted));
            bar
        });
        if let Some((done, total)) = measured.filter(|(_, total)| *total > 0) {
            bar.set_style(style(if ended { Drawn::Full } else { Drawn::Measured }));
            bar.set_length(total);
            bar.set_position(done.min(total));
        } else {
            bar.set_position(documents);
        }
        let seconds = bar.elapsed().as_secs_f64().max(0.001);
        let rate = documents as f64 / seconds;
        let at = position
            .map(|at| format!(", at {}", shortened(&plain::text(&at), 16)))
            .unwrap_or_default();
        bar.set_message(format!("{word} {documents} documents, {rate:.0}/s{at}"));
        bar.tick();
    }
}

impl Shown {
    /// What a pipeline tells about itself.
    pub fn of_pipeline(report: &Report) -> Self {
        let position = report.position.as_ref().map_or("-".to_owned(), Value::to_string);
        Self {
            name: report.collection.to_string(),
            documents: report.documents + report.deletions + report.unchanged,
            measured: report.progress.map(|progress| (progress.done, progress.total)),
            ended: report.caught_up,
            word: word(report.phase),
            position: Some(position.trim_matches('"').to_owned()),
        }
    }

    /// How far a collection is put back.
    pub fn of_restore(progress: &Progress) -> Self {
        let report = &progress.report;
        let Counts { create, replace, skip, deleted_there, .. } = report.counts;
        let documents = create + replace + skip + deleted_there;
        let done = documents + report.problems;
        Self {
            name: report.collection.clone(),
            documents,
            measured: progress.total.map(|total| (done, total)),
            ended: progress.ended,
            word: if progress.ended { "restored" } else { "restoring" },
            position: None,
        }
    }
}

fn terminal() -> console::Term {
    console::Term::stderr()
}

/// What is known of a bar's length.
enum Drawn {
    Counted,
    Measured,
    Full,
}

fn style(drawn: Drawn) -> ProgressStyle {
    let template = match drawn {
        Drawn::Counted => "{prefix:20} {spinner} {msg}",
        Drawn::Measured => "{prefix:20} {bar:24.cyan/dim} {percent:>3}% {msg}, {eta} left",
        Drawn::Full => "{prefix:20} {bar:24.cyan/dim} {percent:>3}% {msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued => "queued",
        Phase::CatchingUp => "catching up",
        Phase::Scanning => "scanning",
        Phase::Live => "live",
        Phase::Waiting => "waiting",
        Phase::CaughtUp => "caught up",
        Phase::Stopped => "stopped",
        Phase::Failed => "failed",
        Phase::Vanished => "vanished",
    }
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

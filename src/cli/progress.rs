//! Progress bars: one a collection, with rate, position and time left.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::agent::Watcher;
use crate::document::CollectionName;
use crate::pipeline::{Phase, Report};

/// The bars of all collections.
pub struct Bars {
    bars: MultiProgress,
    by_name: HashMap<CollectionName, ProgressBar>,
}

impl Bars {
    /// Bars on standard error; `always` draws them even where that is no terminal.
    pub fn new(always: bool) -> Self {
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

    /// Draws what `watcher` knows until `ended`.
    pub async fn draw(mut self, watcher: Watcher, ended: CancellationToken) {
        const EVERY: Duration = Duration::from_millis(100);
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            let last = tokio::select! {
                () = ended.cancelled() => true,
                _ = ticks.tick() => false,
            };
            for collection in watcher.status().collections {
                self.show(&collection.report);
            }
            if last {
                for bar in self.by_name.values() {
                    bar.abandon();
                }
                return;
            }
        }
    }

    fn show(&mut self, report: &Report) {
        let bars = &self.bars;
        let bar = self.by_name.entry(report.collection.clone()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::no_length());
            bar.set_prefix(shortened(report.collection.as_str(), 20));
            bar.set_style(style(Drawn::Counted));
            bar
        });
        let done = report.documents + report.deletions + report.unchanged;
        if let Some(progress) = report.progress.filter(|progress| progress.total > 0) {
            bar.set_style(style(if report.caught_up { Drawn::Full } else { Drawn::Measured }));
            bar.set_length(progress.total);
            bar.set_position(progress.done.min(progress.total));
        } else {
            bar.set_position(done);
        }
        let seconds = bar.elapsed().as_secs_f64().max(0.001);
        let position = report.position.as_ref().map_or("-".to_owned(), Value::to_string);
        let message = format!(
            "{} {done} documents, {:.0}/s, at {}",
            word(report.phase),
            done as f64 / seconds,
            shortened(position.trim_matches('"'), 16),
        );
        bar.set_message(message);
        bar.tick();
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
        Phase::Waiting => "waiting for the source",
        Phase::CaughtUp => "caught up",
        Phase::Stopped => "stopped",
        Phase::Failed => "failed",
    }
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

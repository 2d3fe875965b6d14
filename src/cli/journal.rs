//! What a run tells those who read its log later: what it mirrors, that it has caught up, and from then
//! on a line a day.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use indicatif::HumanBytes;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use super::output::many;
use crate::pipeline::{self, Phase};
use crate::runner::Watcher;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// After this time, and each time again, what still waits is looked at.
const SETTLED: Duration = Duration::from_secs(60);

/// Up to this number of collections, each has a line of its own when all have caught up.
const FEW: usize = 10;

/// Logs what is mirrored once.
pub fn begin(source: &str, mirror: &Path) {
    tracing::info!("mirroring {source} into {}", mirror.display());
}

/// Logs what a mirror follows, and how it does, until `ended`.
pub async fn keep(watcher: Watcher, mirror: &Path, ended: CancellationToken) {
    let (source, mirror) = (watcher.source(), mirror.display());
    let told = async {
        if !watcher.listed().await {
            return;
        }
        let reports = watcher.reports();
        let collections = many(reports.len(), "collection");
        tracing::info!("following {source} into {mirror}: {collections}");
        let every = if tracing::enabled!(tracing::Level::DEBUG) { HOUR } else { DAY };
        let period = if every == HOUR { "hour" } else { "24 hours" };
        let look = || watcher.reports();
        // A collection that waits for its source must not silence the others.
        tokio::join!(
            say_caught_up(&watcher),
            report_each(period, ticks(every), reports, look, |line| tracing::info!("{line}")),
        );
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = told => {}
    }
}

/// Logs once that all collections have caught up and, before that, once that only some can.
async fn say_caught_up(watcher: &Watcher) {
    let begun = Instant::now();
    let (look, say) = (|| watcher.reports(), |line| tracing::info!("{line}"));
    if !say_stuck_until(watcher.caught_up(), ticks(SETTLED), look, say).await {
        return;
    }
    let reports = watcher.reports();
    if (2..=FEW).contains(&reports.len()) {
        for report in &reports {
            let collection = &report.collection;
            let total = Total::of([report]);
            tracing::info!(%collection, "caught up: {}, {}", total.written(), total.failed());
        }
    }
    let total = Total::of(&reports);
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!("{} in {seconds:.1} s", caught_up(&reports, &total));
}

/// Waits until all have caught up, and says once if the others have and some wait for their source.
async fn say_stuck_until(
    done: impl Future<Output = bool>,
    looks: impl Stream<Item = ()>,
    look: impl Fn() -> Vec<pipeline::PipelineReport>,
    say: impl FnOnce(String),
) -> bool {
    let stuck = async {
        let mut lines = pin!(looks.filter_map(async |()| stuck(&look())));
        match lines.next().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    };
    let mut done = pin!(done);
    tokio::select! {
        biased;
        done = &mut done => return done,
        line = stuck => say(line),
    }
    done.await
}

/// The line for a mirror of which some collections wait and all others have caught up.
fn stuck(reports: &[pipeline::PipelineReport]) -> Option<String> {
    let (waiting, others): (Vec<_>, Vec<_>) = reports.iter().partition(|report| waits(report));
    if waiting.is_empty() || !others.iter().all(|report| is_done(report)) {
        return None;
    }
    let total = Total::of(others.iter().copied());
    let (done, all) = (others.len(), many(reports.len(), "collection"));
    let (written, failed) = (total.written(), total.failed());
    Some(format!("{done} of {all} caught up: {written}, {failed}; {}", names(&waiting)))
}

/// Which collections wait, and why the first one does.
fn names(waiting: &[&pipeline::PipelineReport]) -> String {
    let verb = if waiting.len() == 1 { "waits" } else { "wait" };
    let Some(first) = waiting.first() else { return String::new() };
    let why = first.trouble.as_deref().unwrap_or("unknown");
    let and = if waiting.len() == 1 { String::new() } else { ", and others".to_owned() };
    let name = &first.collection;
    format!("{} {verb}: `{name}`{and}: {why}", waiting.len())
}

fn waits(report: &pipeline::PipelineReport) -> bool {
    report.phase == Phase::Waiting
}

fn is_done(report: &pipeline::PipelineReport) -> bool {
    report.caught_up || report.phase == Phase::Vanished
}

fn ticks(every: Duration) -> impl Stream<Item = ()> {
    stream::unfold(interval_at(Instant::now() + every, every), async |mut ticks| {
        ticks.tick().await;
        Some(((), ticks))
    })
}

/// The line for a mirror that has caught up with all its collections, but for what failed.
fn caught_up(reports: &[pipeline::PipelineReport], total: &Total) -> String {
    let collections = many(reports.len(), "collection");
    format!("caught up with {collections}: {}, {}", total.written(), total.failed())
}

/// Says at each tick what was written since the last one, and what waits.
async fn report_each(
    period: &str,
    ticks: impl Stream<Item = ()>,
    before: Vec<pipeline::PipelineReport>,
    look: impl Fn() -> Vec<pipeline::PipelineReport>,
    mut say: impl FnMut(String),
) {
    let mut ticks = pin!(ticks);
    let mut before = Total::of(&before);
    while ticks.next().await.is_some() {
        let reports = look();
        let now = Total::of(&reports);
        let written = now.since(&before).written();
        let lag = now.lag.map_or("unknown".to_owned(), |seconds| format!("{seconds:.1} s"));
        let mut line = format!("in the last {period}: {written}; lag {lag}, {}", now.failed());
        let waiting: Vec<_> = reports.iter().filter(|report| waits(report)).collect();
        if !waiting.is_empty() {
            let all = many(reports.len(), "collection");
            line.push_str(&format!("; of {all}, {}", names(&waiting)));
        }
        say(line);
        before = now;
    }
}

/// What all collections together have done.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    documents: u64,
    deletions: u64,
    attachments: u64,
    bytes: u64,
    failures: u64,
    held_back: u64,
    /// The longest lag in seconds, if any is known.
    lag: Option<f64>,
}

impl Total {
    fn of<'a>(reports: impl IntoIterator<Item = &'a pipeline::PipelineReport>) -> Self {
        let mut total = Self::default();
        for report in reports {
            total.documents += report.documents;
            total.deletions += report.deletions;
            total.attachments += report.attachments;
            total.bytes += report.bytes;
            total.failures += report.failures;
            total.held_back += report.held_back;
            let lag = report.lag_seconds();
            total.lag = match (total.lag, lag) {
                (Some(left), Some(right)) => Some(left.max(right)),
                (left, right) => left.or(right),
            };
        }
        total
    }

    /// What has been done since an earlier look. Only what is written counts up.
    fn since(&self, before: &Self) -> Self {
        Self {
            // A collection that vanished and came back may count from 0.
            documents: self.documents.saturating_sub(before.documents),
            deletions: self.deletions.saturating_sub(before.deletions),
            attachments: self.attachments.saturating_sub(before.attachments),
            bytes: self.bytes.saturating_sub(before.bytes),
            ..*self
        }
    }

    fn written(&self) -> String {
        format!(
            "{} written, {} deleted, {}, {}",
            many(self.documents, "document"),
            self.deletions,
            many(self.attachments, "attachment"),
            HumanBytes(self.bytes),
        )
    }

    fn failed(&self) -> String {
        let mut text = format!("{} failed", many(self.failures, "document"));
        if self.held_back > 0 {
            text.push_str(&format!(", {} held back", many(self.held_back, "deletion")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    use futures_util::FutureExt as _;

    use jiff::Timestamp;

    use super::*;

    fn report(name: &str, phase: Phase, documents: u64) -> pipeline::PipelineReport {
        let trouble = (phase == Phase::Waiting).then(|| "it does not exist".to_owned());
        let caught_up = phase == Phase::Live;
        pipeline::PipelineReport {
            phase,
            documents,
            trouble,
            caught_up,
            ..pipeline::PipelineReport::new(name.into())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_day_has_a_line_with_what_was_written_since_the_last() {
        let (mut said, begun) = (Vec::new(), Instant::now());
        let written = Cell::new(5);
        let look = || {
            written.set(written.get() + 3);
            let current_at = Some(Timestamp::now());
            let books = report("books", Phase::Live, written.get());
            vec![pipeline::PipelineReport { failures: 1, current_at, ..books }]
        };
        let before = vec![report("books", Phase::CatchingUp, 5)];
        let say = |line| said.push((begun.elapsed().as_secs(), line));
        let telling = report_each("24 hours", ticks(DAY), before, look, say);
        tokio::time::timeout(DAY * 3 - HOUR, telling).await.unwrap_err();
        assert_eq!(said.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [86_400, 172_800]);
        for (_, line) in &said {
            assert!(line.contains("3 documents written"), "{line}");
            assert!(line.contains("lag 0.0 s") && line.contains("1 document failed"), "{line}");
            assert!(!line.contains("wait"), "{line}");
        }
    }

    #[test]
    fn a_day_names_what_waits() {
        let mut said = Vec::new();
        let look = || vec![report("books", Phase::Live, 1), report("loans", Phase::Waiting, 0)];
        let days = stream::iter([()]);
        let telling = report_each("24 hours", days, Vec::new(), look, |line| said.push(line));
        telling.now_or_never().unwrap();
        let [line] = &said[..] else { panic!("{said:?}") };
        assert!(line.contains("1 document written"), "{line}");
        assert!(line.contains("of 2 collections, 1 waits: `loans`: it does not exist"), "{line}");
    }

    /// What is said at these looks before all have caught up.
    async fn said_at(looks: Vec<Vec<pipeline::PipelineReport>>) -> Vec<String> {
        let all = SETTLED * looks.len() as u32 + Duration::from_secs(1);
        let looks = RefCell::new(VecDeque::from(looks));
        let look = || looks.borrow_mut().pop_front().unwrap();
        let mut said = Vec::new();
        let done = async {
            tokio::time::sleep(all).await;
            true
        };
        assert!(say_stuck_until(done, ticks(SETTLED), look, |line| said.push(line)).await);
        said
    }

    #[tokio::test(start_paused = true)]
    async fn a_collection_that_waits_does_not_hide_that_the_others_have_caught_up() {
        let at = |loans| {
            let (books, gone) =
                (report("books", Phase::Live, 2), report("gone", Phase::Waiting, 0));
            vec![books, gone, report("loans", loans, 1)]
        };
        assert!(said_at(vec![at(Phase::CatchingUp)]).await.is_empty());
        let said = said_at([Phase::CatchingUp, Phase::Live, Phase::Live].map(at).into()).await;
        let [line] = &said[..] else { panic!("{said:?}") };
        assert!(line.contains("2 of 3 collections caught up: 3 documents"), "{line}");
        assert!(line.contains("1 waits: `gone`: it does not exist"), "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mirror_that_catches_up_says_nothing_of_waiting() {
        assert!(said_at(vec![vec![report("books", Phase::Live, 2)]; 5]).await.is_empty());
    }

    #[test]
    fn a_collection_that_begins_again_is_no_negative_count() {
        let before = Total { documents: 9, ..Total::default() };
        assert_eq!(Total { documents: 2, ..Total::default() }.since(&before).documents, 0);
    }
}

//! What a run tells those who read its log later: what it mirrors, that it has caught up, and from then
//! on a line a day.
//!
//! It must not know where log lines go.

use std::path::Path;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use indicatif::HumanBytes;
use jiff::Timestamp;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use super::output::many;
use crate::agent::Watcher;
use crate::pipeline::Report;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

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
        let collections = many(watcher.reports().len(), "collection");
        tracing::info!("following {source} into {mirror}: {collections}");
        let begun = Instant::now();
        if !watcher.caught_up().await {
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
        let every = if tracing::enabled!(tracing::Level::DEBUG) { HOUR } else { DAY };
        let look = || Total::of(&watcher.reports());
        let ticks =
            stream::unfold(interval_at(Instant::now() + every, every), async |mut ticks| {
                ticks.tick().await;
                Some(((), ticks))
            });
        let period = if every == HOUR { "hour" } else { "24 hours" };
        report_each(period, ticks, total, look, |line| tracing::info!("{line}")).await;
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = told => {}
    }
}

/// The line for a mirror that has caught up with all its collections, but for what failed.
fn caught_up(reports: &[Report], total: &Total) -> String {
    let collections = many(reports.len(), "collection");
    format!("caught up with {collections}: {}, {}", total.written(), total.failed())
}

/// Says at each tick what was written since the last one.
async fn report_each(
    period: &str,
    ticks: impl Stream<Item = ()>,
    mut before: Total,
    mut look: impl FnMut() -> Total,
    mut say: impl FnMut(String),
) {
    let mut ticks = std::pin::pin!(ticks);
    while ticks.next().await.is_some() {
        let now = look();
        let written = now.since(&before).written();
        let lag = now.lag.map_or("unknown".to_owned(), |seconds| format!("{seconds:.1} s"));
        say(format!("in the last {period}: {written}; lag {lag}, {}", now.failed()));
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
    fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let (mut total, now) = (Self::default(), Timestamp::now());
        for report in reports {
            total.documents += report.documents;
            total.deletions += report.deletions;
            total.attachments += report.attachments;
            total.bytes += report.bytes;
            total.failures += report.failures;
            total.held_back += report.held_back;
            let lag = report.lag_seconds(now);
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
            // A collection that vanished and came back counts from 0.
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
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn each_day_has_a_line_with_what_was_written_since_the_last() {
        let mut said = Vec::new();
        let days = stream::iter([(), ()]);
        let before = Total { documents: 5, ..Total::default() };
        let mut written = before;
        let look = || {
            written.documents += 3;
            Total { failures: 1, lag: Some(0.25), ..written }
        };
        let telling = report_each("24 hours", days, before, look, |line| said.push(line));
        telling.now_or_never().unwrap();
        assert_eq!(said.len(), 2, "{said:?}");
        for line in &said {
            assert!(line.contains("3 documents written"), "{line}");
            assert!(line.contains("lag 0.2 s") && line.contains("1 document failed"), "{line}");
        }
    }

    #[test]
    fn a_collection_that_begins_again_is_no_negative_count() {
        let before = Total { documents: 9, ..Total::default() };
        assert_eq!(Total { documents: 2, ..Total::default() }.since(&before).documents, 0);
    }
}

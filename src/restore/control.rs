//! Controls a restore from outside, and reports its progress.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Report;
use crate::archive::StoredCollection;
use crate::tree::MirrorError;

/// The control of a restore.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// If cancelled, it ends after the batches in flight.
    pub stop: CancellationToken,
    /// The collections that were started, in order.
    pub progress: watch::Sender<Vec<RestoreProgress>>,
}

/// The progress of a collection.
#[derive(Clone, Debug)]
pub struct RestoreProgress {
    /// What has been done so far.
    pub report: Report,
    /// The number of documents, if all of them are restored.
    pub total: Option<u64>,
    /// Whether it has ended.
    pub ended: bool,
}

impl Control {
    pub(super) fn begin(&self, report: &Report, total: Option<u64>) {
        let progress = RestoreProgress { report: report.clone(), total, ended: false };
        self.progress.send_modify(|all| all.push(progress));
    }

    pub(super) fn tell(&self, report: &Report, ended: bool) {
        self.progress.send_modify(|all| {
            if let Some(progress) = all.last_mut() {
                progress.report = report.clone();
                progress.ended = ended;
            }
        });
    }

    /// Whether the progress is shown: counting first takes time.
    pub(super) fn is_watched(&self) -> bool {
        self.progress.receiver_count() > 0
    }
}

/// The number of entries in a collection's folder. Blocks.
pub(super) fn count(collection: &dyn StoredCollection) -> Result<u64, MirrorError> {
    Ok(collection.each_name()?.count() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::archive::conformance::in_memory;
    use crate::restore::{FeedTarget, OnExisting, Options, Restore};

    #[tokio::test]
    async fn told_to_stop_it_ends_and_an_unfinished_feed_does_not_appear() {
        let place = tempfile::tempdir().unwrap();
        let feed = place.path().join("back.ndjson");
        let options = Options {
            undelete: None,
            with_replications: false,
            collections: Default::default(),
            ids: None,
            renamed: Default::default(),
            only_as: None,
            on_existing: OnExisting::Refuse,
            allow_empty: false,
            dry_run: false,
            accept_unchecked: true,
        };
        let restore = || {
            let target = FeedTarget::new(Some(feed.clone()), OnExisting::Refuse).unwrap();
            Restore::new(target, options.clone())
        };
        let control = Control::default();
        control.stop.cancel();
        let archive = || Arc::new(in_memory());
        let outcome = restore().controlled(control.clone()).run(archive()).await.unwrap();
        assert!(outcome.interrupted && !feed.exists());

        let control = Control::default();
        let progress = control.progress.subscribe();
        let outcome = restore().controlled(control).run(archive()).await.unwrap();
        assert!(!outcome.interrupted && feed.exists());
        let progress = progress.borrow();
        assert_eq!((progress[0].report.counts.create, progress[0].total), (2, Some(2)));
        assert!(progress[0].ended);
        let text = std::fs::read_to_string(&feed).unwrap();
        assert!(text.contains(r#""data":"b25l""#) && text.contains(r#""_id":"b/c""#), "{text}");
    }
}

//! What verifications find in a running mirror: it is remembered, reported, logged, and fetched again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::integrity::{FOLDER, Found, Looked, Soundness};
use super::mending::{Mend, Mended, Mending};
use super::order::Order;
use super::shared::Shared;
use crate::archive::{self, Problem, ProblemKind, StoredCollection};
use crate::document::CollectionName;
use crate::pipeline::{FAILED, Reporter};
use crate::tree::MirrorError;
use crate::verify::{self, Restraint, Spot, VerifyError};

/// The number of documents that the log names at a time.
const NAMED: usize = 10;

impl Shared {
    /// What an earlier process has left of a collection.
    pub(super) fn recall_integrity(&self, name: &CollectionName, reporter: &Reporter) {
        report(&self.soundness(name), reporter);
    }

    /// What is known of the bytes of a collection.
    pub(super) fn soundness(&self, name: &CollectionName) -> Soundness {
        if let Some(known) = self.integrity.all().get(name) {
            return known.clone();
        }
        let before = self.checkpoints.verification(name).unwrap_or_default();
        let mut all = self.integrity.all();
        all.entry(name.clone()).or_insert_with(|| Soundness::recalled(before)).clone()
    }

    /// Changes what is known of the bytes of a collection, and reports it. It is noted in the state too, if it
    /// is to survive this process. Blocks.
    pub(super) fn change_soundness<T>(
        &self,
        name: &CollectionName,
        note: bool,
        change: impl FnOnce(&mut Soundness) -> T,
    ) -> T {
        let mut now = self.soundness(name);
        let changed = {
            let mut all = self.integrity.all();
            let known = all.entry(name.clone()).or_insert_with(|| now.clone());
            let changed = change(known);
            now = known.clone();
            changed
        };
        if let Some(member) = self.members().get(name) {
            report(&now, &member.reporter);
        }
        if note && let Err(error) = self.checkpoints.note_verification(name, &now.noted()) {
            // Other writes report what is wrong with the state.
            tracing::debug!(collection = %name, "a verification is not noted: {error}");
        }
        changed
    }

    /// Takes in what a look at a collection has found. Returns whether anything of it is new. Blocks.
    pub(super) fn note_spot(&self, name: &CollectionName, looked: Looked<'_>, spot: &Spot) -> bool {
        let take = |known: &mut Soundness| known.take(looked, &spot.problems, &spot.ids);
        let is_clean = self.soundness(name).count() == 0 && spot.problems.is_empty();
        let Found { damaged, well } = self.change_soundness(name, !is_clean, take);
        for problem in damaged.iter().take(NAMED) {
            tracing::warn!(target: FAILED, collection = %name, "the mirror is damaged: {problem}");
        }
        if damaged.len() > NAMED {
            let more = damaged.len() - NAMED;
            tracing::warn!(collection = %name, "{more} more documents are damaged");
        }
        if !well.is_empty() {
            let (documents, left) = (well.len(), self.soundness(name).count());
            tracing::info!(
                collection = %name, documents, left, "documents that were damaged are intact again"
            );
        }
        !damaged.is_empty()
    }
}

impl Shared {
    /// Takes in that a collection has no folder any more. Blocks.
    pub(super) fn note_lost(&self, name: &CollectionName) {
        if self.soundness(name).damaged.contains_key(FOLDER) {
            return;
        }
        let reason = "somebody has moved away or removed the folder of the collection";
        let problem = Problem::new(ProblemKind::Missing, name.to_string(), reason);
        let mut spot = Spot::default();
        spot.problems.insert(FOLDER.to_owned(), vec![problem]);
        let looked = BTreeSet::from([FOLDER.to_owned()]);
        self.note_spot(name, Looked::These(&looked), &spot);
    }
}

/// Looks once more at what a long look and the knowledge of a collection disagree about: it may have changed
/// since it was read. Blocks.
pub(super) fn look_twice(
    known: &Soundness,
    collection: &dyn StoredCollection,
    looked: Looked<'_>,
    spot: &mut Spot,
    stop: &CancellationToken,
) -> Result<(), VerifyError> {
    let doubtful = known.doubtful(looked, &spot.problems);
    if doubtful.is_empty() {
        return Ok(());
    }
    let restraint = Restraint { stop: stop.clone(), ..Restraint::default() };
    let now = verify::look_at(collection, &doubtful, &restraint)?;
    spot.problems.retain(|name, _| !doubtful.contains(name));
    spot.problems.extend(now.problems);
    spot.ids.extend(now.ids);
    Ok(())
}

fn report(known: &Soundness, reporter: &Reporter) {
    reporter.update(|report| {
        report.verified_at = known.at;
        report.damaged = known.count();
        report.damage = known.in_words();
        report.watched = known.watched;
    });
}

impl Shared {
    /// Fetches documents of a collection again, between two batches of its run, and waits for that. The
    /// documents that are in flight when the session ends are finished.
    pub(super) async fn mend(&self, name: &CollectionName, mending: Mending) -> Mended {
        const GONE: &str = "the run of the collection has ended before it: start it again later";
        let (answer, answered) = oneshot::channel();
        let order = Order::Mend(name.clone(), Mend { mending, answer });
        if self.orders.send(order).is_err() {
            return Mended::failed("the mirror is about to end");
        }
        answered.await.unwrap_or_else(|_| Mended::failed(GONE))
    }
}

/// The collection of this name in the mirror at `path`.
pub(super) fn find(
    path: &Path,
    name: &CollectionName,
) -> Result<Option<Arc<dyn StoredCollection>>, MirrorError> {
    let (collections, _) = archive::open(path)?.collections()?;
    Ok(collections.into_iter().find(|collection| collection.name() == name))
}

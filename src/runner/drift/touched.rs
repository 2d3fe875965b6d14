//! Verifies what somebody has touched in the folders that are watched, a moment later.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::how::DriftOptions;
use super::tree_watch::{Register, Touched, TreeWatch, Unwatched};
use super::{look, repair};
use crate::document::CollectionName;
use crate::runner::damage::find;
use crate::runner::integrity::Soundness;
use crate::runner::shared::{Member, Shared};
use crate::verify::VerifyError;

/// A document is verified when it has not been touched for this time: who writes it is done.
const QUIET: Duration = Duration::from_millis(500);

/// It is verified after this time, whatever is done to it.
const LONGEST: Duration = Duration::from_secs(5);

/// How often is looked whether further collections can be watched.
const LOOK: Duration = Duration::from_secs(1);

/// The number of documents that are verified at a time.
const TOGETHER: usize = 1000;

/// The part of the time that verifying takes at most: a mirror that writes much has other things to do.
const SHARE: u32 = 4;

/// Watches the collections of a mirror once they have caught up, until its errands end.
pub(super) async fn keep(shared: Arc<Shared>, options: DriftOptions) {
    let Some(watch) = options.watch.clone() else { return };
    let stop = shared.errands.clone();
    let keeping = Keeping { shared, watch, options, register: Arc::default() };
    let register = Arc::clone(&keeping.register);
    let mut tried = HashSet::new();
    let work = async {
        loop {
            keeping.watch_more(&mut tried).await;
            tokio::select! {
                () = register.touched_again() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            while !register.is_empty() {
                tokio::time::sleep(QUIET).await;
                for name in keeping.look().await {
                    tried.remove(&name);
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
    for name in &tried {
        keeping.watch.unwatch_collection(&register, name);
    }
}

struct Keeping {
    shared: Arc<Shared>,
    watch: Arc<TreeWatch>,
    options: DriftOptions,
    register: Arc<Register>,
}

impl Keeping {
    /// Begins to watch collections that have caught up: a first copy would only be read twice.
    async fn watch_more(&self, tried: &mut HashSet<CollectionName>) {
        let ready: Vec<_> = {
            let members = self.shared.members();
            let ready =
                members.iter().filter(|(name, one)| one.is_current() && !tried.contains(*name));
            let held = |one: &Member| one.reporter.says(|report| report.held);
            ready.map(|(name, one)| (name.clone(), held(one))).collect()
        };
        for (name, held) in ready {
            tried.insert(name.clone());
            let (shared, watch) = (Arc::clone(&self.shared), Arc::clone(&self.watch));
            let register = Arc::clone(&self.register);
            let watching = move || {
                let watched = begin(&shared, &watch, &register, &name, held);
                let is_watched = matches!(watched, Ok(true));
                match &watched {
                    Ok(true) => {
                        tracing::debug!(collection = %name, "changes by others are noticed at once");
                    }
                    // It is tried again.
                    Ok(false) => return Some(name),
                    Err(error) => tracing::info!(
                        collection = %name,
                        "changes by others are only noticed by the slow verification: {error}"
                    ),
                }
                shared.change_soundness(&name, false, |known| known.watched = is_watched);
                None
            };
            if let Ok(Some(absent)) = tokio::task::spawn_blocking(watching).await {
                tried.remove(&absent);
            }
        }
    }

    /// Verifies what was touched and is quiet now. Returns collections that are watched no longer, because
    /// their folders are others now.
    async fn look(&self) -> Vec<CollectionName> {
        let mut left = Vec::new();
        for (name, touched) in self.register.take_quiet(QUIET, LONGEST) {
            let Touched { names, any, has_left, .. } = touched;
            let begun = Instant::now();
            if has_left {
                self.watch.unwatch_collection(&self.register, &name);
                left.push(name.clone());
            }
            if any || has_left {
                self.look_at_all_soon(&name, has_left).await;
            }
            let mut is_new = false;
            let mut names = names.into_iter().peekable();
            while names.peek().is_some() {
                let some: BTreeSet<String> = names.by_ref().take(TOGETHER).collect();
                is_new |= self.look_at(&name, some).await;
            }
            if is_new && self.options.repair {
                repair(&self.shared, &name).await;
            }
            tokio::time::sleep(begun.elapsed() * SHARE).await;
        }
        left
    }

    async fn look_at(&self, name: &CollectionName, names: BTreeSet<String>) -> bool {
        let (shared, watch) = (Arc::clone(&self.shared), Arc::clone(&self.watch));
        let (register, collection) = (Arc::clone(&self.register), name.clone());
        let looking = move || {
            // What is done to them from now on is noticed, so that nothing is missed in between.
            watch_again(&shared, &watch, &register, &collection, &names)?;
            look(&shared, &collection, &names)
        };
        match tokio::task::spawn_blocking(looking).await {
            Ok(Ok(is_new)) => is_new,
            Ok(Err(VerifyError::Cancelled)) | Err(_) => false,
            Ok(Err(error)) => {
                tracing::warn!(collection = %name, "touched documents are not verified: {error}");
                false
            }
        }
    }

    /// It is not known what was touched: the slow verification begins the collection again, at once.
    async fn look_at_all_soon(&self, name: &CollectionName, has_left: bool) {
        let what = match has_left {
            true => "the folder of the collection was moved away or removed",
            false => "more was changed than could be noted",
        };
        tracing::info!(collection = %name, "{what}; the collection is verified as a whole");
        let (shared, name) = (Arc::clone(&self.shared), name.clone());
        let again = move || {
            shared.change_soundness(&name, true, |known: &mut Soundness| {
                (known.begun, known.after) = (Some(Timestamp::now()), None);
                known.is_urgent = true;
                known.renewed += 1;
                known.watched &= !has_left;
            });
        };
        let _ended = tokio::task::spawn_blocking(again).await;
    }
}

/// Watches a collection. Returns whether it has a folder that can be watched.
fn begin(
    shared: &Shared,
    watch: &TreeWatch,
    register: &Arc<Register>,
    name: &CollectionName,
    held: Option<u64>,
) -> Result<bool, Unwatched> {
    let (left, most) = (watch.left(), watch.most());
    if held.is_some_and(|held| held >= left as u64) {
        return Err(Unwatched::Budget(left));
    }
    let path = shared.mirror.path();
    let Ok(Some(collection)) = find(path, name) else { return Ok(false) };
    let watched = watch.watch_collection(register, name, &path.join(collection.path()));
    watched.map(|()| true).map_err(|error| match error {
        Unwatched::Budget(_) => Unwatched::Budget(left.min(most)),
        error @ Unwatched::Io(_) => error,
    })
}

/// Watches the folders of entries that may be new. If there are too many, the collection is watched no
/// longer.
fn watch_again(
    shared: &Shared,
    watch: &TreeWatch,
    register: &Arc<Register>,
    name: &CollectionName,
    names: &BTreeSet<String>,
) -> Result<(), VerifyError> {
    let path = shared.mirror.path();
    let Some(collection) = find(path, name)? else { return Ok(()) };
    for entry in names {
        let folder = path.join(collection.path_of(entry));
        if let Err(error) = watch.watch_entry(register, name, entry, &folder) {
            tracing::info!(
                collection = %name,
                "changes by others are only noticed by the slow verification from now on: {error}"
            );
            watch.unwatch_collection(register, name);
            shared.change_soundness(name, false, |known| known.watched = false);
            return Ok(());
        }
    }
    Ok(())
}

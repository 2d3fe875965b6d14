//! What somebody else changes in a running mirror: noticed at once where folders are watched, and by a slow
//! verification of everything; repaired if that is wanted.
//!
//! It does not tell its own writes by guessing: every document that was touched is compared with what the
//! inventory says of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::damage::find;
use super::integrity::{Damage, FOLDER, Looked};
use super::mending::{Mended, Mending};
use super::shared::Shared;
use crate::document::{CollectionName, DocumentId};
use crate::pipeline::{Fate, WrongDocument};
use crate::source::Mode;
use crate::verify::{self, Restraint, VerifyError};

mod how;
mod pass;
mod touched;
mod tree_watch;

pub use how::DriftOptions;
pub use tree_watch::TreeWatch;

/// The number of documents that are fetched again at a time.
const TOGETHER: usize = 100;

/// A damaged document is fetched again at most this number of times in a session.
const ATTEMPTS: u32 = 3;

/// Verifies and watches a mirror until its errands end.
pub(super) fn begin(shared: &Arc<Shared>, options: DriftOptions, mode: Mode) {
    // Nobody waits for them: they hold the session's state only while they work.
    if mode == Mode::Follow && options.watch.is_some() {
        tokio::spawn(touched::keep(Arc::clone(shared), options.clone()));
    }
    tokio::spawn(pass::keep(Arc::clone(shared), options, mode));
}

/// How the errands of a mirror read: by one thread, until they end.
fn restraint(shared: &Shared) -> Restraint {
    let stop = shared.errands.clone();
    Restraint { threads: Some(1), pace: None, stop }
}

/// Fetches what is damaged in a collection again, some documents after the others, and looks at them once more.
async fn repair(shared: &Arc<Shared>, name: &CollectionName) {
    let mut tried = BTreeSet::new();
    while !shared.errands.is_cancelled() {
        let (of, collection, before) = (Arc::clone(shared), name.clone(), tried.clone());
        let choosing = move || choose(&of, &collection, &before);
        let Ok(some) = tokio::task::spawn_blocking(choosing).await else { return };
        if some.is_empty() {
            return;
        }
        tried.extend(some.keys().cloned());
        if !repair_some(shared, name, some).await {
            return;
        }
    }
}

/// Damaged entries that are to be fetched again, and were not yet. Blocks.
fn choose(
    shared: &Shared,
    name: &CollectionName,
    tried: &BTreeSet<String>,
) -> BTreeMap<String, Option<DocumentId>> {
    let known = shared.soundness(name);
    let left = known.damaged.into_iter();
    let mut left = left
        .filter(|(entry, one)| one.attempts < ATTEMPTS && !tried.contains(entry) && entry != FOLDER)
        .peekable();
    if left.peek().is_none() {
        return BTreeMap::new();
    }
    let collection = find(shared.mirror.path(), name).ok().flatten();
    let named = left.map(|(entry, Damage { id, .. })| {
        // The state remembers names only.
        let id = id.or_else(|| collection.as_ref()?.id_of(&entry));
        (entry, id)
    });
    named.filter(|(entry, id)| id.is_some() || is_security(entry)).take(TOGETHER).collect()
}

/// Fetches these again. Returns whether the source has answered.
async fn repair_some(
    shared: &Arc<Shared>,
    name: &CollectionName,
    some: BTreeMap<String, Option<DocumentId>>,
) -> bool {
    let ids = some.iter().filter(|(entry, _)| !is_security(entry));
    let damaged: HashSet<DocumentId> = ids.filter_map(|(_, id)| id.clone()).collect();
    let security = some.keys().any(|entry| is_security(entry));
    let wrong = WrongDocument { damaged, ..WrongDocument::default() };
    let Mended { fates, error, .. } = shared.mend(name, Mending { wrong, security }).await;
    let mut answered = HashSet::new();
    for (id, fate) in fates {
        answered.insert(id.clone());
        let reason = match fate {
            Fate::Present { .. } | Fate::Buried { .. } => {
                tracing::info!(collection = %name, document = %id, "fetched again");
                continue;
            }
            Fate::Deleted { .. } => "the source reports it as deleted".to_owned(),
            Fate::Unknown => "the source does not know such a document".to_owned(),
            Fate::Failed(reason) => reason,
        };
        tracing::warn!(collection = %name, document = %id, "it cannot be repaired: {reason}");
    }
    let has_answered = error.is_none();
    if let Some(error) = error {
        tracing::warn!(collection = %name, "damaged documents are not fetched again now: {error}");
    }
    let (shared, name) = (Arc::clone(shared), name.clone());
    let looked = tokio::task::spawn_blocking(move || {
        if has_answered {
            shared.change_soundness(&name, false, |known| {
                for (entry, id) in &some {
                    let counts = id.as_ref().map_or(security, |id| answered.contains(id));
                    if let Some(one) = known.damaged.get_mut(entry).filter(|_| counts) {
                        one.attempts += 1;
                    }
                }
            });
        }
        look(&shared, &name, &some.into_keys().collect())
    });
    if let Ok(Err(error)) = looked.await {
        tracing::debug!("repaired documents are not verified: {error}");
    }
    has_answered
}

/// Looks at some entries of a collection, and notes what is wrong. Returns whether anything of it is new.
/// Blocks.
fn look(
    shared: &Shared,
    name: &CollectionName,
    names: &BTreeSet<String>,
) -> Result<bool, VerifyError> {
    let Some(collection) = find(shared.mirror.path(), name)? else { return Ok(false) };
    let spot = verify::look_at(&*collection, names, &restraint(shared))?;
    Ok(shared.note_spot(name, Looked::These(names), &spot))
}

fn is_security(entry: &str) -> bool {
    entry == verify::SECURITY_ENTRY
}

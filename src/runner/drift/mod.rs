//! What somebody else changes in a running mirror: noticed at once where folders are watched, and by a slow
//! verification of everything; repaired if that is wanted.
//!
//! It does not tell its own writes by guessing: every document that was touched is compared with what the
//! inventory says of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::damage::find;
use super::integrity::{Damage, Looked, Soundness};
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

/// Fetches what is damaged in a collection again, and looks at it once more.
async fn repair(shared: &Arc<Shared>, name: &CollectionName) {
    let tried = |known: &mut Soundness| {
        let mut some: Vec<(String, Option<DocumentId>)> = Vec::new();
        for (entry, damage) in &mut known.damaged {
            let Damage { id, attempts, .. } = damage;
            if *attempts < ATTEMPTS && some.len() < TOGETHER && (id.is_some() || is_security(entry))
            {
                *attempts += 1;
                some.push((entry.clone(), id.clone()));
            }
        }
        some
    };
    let some = shared.change_soundness(name, false, tried);
    if some.is_empty() {
        return;
    }
    let ids = some.iter().filter(|(entry, _)| !is_security(entry));
    let damaged: HashSet<DocumentId> = ids.filter_map(|(_, id)| id.clone()).collect();
    let security = some.iter().any(|(entry, _)| is_security(entry));
    let wrong = WrongDocument { damaged, ..WrongDocument::default() };
    let Mended { fates, error, .. } = shared.mend(name, Mending { wrong, security }).await;
    for (id, fate) in fates {
        let reason = match fate {
            Fate::Present { .. } | Fate::Buried { .. } | Fate::Deleted { removed: true } => {
                continue;
            }
            Fate::Deleted { removed: false } => "the source reports it as deleted".to_owned(),
            Fate::Unknown => "the source does not know such a document".to_owned(),
            Fate::Failed(reason) => reason,
        };
        tracing::warn!(collection = %name, document = %id, "it cannot be repaired: {reason}");
    }
    if let Some(error) = error {
        tracing::warn!(collection = %name, "damaged documents are not fetched again now: {error}");
    }
    let names = some.into_iter().map(|(entry, _)| entry).collect();
    let (shared, name) = (Arc::clone(shared), name.clone());
    let looked = tokio::task::spawn_blocking(move || look(&shared, &name, &names)).await;
    if let Ok(Err(error)) = looked {
        tracing::debug!("repaired documents are not verified: {error}");
    }
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

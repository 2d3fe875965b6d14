//! Prepares changes for the disk: plans them by what the tree holds, and stages them.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::batch::Item;
use super::brake::Brake;
use super::doubt::Doubt;
use super::events::Meta;
use super::failures::{self, blame};
use super::pending::Pending;
use super::{Pipeline, PipelineError};
use crate::checkpoint::{Failure, HeldBack};
use crate::document::{Change, DocumentId, Revision};
use crate::mirror::{Collection, Lane, Material, Plan, Staged, Sync};
use crate::tree::MirrorError;
use crate::trial;

/// The result of planning some items.
#[derive(Default)]
pub struct Planned {
    pub staged: Vec<(Meta, Staged)>,
    /// Writes that need something from the source.
    pub pending: Vec<Pending>,
    /// Changes that are older than the version in the tree, with the revision in the tree.
    pub older: Vec<(Change, Revision)>,
    pub unchanged: Vec<DocumentId>,
    /// Deleted documents of which the tree holds nothing.
    pub absent: Vec<DocumentId>,
    pub untold: Vec<(Meta, Vec<String>)>,
    pub failed: Vec<Failure>,
    pub held: Vec<HeldBack>,
    /// Whether changes were skipped because only removals are applied.
    pub passed_over: bool,
}

impl Pipeline {
    /// Decides what to do, and does what needs nothing from the source.
    pub(super) async fn plan(
        &self,
        items: Vec<Item>,
        sync: Sync,
        doubt: Option<&Doubt>,
    ) -> Result<Planned, PipelineError> {
        /// The number of writes from which a second thread is worth it.
        const MANY: usize = 256;
        let mut first = items;
        let second = match first.len() >= MANY && self.mirror.stagers() > 1 {
            true => first.split_off(first.len() / 2),
            false => Vec::new(),
        };
        let plan = |items: Vec<Item>| {
            let (collection, doubt) = (self.collection.clone(), doubt.cloned());
            let (brake, lane) = (Arc::clone(&self.brake), self.mirror.lane());
            let may = May { only_remove: self.removals_only, remove: !self.removes_nothing };
            spawn_blocking(move || {
                plan_items(&collection, items, sync, lane, doubt.as_ref(), &brake, may)
            })
        };
        let second = (!second.is_empty()).then(|| plan(second));
        let first = plan(first).await;
        let second = match second {
            Some(second) => second.await??,
            None => Planned::default(),
        };
        let mut planned = first??;
        planned.extend(second);
        Ok(planned)
    }
}

impl Planned {
    pub fn take(&mut self, staged: Result<(Meta, Staged), Failure>) {
        match staged {
            Ok(staged) => self.staged.push(staged),
            Err(failure) => self.failed.push(failure),
        }
    }

    pub fn extend(&mut self, other: Self) {
        self.staged.extend(other.staged);
        self.pending.extend(other.pending);
        self.older.extend(other.older);
        self.unchanged.extend(other.unchanged);
        self.absent.extend(other.absent);
        self.untold.extend(other.untold);
        self.failed.extend(other.failed);
        self.held.extend(other.held);
        self.passed_over |= other.passed_over;
    }
}

/// What may be done to documents.
#[derive(Clone, Copy)]
struct May {
    /// They may be removed, and nothing else.
    only_remove: bool,
    /// They may be removed, or replaced by tombstones.
    remove: bool,
}

fn plan_items(
    collection: &Collection,
    items: Vec<Item>,
    sync: Sync,
    lane: Lane,
    doubt: Option<&Doubt>,
    brake: &Brake,
    may: May,
) -> Result<Planned, MirrorError> {
    let mut planned = Planned::default();
    for Item { change, authority, fed } in items {
        let plan = match collection.plan(&change, authority) {
            Ok(plan) => plan,
            Err(error) => {
                planned.failed.push(failures::of_change(&change, blame(collection, error)?));
                continue;
            }
        };
        if may.only_remove && !matches!(plan, Plan::Remove(_) | Plan::Unchanged) {
            planned.passed_over = true;
            continue;
        }
        let deletes = match &plan {
            Plan::Remove(_) => true,
            Plan::Write(write) => write.buries(),
            _ => false,
        };
        if deletes && !may.remove {
            let reason =
                "the source has deleted it; the feed removes it, unless its deletion is held back";
            planned.failed.push(failures::of_change(&change, reason.to_owned()));
            continue;
        }
        if deletes && fed && brake.holds(1, || collection.count())? {
            planned.held.push(held_back(change));
            continue;
        }
        if matches!(&plan, Plan::Write(write) if write.is_new()) {
            brake.adds();
        }
        match plan {
            Plan::Unchanged => {
                planned.unchanged.push(change.id.clone());
                if change.is_deletion() && !collection.kept().deleted {
                    planned.absent.push(change.id.clone());
                }
                if let Some(doubt) = doubt
                    && let Some(files) = doubt.files_of(collection, &change)?
                {
                    match may.only_remove {
                        // It is reported in its turn.
                        true => planned.passed_over = true,
                        false => planned.untold.push((Meta::of(change), files)),
                    }
                }
            }
            Plan::Older { held } => planned.older.push((change, held)),
            Plan::Write(write) => {
                let item = Item { change, authority, fed };
                let pending = Pending { item, write, material: Material::default(), sync };
                if pending.write.fetch.is_empty() && pending.write.branches.is_empty() {
                    planned.take(stage(collection, pending, sync, lane)?);
                } else {
                    planned.pending.push(pending);
                }
            }
            Plan::Nameless => {
                let reason = "its id is too long for the name of a folder, and its body does not \
                              contain it as `_id`, so it could not be read back";
                planned.failed.push(failures::of_change(&change, reason.to_owned()));
            }
            removal @ Plan::Remove(_) => {
                if let Some(staged) = collection.stage_removal(removal) {
                    planned.staged.push((Meta::of(change), staged));
                }
            }
        }
    }
    Ok(planned)
}

/// The record of a deletion that is held back.
fn held_back(change: Change) -> HeldBack {
    HeldBack {
        document: change.id,
        revision: change.revision,
        position: change.position,
        unlisted: false,
        since: Timestamp::now(),
    }
}

/// Stages a write. If the file system refuses one document, that is the failure of that document.
pub fn stage(
    collection: &Collection,
    pending: Pending,
    sync: Sync,
    lane: Lane,
) -> Result<Result<(Meta, Staged), Failure>, MirrorError> {
    let Pending { item: Item { change, .. }, write, material, .. } = pending;
    trial::pass("stage");
    let staged = match collection.stage(&change.document(), write, material, sync, lane) {
        Ok(staged) => staged,
        Err(error) => return Ok(Err(failures::of_change(&change, blame(collection, error)?))),
    };
    trial::pass("staged");
    Ok(Ok((Meta::of(change), staged)))
}

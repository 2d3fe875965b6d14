//! Decides what to do with one document, by the target's version of it.
//!
//! Pure.

use std::cmp::Ordering;

use super::OnExisting;
use super::body::{self, Successor};
use crate::document::{DocumentId, Revision};

/// A target's version of one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// The id is not possible there: the reason and the remedy.
    Impossible(String),
    /// A winner. `knows_ours` says that our revision is in its history or beside it.
    Winner {
        /// Its revision.
        revision: Revision,
        /// Whether it is a deletion.
        deleted: bool,
        /// Whether the target knows our revision.
        knows_ours: bool,
        /// The leaves beside it, if they were requested.
        others: Leaves,
    },
}

/// Leaves of one document beside its winner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// Live leaves: conflicts.
    pub live: Vec<Revision>,
    /// Deleted leaves.
    pub deleted: Vec<Revision>,
}

/// The decision for a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write it: the target does not have it.
    Create,
    /// Write it, and end these other branches.
    Replace(Vec<Revision>),
    /// Write it as a newer revision, because the target knows ours as an older one, and end these
    /// other branches.
    Successor(Successor, Vec<Revision>),
    /// The target has it; end these other branches.
    End(Vec<Revision>),
    /// The target has it.
    Equal,
    /// The target has another one, which stays.
    Keep,
    /// It is deleted at the target, and stays deleted.
    KeepDeleted,
    /// The target has another one, and no option says which of them wins; or the target cannot
    /// accept ours.
    Refuse(String),
}

/// A document of the mirror that is to be restored.
#[derive(Clone, Copy, Debug)]
pub struct Ours<'a> {
    /// Its id.
    pub id: &'a DocumentId,
    /// Its revision.
    pub revision: &'a Revision,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// The winner that it lost a conflict with, if any.
    pub branch_of: Option<&'a Revision>,
    /// The branches that lost a conflict with it, if the mirror keeps them.
    pub branches: Branches<'a>,
}

/// The mirror's branches beside a winner.
#[derive(Clone, Copy, Debug)]
pub struct Branches<'a> {
    /// Their revisions.
    pub held: &'a [Revision],
    /// Whether these are all branches that the source had. A mirror of winners only cannot know.
    pub all: bool,
}

/// Makes the decision. With `new_edits=false` a server stores every revision as a branch and lets
/// the highest live one win. So ours can only win if other branches are ended or, if it is an
/// ancestor of the winner, if it is repeated on top.
pub fn decide(ours: Ours<'_>, held: &Held, on_existing: OnExisting) -> Decision {
    let (winner, deleted, knows_ours, others) = match held {
        Held::Nothing => return Decision::Create,
        Held::Impossible(reason) => return Decision::Refuse(reason.clone()),
        Held::Winner { revision, deleted, knows_ours, others } => {
            (revision, deleted, knows_ours, others)
        }
    };
    if let Some(wins_here) = ours.branch_of {
        return decide_branch(ours.id, wins_here, winner, *knows_ours, on_existing);
    }
    let Ours { id, revision, deleted: ours_deleted, .. } = ours;
    let is_ours = winner == revision || body::is_on_top(id, revision, winner);
    if *deleted == ours_deleted && is_ours {
        // A mirror of winners only does not know whether the source had these branches too.
        let ends = if ours.branches.all { strangers(ours, &others.live) } else { Vec::new() };
        return match (on_existing, ends.is_empty()) {
            (OnExisting::Overwrite, false) => Decision::End(ends),
            _ => Decision::Equal,
        };
    }
    if on_existing == OnExisting::Undelete && (!*deleted || ours_deleted) {
        return Decision::Keep;
    }
    // A tombstone beside another one changes nothing visible.
    if *deleted && ours_deleted {
        return if *knows_ours { Decision::Equal } else { Decision::Create };
    }
    // A live branch always wins over a deleted one.
    if *deleted && !knows_ours {
        return Decision::Create;
    }
    let refusal = || {
        Decision::Refuse(match *deleted {
            true => format!(
                "it was deleted at the target, in revision {winner}: give --undelete or --on-existing \
                 overwrite to bring it back, or --on-existing skip to leave it deleted"
            ),
            false => format!(
                "the target holds another revision, {winner}: give --on-existing overwrite or skip"
            ),
        })
    };
    match on_existing {
        OnExisting::Skip if *deleted => Decision::KeepDeleted,
        OnExisting::Skip => Decision::Keep,
        OnExisting::Refuse => refusal(),
        OnExisting::Overwrite | OnExisting::Undelete => {
            win(ours, held).unwrap_or_else(|| Decision::Refuse(unreadable(winner)))
        }
    }
}

/// Makes the mirror's revision win over all branches that the mirror does not hold. `None` if a
/// revision has no generation, because no revision can follow it.
fn win(ours: Ours<'_>, held: &Held) -> Option<Decision> {
    let Held::Winner { revision: winner, deleted, knows_ours, others } = held else {
        return Some(Decision::Create);
    };
    let mut ends = strangers(ours, &others.live);
    if !*deleted && !ours.branches.held.contains(winner) {
        ends.insert(0, winner.clone());
    }
    let is_endable = |leaf: &Revision| leaf.generation().is_some();
    if ours.revision.generation().is_none() || !ends.iter().all(is_endable) {
        return None;
    }
    if !knows_ours {
        return Some(Decision::Replace(ends));
    }
    let is_ours =
        |leaf: &Revision| leaf == ours.revision || body::is_on_top(ours.id, ours.revision, leaf);
    if !ours.deleted && others.live.iter().any(is_ours) {
        return Some(Decision::End(ends));
    }
    // Nothing is written on a branch that the mirror holds too.
    let free = |leaf: &&Revision| !ours.branches.held.contains(leaf);
    let highest =
        others.deleted.iter().max_by(|left, right| left.age(right).unwrap_or(Ordering::Equal));
    let parent = Some(winner).filter(free).or(highest).unwrap_or(ours.revision);
    let on_top = body::on_top(ours.id, ours.revision, parent)?;
    ends.retain(|leaf| leaf != parent);
    Some(Decision::Successor(on_top, ends))
}

/// The target's live leaves that are neither ours nor part of a branch of the mirror.
fn strangers(ours: Ours<'_>, live: &[Revision]) -> Vec<Revision> {
    let known = |leaf: &Revision| {
        leaf == ours.revision
            || ours.branches.held.contains(leaf)
            || body::is_on_top(ours.id, ours.revision, leaf)
    };
    live.iter().filter(|leaf| !known(leaf)).cloned().collect()
}

fn unreadable(winner: &Revision) -> String {
    format!(
        "the target holds revision {winner} of it, and no revision can be written after that or \
         after the mirror's: delete the document there, and restore it again"
    )
}

/// A branch that lost is restored beside its winner. If another revision wins, only the winner is
/// reported.
fn decide_branch(
    id: &DocumentId,
    wins_here: &Revision,
    wins_there: &Revision,
    known: bool,
    on_existing: OnExisting,
) -> Decision {
    let same = wins_here == wins_there || body::is_on_top(id, wins_here, wins_there);
    match (known, on_existing) {
        (true, _) => Decision::Equal,
        (false, OnExisting::Overwrite) => Decision::Create,
        (false, _) if same => Decision::Create,
        (false, _) => Decision::Keep,
    }
}

#[cfg(test)]
mod tests;

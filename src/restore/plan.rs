//! What is done with one document, by what the target holds of it.
//!
//! Pure. It must not know how a target is asked, nor how it is written to.

use std::cmp::Ordering;

use super::OnExisting;
use super::body::{self, OnTop};
use crate::document::{DocumentId, Revision};

/// What a target holds under one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// A winner. `knows_ours` says that our revision is in its history or beside it.
    Winner {
        /// Its revision.
        revision: Revision,
        /// Whether it is a deletion.
        deleted: bool,
        /// Whether the target knows our revision.
        knows_ours: bool,
    },
}

/// What is to be done with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write it as it is: the target does not have it.
    Create,
    /// Write it as it is, and end this other branch.
    Replace(Revision),
    /// Write it as a newer revision: the target knows ours as an older one.
    OnTop(OnTop),
    /// The target has it.
    Equal,
    /// The target has another, which stays.
    Keep,
    /// The target has another, and nobody said what is to become of it.
    Refuse(String),
}

/// A document of ours that is to be put back.
#[derive(Clone, Copy, Debug)]
pub struct Ours<'a> {
    /// Its id.
    pub id: &'a DocumentId,
    /// Its revision.
    pub revision: &'a Revision,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// The winner that it lost a conflict with, if it did.
    pub branch_of: Option<&'a Revision>,
}

/// Decides. With `new_edits=false` a server takes every revision as a branch of its own and lets the
/// highest live one win; so ours is helped to win only by ending other branches, or, where it is an
/// ancestor of the winner, by repeating it on top.
pub fn decide(ours: Ours<'_>, held: &Held, on_existing: OnExisting) -> Decision {
    let Held::Winner { revision: winner, deleted, knows_ours } = held else {
        return Decision::Create;
    };
    if let Some(wins_here) = ours.branch_of {
        return decide_branch(ours.id, wins_here, winner, *knows_ours, on_existing);
    }
    let Ours { id, revision: ours, deleted: ours_deleted, .. } = ours;
    let is_ours = winner == ours || body::is_on_top(id, ours, winner);
    if *deleted == ours_deleted && is_ours {
        return Decision::Equal;
    }
    // A tombstone beside another changes nothing of what is seen.
    if *deleted && ours_deleted {
        return if *knows_ours { Decision::Equal } else { Decision::Create };
    }
    // A live branch always wins over a deleted one.
    if *deleted && !knows_ours {
        return Decision::Create;
    }
    let refusal = || {
        let what = if *deleted { "was deleted there" } else { "is there" };
        Decision::Refuse(format!(
            "another revision, {winner}, {what}: give --on-existing overwrite or skip"
        ))
    };
    match on_existing {
        OnExisting::Skip => Decision::Keep,
        OnExisting::Refuse => refusal(),
        OnExisting::Overwrite if *knows_ours => {
            body::on_top(id, ours, winner).map_or_else(refusal, Decision::OnTop)
        }
        OnExisting::Overwrite => match ours.age(winner) {
            None | Some(Ordering::Equal) => refusal(),
            Some(_) => Decision::Replace(winner.clone()),
        },
    }
}

/// A branch that lost is put back beside its winner. Where another one wins, that one is spoken of
/// for the winner.
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
mod tests {
    use super::*;

    fn decided(revision: &str, deleted: bool, knows_ours: bool, mode: OnExisting) -> Decision {
        let held = Held::Winner { revision: revision.into(), deleted, knows_ours };
        decide_for(&held, false, None, mode)
    }

    fn decide_for(
        held: &Held,
        deleted: bool,
        branch_of: Option<&Revision>,
        mode: OnExisting,
    ) -> Decision {
        let (id, revision) = ("d".into(), "3-ours".into());
        let ours = Ours { id: &id, revision: &revision, deleted, branch_of };
        decide(ours, held, mode)
    }

    #[test]
    fn what_is_equal_is_left_alone_in_every_mode() {
        for mode in [OnExisting::Refuse, OnExisting::Skip, OnExisting::Overwrite] {
            assert_eq!(decided("3-ours", false, true, mode), Decision::Equal);
            let held = Held::Nothing;
            assert_eq!(decide_for(&held, false, None, mode), Decision::Create);
        }
    }

    #[test]
    fn another_branch_is_refused_kept_or_ended() {
        assert!(matches!(decided("5-x", false, false, OnExisting::Refuse), Decision::Refuse(_)));
        assert_eq!(decided("5-x", false, false, OnExisting::Skip), Decision::Keep);
        let replaced = Decision::Replace("5-x".into());
        assert_eq!(decided("5-x", false, false, OnExisting::Overwrite), replaced);
    }

    #[test]
    fn an_ancestor_is_repeated_on_top_and_then_known_as_equal() {
        let Decision::OnTop(top) = decided("5-x", false, true, OnExisting::Overwrite) else {
            panic!()
        };
        assert_eq!(top.revision.generation(), Some(6));
        let again = decided(top.revision.as_str(), false, true, OnExisting::Overwrite);
        assert_eq!(again, Decision::Equal);
    }

    #[test]
    fn a_deletion_of_another_branch_is_no_obstacle_and_one_of_ours_is() {
        assert_eq!(decided("9-x", true, false, OnExisting::Refuse), Decision::Create);
        assert!(matches!(decided("4-x", true, true, OnExisting::Refuse), Decision::Refuse(_)));
        assert!(matches!(decided("4-x", true, true, OnExisting::Overwrite), Decision::OnTop(_)));
    }

    #[test]
    fn a_tombstone_is_put_back_and_ends_a_living_document_only_when_told_to() {
        let held = |revision: &str, deleted, knows_ours| Held::Winner {
            revision: revision.into(),
            deleted,
            knows_ours,
        };
        let tombstone = |held: &Held, mode| decide_for(held, true, None, mode);
        assert_eq!(tombstone(&Held::Nothing, OnExisting::Refuse), Decision::Create);
        let same = held("3-ours", true, true);
        assert_eq!(tombstone(&same, OnExisting::Refuse), Decision::Equal);
        let other = held("5-x", true, false);
        assert_eq!(tombstone(&other, OnExisting::Refuse), Decision::Create);
        let living = held("5-x", false, false);
        assert!(matches!(tombstone(&living, OnExisting::Refuse), Decision::Refuse(_)));
        assert_eq!(tombstone(&living, OnExisting::Skip), Decision::Keep);
        let ended = Decision::Replace("5-x".into());
        assert_eq!(tombstone(&living, OnExisting::Overwrite), ended);
    }

    #[test]
    fn a_branch_goes_where_its_winner_wins() {
        let (ours, other) = (Revision::from("4-winner"), Revision::from("9-other"));
        let held = |revision: &Revision, knows_ours| Held::Winner {
            revision: revision.clone(),
            deleted: false,
            knows_ours,
        };
        let branch = |held: &Held, mode| decide_for(held, false, Some(&ours), mode);
        assert_eq!(branch(&held(&ours, true), OnExisting::Refuse), Decision::Equal);
        assert_eq!(branch(&held(&ours, false), OnExisting::Refuse), Decision::Create);
        assert_eq!(branch(&held(&other, false), OnExisting::Skip), Decision::Keep);
        assert_eq!(branch(&held(&other, false), OnExisting::Overwrite), Decision::Create);
    }
}

//! What is decided, case by case.

use super::*;

const WINNERS_ONLY: Branches<'_> = Branches { held: &[], all: false };

fn winner(revision: &str, deleted: bool, knows_ours: bool) -> Held {
    let others = Leaves::default();
    Held::Winner { revision: revision.into(), deleted, knows_ours, others }
}

fn beside(held: Held, live: &[&str], dead: &[&str]) -> Held {
    let all = |leaves: &[&str]| leaves.iter().map(|leaf| Revision::from(*leaf)).collect();
    let leaves = Leaves { live: all(live), deleted: all(dead) };
    match held {
        held @ (Held::Nothing | Held::Impossible(_)) => held,
        Held::Winner { revision, deleted, knows_ours, .. } => {
            Held::Winner { revision, deleted, knows_ours, others: leaves }
        }
    }
}

fn decided(revision: &str, deleted: bool, knows_ours: bool, mode: OnExisting) -> Decision {
    decide_for(&winner(revision, deleted, knows_ours), false, None, mode)
}

fn decide_for(
    held: &Held,
    deleted: bool,
    branch_of: Option<&Revision>,
    mode: OnExisting,
) -> Decision {
    let (id, revision) = ("d".into(), "3-ours".into());
    let branches = WINNERS_ONLY;
    decide(Ours { id: &id, revision: &revision, deleted, branch_of, branches }, held, mode)
}

/// With these branches beside ours in the mirror.
fn overwritten(held: &Held, branches: &[&str]) -> Decision {
    let (id, revision) = ("d".into(), "3-ours".into());
    let held_here: Vec<_> = branches.iter().map(|one| Revision::from(*one)).collect();
    let branches = Branches { held: &held_here, all: true };
    let ours = Ours { id: &id, revision: &revision, deleted: false, branch_of: None, branches };
    decide(ours, held, OnExisting::Overwrite)
}

fn revisions(texts: &[&str]) -> Vec<Revision> {
    texts.iter().map(|text| Revision::from(*text)).collect()
}

const MODES: [OnExisting; 4] =
    [OnExisting::Refuse, OnExisting::Skip, OnExisting::Overwrite, OnExisting::Undelete];

#[test]
fn what_the_target_can_never_hold_is_refused_with_the_reason() {
    for mode in [OnExisting::Refuse, OnExisting::Skip, OnExisting::Overwrite, OnExisting::Undelete]
    {
        let decision = decide_for(&Held::Impossible("no".to_owned()), false, None, mode);
        assert_eq!(decision, Decision::Refuse("no".to_owned()), "{mode:?}");
    }
}

#[test]
fn what_is_equal_is_left_alone_in_every_mode() {
    for mode in MODES {
        assert_eq!(decided("3-ours", false, true, mode), Decision::Equal);
        let held = Held::Nothing;
        assert_eq!(decide_for(&held, false, None, mode), Decision::Create);
    }
}

#[test]
fn another_branch_is_refused_kept_or_ended() {
    assert!(matches!(decided("5-x", false, false, OnExisting::Refuse), Decision::Refuse(_)));
    assert_eq!(decided("5-x", false, false, OnExisting::Skip), Decision::Keep);
    assert_eq!(decided("5-x", false, false, OnExisting::Undelete), Decision::Keep);
    let replaced = Decision::Replace(revisions(&["5-x"]));
    assert_eq!(decided("5-x", false, false, OnExisting::Overwrite), replaced);
}

#[test]
fn all_branches_that_the_mirror_does_not_hold_are_ended_at_once() {
    let held = beside(winner("9-x", false, false), &["8-y", "2-mirrored", "1-z"], &["7-dead"]);
    let all = Decision::Replace(revisions(&["9-x", "8-y", "1-z"]));
    assert_eq!(overwritten(&held, &["2-mirrored"]), all);
}

#[test]
fn ours_that_is_a_conflict_there_wins_without_being_written() {
    let held = beside(winner("9-x", false, true), &["3-ours", "3-a"], &[]);
    assert_eq!(overwritten(&held, &["3-a"]), Decision::End(revisions(&["9-x"])));
}

#[test]
fn what_was_written_on_top_before_wins_again_without_being_written() {
    let held = winner("5-x", false, true);
    let Decision::Successor(top, _) = overwritten(&held, &[]) else { panic!() };
    let held = beside(winner("9-y", false, true), &[top.revision.as_str(), "1-z"], &[]);
    assert_eq!(overwritten(&held, &[]), Decision::End(revisions(&["9-y", "1-z"])));
}

#[test]
fn ours_wins_over_a_branch_of_the_mirror_without_ending_it() {
    // Ours was deleted there, so that the conflict that it had won wins now.
    let held = beside(winner("3-a", false, true), &["2-b"], &["4-dead", "3-dead"]);
    let Decision::Successor(top, ends) = overwritten(&held, &["3-a"]) else { panic!() };
    assert_eq!(top.parent, Revision::from("4-dead"));
    assert_eq!(ends, revisions(&["2-b"]));
}

#[test]
fn where_ours_wins_its_losers_are_ended_only_if_the_mirror_would_know_them() {
    let held = beside(winner("3-ours", false, true), &["2-mirrored", "1-x"], &[]);
    assert_eq!(overwritten(&held, &["2-mirrored"]), Decision::End(revisions(&["1-x"])));
    assert_eq!(overwritten(&held, &["2-mirrored", "1-x"]), Decision::Equal);
    assert_eq!(decide_for(&held, false, None, OnExisting::Overwrite), Decision::Equal);
}

#[test]
fn an_ancestor_is_repeated_on_top_and_then_known_as_equal() {
    let held = beside(winner("5-x", false, true), &["4-y"], &[]);
    let Decision::Successor(top, ends) = overwritten(&held, &[]) else { panic!() };
    assert_eq!(top.revision.generation(), Some(6));
    assert_eq!(ends, revisions(&["4-y"]));
    let again = decided(top.revision.as_str(), false, true, OnExisting::Overwrite);
    assert_eq!(again, Decision::Equal);
}

#[test]
fn a_deletion_of_another_branch_is_no_obstacle_and_one_of_ours_is() {
    assert_eq!(decided("9-x", true, false, OnExisting::Refuse), Decision::Create);
    let Decision::Refuse(why) = decided("4-x", true, true, OnExisting::Refuse) else { panic!() };
    assert!(why.contains("--undelete"), "{why}");
    assert_eq!(decided("4-x", true, true, OnExisting::Skip), Decision::KeepDeleted);
    for mode in [OnExisting::Overwrite, OnExisting::Undelete] {
        let Decision::Successor(top, ends) = decided("4-x", true, true, mode) else { panic!() };
        assert_eq!((top.parent.as_str(), top.revision.generation()), ("4-x", Some(5)));
        assert!(ends.is_empty());
    }
}

#[test]
fn a_revision_without_a_generation_is_named_and_not_written_after() {
    let Decision::Refuse(why) = decided("x", false, false, OnExisting::Overwrite) else { panic!() };
    assert!(why.contains("delete the document there"), "{why}");
}

#[test]
fn a_tombstone_is_restored_and_ends_a_living_document_only_when_told_to() {
    let tombstone = |held: &Held, mode| decide_for(held, true, None, mode);
    assert_eq!(tombstone(&Held::Nothing, OnExisting::Refuse), Decision::Create);
    assert_eq!(tombstone(&winner("3-ours", true, true), OnExisting::Refuse), Decision::Equal);
    assert_eq!(tombstone(&winner("5-x", true, false), OnExisting::Refuse), Decision::Create);
    let living = winner("5-x", false, false);
    assert!(matches!(tombstone(&living, OnExisting::Refuse), Decision::Refuse(_)));
    assert_eq!(tombstone(&living, OnExisting::Skip), Decision::Keep);
    assert_eq!(tombstone(&living, OnExisting::Undelete), Decision::Keep);
    let ended = Decision::Replace(revisions(&["5-x"]));
    assert_eq!(tombstone(&living, OnExisting::Overwrite), ended);
}

#[test]
fn a_branch_goes_where_its_winner_wins() {
    let ours = Revision::from("4-winner");
    let branch = |held: &Held, mode| decide_for(held, false, Some(&ours), mode);
    assert_eq!(branch(&winner("4-winner", false, true), OnExisting::Refuse), Decision::Equal);
    assert_eq!(branch(&winner("4-winner", false, false), OnExisting::Refuse), Decision::Create);
    assert_eq!(branch(&winner("9-other", false, false), OnExisting::Skip), Decision::Keep);
    assert_eq!(branch(&winner("9-other", false, false), OnExisting::Overwrite), Decision::Create);
}

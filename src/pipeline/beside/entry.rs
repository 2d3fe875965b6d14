//! What is known of a document that is fetched beside the feed: why, and its states.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::checkpoint::Failure;
use crate::document::{Change, Revision};
use crate::mirror::Authority;
use crate::pipeline::batch::Item;

/// Why a document is looked up.
#[derive(Debug)]
pub enum Question {
    /// It failed before, or an earlier run left it.
    Again(Failure),
    /// The feed brought an older revision than the tree holds.
    Older {
        /// The revision in the feed.
        change: Change,
        /// The revision in the tree.
        held: Revision,
    },
    /// It is to be repaired.
    Repair(Authority),
    /// It changed while it was read; this is its last known state.
    Chased(Item),
}

/// The known states of a document.
#[derive(Debug)]
pub(super) struct StateEntry {
    /// The number of the current job, which distinguishes it from outdated ones.
    pub generation: u64,
    /// The state that is being fetched.
    pub item: Option<Item>,
    /// Why it is looked up.
    pub question: Option<Question>,
    /// Other states that the feed brought meanwhile, which are planned afterwards: the newest first,
    /// and older ones only if they came later.
    pub later: VecDeque<Item>,
    /// A row of the document that could not be read meanwhile: the document is looked up afterwards.
    pub unreadable: Option<Failure>,
    /// Whether the saved state records that the document is here.
    pub noted: bool,
    /// Whether the source was asked for it.
    pub asked: bool,
    /// The number of failed attempts.
    pub attempts: usize,
    /// Whether it failed in an earlier run, or minutes ago.
    pub again: bool,
    /// Removals from the tree before this number are not in its plan.
    pub epoch: u64,
    pub weight: usize,
}

impl StateEntry {
    /// Whether a known state may replace the one that is being fetched.
    pub fn has_newer(&self) -> bool {
        let Some(next) = self.later.front() else { return false };
        self.item.as_ref().is_none_or(|item| !is_older(next, item))
    }

    /// The states to plan or look up after the present fetch.
    pub fn rest(self) -> (VecDeque<Item>, Option<Failure>) {
        let asked = match (self.item, self.question) {
            (None, Some(Question::Again(failure))) => Some(failure),
            _ => None,
        };
        (self.later, self.unreadable.or(asked))
    }

    /// Adds a state that the feed brought. It replaces states that are not newer.
    pub fn add(&mut self, item: Item) {
        while self.later.back().is_some_and(|last| !is_older(&item, last)) {
            self.later.pop_back();
        }
        self.later.push_back(item);
        self.noted = false;
    }
}

/// Whether one state is older than another.
pub(super) fn is_older(one: &Item, other: &Item) -> bool {
    one.change.revision.age(&other.change.revision) == Some(Ordering::Less)
}

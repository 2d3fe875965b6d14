//! States of a document that arrive while it is fetched beside the feed: each is planned in order, and none is dropped for an older one.

use std::collections::VecDeque;

use super::brought::Brought;
use super::entry::{Question, StateEntry, is_older};
use super::fetches::{Fetches, Running};
use super::pace::STALL;
use crate::checkpoint::Failure;
use crate::document::DocumentId;
use crate::mirror::Material;
use crate::pipeline::batch::Item;
use crate::pipeline::failures;
use crate::pipeline::pending::Pending;

impl Fetches {
    /// The record of a document has to be saved again, if the document is here.
    pub fn note_again(&mut self, id: &DocumentId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.noted = false;
        }
    }

    /// A row of a document that is here could not be read.
    pub fn note_unreadable(&mut self, failure: &Failure) {
        let id = failure.document.as_ref();
        if let Some(entry) = id.and_then(|id| self.entries.get_mut(id)) {
            entry.unreadable = Some(failure.clone());
        }
    }

    /// Adds another state of a document that is here. The present fetch is finished first if data
    /// arrives, or if the other state is older.
    pub fn supersede(&mut self, item: Item) {
        let id = item.change.id.clone();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.add(item);
        let generation = entry.generation;
        if !entry.has_newer() || self.ready.iter().any(|brought| *brought.id() == id) {
            return;
        }
        let of_it = |one: &&mut Running| one.documents.contains(&(id.clone(), generation));
        match self.running.values_mut().find(of_it) {
            Some(running) if running.pulse.stalled_for() < STALL => running.pulse.supersede(),
            Some(running) => {
                if !running.is_group {
                    running.cancel.cancel();
                }
                self.take_next(&id);
            }
            None => self.take_next(&id),
        }
    }

    /// Keeps a state that is to be planned in a moment.
    pub fn keep(&mut self, item: Item) {
        self.enter(item.clone(), false);
        self.ready.push_back(Brought::Found(item, Material::default()));
    }

    /// Keeps states that are to be planned one after the other, and an unreadable row.
    pub(super) fn keep_all(
        &mut self,
        id: &DocumentId,
        mut later: VecDeque<Item>,
        unreadable: Option<Failure>,
    ) {
        match (later.pop_front(), unreadable) {
            (Some(first), unreadable) => {
                self.keep(first);
                if let Some(entry) = self.entries.get_mut(id) {
                    (entry.later, entry.unreadable) = (later, unreadable);
                }
            }
            (None, Some(failure)) => self.look(id.clone(), Question::Again(failure)),
            (None, None) => {}
        }
    }

    /// Takes back states that cannot be used yet.
    pub fn put_back(&mut self, brought: Brought) {
        let item = match &brought {
            Brought::Complete(Pending { item, .. }) | Brought::Found(item, _) => item.clone(),
            _ => return self.ready.push_front(brought),
        };
        let id = item.change.id.clone();
        let Some(here) = self.entries.get(&id) else {
            self.enter(item, false);
            return self.ready.push_front(brought);
        };
        // Another state of it has arrived meanwhile.
        if here.item.as_ref().is_some_and(|here| !is_older(here, &item)) {
            if matches!(brought, Brought::Found(..)) {
                self.supersede(item);
            }
            return;
        }
        let Some(here) = self.remove(&id) else { return };
        let other = here.item.clone();
        let (mut later, unreadable) = here.rest();
        self.ready.retain(|one| *one.id() != id);
        other.into_iter().for_each(|other| later.push_front(other));
        self.enter(item, false);
        if let Some(entry) = self.entries.get_mut(&id) {
            (entry.later, entry.unreadable) = (later, unreadable);
        }
        self.ready.push_front(brought);
    }

    /// The records of the documents that are here, for the case that the process ends: the next run
    /// requests them again. Each is returned once.
    pub fn notes(&mut self) -> Vec<Failure> {
        let mut notes = Vec::new();
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.noted) {
            entry.noted = true;
            let newest = entry.later.front().filter(|_| entry.has_newer()).or(entry.item.as_ref());
            let (revision, position) = match (newest, &entry.question) {
                (Some(item), _) => {
                    (Some(item.change.revision.clone()), item.change.position.clone())
                }
                (None, Some(Question::Again(failure))) => {
                    (failure.revision.clone(), failure.position.clone())
                }
                // If the feed brought an older revision, nothing has to be looked up.
                (None, _) => (None, None),
            };
            notes.push(failures::in_flight(id.clone(), revision, position));
        }
        notes
    }

    pub(super) fn at_hand(&mut self) -> Option<Brought> {
        let brought = self.ready.pop_front()?;
        let id = brought.id().clone();
        let Some(entry) = self.remove(&id) else { return Some(brought) };
        let (has_newer, mut later) = (entry.has_newer(), entry.later);
        let newer = if has_newer { later.pop_front() } else { None };
        let (brought, newer) = match (brought, newer) {
            // A part may have been removed from the tree since it was planned.
            (Brought::Complete(Pending { item, material, .. }), newer)
                if entry.epoch < self.epoch =>
            {
                match newer {
                    // The fetched parts belong to the other state.
                    Some(newer) => (Brought::Found(newer, Material::default()), None),
                    None => (Brought::Found(item, material), None),
                }
            }
            (Brought::Complete(pending), newer) => (Brought::Complete(pending), newer),
            (Brought::Found(item, material), Some(newer)) if is_older(&newer, &item) => {
                (Brought::Found(item, material), Some(newer))
            }
            (
                Brought::Gone(_) | Brought::Unchanged(_) | Brought::Failed(..) | Brought::Found(..),
                Some(newer),
            ) => (Brought::Found(newer, Material::default()), None),
            (brought, None) => (brought, None),
        };
        if !matches!(brought, Brought::Failed(..)) {
            self.due.remove(&id);
        }
        if !matches!(brought, Brought::Found(..)) {
            self.chased.remove(&id);
        }
        newer.into_iter().for_each(|newer| later.push_front(newer));
        self.keep_all(&id, later, entry.unreadable);
        Some(brought)
    }

    pub(super) fn remove(&mut self, id: &DocumentId) -> Option<StateEntry> {
        let entry = self.entries.remove(id)?;
        self.weight = self.weight.saturating_sub(entry.weight);
        Some(entry)
    }

    /// Records that the state of a document is being fetched. Returns the number of its job.
    pub(super) fn enter(&mut self, item: Item, again: bool) -> u64 {
        let (generation, epoch) = (self.number(), self.epoch);
        let (id, weight) = (item.change.id.clone(), item.change.weight());
        let (attempts, noted, (later, unreadable)) = match self.remove(&id) {
            Some(entry) => (entry.attempts, entry.noted, entry.rest()),
            None => Default::default(),
        };
        let entry = StateEntry {
            generation,
            item: Some(item),
            question: None,
            later,
            unreadable,
            noted,
            asked: false,
            attempts,
            again,
            epoch,
            weight,
        };
        self.weight += weight;
        self.entries.insert(id, entry);
        generation
    }

    /// Plans the newer state of a document in place of the one that is being fetched.
    pub(super) fn take_next(&mut self, id: &DocumentId) {
        let generation = self.number();
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(next) = entry.later.pop_front() else { return };
        (entry.generation, entry.item, entry.attempts) = (generation, Some(next.clone()), 0);
        entry.again = false;
        self.ready.push_back(Brought::Found(next, Material::default()));
    }
}

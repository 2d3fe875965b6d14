//! What the source does not have: names and globs without a collection, and databases that have vanished.

use super::absent::Absent;
use super::shared::Member;
use super::supervisor::Supervisor;
use crate::document::CollectionName;
use crate::pipeline::{FAILED, Phase, Reporter};
use crate::source::{Mode, Pattern};

impl Supervisor {
    /// Logs what the source does not have, and records it for the end of a catch-up. A mirror that
    /// follows waits for it.
    pub(super) fn note_absent(&self, absent: Absent) {
        if self.options.allow_empty {
            tracing::info!("{absent}");
            return;
        }
        match self.options.mode {
            Mode::Follow => tracing::warn!("{absent}; the mirror waits for it"),
            Mode::CatchUp => {
                tracing::error!(target: FAILED, "{absent}");
                self.shared.absent().push(absent);
            }
        }
    }

    /// No collection of the source matches a pattern. A name that the mirror has followed there has
    /// vanished, which is recorded once all collections are listed.
    pub(super) fn note_unmatched(&self, pattern: Pattern) {
        let name = CollectionName::from(pattern.text());
        let followed = self.shared.mirror.followed().unwrap_or_default();
        let origin = self.store.origin(&name);
        let vanished = |(one, source): &(CollectionName, String)| *one == name && *source == origin;
        if !(self.store.capabilities().exhaustive_scan && followed.iter().any(vanished)) {
            self.note_absent(Absent::Pattern(pattern));
        }
    }

    /// Removes what opening a collection created, if no run has ever read its source. Evidence that
    /// the folder of another collection is gone stays.
    pub(super) fn forget_unless_followed(&self, collection: &CollectionName) {
        let followed = match self.shared.checkpoints.checkpoint(collection) {
            Ok(checkpoint) => checkpoint.is_some_and(|one| one.was_followed()),
            Err(_) => true,
        };
        if !followed && let Err(error) = self.shared.mirror.forget_empty(collection) {
            tracing::warn!(%collection, "{error}");
        }
    }

    /// A database that was requested by its name does not exist.
    pub(super) fn note_missing(&mut self, collection: CollectionName) {
        self.shared.members().remove(&collection);
        self.scheduler.remove(&collection);
        let origin = self.store.origin(&collection);
        self.forget_unless_followed(&collection);
        match self.known.contains(&collection) {
            true => self.note_vanished(collection, origin),
            false => self.note_absent(Absent::Database { collection, origin }),
        }
        self.shared.note_progress();
    }

    /// A collection that has vanished from the source stays in the mirror: it may be the last copy.
    pub(super) fn note_what_is_not_listed(&self) {
        let shared = &self.shared;
        if self.store.capabilities().exhaustive_scan {
            for (name, source) in shared.mirror.followed().unwrap_or_default() {
                if shared.members().contains_key(&name) {
                    continue;
                }
                if self.store.wants(&name) && self.store.origin(&name) == source {
                    self.note_vanished(name, source);
                } else {
                    tracing::info!(
                        collection = %name,
                        "a collection of the mirror was not followed in this run; it is kept as it is",
                    );
                }
            }
        }
        if shared.members().is_empty() && shared.absent().is_empty() {
            self.note_absent(Absent::Everything { source: self.store.identity() });
        }
    }

    /// The mirror followed this collection, and the source no longer has it.
    pub(super) fn note_vanished(&self, name: CollectionName, origin: String) {
        let reporter = Reporter::new(name.clone());
        let absent = Absent::Vanished { collection: name.clone(), origin };
        reporter.update(|report| {
            report.phase = Phase::Vanished;
            report.trouble = Some(absent.to_string());
        });
        if let Err(error) = self.shared.checkpoints.note_vanished(&name, true) {
            tracing::warn!(collection = %name, "{error}");
        }
        let member = Member { has_vanished: true, ..Member::new(reporter) };
        self.shared.members().insert(name, member);
        self.note_absent(absent);
    }
}

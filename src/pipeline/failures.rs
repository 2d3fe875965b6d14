//! The documents of a collection that could not be mirrored: recorded at once, stored beside the
//! checkpoint, tried again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::events::Meta;
use crate::checkpoint::{Failure, HeldBack};
use crate::document::{Change, DocumentId, Position, Revision};
use crate::mirror::Collection;
use crate::source::Unreadable;
use crate::tree::MirrorError;

/// The place of the security object's failure.
const SECURITY: &str = "the security object";

/// The failures of one collection, as the state records them.
#[derive(Debug, Default)]
pub struct Failures {
    known: Mutex<HashMap<String, Failure>>,
    logged: Mutex<Logged>,
}

/// What the log of this run has named.
#[derive(Debug, Default)]
struct Logged {
    /// The hash of the reason that was logged, by the key of the failure.
    reasons: HashMap<String, u64>,
    /// The number of rows that were named or counted.
    rows: usize,
    /// It said that deletions are held back.
    held_back: bool,
}

/// How the log mentions a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureMention {
    /// It names the failure.
    Name,
    /// It says that there are more than it has named.
    More,
    /// Not at all: it has said so already.
    Nothing,
}

/// A catch-up names at most this number of unreadable rows of a collection in the log, and of failures
/// that it did not meet itself.
const NAMED: usize = 20;

impl Failures {
    /// The failures in the state.
    pub fn new(failures: Vec<Failure>) -> Self {
        let known = failures.into_iter().map(|failure| (key(&failure), failure)).collect();
        Self { known: Mutex::new(known), ..Self::default() }
    }

    /// Returns to the failures in the state: those recorded since then were not committed.
    pub fn reload(&self, failures: Vec<Failure>) {
        *self.known() = failures.into_iter().map(|failure| (key(&failure), failure)).collect();
    }

    pub fn count(&self) -> u64 {
        self.known().len() as u64
    }

    /// All of them, in the order in which they failed first.
    pub fn all(&self) -> Vec<Failure> {
        let mut all: Vec<_> = self.known().values().cloned().collect();
        all.sort_by(|left, right| left.turn().cmp(&right.turn()));
        all
    }

    /// The first failures that the log has not mentioned, and the number of all of them, which count as
    /// mentioned from now on.
    pub fn unmentioned(&self) -> (Vec<Failure>, usize) {
        let mut all = self.all();
        let mut logged = self.logged();
        all.retain(|failure| {
            !failure.is_in_flight()
                && logged.reasons.insert(key(failure), hash(&failure.reason)).is_none()
        });
        let count = all.len();
        all.truncate(NAMED);
        (all, count)
    }

    /// Notes that the log says that deletions are held back; whether it is the first time.
    pub fn mention_held_back(&self) -> bool {
        !std::mem::replace(&mut self.logged().held_back, true)
    }

    /// How the log mentions a failure: once for each reason, and in a catch-up only the first rows
    /// of a feed that cannot be read, because there may be millions.
    pub fn mention(&self, failure: &Failure, following: bool) -> FailureMention {
        if failure.is_in_flight() {
            return FailureMention::Nothing;
        }
        let reason = hash(&failure.reason);
        let mut logged = self.logged();
        if logged.reasons.insert(key(failure), reason) == Some(reason) {
            return FailureMention::Nothing;
        }
        if following || failure.document.as_ref().is_some_and(|id| failure.place == named(id)) {
            return FailureMention::Name;
        }
        logged.rows += 1;
        match logged.rows {
            named if named <= NAMED => FailureMention::Name,
            named if named == NAMED + 1 => FailureMention::More,
            _ => FailureMention::Nothing,
        }
    }

    /// The number of failed documents, without those in flight, whose outcome is unknown.
    pub fn failed(&self) -> u64 {
        self.known().values().filter(|failure| !failure.is_in_flight()).count() as u64
    }

    /// How often a document has failed.
    pub fn attempts(&self, id: &DocumentId) -> u32 {
        self.known().get(id.as_str()).map_or(0, |failure| failure.attempts)
    }

    /// Records that a document failed, for the first time or again, or that it is in flight.
    pub fn note(&self, mut failure: Failure) -> Failure {
        let mut known = self.known();
        if let Some(earlier) = known.get(&key(&failure)) {
            if failure.is_in_flight() {
                failure.reason = earlier.reason.clone();
                failure.attempts = earlier.attempts;
            } else {
                failure.attempts = earlier.attempts.saturating_add(1);
            }
            failure.since = earlier.since;
            failure.position = failure.position.or_else(|| earlier.position.clone());
        }
        known.insert(key(&failure), failure.clone());
        failure
    }

    /// Removes a document; says whether it was among the failures.
    pub fn forget(&self, id: &DocumentId) -> bool {
        self.logged().reasons.remove(id.as_str());
        self.known().remove(id.as_str()).is_some()
    }

    /// The security object was written.
    pub fn forget_security(&self) {
        self.known().remove(&key_of_place(SECURITY));
    }

    pub fn forget_all(&self) {
        self.known().clear();
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Failure>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logged(&self) -> std::sync::MutexGuard<'_, Logged> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(reason: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    reason.hash(&mut hasher);
    hasher.finish()
}

fn key(failure: &Failure) -> String {
    match &failure.document {
        Some(id) => id.to_string(),
        None => key_of_place(&failure.place),
    }
}

fn key_of_place(place: &str) -> String {
    // No id contains the prefix of a place: a NUL before its text.
    format!("\0{place}")
}

/// Why one document fails, if the error concerns it alone.
pub fn blame(collection: &Collection, error: MirrorError) -> Result<String, MirrorError> {
    Ok(collection.blame(error)?.to_string())
}

/// The failure of a row that could not be made into a change.
pub fn of_row(row: Unreadable) -> Failure {
    let place = match &row.id {
        Some(id) => format!("{} ({})", named(id), row.place),
        None => row.place,
    };
    first(row.id, row.revision, place, row.reason, row.position)
}

/// The failure of a change that could not be applied.
pub fn of_change(change: &Change, reason: String) -> Failure {
    of_document(change.id.clone(), change.revision.clone(), change.position.clone(), reason)
}

/// The failure of a change that the file system refused to publish.
pub fn of_publishing(meta: Meta, reason: String) -> Failure {
    of_document(meta.id, meta.revision, meta.position, reason)
}

/// The failure of the security object, which the next run and, while following, the next minute
/// requests again.
pub fn of_security(reason: String) -> Failure {
    first(None, None, SECURITY.to_owned(), reason, None)
}

/// The record of a repair until its write is committed. If the repair is interrupted, the next run
/// checks the document again, and emits its event.
pub fn of_repair(meta: &Meta, position: Option<Position>) -> Failure {
    let reason = "its repair was interrupted";
    of_document(meta.id.clone(), meta.revision.clone(), position, reason.to_owned())
}

/// The record of a released deletion: the tombstone is requested from the source, because it is to
/// be kept.
pub fn of_release(held: HeldBack) -> Failure {
    let reason = "its deletion was held back, and its tombstone is still to be fetched";
    of_document(held.document, held.revision, held.position, reason.to_owned())
}

/// The record of a document while it is fetched beside the feed: if the process ends, the next run
/// fetches it.
pub fn in_flight(
    id: DocumentId,
    revision: Option<Revision>,
    position: Option<Position>,
) -> Failure {
    let place = named(&id);
    let reason = "it has not been fetched yet".to_owned();
    Failure { attempts: 0, ..first(Some(id), revision, place, reason, position) }
}

/// The failure of a document of which only the id is known.
pub fn of_id(id: DocumentId, reason: String) -> Failure {
    let place = named(&id);
    first(Some(id), None, place, reason, None)
}

fn of_document(
    id: DocumentId,
    revision: Revision,
    position: Option<Position>,
    reason: String,
) -> Failure {
    let place = named(&id);
    first(Some(id), Some(revision), place, reason, position)
}

fn first(
    document: Option<DocumentId>,
    revision: Option<Revision>,
    place: String,
    reason: String,
    position: Option<Position>,
) -> Failure {
    let now = Timestamp::now();
    Failure { document, revision, place, reason, position, attempts: 1, since: now, at: now }
}

fn named(id: &DocumentId) -> String {
    /// An id may be megabytes long, and a name is for people.
    const LONGEST: usize = 1000;
    match id.as_str().char_indices().nth(LONGEST) {
        None => format!("document `{id}`"),
        Some((end, _)) => format!("document `{}…`", &id.as_str()[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(id: Option<&str>, reason: &str) -> Failure {
        of_row(Unreadable {
            id: id.map(DocumentId::from),
            revision: None,
            place: "row at byte 5".into(),
            position: None,
            reason: reason.into(),
        })
    }

    #[test]
    fn a_document_that_fails_again_counts_its_attempts() {
        let failures = Failures::default();
        failures.note(failure(Some("a"), "first"));
        let again = failures.note(failure(Some("a"), "second"));
        assert_eq!((again.attempts, again.reason.as_str()), (2, "second"));
        assert_eq!(failures.count(), 1);
        assert!(failures.forget(&"a".into()));
        assert!(!failures.forget(&"a".into()));
        failures.note(failure(Some("a"), "third"));
        failures.forget_all();
        assert_eq!((failures.count(), failures.all().len()), (0, 0));
    }

    #[test]
    fn the_log_names_each_failure_once_and_only_the_first_rows_in_a_catch_up() {
        let failures = Failures::default();
        let ids: Vec<_> = (0..25).map(|number| format!("d{number}")).collect();
        let mention = |id: &str, reason, live| failures.mention(&failure(Some(id), reason), live);
        let first: Vec<_> = ids.iter().map(|id| mention(id, "broken", false)).collect();
        let count = |wanted| first.iter().filter(|mention| **mention == wanted).count();
        assert_eq!((count(FailureMention::Name), count(FailureMention::More)), (20, 1));
        let document = of_id("last".into(), "broken".to_owned());
        assert_eq!(failures.mention(&document, false), FailureMention::Name, "not a row");
        assert_eq!(mention("d3", "broken", true), FailureMention::Nothing);
        assert_eq!(mention("d3", "gone", true), FailureMention::Name, "for another reason");
        failures.forget(&"d3".into());
        assert_eq!(mention("d3", "gone", true), FailureMention::Name, "it had been mirrored since");
        let in_flight = in_flight("new".into(), None, None);
        assert_eq!(failures.mention(&in_flight, true), FailureMention::Nothing);
    }

    #[test]
    fn what_an_earlier_run_left_and_the_log_has_not_named_is_named_once_and_in_order() {
        let at = |number| Failure {
            place: format!("row at byte {number}"),
            since: Timestamp::UNIX_EPOCH,
            ..failure(None, "broken")
        };
        let failures = Failures::new((0..120).map(at).collect());
        failures.mention(&at(1), false);
        let (named, count) = failures.unmentioned();
        assert_eq!((named.len(), count), (NAMED, 119));
        let places: Vec<_> = named.into_iter().map(|one| one.place).collect();
        assert_eq!((places[0].as_str(), places[1].as_str()), ("row at byte 0", "row at byte 2"));
        assert_eq!(places[10], "row at byte 11");
        assert_eq!(failures.unmentioned().1, 0);
        assert!(failures.mention_held_back() && !failures.mention_held_back());
    }

    #[test]
    fn a_name_has_a_length_that_people_can_read() {
        let name = |length: usize| named(&"ä".repeat(length).as_str().into());
        assert_eq!(name(3), "document `äää`");
        assert_eq!(name(5_000_000).chars().count(), "document `…`".chars().count() + 1000);
    }

    #[test]
    fn rows_without_an_id_are_told_apart_by_their_place() {
        let failures = Failures::default();
        failures.note(failure(None, "x"));
        failures.note(failure(Some("row at byte 5"), "x"));
        assert_eq!(failures.count(), 2);
    }
}

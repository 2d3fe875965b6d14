//! What the log has said of a source that does not work, so that it says each thing once, and again
//! after an hour.
//!
//! It must not log.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::document::CollectionName;

/// What lasts is logged again after this time.
const REMIND: Duration = Duration::from_secs(3600);

/// Collections notice within this time that their server is away.
const SPREAD: Duration = Duration::from_secs(10);

/// The reason that the log has given for a wait, and when.
#[derive(Clone, Debug, Default)]
pub struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether the log is to give this reason: it has not, or long ago. The caller logs it then.
    pub fn is_due(&mut self, why: &str) -> bool {
        self.is_due_at(why, Instant::now())
    }

    /// Whether this is the reason that the log gave last.
    pub fn names(&self, why: &str) -> bool {
        self.0.as_ref().is_some_and(|(said, _)| said == why)
    }

    fn is_due_at(&mut self, why: &str, now: Instant) -> bool {
        let is_due = !self.is_fresh(why, now);
        if is_due {
            self.0 = Some((why.to_owned(), now));
        }
        is_due
    }

    fn is_fresh(&self, why: &str, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|(said, at)| said == why && now - *at < REMIND)
    }
}

/// The time in which a server does not answer, for all its collections together.
#[derive(Debug, Default)]
pub struct Outage(Mutex<Option<Away>>);

#[derive(Debug)]
struct Away {
    since: Instant,
    /// How far all collections of the server were when one of them failed last.
    steps: u64,
    /// What the log has said.
    said: HashMap<String, Instant>,
    has_said_others: bool,
    waiting: HashSet<CollectionName>,
}

/// What the log is to say of a collection whose server does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mention {
    /// The reason. This number of the server's collections wait.
    Reason(usize),
    /// That more collections wait for the same reason.
    Others,
    /// Nothing new.
    Nothing,
}

/// The end of an outage, as a sentence for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How long the server was away.
    pub after: Duration,
    /// How many collections waited for it.
    pub waited: usize,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.after.as_secs_f32();
        write!(f, "the source answers again after {seconds:.1} s")?;
        match self.waited {
            0 | 1 => Ok(()),
            waited => write!(f, "; {waited} collections waited for it"),
        }
    }
}

impl Outage {
    /// A collection, or the list of collections, fails for a `cause` that is the server's; `steps` are
    /// those of all its collections up to `now`. `said` is what the log has said of this one.
    pub fn note(
        &self,
        collection: Option<&CollectionName>,
        (cause, why): (&str, &str),
        (steps, now): (u64, Instant),
        said: &mut Said,
    ) -> Mention {
        let mut away = self.away();
        // If others get ahead meanwhile, the server is not away: it fails some collections only.
        let works = |away: &Away| away.steps != steps && now - away.since >= SPREAD;
        if away.as_ref().is_some_and(works) {
            *away = None;
        }
        let away = away.get_or_insert_with(|| Away {
            since: now,
            steps,
            said: HashMap::new(),
            has_said_others: false,
            waiting: HashSet::new(),
        });
        away.steps = steps;
        let is_new = collection.is_some_and(|name| away.waiting.insert(name.clone()));
        if said.is_fresh(why, now) {
            return Mention::Nothing;
        }
        if away.said.get(cause).is_none_or(|at| now - *at >= REMIND) {
            away.said.insert(cause.to_owned(), now);
            said.is_due_at(why, now);
            return Mention::Reason(away.waiting.len());
        }
        match is_new && !std::mem::replace(&mut away.has_said_others, true) {
            true => Mention::Others,
            false => Mention::Nothing,
        }
    }

    /// One that waited works again. `None` if another one has come first.
    pub fn end(&self) -> Option<Ended> {
        let away = self.away().take()?;
        Some(Ended { after: away.since.elapsed(), waited: away.waiting.len() })
    }

    fn away(&self) -> MutexGuard<'_, Option<Away>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "connection refused";

    /// What is mentioned of a collection that has not been mentioned yet.
    fn first(outage: &Outage, name: &str, cause: &str, at: (u64, Instant)) -> Mention {
        outage.note(Some(&name.into()), (cause, name), at, &mut Said::default())
    }

    #[test]
    fn a_server_that_is_away_is_named_once_for_each_reason() {
        let (outage, now) = (Outage::default(), Instant::now());
        assert_eq!(first(&outage, "a", "broke off", (0, now)), Mention::Reason(1));
        assert_eq!(first(&outage, "b", "broke off", (1, now)), Mention::Others);
        assert_eq!(first(&outage, "c", "broke off", (2, now)), Mention::Nothing);
        assert_eq!(first(&outage, "c", REFUSED, (2, now)), Mention::Reason(3));
        assert_eq!(first(&outage, "a", REFUSED, (2, now)), Mention::Nothing);
        let listing = outage.note(None, (REFUSED, "list"), (2, now), &mut Said::default());
        assert_eq!(listing, Mention::Nothing);
        assert_eq!(first(&outage, "b", REFUSED, (2, now + REMIND)), Mention::Reason(3));
        assert_eq!(outage.end().map(|ended| ended.waited), Some(3));
        assert_eq!(outage.end(), None);
        assert_eq!(first(&outage, "a", REFUSED, (2, now + REMIND)), Mention::Reason(1));
    }

    #[test]
    fn a_collection_that_fails_while_others_work_is_named_itself() {
        let (outage, now) = (Outage::default(), Instant::now());
        let mut said = Said::default();
        let mut a = |at| outage.note(Some(&"a".into()), (REFUSED, "a"), at, &mut said);
        assert_eq!(a((0, now)), Mention::Reason(1));
        assert_eq!(a((1, now + SPREAD)), Mention::Nothing);
        assert_eq!(first(&outage, "b", REFUSED, (1, now + SPREAD)), Mention::Reason(2));
    }

    #[test]
    fn a_reason_is_due_when_it_is_new_and_after_an_hour() {
        let (mut said, now) = (Said::default(), Instant::now());
        assert!(said.is_due_at("full", now));
        assert!(!said.is_due_at("full", now));
        assert!(said.is_due_at("gone", now));
        assert!(said.is_due_at("gone", now + REMIND));
    }
}

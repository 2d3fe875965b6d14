//! What is known of the bytes of each collection: what verifications have found, and how far they are.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::archive::{Problem, ProblemKind};
use crate::checkpoint::Verification;
use crate::document::{CollectionName, DocumentId};
use crate::verify::SECURITY_ENTRY;

/// The number of damaged documents of a collection whose problems are remembered. The names of all are.
const REMEMBERED: usize = 1000;

/// The number of names that the state remembers.
const NOTED: usize = 10_000;

/// The name among damaged entries that stands for the folder of the collection itself.
pub(super) const FOLDER: &str = "";

/// What is known of all collections.
#[derive(Debug, Default)]
pub(super) struct Integrity(Mutex<BTreeMap<CollectionName, Soundness>>);

impl Integrity {
    /// What is known of the collections, by name.
    pub fn all(&self) -> MutexGuard<'_, BTreeMap<CollectionName, Soundness>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of the bytes of one collection.
#[derive(Clone, Debug, Default)]
pub(super) struct Soundness {
    /// When the last complete verification ended.
    pub at: Option<Timestamp>,
    /// When that one had begun.
    pub from: Option<Timestamp>,
    /// When the present one began, if one is under way.
    pub begun: Option<Timestamp>,
    /// How often it was begun again from the start.
    pub renewed: u64,
    /// Whether it goes before all others.
    pub is_urgent: bool,
    /// The last name that it has read.
    pub after: Option<String>,
    /// The damaged documents by the names of their folders.
    pub damaged: BTreeMap<String, Damage>,
    /// The number of damaged documents that an earlier process knew, and the state has not named. The
    /// collection is verified from its beginning then, and they are found again.
    pub beyond: u64,
    /// Whether changes by somebody else are noticed at once.
    pub watched: bool,
}

/// A damaged document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Its first problem; empty if too many are damaged to remember it.
    pub problem: String,
    /// Its id, if it is known.
    pub id: Option<DocumentId>,
    /// How often it was to be fetched again in vain.
    pub attempts: u32,
}

/// Which entries of a collection were looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Looked<'a> {
    /// These.
    These(&'a BTreeSet<String>),
    /// Those after the first name, up to the last one; without a name, from the beginning or to the end.
    Between(Option<&'a str>, Option<&'a str>),
    /// All.
    All,
}

impl Looked<'_> {
    /// Whether this one is among them.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::These(names) => names.contains(name),
            // It is read with the first stretch.
            Self::Between(after, _) if name == SECURITY_ENTRY => after.is_none(),
            Self::Between(after, upto) => {
                after.is_none_or(|after| name > after) && upto.is_none_or(|upto| name <= upto)
            }
            Self::All => true,
        }
    }
}

/// What a look has found that was not known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Documents that are damaged, each with its first problem.
    pub damaged: Vec<String>,
    /// The names of documents that are well again.
    pub well: Vec<String>,
}

impl Soundness {
    /// What an earlier process has left.
    pub fn recalled(before: Verification) -> Self {
        let Verification { at, from, begun, after, damaged, names } = before;
        let beyond = damaged.saturating_sub(names.len() as u64);
        let after = after.filter(|_| beyond == 0);
        let damage = |problem| Damage { problem, ..Damage::default() };
        let damaged = names.into_iter().map(|(name, problem)| (name, damage(problem))).collect();
        Self { at, from, begun, after, damaged, beyond, ..Self::default() }
    }

    /// What the next process is left.
    pub fn noted(&self) -> Verification {
        let names = self.damaged.iter().take(NOTED);
        Verification {
            at: self.at,
            from: self.from,
            begun: self.begun,
            after: self.after.clone(),
            damaged: self.count(),
            names: names.map(|(name, one)| (name.clone(), one.problem.clone())).collect(),
        }
    }

    /// The names about which a look and what is known disagree. Somebody may have damaged or mended them while
    /// the others were read.
    pub fn doubtful(
        &self,
        looked: Looked<'_>,
        problems: &BTreeMap<String, Vec<Problem>>,
    ) -> BTreeSet<String> {
        let known = self.damaged.keys().filter(|name| looked.has(name) && *name != FOLDER);
        let gone = known.filter(|name| !problems.contains_key(*name));
        let new = problems.keys().filter(|name| !self.damaged.contains_key(*name));
        gone.chain(new).cloned().collect()
    }

    /// The number of damaged documents.
    pub fn count(&self) -> u64 {
        self.damaged.len() as u64 + self.beyond
    }

    /// What is wrong, in words.
    pub fn in_words(&self) -> Option<String> {
        let first = self.damaged.values().find(|one| !one.problem.is_empty())?;
        let first = &first.problem;
        Some(match self.count() {
            1 => first.clone(),
            count => format!("{first}; and {} more", count - 1),
        })
    }

    /// Takes in what a look has found: what is not among the problems is well.
    pub fn take(
        &mut self,
        looked: Looked<'_>,
        problems: &BTreeMap<String, Vec<Problem>>,
        ids: &BTreeMap<String, DocumentId>,
    ) -> Found {
        let mut found = Found::default();
        if matches!(looked, Looked::All | Looked::Between(None, _)) {
            // They are counted again.
            self.beyond = 0;
        }
        self.damaged.retain(|name, _| {
            let is_well = looked.has(name) && !problems.contains_key(name);
            if is_well {
                found.well.push(name.clone());
            }
            !is_well
        });
        for (name, problems) in problems {
            let Some(first) = problems.first() else { continue };
            let problem = in_words(first);
            let has_room = self.damaged.len() < REMEMBERED;
            match self.damaged.get_mut(name) {
                Some(known) => {
                    known.problem = problem;
                    known.id = ids.get(name).cloned();
                }
                None => {
                    found.damaged.push(problem.clone());
                    let damage = match has_room {
                        true => Damage { problem, id: ids.get(name).cloned(), attempts: 0 },
                        false => Damage::default(),
                    };
                    self.damaged.insert(name.clone(), damage);
                }
            }
        }
        found
    }
}

/// A problem, with its path, in words.
pub(super) fn in_words(problem: &Problem) -> String {
    format!("{} is {}: {}", problem.path, word(problem.kind), problem.reason)
}

/// The kind of a problem, as reports spell it.
pub(super) fn word(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Missing => "missing",
        ProblemKind::Altered => "altered",
        ProblemKind::Extra => "extra",
        ProblemKind::HalfWritten => "half-written",
        ProblemKind::Unchecked => "unchecked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(names: &[&str]) -> BTreeMap<String, Vec<Problem>> {
        let problem = |name: &&str| {
            let path = format!("c/{name}/document.json");
            let problem = Problem::new(ProblemKind::Altered, path, "other bytes");
            (name.to_string(), vec![problem])
        };
        names.iter().map(problem).collect()
    }

    #[test]
    fn only_what_was_looked_at_is_well_again() {
        let (ids, mut one) = (BTreeMap::new(), Soundness::default());
        let found = one.take(Looked::All, &problems(&["a", "b", "c"]), &ids);
        assert_eq!(found.damaged.len(), 3);
        assert_eq!(found.damaged[0], "c/a/document.json is altered: other bytes");
        assert_eq!(one.count(), 3);
        assert!(one.in_words().unwrap().ends_with("; and 2 more"));
        let looked = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let found = one.take(Looked::These(&looked), &problems(&["b"]), &ids);
        assert_eq!((found.damaged.len(), found.well), (0, vec!["a".to_owned()]));
        one.take(Looked::Between(Some("b"), None), &BTreeMap::new(), &ids);
        assert_eq!(one.damaged.keys().collect::<Vec<_>>(), ["b"]);
        one.take(Looked::Between(None, Some("b")), &BTreeMap::new(), &ids);
        assert_eq!((one.count(), one.in_words()), (0, None));
    }

    #[test]
    fn what_a_long_look_and_others_disagree_about_is_doubtful() {
        let (ids, mut one) = (BTreeMap::new(), Soundness::default());
        one.take(Looked::All, &problems(&["a", "b", "z"]), &ids);
        let looked = Looked::Between(None, Some("m"));
        let doubtful = one.doubtful(looked, &problems(&["b", "c"]));
        assert_eq!(doubtful, BTreeSet::from(["a".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn the_next_process_resumes_where_this_one_was() {
        let now = Some(Timestamp::UNIX_EPOCH);
        let after = Some("book%3A17".to_owned());
        let before = Soundness { at: now, begun: now, after, ..Soundness::default() };
        let again = Soundness::recalled(before.noted());
        assert_eq!((again.at, again.begun, again.after), (now, now, before.after));
        assert_eq!(again.from, None);
    }

    #[test]
    fn many_are_counted_and_some_are_remembered_and_noted() {
        let names: Vec<_> = (0..NOTED + 7).map(|number| format!("{number:06}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut one = Soundness::default();
        one.take(Looked::All, &problems(&names), &BTreeMap::new());
        assert_eq!(one.count(), NOTED as u64 + 7);
        // The same again are no more than before.
        let found = one.take(Looked::All, &problems(&names), &BTreeMap::new());
        assert_eq!((found.damaged.len(), one.count()), (0, NOTED as u64 + 7));
        let noted = Soundness { after: Some("5".to_owned()), ..one.clone() }.noted();
        assert_eq!((noted.names.len(), noted.damaged), (NOTED, one.count()));
        let mut again = Soundness::recalled(noted);
        assert_eq!((again.count(), &again.after), (one.count(), &None), "it begins again");
        // Its first stretch counts those again that have no name.
        again.take(Looked::Between(None, Some("000001")), &problems(&names[..2]), &BTreeMap::new());
        assert_eq!(again.count(), NOTED as u64);
        let mended: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        one.take(Looked::These(&mended), &BTreeMap::new(), &BTreeMap::new());
        assert_eq!((one.count(), one.in_words()), (0, None));
    }
}

//! Verifies some documents of a collection: those that somebody may have touched, or a stretch of all
//! of them, so that a long verification may be ended and resumed.
//!
//! A process may be writing to the mirror: a document that it wrote agrees with its record.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};

use super::VerifyError;
use super::document::ReadOptions;
use super::inventory::{Briefs, Comparison};
use super::reading::{EntryReading, Suspect, read_security, settle};
use super::restraint::{EACH, Restraint};
use crate::archive::{Problem, ProblemKind, StoredCollection};
use crate::document::DocumentId;
use crate::tree::layout::SECURITY;

/// The name of the security object among the entries of a collection.
pub const SECURITY_ENTRY: &str = SECURITY;

/// What is wrong with some entries of a collection.
#[derive(Debug, Default)]
pub struct Spot {
    /// The problems by the names of the entries. Files that have only lost their checksums are left out.
    pub problems: BTreeMap<String, Vec<Problem>>,
    /// The ids of those of them that are known.
    pub ids: BTreeMap<String, DocumentId>,
    /// The number of bytes that were read.
    pub bytes: u64,
}

/// A stretch of a collection that was verified.
#[derive(Debug)]
pub struct Stretch {
    /// What is wrong in it.
    pub spot: Spot,
    /// The last name in it; `None` if it reaches to the end of the collection.
    pub upto: Option<String>,
    /// The bytes of the last document, if they are still to be paid for: what was found is noted before that.
    pub owed: Option<u64>,
}

/// Reads these entries, and compares them with the inventory. Blocks.
pub fn look_at(
    collection: &dyn StoredCollection,
    names: &BTreeSet<String>,
    restraint: &Restraint,
) -> Result<Spot, VerifyError> {
    let mut looking = Looking::new(collection)?;
    for name in names {
        restraint.check()?;
        let reading = looking.read(name)?;
        restraint.spend(reading.bytes());
        looking.keep(name, reading);
    }
    let compared = looking.comparison().of(names.iter().cloned().collect())?;
    looking.blame(compared.problems, compared.suspects);
    Ok(looking.spot)
}

/// Reads the entries whose names come after `after`, and compares them with the inventory: at most
/// this number of entries, and no more once that number of bytes was read. Blocks.
pub fn stretch(
    collection: &dyn StoredCollection,
    after: Option<&str>,
    (most, bytes): (usize, u64),
    restraint: &Restraint,
) -> Result<Stretch, VerifyError> {
    let mut looking = Looking::new(collection)?;
    let names = first(collection, after, most, restraint)?;
    let mut upto = names.last().filter(|_| names.len() == most).cloned();
    let (mut briefs, mut owed) = (Briefs::default(), None);
    for name in names {
        restraint.check()?;
        let reading = looking.read(&name)?;
        let cost = reading.bytes();
        briefs.push(collection, &name, &reading).map_err(VerifyError::Temporary)?;
        looking.keep(&name, reading);
        if looking.spot.bytes >= bytes {
            (upto, owed) = (Some(name), Some(cost));
            break;
        }
        restraint.spend(cost);
    }
    if after.is_none() {
        let reading = looking.read(SECURITY)?;
        looking.keep(SECURITY, reading);
    }
    restraint.check()?;
    // What was written meanwhile differs from what was read, and is read again.
    if let Some(inventory) = collection.inventory()? {
        let is_in = |name: &str| {
            after.is_none_or(|after| name > after)
                && upto.as_deref().is_none_or(|upto| name <= upto)
                && name != SECURITY
        };
        let comparison = looking.comparison();
        let compared = comparison.run_within(&inventory, &briefs.finish(), is_in)?;
        looking.blame(compared.problems, compared.suspects);
        if after.is_none() {
            let compared = looking.comparison().of(HashSet::from([SECURITY.to_owned()]))?;
            looking.blame(compared.problems, compared.suspects);
        }
    }
    Ok(Stretch { spot: looking.spot, upto, owed })
}

/// What reading a collection costs, as its inventory has it: the bytes of all files, and something for each
/// document. Without an inventory, documents are taken to be small. Blocks.
pub fn size_of(
    collection: &dyn StoredCollection,
    restraint: &Restraint,
) -> Result<u64, VerifyError> {
    let mut size: u64 = 0;
    match collection.inventory()? {
        Some(inventory) => {
            for record in inventory.iter().map_err(VerifyError::Temporary)? {
                let record = record.map_err(VerifyError::Temporary)?;
                let files = record.present().into_iter().flat_map(|contents| contents.values());
                size = size.saturating_add(files.map(|file| file.length).sum::<u64>() + EACH);
            }
        }
        None => {
            for name in collection.each_name()? {
                restraint.check()?;
                size = size.saturating_add(EACH + u64::from(name?.is_ok()) * EACH);
            }
        }
    }
    Ok(size)
}

/// The first names of a collection in their order, after one of them. However many there are, only
/// these are held.
fn first(
    collection: &dyn StoredCollection,
    after: Option<&str>,
    most: usize,
    restraint: &Restraint,
) -> Result<Vec<String>, VerifyError> {
    let mut least = BinaryHeap::with_capacity(most + 1);
    for name in collection.each_name()? {
        restraint.check()?;
        // A name that is not text belongs to no document: it is found again when it is read.
        let name = name?.unwrap_or_else(|problem| problem.path);
        let is_wanted = after.is_none_or(|after| name.as_str() > after)
            && (least.len() < most || least.peek().is_some_and(|last| name < *last));
        if is_wanted {
            least.push(name);
            if least.len() > most {
                least.pop();
            }
        }
    }
    Ok(least.into_sorted_vec())
}

/// Entries of a collection that are being looked at.
struct Looking<'a> {
    collection: &'a dyn StoredCollection,
    how: ReadOptions,
    spot: Spot,
}

impl<'a> Looking<'a> {
    fn new(collection: &'a dyn StoredCollection) -> Result<Self, VerifyError> {
        let how = ReadOptions { attachments: collection.holds_attachments()?, sums: false };
        Ok(Self { collection, how, spot: Spot::default() })
    }

    fn comparison(&self) -> Comparison<'a> {
        Comparison { collection: self.collection, how: self.how }
    }

    fn read(&self, name: &str) -> Result<EntryReading, VerifyError> {
        match name == SECURITY {
            true => read_security(self.collection, self.how),
            false => Ok(settle(self.collection, name, self.how)),
        }
    }

    fn keep(&mut self, name: &str, reading: EntryReading) {
        self.spot.bytes += reading.bytes();
        if !reading.is_well() && name != SECURITY {
            let Suspect { id, .. } = reading.suspect(self.collection, name);
            self.spot.ids.extend(id.map(|id| (name.to_owned(), id)));
        }
        let mut problems = Vec::new();
        reading.take(&mut problems);
        self.note(name, problems);
    }

    fn blame(&mut self, problems: Vec<Problem>, suspects: Vec<Suspect>) {
        for Suspect { name, id, .. } in suspects {
            self.spot.ids.extend(id.map(|id| (name, id)));
        }
        for problem in problems {
            let name = self.collection.entry_of(&problem.path).unwrap_or(&problem.path).to_owned();
            self.note(&name, vec![problem]);
        }
    }

    fn note(&mut self, name: &str, mut problems: Vec<Problem>) {
        problems.retain(|problem| problem.kind != ProblemKind::Unchecked);
        if !problems.is_empty() {
            let known = self.spot.problems.entry(name.to_owned()).or_default();
            for problem in problems {
                if !known.iter().any(|one| one.path == problem.path) {
                    known.push(problem);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::archive;

    fn put(at: &Path, text: &str) {
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, text).unwrap();
    }

    /// A mirror without an inventory, of one collection with documents of these names.
    fn mirror(place: &Path, names: &[&str]) -> Arc<dyn StoredCollection> {
        let format =
            r#"{"format":1,"lineage":"","names":"native","created_by":"","created_at":""}"#;
        put(&place.join(".plainfold/format.json"), format);
        put(&place.join(".plainfold/collections/c.json"), r#"{"name":"c","source":""}"#);
        for name in names {
            let text = format!(r#"{{"_id":"{name}","_rev":"1-a"}}"#) + "\n";
            put(&place.join("c").join(name).join("document.json"), &text);
        }
        let archive = archive::open(place).unwrap();
        archive.collections().unwrap().0.remove(0)
    }

    #[test]
    fn stretches_follow_on_one_another_and_the_last_one_reaches_to_the_end() {
        let place = tempfile::tempdir().unwrap();
        let collection = mirror(place.path(), &["e", "b", "d", "a", "c"]);
        put(&place.path().join("c/b/stray"), "x");
        put(&place.path().join("c/e/stray"), "x");
        let (mut after, mut found, mut ends) = (None, Vec::new(), Vec::new());
        loop {
            let of = Restraint::default();
            let next = stretch(&*collection, after.as_deref(), (2, u64::MAX), &of).unwrap();
            found.extend(next.spot.problems.into_keys());
            after = next.upto;
            ends.push(after.clone());
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, ["b", "e"]);
        assert_eq!(ends, [Some("b".to_owned()), Some("d".to_owned()), None]);
        // A stretch also ends when enough was read.
        let short = stretch(&*collection, None, (100, 1), &Restraint::default()).unwrap();
        assert_eq!(short.upto.as_deref(), Some("a"));
        assert!(short.owed.is_some_and(|owed| owed > 0), "it is noted before it is paid for");
        assert!(size_of(&*collection, &Restraint::default()).unwrap() >= 5 * EACH);
    }

    #[test]
    fn only_the_named_entries_are_looked_at() {
        let place = tempfile::tempdir().unwrap();
        let collection = mirror(place.path(), &["a", "b"]);
        for name in ["a", "b"] {
            put(&place.path().join("c").join(name).join("stray"), "x");
        }
        let names = BTreeSet::from(["b".to_owned(), "none".to_owned()]);
        let spot = look_at(&*collection, &names, &Restraint::default()).unwrap();
        assert_eq!(spot.problems.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(spot.problems["b"][0].path, "c/b/stray");
        assert_eq!(spot.ids["b"].as_str(), "b");
        let restraint = Restraint::default();
        restraint.stop.cancel();
        let ended = look_at(&*collection, &names, &restraint);
        assert!(matches!(ended, Err(VerifyError::Cancelled)));
    }
}

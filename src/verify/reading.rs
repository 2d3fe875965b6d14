//! Reads one document, or the security object of a collection, as often as somebody replaces it.

use std::time::Duration;

use super::VerifyError;
use super::document::{Checked, ReadOptions, check, check_security};
use crate::archive::{Entry, Problem, ProblemKind, StoredCollection};
use crate::document::{CollectionName, DocumentId};
use crate::tree::MirrorError;

/// The number of times that a document is read if it keeps being replaced, and the pauses between
/// them.
pub const TRIES: usize = 200;
pub const PAUSE: Duration = Duration::from_millis(5);

/// A document with problems, or an unexpected entry in place of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its collection.
    pub collection: CollectionName,
    /// The name of its folder.
    pub name: String,
    /// Its id, if it is known.
    pub id: Option<DocumentId>,
}

/// Reads the security object of a collection.
pub fn read_security(
    collection: &dyn StoredCollection,
    how: ReadOptions,
) -> Result<EntryReading, VerifyError> {
    Ok(match collection.security()? {
        None => EntryReading::default(),
        Some(Ok(text)) => {
            EntryReading { checked: Some(check_security(&text, how)), ..EntryReading::default() }
        }
        Some(Err(problem)) => EntryReading { checked: None, problems: vec![problem] },
    })
}

/// The result of reading a name.
#[derive(Default)]
pub struct EntryReading {
    /// The document, where there is one.
    pub checked: Option<Checked>,
    /// What is wrong, if there is no document.
    pub problems: Vec<Problem>,
}

impl EntryReading {
    /// The document, for the case that something is wrong.
    pub fn suspect(&self, collection: &dyn StoredCollection, name: &str) -> Suspect {
        let id = self.checked.as_ref().map(|checked| checked.id.clone());
        let id = id.or_else(|| collection.id_of(name));
        Suspect { collection: collection.name().clone(), name: name.to_owned(), id }
    }

    /// The files that were read, if any. All problems go to `problems`.
    pub fn take(self, problems: &mut Vec<Problem>) -> Option<Checked> {
        problems.extend(self.problems);
        let mut checked = self.checked?;
        problems.append(&mut checked.problems);
        Some(checked)
    }

    /// The number of bytes that were read.
    pub fn bytes(&self) -> u64 {
        self.checked.as_ref().map_or(0, |checked| checked.counts.bytes)
    }

    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        let well = self.checked.as_ref().is_none_or(|checked| checked.problems.is_empty());
        well && self.problems.is_empty()
    }
}

/// Reads a name until nothing is wrong, or nobody was replacing it while it was read.
pub fn settle(collection: &dyn StoredCollection, name: &str, how: ReadOptions) -> EntryReading {
    let mut reading = read_once(collection, name, how);
    for _ in 0..TRIES {
        if reading.is_well() {
            break;
        }
        let before = collection.version(name).ok();
        reading = read_once(collection, name, how);
        if !reading.is_well() && before == collection.version(name).ok() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    reading
}

fn read_once(collection: &dyn StoredCollection, name: &str, how: ReadOptions) -> EntryReading {
    let read = || match collection.entry(name)? {
        None => Ok(EntryReading::default()),
        Some(Entry::Problem(problem)) => {
            Ok(EntryReading { checked: None, problems: vec![problem] })
        }
        Some(Entry::Document(document)) => {
            let checked = Some(check(&document, how)?);
            Ok(EntryReading { checked, problems: Vec::new() })
        }
    };
    read().unwrap_or_else(|error: MirrorError| {
        // A file that the disk cannot read is damaged too, and the others are still read.
        let path = collection.path_of(name);
        let problem = Problem::new(ProblemKind::Altered, path, error.to_string());
        EntryReading { checked: None, problems: vec![problem] }
    })
}

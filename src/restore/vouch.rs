//! Checks that a file is intact before it is restored, by the checksum beside it and by the
//! inventory. Unchecked files are not restored unless the caller accepts them.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::time::Duration;

use super::RestoreFailure;
use crate::archive::StoredCollection;
use crate::tree::MirrorError;
use crate::tree::checksum::{Noted, Unnoted};
use crate::tree::inventory::{
    Contents, Deviation, FileSum, Inventory, Recorded, Records, file_in, path_in,
};
use crate::tree::layout::CONFLICTS;

/// The number of checks of a document that is being written, and the pauses between them.
const TRIES: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// The message for a file that was altered.
pub(super) const ALTERED: &str = "was altered (its checksum differs): fetch it again with \
                                  `plainfold verify --repair`";

/// The inventory of a collection, read in step with the documents in the order of their names.
pub(super) struct Vouching<'a> {
    collection: &'a dyn StoredCollection,
    inventory: Option<&'a Inventory>,
    records: Option<Records<'a>>,
    next: Option<Recorded>,
    /// Whether files without a checksum are accepted.
    accept: bool,
}

/// The files of a document, by their paths relative to the mirror.
#[derive(Debug, Default)]
pub(super) struct Read(BTreeMap<String, (FileSum, Noted)>);

impl Read {
    /// Records a file that was read.
    pub fn push(&mut self, path: String, sum: FileSum, noted: Noted) {
        self.0.insert(path, (sum, noted));
    }

    fn within(&self, folder: &str) -> Contents {
        let file = |(path, (sum, _)): (&String, &(FileSum, Noted))| {
            (path_in(folder, path).to_owned(), *sum)
        };
        self.0.iter().map(file).collect()
    }

    /// The files that have lost their checksums.
    fn unchecked(&self) -> impl Iterator<Item = &str> {
        let lost = self.0.iter().filter(|(_, (_, noted))| *noted == Err(Unnoted::Lost));
        lost.map(|(path, _)| path.as_str())
    }
}

impl<'a> Vouching<'a> {
    /// A check with the inventory of this collection, if there is one.
    pub fn new(
        collection: &'a dyn StoredCollection,
        inventory: Option<&'a Inventory>,
        accept: bool,
    ) -> Result<Self, MirrorError> {
        let records = inventory.map(Inventory::iter).transpose();
        let records = records.map_err(|error| sorting(collection, error))?;
        Ok(Self { collection, inventory, records, next: None, accept })
    }

    /// Whether the files of a document are hashed: without a checksum beside them and without an
    /// inventory, there is nothing to compare with.
    pub fn hashes(&self, noted: Noted) -> bool {
        noted.is_ok() || self.inventory.is_some()
    }

    /// The parts of a document that are not restored, by their folders, and the reasons: the
    /// document itself, and its branches. `again` reads it once more.
    pub fn judge(
        &mut self,
        name: &str,
        read: Read,
        mut again: impl FnMut() -> Result<Option<Read>, MirrorError>,
    ) -> Result<Vec<RestoreFailure>, MirrorError> {
        let folder = self.collection.path_of(name);
        let Some(mut recorded) = self.recorded(name)? else { return Ok(self.unchecked(&read)) };
        let mut read = read;
        // The document may be in the process of being written.
        for _ in 0..TRIES {
            if recorded.is_unknown() {
                return Ok(self.unchecked(&read));
            }
            if recorded.allows(Some(&read.within(&folder))) {
                return Ok(Vec::new());
            }
            let of = HashSet::from([name.to_owned()]);
            let (mut now, before) = self.collection.recorded(of)?;
            let found = again()?;
            let settled = self.collection.snapshot()? == before;
            let Some(found) = found else { return Ok(Vec::new()) };
            let is_other = read.within(&folder) != found.within(&folder);
            if let Some(now) = now.pop() {
                recorded = now;
            }
            if is_other && recorded.allows(Some(&found.within(&folder))) {
                let reason = "it changed during the restore: run the restore again".to_owned();
                return Ok(vec![RestoreFailure { path: folder, reason }]);
            }
            read = found;
            if settled {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(differs(&folder, &recorded, &read.within(&folder)))
    }

    /// The parts with a file that has lost its checksum, unless that is accepted.
    fn unchecked(&self, read: &Read) -> Vec<RestoreFailure> {
        if self.accept {
            return Vec::new();
        }
        let mut parts = BTreeMap::new();
        for path in read.unchecked() {
            let reason = format!(
                "{path} has no checksum, so nothing shows whether it is intact: fetch it again \
                 with `plainfold verify --repair`, or give --accept-unchecked to restore it as it is"
            );
            parts.entry(part_of(path)).or_insert(reason);
        }
        parts.into_iter().map(|(path, reason)| RestoreFailure { path, reason }).collect()
    }

    /// The records of a folder. Called in the order of names.
    fn recorded(&mut self, name: &str) -> Result<Option<Recorded>, MirrorError> {
        let (Some(inventory), Some(records)) = (self.inventory, &mut self.records) else {
            return Ok(None);
        };
        loop {
            let next = match self.next.take() {
                Some(next) => next,
                None => match records.next() {
                    None => return Ok(Some(inventory.unlisted(name))),
                    Some(next) => next.map_err(|error| sorting(self.collection, error))?,
                },
            };
            match next.name.as_str().cmp(name) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some(next)),
                std::cmp::Ordering::Greater => {
                    self.next = Some(next);
                    return Ok(Some(inventory.unlisted(name)));
                }
            }
        }
    }
}

/// The documents that the inventory lists and the tree does not hold; `names` are those that it
/// holds, in order.
pub(super) fn missing(
    collection: &dyn StoredCollection,
    inventory: &Inventory,
    names: &[String],
    wants: impl Fn(&Recorded) -> bool,
) -> Result<Vec<RestoreFailure>, MirrorError> {
    let mut gone = HashSet::new();
    for recorded in inventory.iter().map_err(|error| sorting(collection, error))? {
        let recorded = recorded.map_err(|error| sorting(collection, error))?;
        let name = &recorded.name;
        if !recorded.allows(None)
            && *name != crate::tree::layout::SECURITY
            && names.binary_search(name).is_err()
            && wants(&recorded)
        {
            gone.insert(recorded.name);
        }
    }
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    // They may have been removed meanwhile.
    let (records, _) = collection.recorded(gone)?;
    let mut failures = Vec::new();
    for recorded in records.iter().filter(|recorded| !recorded.allows(None)) {
        if collection.entry(&recorded.name)?.is_none() {
            let reason = "it is missing (the inventory lists it): fetch it again with `plainfold \
                          verify --repair`";
            let path = collection.path_of(&recorded.name);
            failures.push(RestoreFailure { path, reason: reason.to_owned() });
        }
    }
    failures.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(failures)
}

/// The parts of a document that differ from the records, each with the first difference.
fn differs(folder: &str, recorded: &Recorded, found: &Contents) -> Vec<RestoreFailure> {
    const REMEDY: &str = "fetch it again with `plainfold verify --repair`";
    let mut parts = BTreeMap::new();
    for (within, deviation) in recorded.differences(found) {
        let path = file_in(folder, &within);
        let reason = match deviation {
            Deviation::Missing => format!("{path} is missing (the inventory lists it); {REMEDY}"),
            Deviation::Altered => format!("{path} differs from the inventory; {REMEDY}"),
            Deviation::Unlisted => {
                let what = if within.is_empty() { "it" } else { &path };
                format!(
                    "the inventory does not list {what}, so no run of Plainfold wrote it; {REMEDY}"
                )
            }
        };
        parts.entry(part_of(&path)).or_insert(reason);
    }
    parts.into_iter().map(|(path, reason)| RestoreFailure { path, reason }).collect()
}

/// The folder of the document, or of its branch, that a file belongs to.
fn part_of(path: &str) -> String {
    let parts: Vec<_> = path.split('/').collect();
    let depth = match parts.get(2) {
        Some(&CONFLICTS) if parts.len() > 4 => 4,
        _ => 2,
    };
    parts.iter().take(depth).copied().collect::<Vec<_>>().join("/")
}

fn sorting(collection: &dyn StoredCollection, error: io::Error) -> MirrorError {
    MirrorError::io("sort the inventory of", collection.path(), error)
}

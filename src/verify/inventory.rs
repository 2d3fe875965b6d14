//! Compares a collection with its inventory. It finds missing, foreign, old and swapped folders, and
//! checks files that have lost their checksum.
//!
//! A process may be writing to the mirror: differences are checked again as long as it writes.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io;

use super::VerifyError;
use super::document::{Checked, ReadOptions};
use super::reading::{EntryReading, PAUSE, Suspect, TRIES, read_security, settle};
use crate::archive::{Problem, ProblemKind, StoredCollection};
use crate::tree::checksum::Checksum;
use crate::tree::inventory::{Deviation, Inventory, Recorded, State, digest, file_in, path_in};
use crate::tree::layout::SECURITY;
use crate::tree::sorted::{Sorted, Sorter};

/// The number of files without a checksum that are reported per collection; all are counted.
pub const NAMED: usize = 1_000;

const MISSING: &str = "the inventory lists it";

/// The number of documents that are read again together.
const TOGETHER: usize = 1_000;

/// The result of reading a collection, a few bytes per name.
#[derive(Debug, Default)]
pub struct Briefs(Sorter);

/// The result for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Brief {
    /// A hash of all its files; `None` if it could not be read.
    digest: Checksum,
    /// The number of its files without a checksum beside them.
    unchecked: u32,
}

/// The coverage of a collection's inventory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// The collection has no inventory.
    #[default]
    None,
    /// Some documents are not listed.
    Partial,
    /// It lists every document.
    Complete,
}

/// The result of the comparison.
#[derive(Debug, Default)]
pub struct Compared {
    pub problems: Vec<Problem>,
    pub suspects: Vec<Suspect>,
    /// The counts to subtract: files that the inventory checks after all.
    pub vouched: u64,
    /// Files without a checksum that differ from the inventory: they are problems, not unchecked.
    pub denied: u64,
    /// Path and SHA-256 of files that the inventory checks after all, if requested.
    pub sums: Vec<(String, String)>,
}

impl Briefs {
    /// Records the result for a name.
    pub fn push(
        &mut self,
        collection: &dyn StoredCollection,
        name: &str,
        reading: &EntryReading,
    ) -> io::Result<()> {
        let brief = match &reading.checked {
            Some(checked) => Brief {
                digest: digest(&checked.within(&collection.path_of(name))).unwrap_or_default(),
                unchecked: u32::try_from(checked.counts.unchecked).unwrap_or(u32::MAX),
            },
            None if reading.problems.is_empty() => return Ok(()),
            None => Brief { digest: Checksum::default(), unchecked: 0 },
        };
        let value = [&brief.unchecked.to_le_bytes()[..], &brief.digest].concat();
        self.0.push(name.as_bytes(), &value)
    }

    pub fn finish(self) -> Sorted {
        self.0.finish()
    }
}

impl Brief {
    fn of(value: &[u8]) -> Option<Self> {
        let (unchecked, digest) = value.split_first_chunk()?;
        Some(Self { digest: digest.try_into().ok()?, unchecked: u32::from_le_bytes(*unchecked) })
    }
}

/// A folder and its record.
pub struct Comparison<'a> {
    pub collection: &'a dyn StoredCollection,
    pub how: ReadOptions,
}

impl Comparison<'_> {
    /// Compares the results with the inventory, which was read before.
    pub fn run(&self, inventory: &Inventory, read: &Sorted) -> Result<Compared, VerifyError> {
        self.run_within(inventory, read, |_| true)
    }

    /// The same of the names that count alone. `read` has no others.
    pub fn run_within(
        &self,
        inventory: &Inventory,
        read: &Sorted,
        counts: impl Fn(&str) -> bool,
    ) -> Result<Compared, VerifyError> {
        let counts =
            |record: &io::Result<Recorded>| record.as_ref().map_or(true, |one| counts(&one.name));
        let mut compared = Compared::default();
        let mut doubtful: Vec<Recorded> = Vec::new();
        let temporary = VerifyError::Temporary;
        let mut records = inventory.iter().map_err(temporary)?.filter(counts);
        let mut briefs = read.iter().map_err(temporary)?;
        let mut record = records.next().transpose().map_err(temporary)?;
        let mut brief = briefs.next().transpose().map_err(temporary)?;
        loop {
            let order = match (&record, &brief) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(record), Some(brief)) => record.name.as_bytes().cmp(&brief.key),
            };
            let listed = record.take_if(|_| order.is_le());
            let found = brief.take_if(|_| order.is_ge());
            if listed.is_some() {
                record = records.next().transpose().map_err(temporary)?;
            }
            if found.is_some() {
                brief = briefs.next().transpose().map_err(temporary)?;
            }
            let listed = match (listed, &found) {
                (Some(listed), _) => listed,
                (None, Some(found)) => inventory.unlisted(&String::from_utf8_lossy(&found.key)),
                (None, None) => break,
            };
            let found = found.and_then(|found| Brief::of(&found.value));
            if !self.is_well(&listed, found, &mut compared) {
                doubtful.push(listed);
            }
            if doubtful.len() >= TOGETHER {
                self.look_again(std::mem::take(&mut doubtful), inventory, &mut compared)?;
            }
        }
        self.look_again(doubtful, inventory, &mut compared)?;
        if let Some(damage) = &inventory.damage {
            let path = format!("{}.ndjson", self.collection.path());
            let path = format!(".plainfold/inventory/{path}");
            let reason = format!("{damage}: run `plainfold verify --stamp` to rewrite it");
            compared.problems.push(Problem::new(ProblemKind::Altered, path, reason));
        }
        Ok(compared)
    }

    fn is_well(&self, listed: &Recorded, found: Option<Brief>, compared: &mut Compared) -> bool {
        let Some(found) = found else {
            return listed.allows(None);
        };
        let is_it = |state: &State| match state {
            State::Present(contents) => digest(contents).is_some_and(|own| own == found.digest),
            State::Absent | State::Unknown => false,
        };
        if listed.states.iter().any(is_it) {
            // The manifest needs their hashes, so they are read again.
            if found.unchecked > 0 && self.how.sums {
                return false;
            }
            compared.vouched += u64::from(found.unchecked);
            return true;
        }
        // An uncovered document is only checked by the checksums beside its files.
        listed.is_unknown() && found.unchecked == 0
    }

    /// Checks the differences again. `recorded` is from the inventory before anything was read.
    fn look_again(
        &self,
        doubtful: Vec<Recorded>,
        inventory: &Inventory,
        compared: &mut Compared,
    ) -> Result<(), VerifyError> {
        let mut left = Vec::new();
        for mut recorded in doubtful {
            let looked = self.look(&mut recorded, compared)?;
            left.extend(looked.map(|problems| (recorded, problems)));
        }
        if left.is_empty() {
            return Ok(());
        }
        if self.collection.snapshot()? == Some(inventory.snapshot) {
            compared.blame(self.collection, left);
            return Ok(());
        }
        let names = left.into_iter().map(|(recorded, _)| recorded.name).collect();
        self.settle(names, compared)
    }

    /// Reads documents again until nothing is wrong, or nobody has written meanwhile.
    fn settle(
        &self,
        mut names: HashSet<String>,
        compared: &mut Compared,
    ) -> Result<(), VerifyError> {
        for round in 0..=TRIES {
            let (records, before) = self.collection.recorded(names)?;
            let mut left = Vec::new();
            for mut recorded in records {
                let looked = self.look(&mut recorded, compared)?;
                left.extend(looked.map(|problems| (recorded, problems)));
            }
            let after = self.collection.snapshot()?;
            if left.is_empty() || before == after || round == TRIES {
                compared.blame(self.collection, left);
                return Ok(());
            }
            names = left.into_iter().map(|(recorded, _)| recorded.name).collect();
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Reads a document, and returns its difference from the record; `None` if they agree.
    fn look(
        &self,
        recorded: &mut Recorded,
        compared: &mut Compared,
    ) -> Result<Option<Vec<Problem>>, VerifyError> {
        let reading = match recorded.name == SECURITY {
            true => read_security(self.collection, self.how)?,
            false => settle(self.collection, &recorded.name, self.how),
        };
        let problems = self.problems(recorded, &reading);
        if let Some(Checked { id, .. }) = &reading.checked
            && self.collection.name_of(id) == recorded.name
        {
            // A shortened name does not show it.
            recorded.id.get_or_insert_with(|| id.to_string());
        }
        if let Some(checked) = reading.checked
            && !recorded.is_unknown()
        {
            self.vouch(recorded, checked, problems.is_none(), compared);
        }
        Ok(problems)
    }

    /// Counts the files without a checksum that agree with the record. In a document with another
    /// problem, it counts the files that have lost their checksum.
    fn vouch(&self, recorded: &Recorded, checked: Checked, all: bool, compared: &mut Compared) {
        if all {
            compared.vouched += checked.counts.unchecked;
        }
        let path = self.collection.path_of(&recorded.name);
        let listed =
            |lost: &str| recorded.present().and_then(|listed| listed.get(path_in(&path, lost)));
        let found = |lost: &str| {
            let listed = listed(lost).zip(checked.files.get(lost));
            listed.is_some_and(|(listed, found)| found.is(listed))
        };
        let vouched: HashSet<_> =
            checked.unnoted.iter().filter(|lost| all || found(lost)).collect();
        if !all {
            let listed = checked.unnoted.iter().filter(|lost| listed(lost).is_some()).count();
            compared.vouched += vouched.len() as u64;
            compared.denied += (listed - vouched.len()) as u64;
        }
        let sums = checked.sums.iter().filter(|(path, _)| vouched.contains(path));
        compared.sums.extend(sums.cloned());
    }

    /// The difference of a document from its record, except problems that were reported when it was
    /// read; `None` if they agree.
    fn problems(&self, recorded: &Recorded, reading: &EntryReading) -> Option<Vec<Problem>> {
        let path = self.collection.path_of(&recorded.name);
        let Some(checked) = &reading.checked else {
            // An unreadable entry has been reported already.
            if recorded.allows(None) || !reading.problems.is_empty() {
                return None;
            }
            return Some(vec![Problem::new(ProblemKind::Missing, path, MISSING)]);
        };
        let found = checked.within(&path);
        if recorded.is_unknown() {
            return Some(unchecked(checked)).filter(|problems| !problems.is_empty());
        }
        if recorded.allows(Some(&found)) {
            return None;
        }
        let problem = |(within, deviation): (String, Deviation)| {
            let (kind, reason) = match deviation {
                Deviation::Missing => (ProblemKind::Missing, MISSING),
                Deviation::Altered => {
                    (ProblemKind::Altered, "its checksum is not the one in the inventory")
                }
                Deviation::Unlisted => (
                    ProblemKind::Extra,
                    "the inventory does not list it, so no run of Plainfold wrote it",
                ),
            };
            Problem::new(kind, file_in(&path, &within), reason)
        };
        // A folder without any record is reported whatever else is wrong with it.
        let known: HashSet<_> = match recorded.present() {
            Some(_) => checked.problems.iter().map(|problem| &problem.path).collect(),
            None => HashSet::new(),
        };
        let problems = recorded.differences(&found).into_iter().map(problem);
        Some(problems.filter(|problem| !known.contains(&problem.path)).collect())
    }

    /// The problems of some documents, by the present inventory, and the number of files that it
    /// confirms.
    pub fn of(&self, names: HashSet<String>) -> Result<Compared, VerifyError> {
        let mut compared = Compared::default();
        self.settle(names, &mut compared)?;
        Ok(compared)
    }
}

impl Compared {
    fn blame(&mut self, collection: &dyn StoredCollection, left: Vec<(Recorded, Vec<Problem>)>) {
        for (Recorded { name, id, .. }, problems) in left {
            let id = id.as_deref().map(Into::into).or_else(|| collection.id_of(&name));
            let id = id.filter(|_| name != SECURITY);
            self.suspects.push(Suspect { collection: collection.name().clone(), name, id });
            let named = self.problems.len();
            let many = |problem: &Problem| problem.kind == ProblemKind::Unchecked && named >= NAMED;
            self.problems.extend(problems.into_iter().filter(|problem| !many(problem)));
        }
    }
}

/// The files of a document that have no checksum anywhere.
pub fn unchecked(checked: &Checked) -> Vec<Problem> {
    let reason = "it has no checksum, neither beside it nor in the inventory";
    let lost = checked.unnoted.iter();
    let lost = lost.filter(|path| !checked.problems.iter().any(|known| known.path == **path));
    lost.map(|path| Problem::new(ProblemKind::Unchecked, path.clone(), reason)).collect()
}

/// The coverage of an inventory.
pub fn coverage(inventory: Option<&Inventory>) -> Coverage {
    match inventory {
        None => Coverage::None,
        Some(inventory) if inventory.complete => Coverage::Complete,
        Some(_) => Coverage::Partial,
    }
}

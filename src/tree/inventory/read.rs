//! Reads an inventory: the recorded content of each folder, in the order of their names, in constant
//! memory.
//!
//! Another process may be appending meanwhile.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt};

use super::line::{Line, Mark, NUMBER};
use super::{Contents, State};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::inventory_file;
use crate::tree::sorted::{At, Merge, Sorted, SortedRecord, Sorter};

/// The longest line; a document with a hundred thousand attachments fits.
const LONGEST: u64 = 64 << 20;

/// The file that was read, and how much of it: a difference shows that somebody has written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    inode: u64,
    length: u64,
}

/// The inventory of a collection, read to its end.
#[derive(Debug)]
pub struct Inventory {
    /// Whether every document of the collection is covered.
    pub complete: bool,
    /// What is wrong with the file itself, if anything.
    pub damage: Option<String>,
    /// The token of the run that ended normally, if nothing was written after it.
    pub closed: Option<String>,
    /// The file that was read.
    pub snapshot: Snapshot,
    lines: Sorted,
}

/// The recorded content of one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The folder's name.
    pub name: String,
    /// The document's id, if the name does not show it.
    pub id: Option<String>,
    /// The possible contents, the oldest first: one, or more while a batch is being published.
    pub states: Vec<State>,
}

/// How a file differs from its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deviation {
    /// It is recorded, and missing.
    Missing,
    /// It is not the recorded one.
    Altered,
    /// It is not recorded.
    Unlisted,
}

impl Recorded {
    /// Whether the inventory does not cover it.
    pub fn is_unknown(&self) -> bool {
        self.states.contains(&State::Unknown)
    }

    /// Whether a folder with exactly these files, or a missing folder, can be the recorded one.
    pub fn allows(&self, found: Option<&Contents>) -> bool {
        self.states.iter().any(|state| state.allows(found))
    }

    /// What differs from the newest recorded content, by paths within the folder. The empty path is
    /// the folder itself, if it is not recorded at all.
    pub fn differences(&self, found: &Contents) -> Vec<(String, Deviation)> {
        let Some(listed) = self.present() else {
            return vec![(String::new(), Deviation::Unlisted)];
        };
        let of_listed = listed.iter().filter_map(|(within, sum)| match found.get(within) {
            None => Some((within.clone(), Deviation::Missing)),
            Some(found) if !found.is(sum) => Some((within.clone(), Deviation::Altered)),
            Some(_) => None,
        });
        let unlisted = found.keys().filter(|within| !listed.contains_key(*within));
        let unlisted = unlisted.map(|within| (within.clone(), Deviation::Unlisted));
        of_listed.chain(unlisted).collect()
    }

    /// The newest recorded content.
    pub fn present(&self) -> Option<&Contents> {
        self.states.iter().rev().find_map(|state| match state {
            State::Present(contents) => Some(contents),
            State::Absent | State::Unknown => None,
        })
    }
}

impl Inventory {
    /// Reads the inventory of a collection from the folder of all inventories, by the collection's
    /// encoded name; `None` if it does not exist.
    pub(crate) fn read(folder: &Folder, encoded: &str) -> Result<Option<Self>, MirrorError> {
        let name = inventory_file(encoded);
        let Some(file) = folder.open_file(&name)? else { return Ok(None) };
        let failed = |error| MirrorError::io("read", folder.path().join(&name), error);
        let scan = Scan::of(&file).map_err(failed)?;
        let mut sorter = Sorter::default();
        let mut sorted = Ok(());
        each_line(&file, scan.valid, |at, bytes, line| {
            if let Some(document) = &line.document {
                let value = [&[u8::from(at >= scan.settled)], bytes].concat();
                sorted = sorter.push(document.as_bytes(), &value);
            }
            sorted.is_ok()
        })
        .map_err(failed)?;
        sorted.map_err(|error| MirrorError::io("sort", folder.path().join(&name), error))?;
        let lines = sorter.finish();
        let Scan { complete, damage, closed, snapshot, .. } = scan;
        Ok(Some(Self { complete, damage, closed, snapshot, lines }))
    }

    /// The records by the names of the folders.
    pub fn iter(&self) -> io::Result<Records<'_>> {
        Ok(Records { lines: self.lines.iter()?, next: None, complete: self.complete })
    }

    /// The content of a folder that no line names.
    pub fn unlisted(&self, name: &str) -> Recorded {
        Building::new(name, self.complete).recorded
    }

    /// The present records of some folders of a collection, including folders that no line names,
    /// and the file that they were read from.
    pub(crate) fn of(
        folder: &Folder,
        encoded: &str,
        names: HashSet<String>,
    ) -> Result<(Vec<Recorded>, Option<Snapshot>), MirrorError> {
        let name = inventory_file(encoded);
        let Some(file) = folder.open_file(&name)? else { return Ok((unknown(names), None)) };
        let failed = |error| MirrorError::io("read", folder.path().join(&name), error);
        let scan = Scan::of(&file).map_err(failed)?;
        let mut found = records_of(&file, &scan, |name| names.contains(name)).map_err(failed)?;
        let one = |name: String| {
            found.remove(&name).unwrap_or_else(|| Building::new(&name, scan.complete).recorded)
        };
        Ok((names.into_iter().map(one).collect(), Some(scan.snapshot)))
    }

    /// The file that a collection has now, and its length.
    pub(crate) fn snapshot(
        folder: &Folder,
        encoded: &str,
    ) -> Result<Option<Snapshot>, MirrorError> {
        let name = inventory_file(encoded);
        let Some(file) = folder.open_file(&name)? else { return Ok(None) };
        Snapshot::of(&file)
            .map(Some)
            .map_err(|error| MirrorError::io("look at", folder.path().join(name), error))
    }
}

/// The records of folders that no inventory covers.
pub(crate) fn unknown(names: HashSet<String>) -> Vec<Recorded> {
    names.iter().map(|name| Building::new(name, false).recorded).collect()
}

impl Snapshot {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { inode: metadata.ino(), length: metadata.len() })
    }
}

/// Whether the header of an inventory says that it lists every document.
pub(crate) fn is_complete(file: &File) -> io::Result<bool> {
    let mut first = [0; 128];
    let length = file.read_at(&mut first, 0)?;
    let line = first.get(..length).unwrap_or_default().split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| serde_json::from_slice::<Line<'_>>(line).ok());
    Ok(line.is_some_and(|line| line.complete == Some(true)))
}

/// The result of reading the whole file.
#[derive(Debug)]
pub(crate) struct Scan {
    pub complete: bool,
    /// The end of the readable lines. The lines after it were not durable when the power failed.
    pub valid: u64,
    /// Up to where the records are settled: the end of the last mark.
    pub settled: u64,
    pub damage: Option<String>,
    pub closed: Option<String>,
    /// Roughly how many bytes are obsolete, as the last run that ended normally recorded it.
    pub stale: u64,
    /// The folders that an interrupted run may have published without emitting their events, except
    /// those of records that are not settled.
    pub silent: HashSet<String>,
    /// The folders of records that are not settled.
    pub pending: HashSet<String>,
    pub snapshot: Snapshot,
}

impl Scan {
    /// Reads all lines.
    pub fn of(file: &File) -> io::Result<Self> {
        let snapshot = Snapshot::of(file)?;
        let mut scan = Self::nothing_of(snapshot);
        let mut broken = None;
        let mut number = 0_u64;
        walk(file, snapshot.length, |at, bytes| {
            number += 1;
            let line = std::str::from_utf8(bytes).ok();
            let line = line.and_then(|text| serde_json::from_str::<Line<'_>>(text).ok());
            let first_is_right = |line: &Line<'_>| number > 1 || line.inventory == Some(NUMBER);
            let end = at + bytes.len() as u64;
            match (line.filter(|line| first_is_right(line)), broken) {
                (Some(line), None) if bytes.ends_with(b"\n") => {
                    scan.valid = end;
                    scan.take(&line, end);
                }
                (Some(Line { mark: Some(_), .. }), Some(at_line)) => {
                    // Durable lines follow it, so a power failure does not explain the damage.
                    let what = format!("its line {at_line} cannot be read");
                    scan.damage.get_or_insert(what);
                }
                (_, None) => broken = Some(number),
                (_, Some(_)) => {}
            }
            true
        })?;
        Ok(scan)
    }

    /// The same for a file that ends with the end of a run, from its last line alone. It does not
    /// find out whether everything is covered.
    pub fn of_closed(file: &File) -> io::Result<Option<Self>> {
        /// The longest line at the end of a run.
        const TAIL: usize = 256;
        let snapshot = Snapshot::of(file)?;
        let mut tail = vec![0; TAIL.min(usize::try_from(snapshot.length).unwrap_or(TAIL))];
        let before = snapshot.length - tail.len() as u64;
        file.read_exact_at(&mut tail, before)?;
        let Some(text) = tail.strip_suffix(b"\n") else { return Ok(None) };
        let start = memchr::memrchr(b'\n', text).map_or(0, |before| before + 1);
        let line = text.get(start..).and_then(|line| serde_json::from_slice::<Line<'_>>(line).ok());
        let Some(line) = line.filter(|line| line.mark == Some(Mark::Closed)) else {
            return Ok(None);
        };
        let mut scan = Self::nothing_of(snapshot);
        scan.valid = snapshot.length;
        scan.take(&line, snapshot.length);
        Ok(Some(scan))
    }

    /// The length of the file.
    pub fn length(&self) -> u64 {
        self.snapshot.length
    }

    fn nothing_of(snapshot: Snapshot) -> Self {
        Self {
            complete: false,
            valid: 0,
            settled: 0,
            damage: None,
            closed: None,
            stale: 0,
            silent: HashSet::new(),
            pending: HashSet::new(),
            snapshot,
        }
    }

    fn take(&mut self, line: &Line<'_>, end: u64) {
        self.complete |= line.complete == Some(true);
        if let Some(document) = &line.document {
            self.pending.insert(document.to_string());
            self.closed = None;
        }
        let Some(mark) = line.mark else { return };
        self.settled = end;
        match mark {
            Mark::Committed => self.pending.clear(),
            Mark::Resolved => {
                self.silent.extend(self.pending.drain());
                self.silent.extend(line.silent.iter().cloned());
            }
            Mark::Emitted => {
                self.pending.clear();
                self.silent.clear();
            }
            Mark::Closed => {
                self.pending.clear();
                self.closed = line.token.as_ref().map(ToString::to_string);
                self.stale = line.stale.unwrap_or_default();
            }
        }
    }
}

/// Passes each line with its place to `take`, until that returns `false`.
fn walk(file: &File, end: u64, mut take: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, At::start_of(file).take(end));
    let (mut at, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let length = (&mut reader).take(LONGEST).read_until(b'\n', &mut line)? as u64;
        if length == 0 || !take(at, &line) {
            return Ok(());
        }
        at += length;
    }
}

/// The readable lines of a file, up to `end`.
fn each_line(
    file: &File,
    end: u64,
    mut take: impl FnMut(u64, &[u8], &Line<'_>) -> bool,
) -> io::Result<()> {
    walk(file, end, |at, bytes| match serde_json::from_slice::<Line<'_>>(bytes) {
        Ok(line) => take(at, bytes, &line),
        Err(_) => false,
    })
}

/// The records of the wanted folders.
pub(crate) fn records_of(
    file: &File,
    scan: &Scan,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<HashMap<String, Recorded>> {
    let mut found: HashMap<String, Building> = HashMap::new();
    each_line(file, scan.valid, |at, _, line| {
        if let Some(name) = line.document.as_deref().filter(|name| wanted(name)) {
            let new = || Building::new(name, scan.complete);
            found.entry(name.to_owned()).or_insert_with(new).take(line, at >= scan.settled);
        }
        true
    })?;
    Ok(found.into_iter().map(|(name, building)| (name, building.recorded)).collect())
}

/// The recorded content of a folder, from the lines that were read so far.
struct Building {
    recorded: Recorded,
}

impl Building {
    fn new(name: &str, complete: bool) -> Self {
        let first = if complete { State::Absent } else { State::Unknown };
        Self { recorded: Recorded { name: name.to_owned(), id: None, states: vec![first] } }
    }

    fn take(&mut self, line: &Line<'_>, pending: bool) {
        let states = &mut self.recorded.states;
        let before = states.last().unwrap_or(&State::Unknown);
        let after = line.apply(before);
        if !pending {
            states.clear();
        }
        states.push(after);
        if let Some(id) = &line.id {
            self.recorded.id = Some(id.to_string());
        }
    }
}

/// The records of an inventory, by name.
pub struct Records<'a> {
    lines: Merge<'a>,
    next: Option<SortedRecord>,
    complete: bool,
}

impl Iterator for Records<'_> {
    type Item = io::Result<Recorded>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = match self.next.take() {
            Some(record) => record,
            None => match self.lines.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            },
        };
        let name = String::from_utf8_lossy(&record.key).into_owned();
        let mut building = Building::new(&name, self.complete);
        loop {
            if let Some((pending, line)) = record.value.split_first()
                && let Ok(line) = serde_json::from_slice::<Line<'_>>(line)
            {
                building.take(&line, *pending == 1);
            }
            match self.lines.next() {
                Some(Ok(next)) if next.key == record.key => record = next,
                Some(Ok(next)) => {
                    self.next = Some(next);
                    break;
                }
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        Some(Ok(building.recorded))
    }
}

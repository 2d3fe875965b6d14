//! The journal of write events: records in numbered chunks, bounded by age and by count.
//!
//! A chunk's key is the number of its first record, so that a number finds its chunk; its value is
//! the time of the commit followed by the records, one a line. Many records share a key because
//! sled pays per key.

use std::time::Duration;

use jiff::Timestamp;

use super::Record;

/// Chunks end near this size, well below what sled would put into a file of its own.
const CHUNK_BYTES: usize = 32 * 1024;

/// How much of the journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least so many of the newest events, as far as there are so many.
    pub events: u64,
    /// None that are older, once there are newer ones.
    pub age: Duration,
}

/// The numbers of the oldest and the newest event in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct JournalRange {
    /// The oldest.
    pub first: u64,
    /// The newest.
    pub last: u64,
}

#[derive(Debug)]
pub struct Journal {
    tree: sled::Tree,
    bounds: Bounds,
}

type Chunk = ([u8; 8], Vec<u8>);

/// Packs records with consecutive numbers into chunks.
pub fn chunks(records: &[Record]) -> Vec<Chunk> {
    let now = Timestamp::now().as_millisecond().to_be_bytes();
    let mut chunks: Vec<Chunk> = Vec::new();
    for record in records {
        match chunks.last_mut() {
            Some((_, value)) if value.len() + record.text.len() < CHUNK_BYTES => value.push(b'\n'),
            _ => chunks.push((record.number.to_be_bytes(), now.to_vec())),
        }
        if let Some((_, value)) = chunks.last_mut() {
            value.extend_from_slice(record.text.as_bytes());
        }
    }
    chunks
}

impl Journal {
    pub fn new(tree: sled::Tree, bounds: Bounds) -> Self {
        Self { tree, bounds }
    }

    pub fn tree(&self) -> &sled::Tree {
        &self.tree
    }

    pub fn range(&self) -> Result<Option<JournalRange>, sled::Error> {
        let (Some((first, _)), Some((key, value))) = (self.tree.first()?, self.tree.last()?) else {
            return Ok(None);
        };
        let last = number(&key) + lines(&value).count() as u64 - 1;
        Ok(Some(JournalRange { first: number(&first), last }))
    }

    /// Whole chunks are read until there are `limit` records.
    pub fn after(&self, since: u64, limit: usize) -> Result<Vec<Record>, sled::Error> {
        let wanted = since.saturating_add(1);
        // The chunk that holds the number starts at it or before it.
        let start = self.tree.range(..=wanted.to_be_bytes()).next_back().transpose()?;
        let start = start.map_or(wanted, |(key, _)| number(&key));
        let mut records = Vec::new();
        for chunk in self.tree.range(start.to_be_bytes()..) {
            let (key, value) = chunk?;
            let numbered = lines(&value).zip(number(&key)..);
            let fresh = numbered.filter(|(_, number)| *number >= wanted);
            records.extend(fresh.map(|(line, number)| Record {
                number,
                text: String::from_utf8_lossy(line).into_owned(),
            }));
            if records.len() >= limit {
                break;
            }
        }
        Ok(records)
    }

    /// Removes chunks that the bounds do not ask for. The newest chunk always stays: it tells the
    /// last number.
    pub fn trim(&self) -> Result<(), sled::Error> {
        let Some(range) = self.range()? else { return Ok(()) };
        let oldest = Timestamp::now().as_millisecond() - self.bounds.age.as_millis() as i64;
        let mut chunks = self.tree.iter();
        let mut current = chunks.next().transpose()?;
        while let Some((key, value)) = current {
            let Some((next, following)) = chunks.next().transpose()? else { break };
            let enough = range.last + 1 - number(&next) >= self.bounds.events;
            if !enough && committed(&value) >= oldest {
                break;
            }
            self.tree.remove(key)?;
            current = Some((next, following));
        }
        Ok(())
    }
}

fn number(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

/// When a chunk was committed, in milliseconds since 1970.
fn committed(value: &[u8]) -> i64 {
    value.first_chunk().map_or(0, |time| i64::from_be_bytes(*time))
}

fn lines(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.get(8..).unwrap_or_default().split(|byte| *byte == b'\n')
}

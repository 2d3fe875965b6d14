//! The journal of write events: records in numbered chunks, bounded by age and by count.
//!
//! A chunk's key is the number of its first record, so that a number leads to its chunk. Its value
//! is the time of the commit followed by the records, one per line, compressed by zlib if there are
//! many: sled keeps them all in memory. Many records share a key because sled has a cost per key.
//!
//! A record is a JSON value. Records are separated by parsing and not by line feeds, because earlier
//! versions stored records with line feeds between their tokens.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::value::RawValue;

/// The size at which a chunk of records is closed. Compressed or not, it is well below the size from
/// which sled stores a value in a separate file.
const CHUNK_BYTES: usize = 32 * 1024;

/// Smaller chunks are not compressed: they hold a few live events.
const PACKED_FROM: usize = 2 * 1024;

/// zlib's first byte. No record begins with it, because records are JSON objects.
const PACKED: u8 = b'x';

/// The limits of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The number of newest events that are always kept.
    pub events: u64,
    /// Older events are removed once there are newer ones.
    pub age: Duration,
    /// The number of bytes that the store keeps in memory.
    pub cache: u64,
}

/// The numbers of the oldest and the newest event in the journal.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
pub struct JournalRange {
    /// The oldest.
    pub first: u64,
    /// The newest.
    pub last: u64,
}

impl Bounds {
    /// The default limits of the journal.
    pub const DEFAULT: Self = Self {
        events: 100_000,
        age: Duration::from_secs(7 * 24 * 60 * 60),
        // sled's own default is 1 GiB.
        cache: 8 * 1024 * 1024,
    };
}

/// One event of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// Its number.
    pub number: u64,
    /// Its content: a line of JSON, without a newline.
    pub text: Bytes,
}

#[derive(Clone, Debug)]
pub struct Journal {
    tree: sled::Tree,
    bounds: Bounds,
}

pub type Chunk = ([u8; 8], Vec<u8>);

/// Packs records with consecutive numbers into chunks with this time.
pub fn chunks(records: &[JournalRecord], now: i64) -> Vec<Chunk> {
    let now = now.to_be_bytes();
    let mut chunks = Vec::new();
    let mut records = records.iter().peekable();
    while let Some(first) = records.next() {
        let mut text = first.text.to_vec();
        let fits = |text: &[u8], next: &JournalRecord| text.len() + next.text.len() < CHUNK_BYTES;
        while let Some(next) = records.next_if(|next| fits(&text, next)) {
            text.push(b'\n');
            text.extend_from_slice(&next.text);
        }
        let value = [&now[..], &*packed(&text)].concat();
        chunks.push((first.number.to_be_bytes(), value));
    }
    chunks
}

fn packed(text: &[u8]) -> Cow<'_, [u8]> {
    if text.len() < PACKED_FROM {
        return text.into();
    }
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(text.len() / 3), Compression::fast());
    let written = encoder.write_all(text);
    // Writing to memory does not fail; if it did, the uncompressed text would be stored.
    match written.and_then(|()| encoder.finish()) {
        Ok(packed) => packed.into(),
        Err(_) => text.into(),
    }
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
        let last = number(&key) + split(&text(&value)?).len() as u64 - 1;
        Ok(Some(JournalRange { first: number(&first), last }))
    }

    /// The number of the oldest record.
    pub fn first(&self) -> Result<Option<u64>, sled::Error> {
        Ok(self.tree.first()?.map(|(key, _)| number(&key)))
    }

    /// Reads whole chunks until there are `limit` records.
    pub fn after(&self, since: u64, limit: usize) -> Result<Vec<JournalRecord>, sled::Error> {
        let wanted = since.saturating_add(1);
        // The chunk that holds the number starts at it or before it.
        let start = self.tree.range(..=wanted.to_be_bytes()).next_back().transpose()?;
        let start = start.map_or(wanted, |(key, _)| number(&key));
        let mut records = Vec::new();
        for chunk in self.tree.range(start.to_be_bytes()..) {
            let (key, value) = chunk?;
            let text = text(&value)?;
            let numbered = split(&text).into_iter().zip(number(&key)..);
            let fresh = numbered.filter(|(_, number)| *number >= wanted);
            records.extend(fresh.map(|(line, number)| JournalRecord {
                number,
                text: Bytes::copy_from_slice(line),
            }));
            if records.len() >= limit {
                break;
            }
        }
        Ok(records)
    }

    /// The time of the newest chunk.
    pub fn newest(&self) -> Result<Option<i64>, sled::Error> {
        Ok(self.tree.last()?.map(|(_, value)| committed(&value)))
    }

    /// Removes chunks outside the limits at the present time, after the event `last` was added. The
    /// newest chunk always stays, because it holds the last number.
    pub fn trim(&self, last: u64, now: i64) -> Result<(), sled::Error> {
        let age = i64::try_from(self.bounds.age.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(age);
        let mut chunks = self.tree.iter();
        let mut current = chunks.next().transpose()?;
        while let Some((key, value)) = current {
            let Some((next, following)) = chunks.next().transpose()? else { break };
            let enough = last + 1 - number(&next) >= self.bounds.events;
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

/// The time of a chunk's commit, in milliseconds since 1970 by the mirror's clock.
fn committed(value: &[u8]) -> i64 {
    value.first_chunk().map_or(0, |time| i64::from_be_bytes(*time))
}

#[cfg(test)]
thread_local! {
    /// The number of chunks that this thread has inflated.
    pub static INFLATED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The records of a chunk.
fn text(value: &[u8]) -> Result<Cow<'_, [u8]>, io::Error> {
    let text = value.get(8..).unwrap_or_default();
    if text.first() != Some(&PACKED) {
        return Ok(text.into());
    }
    #[cfg(test)]
    INFLATED.set(INFLATED.get() + 1);
    let mut unpacked = Vec::with_capacity(CHUNK_BYTES);
    ZlibDecoder::new(text).read_to_end(&mut unpacked)?;
    Ok(unpacked.into())
}

/// The records in a chunk's text. Text that is not JSON, which no version wrote, is split into
/// lines.
fn split(text: &[u8]) -> Vec<&[u8]> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
    let mut records = Vec::new();
    loop {
        match values.next() {
            Some(Ok(value)) => records.push(value.get().as_bytes()),
            None if !records.is_empty() => return records,
            None | Some(Err(_)) => break,
        }
    }
    let rest = text.get(values.byte_offset()..).unwrap_or_default();
    let rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    records.extend(rest.split(|byte| *byte == b'\n'));
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_records_are_packed_and_read_back_and_a_few_stay_as_they_are() {
        let text = |number| format!("{{\"event\":{number},\"documentId\":\"document-{number}\"}}");
        let record = |number| JournalRecord { number, text: text(number).into() };
        let records: Vec<JournalRecord> = (1..=2_000).map(record).collect();
        for (records, packs) in [(&records[..], true), (&records[..3], false)] {
            let chunks = chunks(records, 0);
            let all: usize = chunks.iter().map(|(_, value)| value.len()).sum();
            let plain: usize = records.iter().map(|record| record.text.len()).sum();
            assert_eq!(all < plain / 3, packs, "{all} of {plain}");
            let mut expected = records.iter();
            for (key, value) in &chunks {
                let unpacked = super::text(value).unwrap();
                for (line, at) in split(&unpacked).into_iter().zip(number(key)..) {
                    assert_eq!(line, text(at).as_bytes());
                    assert_eq!(expected.next().map(|record| record.number), Some(at));
                }
            }
            assert!(expected.next().is_none());
        }
    }

    #[test]
    fn records_that_hold_line_feeds_are_one_each() {
        let texts = ["{\"a\":[\n{\"event\":2}\n]}", "{\"b\":1}", "{\"c\":\r\n2}"];
        // As an earlier version stored them.
        assert_eq!(split(texts.join("\n").as_bytes()), texts.map(str::as_bytes));
        assert_eq!(split(b""), [b""]);
        assert_eq!(split(b"{}\n{\"a\":\nx"), [&b"{}"[..], b"{\"a\":", b"x"]);
    }
}

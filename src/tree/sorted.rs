//! Sorts any number of records by their keys in bounded memory: records that do not fit go to
//! temporary files, which are merged when they are read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

/// The number of bytes that are held before they go to a file.
const HELD: usize = 8 << 20;

/// Takes records in any order.
#[derive(Debug, Default)]
pub struct Sorter {
    records: Vec<SortedRecord>,
    held: usize,
    runs: Vec<File>,
}

/// Records in order. They can be read more than once.
#[derive(Debug)]
pub struct Sorted {
    records: Vec<SortedRecord>,
    runs: Vec<File>,
}

/// A key and its value. Ordered by both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortedRecord {
    /// The sort key, compared byte for byte.
    pub key: Box<[u8]>,
    /// The value.
    pub value: Box<[u8]>,
}

impl Sorter {
    /// Adds a record.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.held += key.len() + value.len() + size_of::<SortedRecord>();
        self.records.push(SortedRecord { key: key.into(), value: value.into() });
        if self.held > HELD { self.spill() } else { Ok(()) }
    }

    /// Removes all records.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Ends the input. Records with the same key stay in the order in which they came.
    pub fn finish(mut self) -> Sorted {
        self.records.sort_by(|left, right| left.key.cmp(&right.key));
        Sorted { records: self.records, runs: self.runs }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.records.sort_by(|left, right| left.key.cmp(&right.key));
        let mut out = BufWriter::new(tempfile::tempfile()?);
        for record in self.records.drain(..) {
            for part in [&record.key, &record.value] {
                out.write_all(&(part.len() as u64).to_le_bytes())?;
                out.write_all(part)?;
            }
        }
        self.runs.push(out.into_inner().map_err(io::IntoInnerError::into_error)?);
        self.held = 0;
        Ok(())
    }
}

impl Sorted {
    /// The records in order, from the first.
    pub fn iter(&self) -> io::Result<Merge<'_>> {
        let mut sources: Vec<RunReader<'_>> = Vec::new();
        for file in &self.runs {
            sources.push(RunReader::File(BufReader::new(At::start_of(file))));
        }
        sources.push(RunReader::Memory(self.records.iter()));
        let mut heads = BinaryHeap::new();
        for (number, source) in sources.iter_mut().enumerate() {
            if let Some(record) = source.next()? {
                heads.push(Reverse((record.key, number, record.value)));
            }
        }
        Ok(Merge { sources, heads })
    }
}

/// A run's next record: its key, the run's number, its value. The heap's greatest is the smallest
/// record.
type Head = Reverse<(Box<[u8]>, usize, Box<[u8]>)>;

/// An iterator over the records in order.
pub struct Merge<'a> {
    sources: Vec<RunReader<'a>>,
    heads: BinaryHeap<Head>,
}

impl Merge<'_> {
    fn step(&mut self) -> io::Result<Option<SortedRecord>> {
        let Some(mut first) = self.heads.peek_mut() else { return Ok(None) };
        let number = first.0.1;
        let next = match self.sources.get_mut(number) {
            Some(source) => source.next()?,
            None => None,
        };
        let Reverse((key, _, value)) = match next {
            Some(record) => {
                std::mem::replace(&mut *first, Reverse((record.key, number, record.value)))
            }
            None => PeekMut::pop(first),
        };
        Ok(Some(SortedRecord { key, value }))
    }
}

impl Iterator for Merge<'_> {
    type Item = io::Result<SortedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

enum RunReader<'a> {
    Memory(std::slice::Iter<'a, SortedRecord>),
    File(BufReader<At<'a>>),
}

impl RunReader<'_> {
    fn next(&mut self) -> io::Result<Option<SortedRecord>> {
        match self {
            Self::Memory(records) => Ok(records.next().cloned()),
            Self::File(file) => {
                let Some(key) = part(file)? else { return Ok(None) };
                let value = part(file)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(Some(SortedRecord { key, value }))
            }
        }
    }
}

fn part(file: &mut impl Read) -> io::Result<Option<Box<[u8]>>> {
    let mut length = [0; 8];
    match file.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(io::Error::other)?;
    let mut part = vec![0; length];
    file.read_exact(&mut part)?;
    Ok(Some(part.into()))
}

/// A file with a separate read position, so that several readers can share it.
pub(crate) struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl<'a> At<'a> {
    pub fn start_of(file: &'a File) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_in_order_and_the_earlier_first_however_many_there_are() {
        let mut sorter = Sorter::default();
        let large = vec![b'x'; HELD / 10];
        for number in (0..40_u8).chain(0..40) {
            let value = [&[u8::from(sorter.held > 0)], large.as_slice()].concat();
            sorter.push(&[39 - number % 40], &value).unwrap();
        }
        sorter.push(&[7], b"last").unwrap();
        let sorted = sorter.finish();
        assert!(sorted.runs.len() > 3, "it was spilt");
        for _ in 0..2 {
            let records: Vec<_> = sorted.iter().unwrap().map(Result::unwrap).collect();
            assert_eq!(records.len(), 81);
            assert!(records.windows(2).all(|pair| pair[0].key <= pair[1].key));
            let mut sevens = records.iter().filter(|record| *record.key == [7]);
            assert_eq!(&*sevens.next_back().unwrap().value, b"last");
        }
    }
}

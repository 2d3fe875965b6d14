//! Cuts a feed into lines, however its bytes arrive, and tells rows from the lines around them.

use std::io;

use crate::document::{Skim, Surface};

/// How many bytes are asked for at a time.
const BLOCK: usize = 256 * 1024;

/// One line of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Where it begins, in bytes from the beginning of the feed.
    pub start: u64,
    /// Where the next one begins.
    pub end: u64,
    /// Its bytes, newline included; `None` when they are more than are kept in memory.
    pub text: Option<&'a [u8]>,
    /// What is known of a line that is not kept, if its end has been read.
    pub surface: Option<&'a Surface>,
}

impl Line<'_> {
    /// Why a line that breaks off is not a row.
    pub fn is_cut(&self) -> String {
        let (start, length) = (self.start, self.end - self.start);
        let unit = if length == 1 { "byte" } else { "bytes" };
        format!("the feed ends in the middle of a row ({length} {unit} from byte {start})")
    }
}

/// The lines of a feed, in a buffer that never outgrows the longest line allowed.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// The bytes of `buffer` that have been given out.
    taken: usize,
    /// The bytes of `buffer` that hold no newline after `taken`.
    searched: usize,
    /// The offset of `buffer[taken]` in the feed.
    offset: u64,
    limit: usize,
    /// The beginning of a line whose first bytes were dropped because it is too long.
    long: Option<u64>,
    /// The reading of such a line, and its result.
    skim: Box<Skim>,
    surface: Box<Surface>,
}

impl Lines {
    /// Lines from this offset on, of which those up to `limit` bytes are kept in memory.
    pub fn new(offset: u64, limit: usize) -> Self {
        let (buffer, skim, surface) = Default::default();
        Self { buffer, taken: 0, searched: 0, offset, limit, long: None, skim, surface }
    }

    /// Where the next line begins: everything before has been given out.
    pub fn position(&self) -> u64 {
        self.long.unwrap_or(self.offset)
    }

    /// The next line whose newline has been read; `None` when more bytes are needed.
    pub fn take(&mut self) -> Option<Line<'_>> {
        let Some(newline) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            self.let_go_of_long_line();
            return None;
        };
        Some(self.give(self.searched + newline + 1))
    }

    /// What has been read of a line without a newline, if anything. It stays the next line.
    pub fn rest(&self) -> Option<Line<'_>> {
        let text = self.long.is_none().then(|| &self.buffer[self.taken..]);
        let end = self.offset + (self.buffer.len() - self.taken) as u64;
        (end > self.position()).then_some(Line { start: self.position(), end, text, surface: None })
    }

    /// Takes what [`rest`](Self::rest) showed as a line of its own.
    pub fn take_rest(&mut self) {
        self.give(self.buffer.len());
    }

    /// Reads once; `read` is told the offset from which bytes are wanted. The number of bytes read
    /// is 0 at the feed's present end.
    pub fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + BLOCK, 0);
        let result = read(&mut self.buffer[held..], self.offset + held as u64);
        self.buffer.truncate(held + result.as_ref().map_or(0, |read| (*read).min(BLOCK)));
        result
    }

    fn give(&mut self, end: usize) -> Line<'_> {
        let start = self.position();
        let is_long = self.long.take().is_some();
        if is_long {
            self.skim.pass(&self.buffer[self.taken..end]);
            *self.surface = std::mem::take(&mut self.skim).surface();
        }
        let text = (!is_long).then_some(self.taken..end);
        self.offset += (end - self.taken) as u64;
        self.taken = end;
        self.searched = end;
        let surface = is_long.then_some(&*self.surface);
        Line { start, end: self.offset, text: text.map(|range| &self.buffer[range]), surface }
    }

    fn let_go_of_long_line(&mut self) {
        if self.long.is_some() || self.buffer.len() - self.taken > self.limit {
            self.long.get_or_insert(self.offset);
            self.skim.pass(&self.buffer[self.taken..]);
            self.offset += (self.buffer.len() - self.taken) as u64;
            self.taken = 0;
            self.searched = 0;
            self.buffer.clear();
            self.buffer.shrink_to(BLOCK);
        }
    }
}

/// The bytes of a line that may be a row: without white space, a byte order mark at the feed's
/// beginning, and the comma between the rows of a normal feed. `None` for blank lines and for the
/// lines around the rows of CouchDB's answers.
pub(super) fn row(line: &[u8], first: bool) -> Option<&[u8]> {
    let line = if first { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line) } else { line };
    let line = line.trim_ascii();
    let line = line.strip_suffix(b",").map_or(line, <[u8]>::trim_ascii_end);
    let around = match line.first() {
        None | Some(b']') => true,
        Some(b'"') => line.starts_with(b"\"last_seq\""),
        Some(b'{') => {
            line.starts_with(b"{\"last_seq\"")
                || (line.starts_with(b"{\"results\"") && line.ends_with(b"["))
                || line.starts_with(b"{\"results\":[]")
        }
        Some(_) => false,
    };
    (!around).then_some(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every line of `feed` when it arrives in pieces of these sizes, and what is left over.
    fn cut(feed: &[u8], pieces: &[usize], limit: usize) -> Vec<(u64, u64, Option<Vec<u8>>)> {
        let mut lines = Lines::new(0, limit);
        let mut pieces = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        let mut found = Vec::new();
        loop {
            while let Some(line) = lines.take() {
                found.push((line.start, line.end, line.text.map(<[u8]>::to_vec)));
            }
            let piece = pieces.next().unwrap();
            let read = lines.fill(|into, offset| {
                let rest = &feed[offset as usize..];
                let size = rest.len().min(piece).min(into.len());
                into[..size].copy_from_slice(&rest[..size]);
                Ok(size)
            });
            if read.unwrap() == 0 {
                break;
            }
        }
        if let Some(line) = lines.rest() {
            found.push((line.start, line.end, line.text.map(<[u8]>::to_vec)));
        }
        found
    }

    proptest! {
        #[test]
        fn the_same_lines_come_out_however_the_bytes_arrive(
            feed in "([a-c]{0,5}\n){0,9}[a-c]{0,9}", pieces in prop::collection::vec(1_usize..9, 0..40),
        ) {
            let whole = cut(feed.as_bytes(), &[], 1 << 20);
            prop_assert_eq!(&cut(feed.as_bytes(), &pieces, 1 << 20), &whole);
            let joined: Vec<u8> = whole.into_iter().flat_map(|(_, _, text)| text.unwrap()).collect();
            prop_assert_eq!(joined, feed.as_bytes());
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_without_being_held() {
        let feed = format!("a\n{}\nb\n", "x".repeat(1 << 20));
        let found = cut(feed.as_bytes(), &[], 1000);
        assert_eq!(found[1], (2, 2 + (1 << 20) + 1, None));
        assert_eq!(found[2].2.as_deref(), Some(&b"b\n"[..]));

        let mut lines = Lines::new(0, 1000);
        for _ in 0..100 {
            lines.fill(|into, _| Ok(into.len())).unwrap();
            assert!(lines.take().is_none());
            assert!(lines.buffer.capacity() <= 2 * BLOCK);
        }
        assert_eq!(lines.position(), 0);
        assert_eq!(lines.rest().unwrap().end, 100 * BLOCK as u64);
    }

    #[test]
    fn the_lines_around_rows_are_no_rows() {
        for line in [
            "",
            "\r\n",
            "{\"results\":[\n",
            "],\r\n",
            "]\n",
            "\"last_seq\":\"3-x\",\"pending\":0}\n",
            "{\"last_seq\":3,\"pending\":0}\n",
            "{\"results\":[],\"last_seq\":0}\n",
            ",\n",
        ] {
            assert_eq!(row(line.as_bytes(), false), None, "{line:?}");
        }
        assert_eq!(row(b" {\"id\":1} ,\r\n", false), Some(&b"{\"id\":1}"[..]));
        assert_eq!(row("\u{feff}{}\n".as_bytes(), true), Some(&b"{}"[..]));
    }
}

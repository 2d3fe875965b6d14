//! Positions of a feed file: how far it was read, and by what it is known again.
//!
//! A token is the JSON string `"<offset>-<fingerprint>"`: the byte after the last row, and the
//! first 16 hexadecimal digits of BLAKE3 over that row's last 4,096 bytes, newline and blank lines
//! after it included. A file that was truncated, replaced or rewritten does not hold the same bytes
//! there.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::document::Position;

/// How many bytes before a place make its fingerprint, at most.
const WINDOW: usize = 4096;

/// A place in a feed file, read back from a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeedPlace {
    /// The bytes before it.
    pub offset: u64,
    fingerprint: String,
}

impl FeedPlace {
    /// What a position says, if this source can have issued it.
    pub fn of(position: &Position) -> Option<Self> {
        let token = position.token().strip_prefix('"')?.strip_suffix('"')?;
        let (offset, fingerprint) = token.split_once('-')?;
        Some(Self { offset: offset.parse().ok()?, fingerprint: fingerprint.to_owned() })
    }

    /// Whether the file still holds the bytes before this place.
    pub fn stands_in(&self, file: &File) -> io::Result<bool> {
        if file.metadata()?.len() < self.offset {
            return Ok(false);
        }
        Ok(fingerprint(&before(file, self.offset)?) == self.fingerprint)
    }
}

/// Makes positions; they all share one context.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    context: Arc<str>,
}

impl Positions {
    /// A maker of positions with an empty context.
    pub fn new() -> Self {
        Self::within("")
    }

    /// A maker of positions with this context.
    pub fn within(context: &str) -> Self {
        Self { context: Arc::from(context) }
    }

    /// The position after a row that ends at `offset` and is this line, whole or its last bytes.
    pub fn after_row(&self, offset: u64, line: &[u8]) -> Position {
        self.position(offset, &fingerprint(&line[line.len().saturating_sub(WINDOW)..]))
    }

    /// The position at `offset` of a file, whatever line ends there.
    pub fn at(&self, offset: u64, file: &File) -> io::Result<Position> {
        Ok(self.position(offset, &fingerprint(&before(file, offset)?)))
    }

    /// A position in a feed that cannot be read again.
    pub fn in_pipe(&self, offset: u64) -> Position {
        self.position(offset, "stdin")
    }

    fn position(&self, offset: u64, mark: &str) -> Position {
        let mut token = String::with_capacity(40);
        // Every row has a position; this is faster than `format!` and cannot fail.
        let _ = write!(token, "\"{offset}-");
        token.push_str(mark);
        token.push('"');
        Position::new(token, self.context.clone(), None)
    }
}

fn fingerprint(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hash = blake3::hash(bytes);
    let digits = hash.as_bytes()[..8].iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The last line before `offset` that is not blank, with what follows it, or its last bytes.
fn before(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let size = offset.min(WINDOW as u64);
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, offset - size)?;
    let row = bytes.trim_ascii_end();
    let start = memchr::memrchr(b'\n', row).map_or(0, |newline| newline + 1);
    bytes.drain(..start);
    Ok(bytes)
}

/// Where the line that is not blank and ends before `offset` begins.
pub(super) fn line_start(file: &File, offset: u64) -> io::Result<u64> {
    let mut end = offset;
    let mut in_line = false;
    let mut block = vec![0; 16 * WINDOW];
    while end > 0 {
        let size = end.min(block.len() as u64);
        let bytes = &mut block[..size as usize];
        file.read_exact_at(bytes, end - size)?;
        let text = if in_line { &bytes[..] } else { bytes.trim_ascii_end() };
        in_line |= !text.is_empty();
        if let Some(newline) = memchr::memrchr(b'\n', text) {
            return Ok(end - size + newline as u64 + 1);
        }
        end -= size;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn a_row_in_memory_and_the_same_row_in_the_file_have_one_position() {
        let positions = Positions::new();
        for row in [
            format!("{{{}}}\n", "x".repeat(10_000)),
            "{}\r\n".into(),
            "{}".into(),
            format!("{{}}{}\n", " ".repeat(5_000)),
        ] {
            let file = file(format!("earlier\n\n{row}").as_bytes());
            let end = 9 + row.len() as u64;
            let position = positions.after_row(end, row.as_bytes());
            assert_eq!(positions.at(end, &file).unwrap(), position);
            assert!(FeedPlace::of(&position).unwrap().stands_in(&file).unwrap());
        }
    }

    #[test]
    fn a_place_does_not_stand_in_a_shorter_or_another_file() {
        let position = Positions::new().after_row(8, b"{\"a\":1}\n");
        let place = FeedPlace::of(&position).unwrap();
        assert!(place.stands_in(&file(b"{\"a\":1}\n{}")).unwrap());
        assert!(!place.stands_in(&file(b"{\"a\":1}")).unwrap());
        assert!(!place.stands_in(&file(b"{\"a\":2}\n{}")).unwrap());
    }

    #[test]
    fn another_sources_position_is_no_place() {
        for token in ["12", "\"12-g1AAA", "null", "\"x-y\""] {
            assert_eq!(FeedPlace::of(&Position::new(token, "".into(), None)), None);
        }
    }

    #[test]
    fn the_line_before_an_offset_is_found_across_blocks_and_blank_lines() {
        let text = format!("a\n{}\n\n \n", "x".repeat(200_000));
        let file = file(text.as_bytes());
        assert_eq!(line_start(&file, text.len() as u64).unwrap(), 2);
        assert_eq!(line_start(&file, 2).unwrap(), 0);
        assert_eq!(line_start(&file, 0).unwrap(), 0);
    }
}

//! Rows too long for memory: one pass over the row makes a skeleton of it, in which the long data
//! of its attachments is left out, and notes where in the file that data is.
//!
//! The skeleton is a row like any other and is judged like one; this file only follows strings,
//! brackets and the few keys on the way to `doc._attachments.<name>.data`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::content::CHUNK;
use super::queue::Abandoned;
use crate::json::cursor as json;

/// The longest data that stays in a skeleton.
const SHORT_DATA: usize = 64 * 1024;

/// The largest skeleton: what is left of a row without the long data of its attachments.
pub(super) const SKELETON_LIMIT: usize = 64 * 1024 * 1024;

/// The longest key that is looked at: `_attachments`, all of it escaped, is 74 bytes long.
const KEY_LIMIT: usize = 128;

/// Data that was left out of a skeleton.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    /// The place in the skeleton of the empty string that replaces it.
    pub at: usize,
    /// The place in the file of the inside of the string.
    pub range: Range<u64>,
}

/// A row without the long data of its attachments.
#[derive(Debug, Default)]
pub(super) struct Skeleton {
    /// The row's text, with `""` for what was left out.
    pub text: Vec<u8>,
    /// What was left out, in the order of the text.
    pub hidden: Vec<Hidden>,
}

/// Why there is no skeleton.
#[derive(Debug)]
pub(super) enum NoSkeleton {
    /// The file could not be read.
    Io(io::Error),
    /// It would be larger than [`SKELETON_LIMIT`]; this is its beginning.
    TooLarge(Skeleton),
    /// Nobody waits for it any more.
    Abandoned,
}

/// Makes the skeleton of the row between these bytes of a file.
pub(super) fn skeleton(
    file: &File,
    row: Range<u64>,
    check: &dyn Fn() -> Result<(), Abandoned>,
) -> Result<Skeleton, NoSkeleton> {
    let mut outline = Outline::default();
    let mut buffer = vec![0; CHUNK];
    let mut at = row.start;
    while at < row.end {
        check().map_err(|Abandoned| NoSkeleton::Abandoned)?;
        let size = (row.end - at).min(CHUNK as u64) as usize;
        let read = match file.read_at(&mut buffer[..size], at) {
            Ok(0) => return Err(NoSkeleton::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(NoSkeleton::Io(error)),
        };
        outline.pass(&buffer[..read], at);
        if outline.skeleton.text.len() > SKELETON_LIMIT {
            return Err(NoSkeleton::TooLarge(outline.skeleton));
        }
        at += read as u64;
    }
    Ok(outline.skeleton)
}

/// What stands around the byte that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Structure,
    /// In a string, after a backslash or not.
    Text { escaped: bool },
    /// In a string that is left out.
    HiddenText { escaped: bool },
}

/// Follows a row in pieces of any size.
#[derive(Debug, Default)]
struct Outline {
    skeleton: Skeleton,
    within: Within,
    /// The open containers: whether each is an object.
    nesting: Vec<bool>,
    /// How many of the open containers lie on the way to an attachment's object: the row, its
    /// document, the attachments, one attachment.
    on_path: usize,
    /// Whether the next string is the key of a member.
    key_due: bool,
    /// The latest key in the innermost container on the way, quotes included.
    key: Vec<u8>,
    /// Whether the string we are in is such a key.
    in_key: bool,
    /// Where the data that we are in began, in the skeleton and in the file.
    data: Option<(usize, u64)>,
}

impl Outline {
    fn pass(&mut self, piece: &[u8], offset: u64) {
        let mut at = 0;
        while at < piece.len() {
            at = match self.within {
                Within::Structure => {
                    self.structure(piece[at], offset + at as u64);
                    at + 1
                }
                Within::Text { escaped } => self.text(piece, at, escaped, offset),
                Within::HiddenText { escaped } => self.hidden_text(piece, at, escaped, offset),
            };
        }
    }

    fn structure(&mut self, byte: u8, offset: u64) {
        self.skeleton.text.push(byte);
        match byte {
            b'"' => self.begin_string(offset + 1),
            b'{' | b'[' => {
                let depth = self.nesting.len();
                if self.on_path == depth && byte == b'{' && self.leads_on(depth) {
                    self.on_path += 1;
                }
                self.nesting.push(byte == b'{');
                self.key_due = byte == b'{';
            }
            b'}' | b']' => {
                self.on_path = self.on_path.min(self.nesting.len().saturating_sub(1));
                self.nesting.pop();
                self.key_due = false;
            }
            b',' => self.key_due = self.nesting.last() == Some(&true),
            _ => {}
        }
    }

    /// Whether an object that begins now, in the container at this depth, lies on the way.
    fn leads_on(&self, depth: usize) -> bool {
        match depth {
            0 | 3 => true,
            1 => self.key_is("doc"),
            2 => self.key_is("_attachments"),
            _ => false,
        }
    }

    fn key_is(&self, name: &str) -> bool {
        let raw = std::str::from_utf8(&self.key).unwrap_or_default();
        json::string(raw).is_ok_and(|key| key == name)
    }

    fn begin_string(&mut self, offset: u64) {
        self.within = Within::Text { escaped: false };
        if self.key_due {
            self.key_due = false;
            self.in_key = self.on_path == self.nesting.len();
            self.key.clear();
            if self.in_key {
                self.key.push(b'"');
            }
        } else if self.on_path == 4 && self.nesting.len() == 4 && self.key_is("data") {
            self.data = Some((self.skeleton.text.len(), offset));
        }
    }

    /// Passes what belongs to the string from `at` on; returns where it went on to.
    fn text(&mut self, piece: &[u8], at: usize, escaped: bool, offset: u64) -> usize {
        let (next, end) = string_part(piece, at, escaped);
        self.skeleton.text.extend_from_slice(&piece[at..next]);
        if self.in_key {
            if self.key.len() + (next - at) <= KEY_LIMIT {
                self.key.extend_from_slice(&piece[at..next]);
            } else {
                self.in_key = false;
                self.key.clear();
            }
        }
        let too_long = |start: usize| self.skeleton.text.len() - start > SHORT_DATA;
        match (end, self.data) {
            (StringPart::GoesOn { escaped }, Some((start, _))) if too_long(start) => {
                self.skeleton.text.truncate(start);
                self.within = Within::HiddenText { escaped };
            }
            (StringPart::GoesOn { escaped }, _) => self.within = Within::Text { escaped },
            (StringPart::Ended, Some((start, from))) if too_long(start) => {
                self.skeleton.text.truncate(start);
                self.end_hidden(start, from..offset + next as u64 - 1);
            }
            (StringPart::Ended, _) => self.within = Within::Structure,
        }
        if self.within == Within::Structure {
            self.in_key = false;
            self.data = None;
        }
        next
    }

    fn end_hidden(&mut self, start: usize, range: Range<u64>) {
        self.within = Within::Structure;
        self.skeleton.text.push(b'"');
        self.skeleton.hidden.push(Hidden { at: start - 1, range });
    }

    fn hidden_text(&mut self, piece: &[u8], at: usize, escaped: bool, offset: u64) -> usize {
        let (next, end) = string_part(piece, at, escaped);
        match end {
            StringPart::GoesOn { escaped } => self.within = Within::HiddenText { escaped },
            StringPart::Ended => {
                if let Some((start, from)) = self.data.take() {
                    self.end_hidden(start, from..offset + next as u64 - 1);
                }
            }
        }
        next
    }
}

/// How a part of a string came to its end.
enum StringPart {
    /// By the closing quote, which belongs to it.
    Ended,
    /// By the end of the piece.
    GoesOn { escaped: bool },
}

fn string_part(piece: &[u8], mut at: usize, mut escaped: bool) -> (usize, StringPart) {
    while at < piece.len() {
        if escaped {
            at += 1;
            escaped = false;
            continue;
        }
        let Some(found) = memchr::memchr2(b'"', b'\\', &piece[at..]) else { break };
        at += found + 1;
        if piece[at - 1] == b'"' {
            return (at, StringPart::Ended);
        }
        escaped = true;
    }
    (piece.len(), StringPart::GoesOn { escaped })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outline(row: &[u8], piece: usize) -> Skeleton {
        let mut outline = Outline::default();
        for (n, part) in row.chunks(piece).enumerate() {
            outline.pass(part, (n * piece) as u64);
        }
        outline.skeleton
    }

    fn row(data: &str) -> String {
        format!(
            r#"{{"id":"a","x":[{{"doc":{{"_attachments":{{"n":{{"data":"{data}"}}}}}}}}],
            "doc":{{"data":"{data}","_\u0061ttachments":{{"n\"":{{"d":"x","data":"{data}","e":[]}},"m":{{"data":"eA=="}}}},"z":1}}}}"#
        )
    }

    #[test]
    fn only_the_long_data_of_attachments_is_left_out() {
        let data = "QUJD\\/".repeat(20_000);
        let row = row(&data);
        for piece in [1, 7, 4096, row.len()] {
            let found = outline(row.as_bytes(), piece);
            let [hidden] = &found.hidden[..] else { panic!("{:?}", found.hidden) };
            assert_eq!(&row[hidden.range.start as usize..hidden.range.end as usize], data);
            assert_eq!(&found.text[hidden.at..hidden.at + 2], b"\"\"");
            let mut rebuilt = found.text.clone();
            rebuilt.splice(hidden.at + 1..hidden.at + 1, data.bytes());
            assert_eq!(rebuilt, row.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn without_long_data_a_skeleton_is_the_row_whatever_it_holds(
            bytes in "([\\[\\]{}:,\"\\\\]|\"doc\":\\{|\"_attachments\":\\{|\"data\":\"){0,40}", piece in 1_usize..9,
        ) {
            let found = outline(bytes.as_bytes(), piece);
            prop_assert_eq!(found.text, bytes.as_bytes());
            prop_assert!(found.hidden.is_empty());
        }
    }
}

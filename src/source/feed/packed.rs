//! Compressed feeds: how they are compressed, by their first bytes, and the text within them.
//!
//! Memory is bounded by the decoders: 128 MiB for zstd's largest window, 64 KiB otherwise.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

/// How much compressed data is read at a time.
const BLOCK: usize = 64 * 1024;

/// How many bytes show how a feed is compressed.
pub(super) const MAGIC: usize = 4;

/// What libzstd says of a window that is larger than its limit.
const TOO_WIDE: &str = "too much memory";

/// How a feed is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Packing {
    /// By the first [`MAGIC`] bytes, or by all if there are fewer. A zstd file may begin with a frame
    /// that decoders skip.
    pub fn of(first: &[u8]) -> Option<Self> {
        match *first {
            [0x1f, 0x8b] | [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5] | [0x28, 0xb5, 0x2f] | [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The command that prints the text.
    pub fn tool(self) -> &'static str {
        match self {
            Self::Gzip => "gzip -dc",
            Self::Zstd => "zstd -dc",
        }
    }

    /// The text within compressed data. An error of the data is a [`Damage`].
    pub fn unpack(self, data: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        let data = BufReader::with_capacity(BLOCK, data);
        let text: Box<dyn Read + Send> = match self {
            Self::Gzip => Box::new(Members::new(data)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(data)?),
        };
        Ok(Box::new(Text { text, packing: self, given: 0 }))
    }
}

/// What is wrong with compressed data, and how much of the text came before that.
#[derive(Debug, thiserror::Error)]
pub(super) struct Damage {
    packing: Packing,
    text: u64,
    error: io::Error,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packing, text, error } = self;
        let name = packing.name();
        if self.is_too_wide() {
            return write!(
                f,
                "its zstd data takes more than 128 MiB of memory to decompress: decompress it with \
                 `zstd -dc --long=31`, and give the result"
            );
        }
        let what = if self.is_cut() { "ends too early" } else { "is damaged" };
        let unit = if *text == 1 { "byte" } else { "bytes" };
        write!(f, "its {name} data {what}, after {text} {unit} of text ({error})")
    }
}

impl Damage {
    /// The damage that an error of reading stands for, if the data is to blame.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The damage that an error of reading stands for, or else the error.
    pub fn from(error: io::Error) -> Result<Self, io::Error> {
        error.downcast()
    }

    /// Whether the data only breaks off: nothing in it contradicts what came before.
    pub fn is_cut(&self) -> bool {
        self.error.kind() == io::ErrorKind::UnexpectedEof
    }

    /// What is wrong, and what to do if the text before that was read (`rows`), or was not.
    pub fn advice(&self, rows: Option<&str>) -> String {
        match rows {
            _ if self.is_too_wide() => self.to_string(),
            Some(rows) if self.text > 0 => format!("{self}: {rows}"),
            _ => format!("{self}: nothing was read of it; give a sound copy"),
        }
    }

    fn is_too_wide(&self) -> bool {
        self.packing == Packing::Zstd && self.error.to_string().contains(TOO_WIDE)
    }
}

/// Text that has been decompressed, and how much of it.
struct Text {
    text: Box<dyn Read + Send>,
    packing: Packing,
    given: u64,
}

impl Read for Text {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let error = match self.text.read(into) {
            Ok(read) => {
                self.given += read as u64;
                return Ok(read);
            }
            Err(error) => error,
        };
        // What the system says is about the file; decoders have no such numbers.
        if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::Interrupted {
            return Err(error);
        }
        let damage = Damage { packing: self.packing, text: self.given, error };
        Err(io::Error::new(io::ErrorKind::InvalidData, damage))
    }
}

/// The members of gzip data, one after another. Zeros after the last one are padding.
struct Members<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    fn new(data: R) -> Self {
        Self { member: Some(GzDecoder::new(data)) }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let Some(member) = self.member.take() else { break };
            self.member = next_member(member.into_inner())?;
        }
        Ok(0)
    }
}

fn next_member<R: BufRead>(mut data: R) -> io::Result<Option<GzDecoder<R>>> {
    let mut padded = false;
    loop {
        let held = match data.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            held => held?,
        };
        let zeros = held.iter().take_while(|byte| **byte == 0).count();
        match held.get(zeros) {
            None if held.is_empty() => return Ok(None),
            None => {}
            Some(0x1f) if zeros == 0 && !padded => return Ok(Some(GzDecoder::new(data))),
            Some(_) => {
                let error = "what follows is not gzip data";
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        padded = true;
        data.consume(zeros);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(text, 1).unwrap()
    }

    fn skipped() -> Vec<u8> {
        [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0], &b"abc"[..]].concat()
    }

    fn unpack(data: Vec<u8>) -> (String, Option<String>) {
        let packing = Packing::of(&data).unwrap();
        let mut reader = packing.unpack(io::Cursor::new(data)).unwrap();
        let (mut text, mut piece) = (Vec::new(), [0; 3]);
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return (String::from_utf8(text).unwrap(), None),
                Ok(read) => text.extend_from_slice(&piece[..read]),
                Err(error) => {
                    let damage = Damage::of(&error).unwrap().to_string();
                    return (String::from_utf8(text).unwrap(), Some(damage));
                }
            }
        }
    }

    #[test]
    fn members_and_frames_are_one_text() {
        for data in [
            [gzip(b"one "), gzip(b""), gzip(b"two")].concat(),
            [gzip(b"one two"), vec![0; 100_000]].concat(),
            [zstd(b"one "), zstd(b""), skipped(), zstd(b"two"), skipped()].concat(),
            [skipped(), zstd(b"one two")].concat(),
        ] {
            assert_eq!(unpack(data), ("one two".to_owned(), None));
        }
    }

    #[test]
    fn damage_is_told_from_an_end_and_says_where() {
        let text = "one two three ".repeat(1000);
        for whole in [gzip(text.as_bytes()), zstd(text.as_bytes())] {
            for cut in [2, 5, whole.len() / 2, whole.len() - 1] {
                let (got, damage) = unpack(whole[..cut].to_vec());
                let damage = damage.unwrap();
                assert!(text.starts_with(&got));
                assert!(damage.contains("ends too early"), "{damage}");
                assert!(damage.contains(&format!("after {} byte", got.len())), "{damage}");
            }
            let garbage = [&whole[..], b"garbage"].concat();
            let (got, damage) = unpack(garbage);
            assert_eq!(got, text);
            assert!(damage.unwrap().contains("is damaged"));
        }
        let mut wrong = gzip(text.as_bytes());
        let checksum = wrong.len() - 8;
        wrong[checksum] ^= 1;
        assert!(unpack(wrong).1.unwrap().contains("is damaged"));
    }

    #[test]
    fn a_window_that_takes_much_memory_is_refused_with_a_remedy() {
        // A frame with a window of 2 to the power of 28 bytes, and one raw block.
        let wide = [0x28, 0xb5, 0x2f, 0xfd, 0, (28 - 10) << 3, 9, 0, 0, b'a'];
        let (text, damage) = unpack(wide.to_vec());
        assert_eq!(text, "");
        assert!(damage.unwrap().contains("--long=31"));
        let largest = [0x28, 0xb5, 0x2f, 0xfd, 0, (27 - 10) << 3, 9, 0, 0, b'a'];
        assert_eq!(unpack(largest.to_vec()), ("a".to_owned(), None));
    }

    #[test]
    fn text_is_not_taken_for_compressed_data() {
        for text in [&b""[..], b"{", b"{\"id\"", b"\x1f", b"(", b"P*M", b"PK\x03\x04"] {
            assert_eq!(Packing::of(text), None);
        }
    }
}

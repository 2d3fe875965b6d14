//! Encodes an id as the name of a folder or file, and decodes that name.
//!
//! Pure functions, the same for collections, documents and attachments. `docs/format.md` publishes
//! the rules and a table of examples, which a test here checks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::layout::SECURITY;

/// The longest name in bytes. Every common file system allows 255; the rest is left for suffixes
/// that are added when files are copied or staged.
const LONGEST_NAME: usize = 200;

/// The smallest limit for names in bytes: a shortened name should still be readable.
const LEAST_LONGEST_NAME: usize = 64;

/// The bytes left for our own suffixes and prefixes if a file system does not allow names of 255
/// bytes.
const AFFIXES: usize = 32;

/// Hexadecimal digits of the hash in a shortened name: 128 bits.
const HASH_DIGITS: usize = 32;

/// Separates the readable part from the hash; alone it is the name of the empty text. Within a text
/// it is always escaped, so that no other name contains it.
const MARK: char = '~';

/// The rules for spelling texts as names.
///
/// Two different texts never share a name: exactly so for short texts, and up to a hash of 128 bits
/// for texts whose name has to be shortened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// For file systems that distinguish all names that differ in a byte.
    #[default]
    Native,
    /// For file systems that fold case or normalise Unicode: names are ASCII, and no two differ
    /// in case alone.
    Portable,
}

/// The spelling of names in one mirror: its codec, and the length above which names are shortened.
/// Neither ever changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    codec: Codec,
    /// The longest name in bytes, if that is less than usual.
    longest: Option<u16>,
}

/// An encoded name: one component of a path. Never empty, never `.` or `..`, at most 200 bytes,
/// without `/` or NUL, and never starting with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// The name as it stands on disk.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the text cannot be decoded from the name alone.
    pub fn is_shortened(&self) -> bool {
        self.0.len() > 1 && self.0.contains(MARK)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Exactly this text.
    Exact(String),
    /// A shortened name. The text has to be read elsewhere, and is the right one if it encodes to
    /// this name.
    Hashed,
    /// No text has this name: Plainfold did not make it.
    Foreign,
}

impl Codec {
    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Portable => "portable",
        }
    }

    /// The name of a text, with names of the usual length.
    pub fn encode(self, text: &str) -> Name {
        Spelling::from(self).encode(text)
    }

    /// The text of a name, with names of the usual length.
    pub fn decode(self, name: &str) -> Decoded {
        Spelling::from(self).decode(name)
    }

    /// Whether a character is escaped everywhere in a name.
    fn escapes(self, character: char) -> bool {
        match character {
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%' | MARK => true,
            _ if character.is_control() => true,
            _ => match self {
                Self::Native => false,
                Self::Portable => character.is_ascii_uppercase() || !character.is_ascii(),
            },
        }
    }
}

impl From<Codec> for Spelling {
    fn from(codec: Codec) -> Self {
        Self { codec, longest: None }
    }
}

impl Spelling {
    /// Names of at most this many bytes; `None` is the usual length. Returns `None` if that is
    /// impossible.
    pub fn new(codec: Codec, longest: Option<u16>) -> Option<Self> {
        let can_be =
            |longest: &u16| (LEAST_LONGEST_NAME..LONGEST_NAME).contains(&(*longest).into());
        longest.as_ref().is_none_or(can_be).then_some(Self { codec, longest })
    }

    /// Names for a file system that allows this many bytes; `None` if that is too few.
    pub fn within(codec: Codec, most: u64) -> Option<Self> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(AFFIXES);
        match most < LONGEST_NAME {
            true => Self::new(codec, u16::try_from(most).ok()),
            false => Some(codec.into()),
        }
    }

    /// Whether a file system that allows names of this many bytes accepts all names.
    pub fn fits_within(self, most: u64) -> bool {
        (self.longest() + AFFIXES) as u64 <= most
    }

    /// The codec.
    pub fn codec(self) -> Codec {
        self.codec
    }

    /// The longest name in bytes, if that is less than usual.
    pub fn shortened(self) -> Option<u16> {
        self.longest
    }

    /// The longest name in bytes.
    pub fn longest(self) -> usize {
        self.longest.map_or(LONGEST_NAME, usize::from)
    }

    /// The longest readable part of a shortened name in bytes.
    fn longest_prefix(self) -> usize {
        self.longest() - HASH_DIGITS - 1
    }

    /// The name of a text.
    pub fn encode(self, text: &str) -> Name {
        if self.is_its_own_name(text) { Name(text.into()) } else { Name(self.spell(text).into()) }
    }

    /// The text of a name. A name that [`encode`](Codec::encode) would not have written is foreign,
    /// however readable, so that one text never has two names.
    pub fn decode(self, name: &str) -> Decoded {
        if self.is_its_own_name(name) {
            return Decoded::Exact(name.to_owned());
        }
        if name == MARK.encode_utf8(&mut [0; 4]) {
            return Decoded::Exact(String::new());
        }
        match name.rsplit_once(MARK) {
            Some((prefix, hash)) if self.is_shortened(prefix, hash) => Decoded::Hashed,
            Some(_) => Decoded::Foreign,
            None => match unescape(name) {
                Some(text) if self.encode(&text).as_str() == name => Decoded::Exact(text),
                _ => Decoded::Foreign,
            },
        }
    }

    /// Whether a text certainly needs no escape. Most ids are decided here, with one look at each
    /// byte; a doubtful one is left to [`spell`](Codec::spell).
    fn is_its_own_name(self, text: &str) -> bool {
        let plain = match self.codec {
            Codec::Native => &PLAIN_NATIVE,
            Codec::Portable => &PLAIN_PORTABLE,
        };
        text.len() <= self.longest()
            && !text.is_empty()
            && text.bytes().all(|byte| plain[usize::from(byte)])
            && !text.starts_with('.')
            && !text.ends_with(['.', ' '])
            && !is_device(text)
            && text != SECURITY
    }

    /// Spells a text character by character, and shortens it if it grows too long.
    fn spell(self, text: &str) -> String {
        if text.is_empty() {
            return MARK.to_string();
        }
        let (longest, longest_prefix) = (self.longest(), self.longest_prefix());
        let first_is_escaped = text.starts_with('.') || is_device(text) || text == SECURITY;
        let mut name = String::with_capacity((text.len() + 32).min(longest + LONGEST_SPELLING));
        let mut prefix = 0;
        for (start, character) in text.char_indices() {
            let is_last = start + character.len_utf8() == text.len();
            if self.codec.escapes(character)
                || (start == 0 && first_is_escaped)
                || (is_last && matches!(character, '.' | ' '))
            {
                push_escaped(&mut name, character);
            } else {
                name.push(character);
            }
            if name.len() <= longest_prefix {
                prefix = name.len();
            }
            if name.len() > longest {
                name.truncate(prefix);
                name.push(MARK);
                name.push_str(&blake3::hash(text.as_bytes()).to_hex()[..HASH_DIGITS]);
                break;
            }
        }
        name
    }

    /// Whether the parts before and after a mark can be those of a shortened name.
    fn is_shortened(self, prefix: &str, hash: &str) -> bool {
        let longest_spelling = match self.codec {
            Codec::Native => 6, // A control character of two bytes, both escaped.
            Codec::Portable => LONGEST_SPELLING,
        };
        let is_hash = hash.len() == HASH_DIGITS
            && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let most = self.longest_prefix();
        let is_full = prefix.len() <= most && prefix.len() + longest_spelling > most;
        if !is_hash || !is_full {
            return false;
        }
        // The rest of the text is unknown. For the prefix it only decides whether it starts with a
        // device name, which depends on a dot.
        unescape(prefix).is_some_and(|text| {
            [".x", "x"].iter().any(|rest| {
                self.encode(&format!("{text}{rest}")).as_str().strip_suffix(rest) == Some(prefix)
            })
        })
    }
}

/// The most bytes that one character needs in a name: four bytes, each escaped.
const LONGEST_SPELLING: usize = 12;

/// The bytes that are not escaped in a name, by codec; the first and last byte have further rules.
const PLAIN_NATIVE: [bool; 256] = plain_bytes(Codec::Native);
const PLAIN_PORTABLE: [bool; 256] = plain_bytes(Codec::Portable);

const fn plain_bytes(codec: Codec) -> [bool; 256] {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    loop {
        plain[byte as usize] = match byte {
            b'/' | b'\\' | b':' | b'*' | b'?' | b'"' | b'<' | b'>' | b'|' | b'%' => false,
            b'~' | 0..=0x1f | 0x7f => false,
            // The control characters U+0080 to U+009F start with this byte, as do some letters.
            0xc2 => false,
            b'A'..=b'Z' | 0x80..=0xff => matches!(codec, Codec::Native),
            _ => true,
        };
        if byte == u8::MAX {
            return plain;
        }
        byte += 1;
    }
}

/// Whether Windows would treat a file of this name as a device: the part before the first dot
/// decides, without trailing spaces and in any case.
fn is_device(text: &str) -> bool {
    const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
    const PORTS: [&str; 2] = ["com", "lpt"];
    if !text.starts_with(['c', 'C', 'p', 'P', 'a', 'A', 'n', 'N', 'l', 'L']) {
        return false;
    }
    let stem = text.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let is_one_of = |names: &[&str], word: &str| names.iter().any(|n| word.eq_ignore_ascii_case(n));
    is_one_of(&DEVICES, stem)
        || stem.split_at_checked(3).is_some_and(|(word, number)| {
            let mut digits = number.chars();
            matches!(digits.next(), Some('0'..='9' | '¹' | '²' | '³'))
                && digits.next().is_none()
                && is_one_of(&PORTS, word)
        })
}

fn push_escaped(name: &mut String, character: char) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        name.push('%');
        name.push(char::from(DIGITS[usize::from(byte >> 4)]));
        name.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Decodes every `%XX`. `None` if one is incomplete or in lower case, or the bytes are not UTF-8.
fn unescape(name: &str) -> Option<String> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'A'..=b'F' => Some(byte - b'A' + 10),
            _ => None,
        }
    }
    let mut text = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'%' => (digit(bytes.next()?)? << 4) | digit(bytes.next()?)?,
            _ => byte,
        });
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests;

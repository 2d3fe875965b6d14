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
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const FORMAT: &str = include_str!("../../docs/format.md");
    const CODECS: [Codec; 2] = [Codec::Native, Codec::Portable];
    const LONGEST_PREFIX: usize = LONGEST_NAME - HASH_DIGITS - 1;

    /// The cells of the rows of the table under a heading, with `\|` unescaped.
    fn table_rows(heading: &str) -> Vec<Vec<String>> {
        let section = FORMAT.split_once(heading).expect("the heading").1;
        section
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(|line| {
                let line = line.replace("\\|", "\0");
                let cells = line.trim().trim_matches('|').split('|');
                cells.map(|cell| cell.trim().trim_matches('`').replace('\0', "|")).collect()
            })
            .collect()
    }

    #[test]
    fn every_published_example_is_true() {
        let rows = table_rows("### Examples");
        assert!(rows.len() >= 15, "only {} examples were found", rows.len());
        for row in rows {
            let [id, native, portable] = row.try_into().expect("three cells");
            let id: String = serde_json::from_str(&id).expect("an id as a JSON string");
            for (codec, name) in [(Codec::Native, &native), (Codec::Portable, &portable)] {
                assert_eq!(codec.encode(&id).as_str(), name, "{codec:?} {id:?}");
                let expected = match name.len() > 1 && name.contains(MARK) {
                    true => Decoded::Hashed,
                    false => Decoded::Exact(id.clone()),
                };
                assert_eq!(codec.decode(name), expected, "{codec:?} {name}");
            }
        }
    }

    #[test]
    fn a_device_name_is_never_left_as_it_is() {
        let devices = ["CON", "prn", "AUX", "nul", "COM0", "com9", "LPT¹", "com³", "ConIn$"];
        for device in devices {
            for text in [device.to_owned(), format!("{device}.txt"), format!("{device}  .tar.gz")] {
                let name = Codec::Native.encode(&text);
                assert!(name.as_str().starts_with('%'), "{text} became {name}");
                assert_eq!(Codec::Native.decode(&text), Decoded::Foreign, "{text}");
            }
        }
        for text in ["console", "com", "com10", "com¹²", "lpt ", "a.con", "con-1.txt", "nul\u{e9}"]
        {
            assert!(!Codec::Native.encode(text).as_str().starts_with('%'), "{text}");
        }
    }

    #[test]
    fn a_name_that_nobody_could_have_encoded_is_foreign() {
        let hash = "0123456789abcdef0123456789abcdef";
        let long = "a".repeat(LONGEST_PREFIX);
        let names = [
            "".to_owned(),
            ".".to_owned(),
            "..".to_owned(),
            ".plainfold".to_owned(),
            "a ".to_owned(),
            "a/b".to_owned(),
            "a%2fb".to_owned(),     // lower case
            "%61".to_owned(),       // a needless escape
            "a.b%2Ec".to_owned(),   // a needless escape of a dot
            "a%".to_owned(),        // cut short
            "a%2".to_owned(),       // cut short
            "a%+1".to_owned(),      // a sign is no digit
            "%FF".to_owned(),       // not UTF-8
            "%ED%A0%80".to_owned(), // half a surrogate pair
            "%C0%AF".to_owned(),    // an overlong slash
            "con".to_owned(),       // a device
            "~~".to_owned(),        // two marks
            "a~".to_owned(),        // no hash
            format!("~{hash}"),     // no readable part
            format!("a~{hash}"),    // too short to have needed a hash
            format!("{long}~{}", hash.to_uppercase()),
            format!("{long}a~{hash}"), // too long
            format!(".{}~{hash}", &long[1..]),
            format!("%61{}~{hash}", &long[3..]),
            format!("%6g{}~{hash}", &long[3..]),
            format!("{}~~{hash}", &long[1..]),
            format!("con.{}~{hash}", &long[4..]),
            format!("%63on {}~{hash}", &long[6..]),
            "a".repeat(LONGEST_NAME + 1),
        ];
        for codec in CODECS {
            for name in &names {
                assert_eq!(codec.decode(name), Decoded::Foreign, "{codec:?} {name:?}");
            }
        }
        for name in ["Book", "caf\u{e9}"] {
            assert_eq!(Codec::Native.decode(name), Decoded::Exact(name.to_owned()));
            assert_eq!(Codec::Portable.decode(name), Decoded::Foreign);
        }
    }

    #[test]
    fn a_shortened_device_name_is_known_by_the_dot_that_follows_or_does_not() {
        let spaces = " ".repeat(300);
        for text in [format!("con{spaces}.txt"), format!("con{spaces}x"), format!("con.{spaces}x")]
        {
            for codec in CODECS {
                let name = codec.encode(&text);
                assert_eq!(name.as_str().starts_with("%63on"), is_device(&text), "{name}");
                assert_eq!(codec.decode(name.as_str()), Decoded::Hashed, "{name}");
            }
        }
    }

    #[test]
    fn a_name_is_shortened_only_beyond_two_hundred_bytes() {
        let fits = "a".repeat(200);
        assert_eq!(Codec::Native.encode(&fits).as_str(), fits);
        assert_eq!(Codec::Native.decode(&fits), Decoded::Exact(fits.clone()));
        let slashes = "/".repeat(66); // 198 bytes as a name
        assert_eq!(Codec::Native.encode(&format!("{slashes}ab")).as_str().len(), 200);
        for longer in [format!("{slashes}abc"), "a".repeat(201)] {
            let name = Codec::Native.encode(&longer);
            assert!(name.as_str().contains(MARK), "{name}");
            assert_eq!(Codec::Native.decode(name.as_str()), Decoded::Hashed);
        }
    }

    #[test]
    fn a_shortened_name_never_cuts_a_character_in_two() {
        for character in ["%", "é", "€", "😀", "\u{85}"] {
            for shift in 0..12 {
                for codec in CODECS {
                    let text = format!("{}{}", "a".repeat(shift), character.repeat(300));
                    let name = codec.encode(&text);
                    let (prefix, _) = name.as_str().split_once(MARK).expect("a shortened name");
                    let read = unescape(prefix).expect("whole characters");
                    assert!(text.starts_with(&read) && read.len() > 10, "{name}");
                    assert_eq!(codec.decode(name.as_str()), Decoded::Hashed, "{name}");
                }
            }
        }
    }

    /// Any text: random strings, and strings of fragments that have broken such codecs.
    fn texts() -> impl Strategy<Value = String> {
        #[rustfmt::skip]
        const HOSTILE: [&str; 64] = [
            ".", "..", "/", "\\", "\0", "%", "%2F", "%2f", "%25", "%C3%A9", "~", " ", ":", "*", "?",
            "\"", "<", ">", "|", "\n", "\r", "\t", "\u{1b}", "\u{7f}", "\u{80}", "\u{9f}", "\u{a0}",
            "\u{2028}", "\u{202e}", "\u{feff}", "\u{fffd}", "\u{ffff}", "\u{10ffff}", "é",
            "e\u{301}", "É", "ß", "ẞ", "ss", "SS", "ı", "İ", "i", "I", "ſ", "K", "k", "\u{212a}",
            "Å", "😀", "con", "CON", "nul", "com1", "LPT¹", "conin$", "a", "A", "b", ".txt",
            "0123456789abcdef0123456789abcdef", ".plainfold", "document.json", "attachments",
        ];
        let fragments = |most| prop::collection::vec(prop::sample::select(&HOSTILE[..]), 0..most);
        prop_oneof![
            3 => any::<String>(),
            6 => fragments(8).prop_map(|parts| parts.concat()),
            1 => (fragments(4), any::<String>(), 1_usize..80)
                .prop_map(|(parts, tail, times)| parts.concat().repeat(times) + &tail),
            1 => ("[a-zA-Zé]{150,210}", fragments(4)).prop_map(|(head, parts)| head + &parts.concat()),
        ]
    }

    /// Spellings of each codec, with names of all lengths.
    fn codecs() -> impl Strategy<Value = Spelling> {
        let lengths = prop::option::of(64..200_u16);
        (prop::sample::select(&CODECS[..]), lengths)
            .prop_map(|(codec, longest)| Spelling::new(codec, longest).unwrap())
    }

    /// Texts to which a careless codec would give the name of `text`.
    fn neighbours(codec: Spelling, text: &str) -> Vec<String> {
        let name = codec.encode(text);
        vec![
            name.as_str().to_owned(),
            codec.encode(name.as_str()).as_str().to_owned(),
            text.to_uppercase(),
            text.to_lowercase(),
            text.to_ascii_uppercase(),
            text.to_ascii_lowercase(),
            text.replace('é', "e\u{301}"),
            text.replace("e\u{301}", "é"),
            text.replace('%', "%25"),
            text.replace('/', "%2F"),
            text.replace('/', "%2f"),
            unescape(text).unwrap_or_default(),
            text.trim_end_matches(['.', ' ']).to_owned(),
            text.trim_start_matches('.').to_owned(),
            format!("{text} "),
            format!("{text}."),
            format!("{text}\0"),
            format!(".{text}"),
            text.chars().take(codec.longest_prefix()).collect(),
        ]
    }

    #[test]
    fn a_file_system_with_short_names_gets_shorter_ones_and_one_with_too_short_names_none() {
        let within = |most| Spelling::within(Codec::Native, most).map(Spelling::longest);
        assert_eq!([255, 1530, 232, 231].map(within), [Some(200), Some(200), Some(200), Some(199)]);
        assert_eq!([175, 143, 96, 95, 0].map(within), [Some(143), Some(111), Some(64), None, None]);
        assert!(
            [63, 200, 999]
                .iter()
                .all(|longest| Spelling::new(Codec::Native, Some(*longest)).is_none())
        );
        let short = Spelling::within(Codec::Native, 143).unwrap();
        assert!(short.fits_within(143) && !short.fits_within(142));
        let text = "a".repeat(112);
        let name = short.encode(&text);
        assert_eq!((name.as_str().len(), short.decode(name.as_str())), (111, Decoded::Hashed));
        assert_eq!(
            Codec::Native.decode(name.as_str()),
            Decoded::Foreign,
            "no other mirror made it"
        );
        assert_eq!(short.encode(&text[1..]).as_str(), &text[1..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

        #[test]
        fn a_text_is_read_back_from_its_name(codec in codecs(), text in texts()) {
            let name = codec.encode(&text);
            match codec.decode(name.as_str()) {
                Decoded::Exact(read) => prop_assert_eq!(read, text),
                Decoded::Hashed => {
                    let all_escaped: usize = text.len() * 3;
                    prop_assert!(all_escaped > codec.longest(), "{} needed no hash", name);
                }
                Decoded::Foreign => prop_assert!(false, "{} was taken for foreign", name),
            }
        }

        #[test]
        fn the_quick_look_and_the_spelling_agree(codec in codecs(), text in texts()) {
            let name = codec.encode(&text);
            prop_assert_eq!(codec.spell(&text), name.as_str());
        }

        #[test]
        fn a_name_stays_inside_its_folder(codec in codecs(), text in texts()) {
            let name = codec.encode(&text);
            let name = name.as_str();
            prop_assert!((1..=codec.longest()).contains(&name.len()));
            prop_assert!(!name.starts_with('.'));
            prop_assert!(!name.ends_with(['.', ' ']));
            prop_assert!(!name.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|']));
            prop_assert!(!name.chars().any(char::is_control));
            prop_assert!(!is_device(name));
            prop_assert!(codec.codec() == Codec::Native || name.is_ascii());
        }

        #[test]
        fn two_texts_never_share_a_name(codec in codecs(), left in texts(), right in texts()) {
            let mut names = HashMap::new();
            let mut texts = neighbours(codec, &left);
            texts.extend([left, right]);
            for text in texts {
                let mut name = codec.encode(&text).as_str().to_owned();
                if codec.codec() == Codec::Portable {
                    name = name.to_lowercase();
                }
                if let Some(other) = names.insert(name, text.clone()) {
                    prop_assert_eq!(other, text);
                }
            }
        }

        #[test]
        fn what_decodes_exactly_is_what_was_encoded(codec in codecs(), name in texts()) {
            match codec.decode(&name) {
                Decoded::Exact(text) => {
                    let again = codec.encode(&text);
                    prop_assert_eq!(again.as_str(), name);
                }
                Decoded::Hashed => prop_assert!(name.len() <= codec.longest()),
                Decoded::Foreign => {
                    let own = codec.encode(&name);
                    prop_assert_ne!(own.as_str(), name);
                }
            }
        }
    }
}

//! Texts of a server without our secrets, if it repeats them.
//!
//! A secret is recognised as it is, and in the forms in which software repeats text: escaped as in
//! JSON, in a URL or in HTML, and in the header that carries it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The replacement for a secret.
const HIDDEN: char = '…';

/// A secret of fewer characters is hidden only if it stands alone: within words, the gap would give it
/// away.
const SHORT: usize = 4;

/// Parts of a token with fewer characters may be anything.
const PART: usize = 16;

/// The names of characters in HTML.
const ENTITIES: [(&str, char); 5] =
    [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\'')];

/// The texts that are to be hidden.
#[derive(Clone, Default)]
pub(super) struct Scrub {
    /// The longest first: it may hold a shorter one.
    texts: Vec<String>,
}

impl Scrub {
    /// Hides the password of a user, and the headers that carry it.
    pub fn add_password(&mut self, user: &str, password: &str) {
        if password.is_empty() {
            return;
        }
        let pair = format!("{user}:{password}");
        for text in [&*pair, password] {
            for encoded in [STANDARD_NO_PAD.encode(text), URL_SAFE_NO_PAD.encode(text)] {
                self.add(encoded);
            }
            self.add(hex(text));
            self.add(hex(text).to_uppercase());
        }
        self.add(password.to_owned());
        // JSON within JSON, and that within JSON: one more level is found in each text.
        let mut levels = vec![password.to_owned()];
        for _ in 0..2 {
            levels = levels.iter().flat_map(|text| [json(text), ascii(&json(text))]).collect();
            levels.iter().for_each(|text| self.add(text.clone()));
        }
    }

    /// Hides a token or a cookie, and its parts.
    pub fn add_token(&mut self, token: &str) {
        self.add(token.to_owned());
        for part in token.split('.').filter(|part| part.len() >= PART && *part != token) {
            self.add(part.to_owned());
        }
    }

    fn add(&mut self, text: String) {
        if !text.is_empty() && !self.texts.contains(&text) {
            self.texts.push(text);
            self.texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        }
    }

    /// A text without the secrets.
    pub fn scrub(&self, text: &str) -> String {
        if self.texts.is_empty() {
            return text.to_owned();
        }
        let mut scrubbed = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let before = text[..text.len() - rest.len()].chars().next_back();
            let hidden = self.texts.iter().find_map(|secret| found(before, rest, secret));
            scrubbed.push(if hidden.is_some() { HIDDEN } else { next });
            rest = &rest[hidden.unwrap_or(next.len_utf8())..];
        }
        scrubbed
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A text as it stands between the quotes of a JSON string.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// JSON without any character beyond ASCII.
fn ascii(json: &str) -> String {
    let mut units = [0; 2];
    let escaped = |c: char| -> String {
        match c.is_ascii() {
            true => c.to_string(),
            false => {
                c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
        }
    };
    json.chars().map(escaped).collect()
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrub(…)")
    }
}

/// How many bytes at the beginning of `rest` are this secret. `before` stands in front of it.
fn found(before: Option<char>, rest: &str, secret: &str) -> Option<usize> {
    let length = beginning(rest, secret)?;
    let after = &rest[length..];
    if secret.chars().count() < SHORT {
        let is_word = |next: Option<char>| next.is_some_and(char::is_alphanumeric);
        return (!is_word(before) && !is_word(after.chars().next())).then_some(length);
    }
    // What fills up base64.
    let mut end = after;
    while let Some(less) = ["=", "%3D", "%3d"].iter().find_map(|pad| end.strip_prefix(pad)) {
        end = less;
    }
    Some(rest.len() - end.len())
}

/// How many bytes at the beginning of a text are this secret: as it is, or with characters that are
/// escaped as in JSON or in a URL.
fn beginning(text: &str, secret: &str) -> Option<usize> {
    if text.starts_with(secret) {
        return Some(secret.len());
    }
    secret.chars().try_fold(0, |length, next| Some(length + spelling(&text[length..], next)?))
}

/// How many bytes at the beginning of a text are this character, escaped or not.
fn spelling(text: &str, character: char) -> Option<usize> {
    let json = || {
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units);
        let unicode = units.iter().try_fold(0, |length, unit| {
            let digits = text[length..].strip_prefix("\\u")?.get(..4)?;
            (u16::from_str_radix(digits, 16).ok()? == *unit).then_some(length + 6)
        });
        let short = match character {
            '"' | '\\' | '/' => character,
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            _ => return unicode,
        };
        unicode.or_else(|| text.strip_prefix('\\')?.starts_with(short).then_some(2))
    };
    let percent = |bytes: &[u8]| {
        bytes.iter().try_fold(0, |length, byte| {
            let digits = text[length..].strip_prefix('%')?.get(..2)?;
            (u8::from_str_radix(digits, 16).ok()? == *byte).then_some(length + 3)
        })
    };
    let utf8 = || percent(character.encode_utf8(&mut [0; 4]).as_bytes());
    let latin1 = || percent(&[u8::try_from(character).ok()?]);
    let html = || {
        let rest = text.strip_prefix('&')?;
        let (entity, _) = rest.split_at_checked(rest.find(';').filter(|end| *end <= 8)?)?;
        let is_it = match (
            entity.strip_prefix("#x").or(entity.strip_prefix("#X")),
            entity.strip_prefix('#'),
        ) {
            (Some(digits), _) => u32::from_str_radix(digits, 16) == Ok(character.into()),
            (None, Some(digits)) => digits.parse() == Ok(u32::from(character)),
            (None, None) => ENTITIES.iter().any(|(name, one)| *name == entity && *one == character),
        };
        is_it.then_some(entity.len() + 2)
    };
    let form = || (character == ' ' && text.starts_with('+')).then_some(1);
    let itself = || text.starts_with(character).then_some(character.len_utf8());
    json().or_else(utf8).or_else(latin1).or_else(html).or_else(form).or_else(itself)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(password: &str) -> Scrub {
        let mut scrub = Scrub::default();
        scrub.add_password("me", password);
        scrub
    }

    #[test]
    fn a_servers_words_are_scrubbed_of_the_password_and_of_the_header_that_holds_it() {
        let said = of("hunter2").scrub("Authorization: Basic bWU6aHVudGVyMg== (hunter2) is wrong");
        assert_eq!(said, "Authorization: Basic … (…) is wrong");
    }

    #[test]
    fn a_password_is_scrubbed_from_json_within_json_and_as_hexadecimal_digits() {
        let password = "pa\"s \\é9";
        let scrub = of(password);
        let mut text = password.to_owned();
        for _ in 0..3 {
            text = json(&text);
            for text in [text.clone(), ascii(&text)] {
                assert_eq!(scrub.scrub(&format!("({text})")), "(…)", "{text}");
            }
        }
        assert_eq!(scrub.scrub(&format!("({})", hex(password))), "(…)");
        assert_eq!(scrub.scrub(&format!("({})", hex("me:pa\"s \\é9").to_uppercase())), "(…)");
    }

    #[test]
    fn a_password_is_scrubbed_in_every_spelling() {
        for (password, spellings) in [
            ("pa\"ss9", &["pa\"ss9", r#"pa\"ss9"#, "pa%22ss9", r"pa\u0022ss9"][..]),
            ("pa\\ss9", &["pa\\ss9", r"pa\\ss9", "pa%5Css9", "pa%5css9", r"pa\u005css9"]),
            ("pa\\\\9", &[r"pa\\9", r"pa\\\\9", "pa%5C%5C9"]),
            ("pässß9", &["pässß9", r"p\u00e4ss\u00DF9", "p%C3%A4ss%c3%9f9", "p%E4ss%DF9"]),
            ("pa/ss9", &["pa/ss9", r"pa\/ss9", "pa%2Fss9", "%70%61%2f%73%73%39"]),
            ("pa ss😀", &["pa ss😀", "pa+ss%F0%9F%98%80", r"pa%20ss\ud83d\ude00"]),
            ("50%25x", &["50%25x", "50%2525x"]),
            ("a<b&'c\"", &["a<b&'c\"", "a&lt;b&amp;&#39;c&quot;", "a&#x3C;b&#38;&apos;c&#x22;"]),
        ] {
            let scrub = of(password);
            for spelling in spellings {
                let said = scrub.scrub(&format!("ü ({spelling}) %zz \\u12 \\"));
                assert_eq!(said, "ü (…) %zz \\u12 \\", "{password} as {spelling}");
            }
        }
    }

    #[test]
    fn headers_are_scrubbed_in_every_alphabet_of_base64() {
        let scrub = of("~~>?>?~~");
        let (standard, url) = ("bWU6fn4+Pz4/fn4=", "bWU6fn4-Pz4_fn4");
        for text in [standard, url, "bWU6fn4%2BPz4%2Ffn4%3D", r"bWU6fn4+Pz4\/fn4="] {
            assert_eq!(scrub.scrub(&format!("<{text}>")), "<…>", "{text}");
        }
        let mut scrub = Scrub::default();
        scrub.add_token("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlc2lnbmF0dXJl");
        assert_eq!(scrub.scrub("(c2lnbmF0dXJlc2lnbmF0dXJl)"), "(…)", "the signature alone");
    }

    #[test]
    fn ordinary_words_stay() {
        let said = "Name or password is incorrect: a database of me";
        for short in ["a", "or", "as", "e", "1"] {
            let expected = said.split(' ').map(|word| if word == short { "…" } else { word });
            let expected: Vec<_> = expected.collect();
            assert_eq!(of(short).scrub(said), expected.join(" "), "{short}");
        }
        assert_eq!(of("x").scrub("me:x@host"), "me:…@host");
        assert_eq!(of("").scrub(said), said);
        assert_eq!(of("hunter2").scrub(said), said, "a user's name is no secret");
    }

    #[test]
    fn a_secret_within_another_does_not_save_it() {
        let mut scrub = of("hunter");
        scrub.add_password("me", "hunter2hunter2");
        assert_eq!(scrub.scrub("hunter2hunter2 hunterhunter"), "… ……");
    }
}

//! The name of a mirror among those of an agent, as a value and as text.
//!
//! Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// The name of a mirror among those of an agent. It is the same as a part of a URL, as a label of a
/// metric and as a word of a shell, so nothing in it is ever escaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(value_type = String)]
#[serde(transparent)]
pub struct MirrorName(Arc<str>);

/// The length of the longest name, in bytes.
const LONGEST: usize = 64;

/// A text that is not a name of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {LONGEST} of the characters a-z, 0-9, `-`, `_` and `.`, and begins with a letter or a \
     digit"
)]
pub struct BadMirrorName;

impl MirrorName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that is most like this text; `None` if no character of it may be in a name.
    pub fn like(text: &str) -> Option<Self> {
        let lower = text.to_lowercase();
        let allowed = lower.chars().map(|c| if is_allowed(c) { c } else { '-' });
        let name: String =
            allowed.skip_while(|c| !c.is_ascii_alphanumeric()).take(LONGEST).collect();
        name.trim_end_matches('-').parse().ok()
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)
}

impl FromStr for MirrorName {
    type Err = BadMirrorName;

    fn from_str(text: &str) -> Result<Self, BadMirrorName> {
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_name = begins && text.len() <= LONGEST && text.chars().all(is_allowed);
        is_name.then(|| Self(text.into())).ok_or(BadMirrorName)
    }
}

impl fmt::Display for MirrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MirrorName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_as_text_and_as_a_value() {
        let longest = "a".repeat(64);
        for text in ["a", "0", "books", "shop-eu_1.db", "a..b", &longest] {
            let name: MirrorName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<MirrorName>(&json).unwrap(), name);
        }
        let too_long = "a".repeat(65);
        for text in [
            "", ".", "..", "-a", "_a", ".a", "A", "a/b", "a b", "a\n", "ä", "a\u{1b}", "a\\", "a%",
            &too_long,
        ] {
            assert_eq!(text.parse::<MirrorName>(), Err(BadMirrorName), "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<MirrorName>(&json).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_text_becomes_the_name_that_is_most_like_it() {
        let like = |text: &str| MirrorName::like(text).map(|name| name.to_string());
        assert_eq!(like("_Users").as_deref(), Some("users"));
        assert_eq!(like("db.example.com:5984").as_deref(), Some("db.example.com-5984"));
        assert_eq!(like("a/b ").as_deref(), Some("a-b"));
        assert_eq!(like(&"x".repeat(100)).map(|name| name.len()), Some(64));
        assert_eq!(like("/ü/"), None);
        assert_eq!(like(""), None);
    }
}

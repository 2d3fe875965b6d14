//! The limit on deletions in a collection, as a value and as text.
//!
//! Pure.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The limit on deletions: if both numbers are exceeded, deletions are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletionLimit {
    /// This share of a collection's documents, in percent.
    pub percent: u8,
    /// This number of documents.
    pub documents: u64,
}

impl DeletionLimit {
    /// The default limit.
    pub const DEFAULT: Self = Self { percent: 30, documents: 50 };
}

/// The limit of a mirror: `30%,50`, or `off`, which holds nothing back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxDelete(pub Option<DeletionLimit>);

impl Default for MaxDelete {
    fn default() -> Self {
        Self(Some(DeletionLimit::DEFAULT))
    }
}

/// A text that is not a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a share and a count, as in `30%,50`, or `off`")]
pub struct BadLimit;

impl FromStr for MaxDelete {
    type Err = BadLimit;

    fn from_str(text: &str) -> Result<Self, BadLimit> {
        if text == "off" {
            return Ok(Self(None));
        }
        let (share, count) = text.split_once(',').ok_or(BadLimit)?;
        let percent = share.strip_suffix('%').and_then(|share| share.parse().ok());
        let percent = percent.filter(|percent| *percent <= 100).ok_or(BadLimit)?;
        let documents = count.parse().map_err(|_| BadLimit)?;
        Ok(Self(Some(DeletionLimit { percent, documents })))
    }
}

impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(DeletionLimit { percent, documents }) => write!(f, "{percent}%,{documents}"),
        }
    }
}

impl Serialize for MaxDelete {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MaxDelete {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_the_same_as_text_and_as_a_value() {
        for text in ["off", "30%,50", "0%,0", "100%,18446744073709551615"] {
            let limit: MaxDelete = text.parse().unwrap();
            assert_eq!(limit.to_string(), text);
            let json = serde_json::to_string(&limit).unwrap();
            assert_eq!(serde_json::from_str::<MaxDelete>(&json).unwrap(), limit);
        }
        for text in ["", "30", "30%", "30,50", "101%,5", "-1%,5", "30%,-1", "OFF"] {
            assert_eq!(text.parse::<MaxDelete>(), Err(BadLimit), "{text}");
        }
        assert_eq!(MaxDelete::default().to_string(), "30%,50");
    }
}

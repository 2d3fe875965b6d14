//! The permission bits of a mirror's folders, as a value and as text.
//!
//! Pure.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The permission bits of a mirror's folders; its files have the same bits without execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderMode(u32);

/// Without these the owner's next run could not work on the mirror.
const OWNER: u32 = 0o700;

impl Default for FolderMode {
    /// The owner alone: a mirror may hold `_users`, with hashes of passwords.
    fn default() -> Self {
        Self(OWNER)
    }
}

impl FolderMode {
    /// The mode of a folder. The owner always has all permissions.
    pub fn of_folder(bits: u32) -> Self {
        Self(bits & 0o777 | OWNER)
    }

    /// The bits of a folder.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The mode for `chmod -R`, which gives execution to folders only.
    pub fn symbolic(self) -> String {
        let letters = |shift: u32| {
            let has = |bit: u32, letter| if self.0 >> shift & bit == 0 { "" } else { letter };
            [has(4, "r"), has(2, "w"), has(1, "X")].concat()
        };
        format!("u={},g={},o={}", letters(6), letters(3), letters(0))
    }

    /// The bits that neither a folder nor a file may have.
    pub fn umask(self) -> u32 {
        !self.0 & 0o777
    }
}

/// A text that is not a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give the mode of folders in octal, from 0700 to 0777, as in `0750`")]
pub struct BadMode;

impl FromStr for FolderMode {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        if !(3..=4).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadMode);
        }
        let bits = u32::from_str_radix(text, 8).map_err(|_| BadMode)?;
        if bits & OWNER == OWNER && bits <= 0o777 { Ok(Self(bits)) } else { Err(BadMode) }
    }
}

impl fmt::Display for FolderMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for FolderMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FolderMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_the_same_as_text_and_as_a_value() {
        for text in ["0700", "0750", "0777", "0711"] {
            let mode: FolderMode = text.parse().unwrap();
            assert_eq!(mode.to_string(), text);
            let json = serde_json::to_string(&mode).unwrap();
            assert_eq!(serde_json::from_str::<FolderMode>(&json).unwrap(), mode);
        }
        assert_eq!("750".parse::<FolderMode>().unwrap().to_string(), "0750");
        for text in ["", "0", "50", "0650", "0600", "1777", "2750", "0o750", "+750", "0780", "rwx"]
        {
            assert_eq!(text.parse::<FolderMode>(), Err(BadMode), "{text}");
        }
        assert_eq!("0751".parse::<FolderMode>().unwrap().symbolic(), "u=rwX,g=rX,o=X");
        assert_eq!(FolderMode::default().umask(), 0o077);
        assert_eq!(FolderMode::of_folder(0o40055).to_string(), "0755");
    }
}

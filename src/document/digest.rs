//! Digests in the form of stubs: CouchDB's `md5-` and base64, and RxDB's `sha256-` and hexadecimal
//! digits. Pure.

use base64::DecodeError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest, Sha256};

/// A digest that is computed for a comparison with a stub's.
#[derive(Clone, Debug)]
pub enum Digester {
    /// MD5.
    Md5(Md5),
    /// SHA-256.
    Sha256(Sha256),
}

impl Digester {
    /// A hasher for this digest; `None` if its kind is unknown.
    pub fn of(digest: &str) -> Option<Self> {
        match digest.split_once('-')?.0 {
            "md5" => Some(Self::Md5(Md5::new())),
            "sha256" => Some(Self::Sha256(Sha256::new())),
            _ => None,
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(md5) => md5.update(bytes),
            Self::Sha256(sha256) => sha256.update(bytes),
        }
    }

    /// The digest of all bytes, in the form of stubs.
    pub fn finish(self) -> String {
        match self {
            Self::Md5(md5) => format!("md5-{}", STANDARD.encode(md5.finalize())),
            Self::Sha256(sha256) => format!("sha256-{:x}", sha256.finalize()),
        }
    }
}

/// Decodes base64. White space in it, such as line breaks, is ignored.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, DecodeError> {
    if !text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return STANDARD.decode(text);
    }
    STANDARD.decode(text.split_ascii_whitespace().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_spelt_as_stubs_spell_it() {
        let digests = [
            "md5-rL0Y20zC+Fzt72VPzMSk2A==",
            "sha256-2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        ];
        for digest in digests {
            let mut digester = Digester::of(digest).unwrap();
            digester.update(b"fo");
            digester.update(b"o");
            assert_eq!(digester.finish(), digest);
        }
        assert!(Digester::of("xxh-1").is_none() && Digester::of("").is_none());
    }
}

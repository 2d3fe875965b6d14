//! Reads files of JSON text with the checksums beside them.

use bytes::Bytes;

use super::{Problem, ProblemKind};
use crate::json::pretty::pretty;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::checksum::{self, Noted};
use crate::tree::inventory::FileSum;

/// JSON text in the tree.
#[derive(Clone, Debug)]
pub struct StoredText {
    /// The text, without the newline that ends the file.
    pub text: Bytes,
    /// The path of its file, relative to the mirror.
    pub path: String,
    /// The BLAKE3 that was noted beside the file.
    pub checksum: Noted,
    /// The whole file, if it is not the text and a newline.
    pub written: Option<Bytes>,
}

impl StoredText {
    /// The length of its file.
    pub fn length(&self) -> u64 {
        self.written.as_ref().map_or(self.text.len() + 1, Bytes::len) as u64
    }

    /// The length of its file, and the BLAKE3 of the text and a newline.
    pub fn sum(&self) -> FileSum {
        let length = self.length();
        let hash = blake3::Hasher::new().update(&self.text).update(b"\n").finalize();
        FileSum { length, sum: Some(*hash.as_bytes()) }
    }

    /// Whether it is this text, in either layout.
    pub fn holds(&self, sent: &[u8]) -> bool {
        self.text == sent || *self.text == *pretty(sent)
    }
}

/// The text of a JSON file, unchecked.
pub(super) struct Unchecked {
    text: Vec<u8>,
    path: String,
    checksum: Noted,
}

/// Reads a JSON file in the folder at `path`.
pub(super) fn read(
    folder: &Folder,
    path: &str,
    name: &str,
) -> Result<Option<Unchecked>, MirrorError> {
    let Some((text, file)) = folder.read_open_file(name)? else { return Ok(None) };
    let checksum = checksum::checksum(&file);
    Ok(Some(Unchecked { text, path: format!("{path}/{name}"), checksum }))
}

impl Unchecked {
    /// The text of a file without a checksum.
    #[cfg(test)]
    pub fn new(text: Vec<u8>, path: String) -> Self {
        Self { text, path, checksum: Err(checksum::Unnoted::Unsupported) }
    }

    /// The text, if the file is complete.
    pub fn whole(mut self) -> Result<StoredText, Problem> {
        let Self { path, checksum, .. } = self;
        match self.text.pop() {
            Some(b'\n') => Ok(StoredText { text: self.text.into(), path, checksum, written: None }),
            _ => {
                let reason = "it does not end with a newline";
                Err(Problem::new(ProblemKind::HalfWritten, path, reason))
            }
        }
    }

    /// The text, if it is JSON.
    pub fn json(self) -> Result<StoredText, Problem> {
        let whole = self.whole()?;
        match serde_json::from_slice::<&serde_json::value::RawValue>(&whole.text) {
            Ok(_) => Ok(whole),
            Err(error) => {
                let reason = format!("it is not JSON: {error}");
                Err(Problem::new(ProblemKind::Altered, whole.path, reason))
            }
        }
    }
}

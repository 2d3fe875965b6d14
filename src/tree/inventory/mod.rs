//! The inventory: the files of each document's folder with lengths and checksums, in one file per
//! collection that a copy of the mirror includes.
//!
//! The file is a log. Before documents are published, their records are appended and become durable
//! with the staged files; after the commit a mark is appended. So a reader knows which content a
//! folder may have: that of its last record before the last mark, or that of a later record. The
//! lines and [`Inventory`], which reads them, are here; `mirror/inventory/` writes them. It must not
//! know sources, checkpoints, or why a document changes.

use std::collections::BTreeMap;

use super::checksum::Checksum;

pub(crate) mod line;
pub(crate) mod read;
pub(crate) mod resolve;

pub use line::InventoryEntry;
pub(crate) use line::{KeptFiles, entry_of, gone, line_of};
pub(crate) use read::unknown;
pub use read::{Deviation, Inventory, Recorded, Records, Snapshot};

/// A file as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSum {
    /// Its length in bytes.
    pub length: u64,
    /// The BLAKE3 of its bytes; `None` if it is not known.
    pub sum: Option<Checksum>,
}

/// What a document's folder holds: a file for each path within it.
pub type Contents = BTreeMap<String, FileSum>;

/// The known content of a document's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds these files.
    Present(Contents),
    /// The folder does not exist.
    Absent,
    /// The inventory does not cover it.
    Unknown,
}

/// The path of a file within the folder at `folder`.
pub fn path_in<'a>(folder: &str, path: &'a str) -> &'a str {
    let within = path.strip_prefix(folder).unwrap_or(path);
    within.strip_prefix('/').unwrap_or(within)
}

/// The path of a file that is at `within` in the folder at `folder`.
pub fn file_in(folder: &str, within: &str) -> String {
    match within {
        "" => folder.to_owned(),
        within => format!("{folder}/{within}"),
    }
}

/// A hash of all files of a folder; `None` if the checksum of a file is unknown.
pub fn digest(contents: &Contents) -> Option<Checksum> {
    let mut hasher = blake3::Hasher::new();
    for (path, FileSum { length, sum }) in contents {
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes());
        hasher.update(&length.to_le_bytes()).update(sum.as_ref()?);
    }
    Some(*hasher.finalize().as_bytes())
}

impl State {
    /// Whether a folder with exactly these files can be the recorded one. A file whose checksum was
    /// never recorded is compared by length only.
    pub fn allows(&self, found: Option<&Contents>) -> bool {
        let same = |found: &Contents| match self {
            Self::Present(recorded) => recorded.len() == found.len(),
            Self::Absent | Self::Unknown => true,
        };
        self.fits(found) && found.is_none_or(same)
    }

    /// The same for a folder that may hold other files too.
    pub fn fits(&self, found: Option<&Contents>) -> bool {
        match (self, found) {
            (Self::Unknown, _) | (Self::Absent, None) => true,
            (Self::Absent, Some(_)) | (Self::Present(_), None) => false,
            (Self::Present(recorded), Some(found)) => recorded
                .iter()
                .all(|(path, recorded)| found.get(path).is_some_and(|found| found.is(recorded))),
        }
    }
}

impl FileSum {
    /// Whether it can be the recorded file.
    pub fn is(&self, recorded: &Self) -> bool {
        self.length == recorded.length && (recorded.sum.is_none() || recorded.sum == self.sum)
    }
}

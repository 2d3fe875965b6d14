//! How changes are made durable: file by file for a few, the whole file system at once for a batch.

use std::fs::File;
use std::io;

use crate::tree::beneath::sync_file;

/// The method of making the changes of one batch durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Every file and folder as it is written: fastest for a few.
    Each,
    /// The file system as a whole, once before publishing and once after: cheapest for many.
    Together,
}

impl Sync {
    /// The best method for a batch of this many changes.
    pub fn for_batch(changes: usize) -> Self {
        /// From about this number on, one `syncfs` is cheaper than an `fsync` per file.
        const HANDFUL: usize = 8;
        if changes <= HANDFUL { Self::Each } else { Self::Together }
    }

    /// Makes a file durable, if files are synced one by one.
    pub(super) fn file(self, file: &File) -> io::Result<()> {
        if self == Self::Each { sync_file(file) } else { Ok(()) }
    }
}

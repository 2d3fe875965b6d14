//! Makes changes durable: file by file for a few, the whole file system at once for a batch.

use std::fs::File;
use std::io;

use super::Mirror;
use super::collection::Collection;
use super::publish::Published;
use super::stage::Staged;
use crate::tree::MirrorError;
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

impl Mirror {
    /// Makes the staged changes durable; after this they may be published.
    pub fn sync_staged(&self, staged: &[Staged], sync: Sync) -> Result<(), MirrorError> {
        let written = staged.iter().any(|change| change.bytes > 0);
        if sync == Sync::Together && written {
            self.staging.sync_file_system()?;
        }
        Ok(())
    }

    /// Makes the published changes of one collection durable; after this they may be committed.
    pub fn sync_published(
        &self,
        collection: &Collection,
        published: &[Published],
        sync: Sync,
    ) -> Result<(), MirrorError> {
        match sync {
            _ if published.is_empty() => Ok(()),
            Sync::Together => self.staging.sync_file_system(),
            // Names in the documents' own folders were synced as they changed.
            Sync::Each => collection.folder.sync(),
        }
    }
}

//! Makes the changes of a batch durable, before and after they are published.

use super::Mirror;
use super::collection::Collection;
use super::publish::Published;
use super::stage::Staged;
use super::sync::Sync;
use crate::tree::MirrorError;

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

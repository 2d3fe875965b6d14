//! Handles a disk that is full, read-only or failing: the space that stays free, and how a mirror
//! recovers.

use std::io::Write;
use std::sync::PoisonError;

use super::collection::Collection;
use super::{Lane, Mirror, interrupted};
use crate::tree::MirrorError;

/// Written and removed again to test whether there is space: the least that a batch needs, including
/// the files of the state.
const PROBE: usize = 1024 * 1024;

impl Mirror {
    /// Whether the reserve stays free after this many more bytes are written.
    pub fn check_room(&self, bytes: u64) -> Result<(), MirrorError> {
        if self.options.reserve == 0 {
            return Ok(());
        }
        let free = self.root.room()?.bytes.saturating_sub(bytes);
        match free < self.options.reserve {
            true => {
                let path = self.path().to_owned();
                Err(MirrorError::Reserve { path, free, reserve: self.options.reserve })
            }
            false => Ok(()),
        }
    }

    /// Whether the disk can be written.
    pub fn probe(&self) -> Result<(), MirrorError> {
        self.check_room(PROBE as u64)?;
        let name = self.temporary_name("", Lane::default());
        let written = self.write_probe(&name);
        let removed = self.staging.remove(&name);
        written.and(removed)?;
        self.open_spare()
    }

    fn write_probe(&self, name: &str) -> Result<(), MirrorError> {
        let mut file = self.staging.create_file(name)?;
        file.write_all(&[0; PROBE])
            .and_then(|()| file.sync_all())
            .map_err(|error| MirrorError::io("write", self.staging.path().join(name), error))
    }
}

impl Collection {
    /// Cleans up after a failure, as a start does after a crash: the files of this collection in
    /// staging are removed, once it is known which documents were being replaced. Nobody may be
    /// writing to the collection.
    pub fn clear_up(&self) -> Result<(), MirrorError> {
        let mirror = &self.mirror;
        let (mut found, _) =
            interrupted::sweep(&mirror.epoch, &mirror.ours, &mirror.staging, Some(&self.encoded))?;
        let Some(found) = found.remove(&*self.encoded) else { return Ok(()) };
        let mut known = mirror.interrupted.lock().unwrap_or_else(PoisonError::into_inner);
        let left = known.entry(self.encoded.to_string()).or_default();
        left.documents.extend(found.documents);
        left.removed = found.removed;
        Ok(())
    }
}

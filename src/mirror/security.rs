//! The security object of a collection: a file beside its documents, byte for byte as the source
//! sent it.

use std::collections::HashSet;

use rustix::fs::FileType;

use super::Lane;
use super::collection::Collection;
use super::inventory::NewRecord;
use super::sync::Sync;
use crate::tree::MirrorError;
use crate::tree::inventory::{InventoryEntry, entry_of};
use crate::tree::layout::SECURITY;

impl Collection {
    /// Whether the stored security object equals this one.
    pub fn holds_security(&self, security: &[u8]) -> Result<bool, MirrorError> {
        let held = self.folder.read_file(SECURITY)?.unwrap_or_default();
        let is_same = held.strip_suffix(b"\n") == Some(&*self.mirror.laid_out(security));
        Ok(is_same && self.vouches_for(&self.folder, SECURITY)?)
    }

    /// Writes the security object of the collection, a JSON object, durably.
    pub fn write_security(&self, security: &[u8]) -> Result<(), MirrorError> {
        let mirror = &*self.mirror;
        let temporary = mirror.temporary_name(&self.encoded, Lane::default());
        let sum = mirror.stage_text(&temporary, security, Sync::Each)?;
        let entry = InventoryEntry { files: vec![(String::new(), sum)], kept: None };
        let line = entry_of(SECURITY, None, &entry);
        let record = NewRecord { name: SECURITY, line: &line, replaces: true };
        self.append(std::iter::once(record), Sync::Each)?;
        if let Err(error) = self.put_security(&temporary) {
            self.take_back(&HashSet::from([SECURITY.to_owned()]))?;
            let _ = mirror.staging.remove(&temporary);
            return Err(error);
        }
        self.folder.sync()
    }

    fn put_security(&self, temporary: &str) -> Result<(), MirrorError> {
        let mirror = &*self.mirror;
        if self.folder.kind(SECURITY)?.is_some_and(FileType::is_dir) {
            let removed = mirror.aside_replaced(&self.encoded, Lane::default());
            self.folder
                .rename(SECURITY, &mirror.staging, &removed)
                .map_err(|error| self.folder.error("rename", SECURITY, error))?;
        }
        mirror
            .staging
            .rename(temporary, &self.folder, SECURITY)
            .map_err(|error| self.folder.error("rename to", SECURITY, error))
    }

    /// The path of the security object, relative to the mirror.
    pub fn security_path(&self) -> String {
        format!("{}/{SECURITY}", self.encoded)
    }
}

//! The bytes of an attachment before they are published: in memory, or in a file of staging.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::collection::Collection;
use super::sync::Sync;
use super::{Lane, Mirror};
use crate::tree::MirrorError;
use crate::tree::beneath::{Folder, write_all};
use crate::tree::checksum::Checksum;
use crate::tree::inventory::FileSum;

/// The bytes of an attachment before they are published.
#[derive(Debug)]
pub enum Blob {
    /// In memory.
    Bytes(Bytes),
    /// In a file of staging, written by a [`BlobWriter`].
    Staged(StagedBlob),
}

/// An attachment's file in staging. Dropping it removes the file, unless a document has taken it.
#[derive(Debug)]
pub struct StagedBlob {
    mirror: Arc<Mirror>,
    pub(super) temporary: String,
    length: u64,
    /// Known when the file is complete.
    sum: Option<Checksum>,
    /// Whether a document has taken it.
    taken: bool,
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        if !self.taken {
            // A file that a failing disk keeps is removed at the next start.
            let _kept = self.mirror.staging.remove(&self.temporary);
        }
    }
}

/// Writes an attachment into staging piece by piece. Dropping it unfinished removes its file.
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    blob: StagedBlob,
    hasher: blake3::Hasher,
}

impl BlobWriter {
    /// Appends a piece.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), MirrorError> {
        self.hasher.update(piece);
        self.blob.length += piece.len() as u64;
        write_all(&mut self.file, [piece, b""]).map_err(|error| self.failed(error))
    }

    /// Ends the file after its last piece.
    pub fn finish(mut self, sync: Sync) -> Result<Blob, MirrorError> {
        self.blob.sum = Some(self.blob.mirror.note_checksum(&self.file, &self.hasher));
        sync.file(&self.file).map_err(|error| self.failed(error))?;
        Ok(Blob::Staged(self.blob))
    }

    fn failed(&self, error: io::Error) -> MirrorError {
        let path = self.blob.mirror.staging.path().join(&self.blob.temporary);
        MirrorError::io("write", path, error)
    }
}

impl Collection {
    /// Creates a file in staging for an attachment that is too large for memory.
    pub fn blob_writer(&self) -> Result<BlobWriter, MirrorError> {
        let temporary = self.mirror.temporary_name(&self.encoded, Lane::default());
        let file = self.mirror.staging.create_file(&temporary)?;
        let mirror = Arc::clone(&self.mirror);
        let blob = StagedBlob { mirror, temporary, length: 0, sum: None, taken: false };
        Ok(BlobWriter { file, blob, hasher: blake3::Hasher::new() })
    }
}

impl Mirror {
    /// Gives an attachment its name in a folder of staging.
    pub(super) fn stage_blob(
        &self,
        folder: &Folder,
        name: &str,
        blob: Blob,
        sync: Sync,
    ) -> Result<FileSum, MirrorError> {
        match blob {
            Blob::Bytes(bytes) => {
                let failed = |error| MirrorError::io("write", folder.path().join(name), error);
                let mut file = folder.create_file(name)?;
                write_all(&mut file, [&bytes, b""]).map_err(failed)?;
                let sum = Some(self.note_checksum(&file, blake3::Hasher::new().update(&bytes)));
                sync.file(&file).map_err(failed)?;
                Ok(FileSum { length: bytes.len() as u64, sum })
            }
            Blob::Staged(mut blob) => {
                self.staging
                    .rename(&blob.temporary, folder, name)
                    .map_err(|error| self.staging.error("rename", &blob.temporary, error))?;
                blob.taken = true;
                Ok(FileSum { length: blob.length, sum: blob.sum })
            }
        }
    }
}

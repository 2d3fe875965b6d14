//! New files under temporary names, on the file system of the mirror.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::beneath::{Folder, write_all};
use super::collection::Collection;
use super::error::MirrorError;
use super::layout::{ATTACHMENTS, DOCUMENT};
use super::names::Name;
use super::plan::{Plan, Shape, Write};
use super::pretty::pretty;
use super::sync::Sync;
use super::{JsonStyle, Mirror};
use crate::document::Document;

/// The extended attribute that holds the BLAKE3 of the bytes that we wrote: 32 bytes, raw, so that
/// it fits into an ext4 inode.
pub(super) const CHECKSUM_ATTRIBUTE: &str = "user.plainfold.b3";

/// The bytes of an attachment on their way into the mirror.
#[derive(Debug)]
pub enum Blob {
    /// In memory.
    Bytes(Bytes),
    /// In a file of staging, written by a [`BlobWriter`].
    Staged(StagedBlob),
}

/// An attachment's file in staging.
#[derive(Debug)]
pub struct StagedBlob {
    temporary: String,
    length: u64,
}

/// A change whose files are written, but under temporary names. Dropped unpublished, its files
/// stay in staging until the next start.
#[derive(Debug)]
pub struct Staged {
    pub(super) name: Name,
    pub(super) step: Step,
    /// The encoded names of the attachments that were written, not reused.
    pub(super) attachments: Vec<String>,
    /// Bytes written.
    pub(super) bytes: u64,
}

/// What publishing a staged change does.
#[derive(Debug)]
pub(super) enum Step {
    /// Move a folder into place where there was none.
    Add { temporary: String },
    /// Move a body over the one that is there.
    ReplaceBody { temporary: String },
    /// Swap a folder with the one that is there.
    ReplaceFolder { temporary: String },
    /// Move the folder out of the tree.
    Remove,
}

impl Collection {
    /// Writes what `write` asks for. `blobs` holds the bytes of every attachment in its `fetch`.
    pub fn stage(
        &self,
        document: &Document,
        write: Write,
        blobs: HashMap<Arc<str>, Blob>,
        sync: Sync,
    ) -> Result<Staged, MirrorError> {
        let mirror = &*self.mirror;
        let temporary = mirror.temporary_name(&self.encoded);
        let (step, attachments) = (Step::Remove, Vec::new());
        let mut staged = Staged { name: write.name, step, attachments, bytes: 0 };
        if write.shape == Shape::Body {
            staged.bytes += mirror.stage_body(&temporary, document, sync)?;
            staged.step = Step::ReplaceBody { temporary };
            return Ok(staged);
        }
        mirror.staging.create(&temporary)?;
        if !(blobs.is_empty() && write.reuse.is_empty()) {
            self.stage_attachments(&temporary, &write.reuse, blobs, sync, &mut staged)?;
        }
        let body = format!("{temporary}/{DOCUMENT}");
        staged.bytes += mirror.stage_body(&body, document, sync)?;
        if sync == Sync::Each
            && let Some(folder) = mirror.staging.open(&temporary)?
        {
            folder.sync()?;
        }
        staged.step = match write.shape {
            Shape::New => Step::Add { temporary },
            Shape::Folder | Shape::Body => Step::ReplaceFolder { temporary },
        };
        Ok(staged)
    }

    /// A removal needs no file; it is staged so that it is published in its place in the batch.
    pub fn stage_removal(&self, plan: Plan) -> Option<Staged> {
        let Plan::Remove(name) = plan else { return None };
        Some(Staged { name, step: Step::Remove, attachments: Vec::new(), bytes: 0 })
    }

    fn stage_attachments(
        &self,
        temporary: &str,
        reuse: &[Arc<str>],
        blobs: HashMap<Arc<str>, Blob>,
        sync: Sync,
        staged: &mut Staged,
    ) -> Result<(), MirrorError> {
        let mirror = &*self.mirror;
        let folder = mirror.staging.open(temporary)?;
        let folder = folder.ok_or_else(|| mirror.staging.error("open", temporary, Errno::NOENT))?;
        let (attachments, _) = folder.open_or_create(ATTACHMENTS)?;
        for (name, blob) in blobs {
            let encoded = mirror.encode(&name).as_str().to_owned();
            staged.bytes += mirror.stage_blob(&attachments, &encoded, blob, sync)?;
            staged.attachments.push(encoded);
        }
        staged.attachments.sort_unstable();
        self.keep_attachments(staged.name.as_str(), reuse, &attachments, sync)?;
        if sync == Sync::Each { attachments.sync() } else { Ok(()) }
    }

    /// Gives the attachments that stay the same their names in the new folder too.
    fn keep_attachments(
        &self,
        name: &str,
        reuse: &[Arc<str>],
        new: &Folder,
        sync: Sync,
    ) -> Result<(), MirrorError> {
        if reuse.is_empty() {
            return Ok(());
        }
        let missing = |folder: &Folder, name: &str| folder.error("open", name, Errno::NOENT);
        let held = self.folder.open(name)?.ok_or_else(|| missing(&self.folder, name))?;
        let held = held.open(ATTACHMENTS)?.ok_or_else(|| missing(&held, ATTACHMENTS))?;
        for name in reuse {
            keep(&held, new, self.mirror.encode(name).as_str(), sync)?;
        }
        Ok(())
    }

    /// Opens a file in staging for the bytes of an attachment that is too large for memory.
    pub fn blob_writer(&self) -> Result<BlobWriter, MirrorError> {
        let temporary = self.mirror.temporary_name(&self.encoded);
        let file = self.mirror.staging.create_file(&temporary)?;
        let blob = StagedBlob { temporary, length: 0 };
        let hasher = blake3::Hasher::new();
        Ok(BlobWriter { mirror: Arc::clone(&self.mirror), file, blob, hasher })
    }

    /// Removes a blob from staging that no change came to need.
    pub fn discard(&self, blob: Blob) -> Result<(), MirrorError> {
        match blob {
            Blob::Staged(blob) => self.mirror.staging.remove(&blob.temporary),
            Blob::Bytes(_) => Ok(()),
        }
    }
}

/// Gives an attachment that stays the same a name in the new folder too: a second link to the same
/// file, or a copy where the file system has no links.
fn keep(held: &Folder, new: &Folder, name: &str, sync: Sync) -> Result<(), MirrorError> {
    match held.link(name, new, name) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::XDEV) => {}
        Err(error) => return Err(held.error("link", name, error)),
    }
    let mut from = held.open_file(name)?.ok_or_else(|| held.error("open", name, Errno::NOENT))?;
    let mut to = new.create_file(name)?;
    io::copy(&mut from, &mut to)
        .and_then(|_| sync.file(&to))
        .map_err(|error| MirrorError::io("copy", held.path().join(name), error))
}

impl Mirror {
    /// Writes a body and the newline that ends it; answers the bytes written.
    fn stage_body(&self, name: &str, document: &Document, sync: Sync) -> Result<u64, MirrorError> {
        let laid_out;
        let body: &[u8] = match self.json {
            JsonStyle::AsSent => &document.body,
            JsonStyle::Pretty => {
                laid_out = pretty(&document.body);
                &laid_out
            }
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(body).update(b"\n");
        let mut file = self.staging.create_file(name)?;
        let failed = |error| MirrorError::io("write", self.staging.path().join(name), error);
        write_all(&mut file, [body, b"\n"]).map_err(failed)?;
        self.note_checksum(&file, &hasher);
        sync.file(&file).map_err(failed)?;
        Ok(body.len() as u64 + 1)
    }

    fn stage_blob(
        &self,
        folder: &Folder,
        name: &str,
        blob: Blob,
        sync: Sync,
    ) -> Result<u64, MirrorError> {
        match blob {
            Blob::Bytes(bytes) => {
                let failed = |error| MirrorError::io("write", folder.path().join(name), error);
                let mut file = folder.create_file(name)?;
                write_all(&mut file, [&bytes, b""]).map_err(failed)?;
                self.note_checksum(&file, blake3::Hasher::new().update(&bytes));
                sync.file(&file).map_err(failed)?;
                Ok(bytes.len() as u64)
            }
            Blob::Staged(blob) => {
                self.staging
                    .rename(&blob.temporary, folder, name)
                    .map_err(|error| self.staging.error("rename", &blob.temporary, error))?;
                Ok(blob.length)
            }
        }
    }

    /// Notes the checksum of what was written beside the file, where the file system can. It
    /// serves a later search for rot; a mirror without it is whole.
    fn note_checksum(&self, file: &File, hasher: &blake3::Hasher) {
        if !self.keeps_attributes.load(Ordering::Relaxed) {
            return;
        }
        let checksum = hasher.finalize();
        let noted = rustix::fs::fsetxattr(
            file,
            CHECKSUM_ATTRIBUTE,
            checksum.as_bytes(),
            XattrFlags::empty(),
        );
        if noted == Err(Errno::OPNOTSUPP) {
            self.keeps_attributes.store(false, Ordering::Relaxed);
        }
    }
}

/// Writes an attachment into staging piece by piece.
#[derive(Debug)]
pub struct BlobWriter {
    mirror: Arc<Mirror>,
    file: File,
    blob: StagedBlob,
    hasher: blake3::Hasher,
}

impl BlobWriter {
    /// Appends a piece.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), MirrorError> {
        self.hasher.update(piece);
        self.blob.length += piece.len() as u64;
        self.file.write_all(piece).map_err(|error| self.failed(error))
    }

    /// All pieces are written.
    pub fn finish(self, sync: Sync) -> Result<Blob, MirrorError> {
        self.mirror.note_checksum(&self.file, &self.hasher);
        sync.file(&self.file).map_err(|error| self.failed(error))?;
        Ok(Blob::Staged(self.blob))
    }

    fn failed(&self, error: io::Error) -> MirrorError {
        MirrorError::io("write", self.mirror.staging.path().join(&self.blob.temporary), error)
    }

    /// The attachment did not come whole.
    pub fn abandon(self) -> Result<(), MirrorError> {
        self.mirror.staging.remove(&self.blob.temporary)
    }
}

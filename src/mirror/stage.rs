//! Writes new files under temporary names, on the file system of the mirror.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::blob::Blob;
use super::collection::Collection;
use super::inventory::NewRecord;
use super::plan::{Plan, Shape, Write};
use super::sync::Sync;
use super::{JsonStyle, Lane, Mirror};
use crate::document::{Branch, Document};
use crate::json::pretty::pretty;
use crate::tree::MirrorError;
use crate::tree::beneath::{Folder, write_all};
use crate::tree::checksum::{CHECKSUM_ATTRIBUTE, Checksum};
use crate::tree::inventory::{FileSum, InventoryEntry, KeptFiles, entry_of, gone};
use crate::tree::layout::{ATTACHMENTS, CONFLICTS, DOCUMENT, HISTORY, body_file};
use crate::tree::names::Name;
use crate::trial;

/// The material from the source that a write needs.
#[derive(Debug, Default)]
pub struct Material {
    /// The bytes of attachments, by name.
    pub blobs: HashMap<Arc<str>, Blob>,
    /// Revisions with their histories.
    pub branches: Vec<BranchFiles>,
}

impl Material {
    /// The paths of these files in staging.
    fn staged(&self) -> Vec<String> {
        let own = self.blobs.values();
        let all = own.chain(self.branches.iter().flat_map(|branch| branch.blobs.values()));
        let path = |blob: &Blob| match blob {
            Blob::Staged(blob) => Some(blob.temporary.clone()),
            Blob::Bytes(_) => None,
        };
        all.filter_map(path).collect()
    }
}

/// A losing revision, or the winner's history.
#[derive(Debug)]
pub struct BranchFiles {
    /// The revision.
    pub branch: Branch,
    /// The bytes of its attachments, by name.
    pub blobs: HashMap<Arc<str>, Blob>,
}

/// A change whose files are written under temporary names. If it is dropped unpublished, its files
/// stay in staging until the next start.
#[derive(Debug)]
pub struct Staged {
    pub(super) name: Name,
    pub(super) step: Step,
    /// The files that were written (not those that were kept), as paths within the document's
    /// folder.
    pub(super) files: Vec<String>,
    /// How many of them are attachments.
    pub(super) attachments: u64,
    /// Bytes written.
    pub(super) bytes: u64,
    /// The line for the inventory.
    pub(super) record: String,
    /// Whether it is a tombstone, or a removal.
    pub(super) deleted: bool,
}

/// The operation that publishes a staged change.
#[derive(Debug)]
pub(super) enum Step {
    /// Move a folder to a new name.
    Add { temporary: String },
    /// Replace the body.
    ReplaceBody { temporary: String, file: &'static str },
    /// Swap the new folder with the old one.
    ReplaceFolder { temporary: String },
    /// Move the folder out of the tree.
    Remove,
}

impl Collection {
    /// Writes the files of `write`. `material` holds the bytes of every attachment in its `fetch`,
    /// and every revision in its `branches`. If it fails, none of its files stay in staging.
    pub fn stage(
        &self,
        document: &Document,
        write: Write,
        material: Material,
        sync: Sync,
        lane: Lane,
    ) -> Result<Staged, MirrorError> {
        let mirror = &*self.mirror;
        // What it replaces leaves the tree under this name.
        let temporary = match write.buries {
            true => mirror.aside_deleted(&self.encoded, lane),
            false => mirror.aside_replaced(&self.encoded, lane),
        };
        let blobs = material.staged();
        let staged = self.stage_as(temporary.clone(), document, write, material, sync);
        if staged.is_err() {
            // If this fails too, the next start removes the rest.
            for path in blobs.iter().chain([&temporary]) {
                let _ = mirror.staging.remove(path);
            }
        }
        staged
    }

    fn stage_as(
        &self,
        temporary: String,
        document: &Document,
        write: Write,
        material: Material,
        sync: Sync,
    ) -> Result<Staged, MirrorError> {
        let mirror = &*self.mirror;
        let Write { name, id, revision, deleted, shape, reuse, keep, keep_history, .. } = write;
        let mut staged = Staged::nothing_of(name, deleted);
        let mut entry = InventoryEntry::default();
        staged.files.push(body_file(deleted).to_owned());
        if shape == Shape::Body {
            let body = mirror.stage_text(&temporary, &document.body, sync)?;
            staged.take(&mut entry, body_file(deleted).to_owned(), body);
            entry.kept = Some(KeptFiles::AllButBody(true));
            staged.step = Step::ReplaceBody { temporary, file: body_file(deleted) };
            return Ok(staged.recorded_as(id.as_deref(), &entry));
        }
        mirror.staging.create(&temporary)?;
        let held = match reuse.is_empty() && keep.is_empty() && !keep_history {
            true => None,
            false => self.folder.open(staged.name.as_str())?,
        };
        let mut kept = Vec::new();
        let to = &mut (&mut staged, &mut entry);
        self.stage_attachments(&temporary, "", material.blobs, sync, to)?;
        if !reuse.is_empty() {
            let names: Vec<_> =
                reuse.iter().map(|name| mirror.encode(name).as_str().to_owned()).collect();
            kept.extend(names.iter().map(|name| format!("{ATTACHMENTS}/{name}")));
            self.keep_files(held.as_ref(), ATTACHMENTS, &temporary, names, sync)?;
        }
        let (own, others): (Vec<_>, Vec<_>) =
            material.branches.into_iter().partition(|one| one.branch.revision == revision);
        if let Some(own) = own.first() {
            let path = format!("{temporary}/{HISTORY}");
            let history = mirror.stage_text(&path, &own.branch.history, sync)?;
            staged.files.push(HISTORY.to_owned());
            staged.take(&mut entry, HISTORY.to_owned(), history);
        } else if let (true, Some(held)) = (keep_history, &held) {
            link(held, &mirror.staged_folder(&temporary)?, HISTORY, sync)?;
            kept.push(HISTORY.to_owned());
        }
        let to = &mut (&mut staged, &mut entry);
        self.stage_branches(&temporary, others, held.as_ref(), &keep, sync, to)?;
        kept.extend(keep.iter().map(|branch| format!("{CONFLICTS}/{branch}/")));
        let body = format!("{temporary}/{}", body_file(deleted));
        let body = mirror.stage_text(&body, &document.body, sync)?;
        staged.take(&mut entry, body_file(deleted).to_owned(), body);
        entry.kept = (!kept.is_empty()).then_some(KeptFiles::Paths(kept));
        mirror.sync_folder(&temporary, sync)?;
        staged.step = match shape {
            Shape::New => Step::Add { temporary },
            Shape::Folder | Shape::Body => Step::ReplaceFolder { temporary },
        };
        Ok(staged.recorded_as(id.as_deref(), &entry))
    }

    /// A removal needs no file; it is staged so that it is published in order with its batch.
    pub fn stage_removal(&self, plan: Plan) -> Option<Staged> {
        let Plan::Remove(name) = plan else { return None };
        let record = gone(name.as_str());
        Some(Staged { record, ..Staged::nothing_of(name, true) })
    }

    /// Writes attachments into a folder of staging; `below` is the path within the document's
    /// folder.
    fn stage_attachments(
        &self,
        temporary: &str,
        below: &str,
        blobs: HashMap<Arc<str>, Blob>,
        sync: Sync,
        (staged, entry): &mut (&mut Staged, &mut InventoryEntry),
    ) -> Result<(), MirrorError> {
        if blobs.is_empty() {
            return Ok(());
        }
        let mirror = &*self.mirror;
        let path = format!("{temporary}/{below}{ATTACHMENTS}");
        mirror.staging.create(&path)?;
        let folder = mirror.staged_folder(&path)?;
        let mut names = Vec::with_capacity(blobs.len());
        for (name, blob) in blobs {
            let encoded = mirror.encode(&name).as_str().to_owned();
            let sum = mirror.stage_blob(&folder, &encoded, blob, sync)?;
            staged.take(entry, format!("{below}{ATTACHMENTS}/{encoded}"), sum);
            names.push(encoded);
        }
        names.sort_unstable();
        staged.attachments += names.len() as u64;
        let path = |name: String| format!("{below}{ATTACHMENTS}/{name}");
        staged.files.extend(names.into_iter().map(path));
        if sync == Sync::Each { folder.sync() } else { Ok(()) }
    }

    /// Links files that stay the same into the new folder: those with these names in the folder
    /// `below` of the document's folder `held`.
    fn keep_files(
        &self,
        held: Option<&Folder>,
        below: &str,
        temporary: &str,
        names: Vec<String>,
        sync: Sync,
    ) -> Result<(), MirrorError> {
        let missing = |folder: &Folder, name: &str| folder.error("open", name, Errno::NOENT);
        let held = held.ok_or_else(|| missing(&self.folder, temporary))?;
        let from = held.open(below)?.ok_or_else(|| missing(held, below))?;
        let (to, _) = self.mirror.staged_folder(temporary)?.open_or_create(below)?;
        for name in names {
            link(&from, &to, &name, sync)?;
        }
        if sync == Sync::Each { to.sync() } else { Ok(()) }
    }

    /// Writes branches into a document's folder in staging, and keeps those that the tree holds.
    fn stage_branches(
        &self,
        temporary: &str,
        branches: Vec<BranchFiles>,
        held: Option<&Folder>,
        keep: &[String],
        sync: Sync,
        to: &mut (&mut Staged, &mut InventoryEntry),
    ) -> Result<(), MirrorError> {
        if branches.is_empty() && keep.is_empty() {
            return Ok(());
        }
        let mirror = &*self.mirror;
        let conflicts = format!("{temporary}/{CONFLICTS}");
        mirror.staging.create(&conflicts)?;
        for BranchFiles { branch, blobs } in branches {
            let name = mirror.encode(branch.revision.as_str());
            let below = format!("{CONFLICTS}/{}/", name.as_str());
            let folder = format!("{conflicts}/{}", name.as_str());
            mirror.staging.create(&folder)?;
            self.stage_attachments(temporary, &below, blobs, sync, to)?;
            let body = format!("{folder}/{DOCUMENT}");
            let body = mirror.stage_text(&body, &branch.document.body, sync)?;
            let path = format!("{below}{DOCUMENT}");
            to.0.files.push(path.clone());
            to.0.take(to.1, path, body);
            mirror.sync_folder(&folder, sync)?;
        }
        let old = match held {
            Some(held) if !keep.is_empty() => held.open(CONFLICTS)?,
            _ => None,
        };
        for name in keep {
            let branch = match &old {
                Some(old) => old.open(name)?,
                None => None,
            };
            let branch = branch.ok_or_else(|| self.folder.error("open", name, Errno::NOENT))?;
            let folder = format!("{conflicts}/{name}");
            mirror.staging.create(&folder)?;
            link(&branch, &mirror.staged_folder(&folder)?, DOCUMENT, sync)?;
            if let Some(attachments) = branch.open(ATTACHMENTS)? {
                self.keep_files(Some(&branch), ATTACHMENTS, &folder, attachments.names()?, sync)?;
            }
            mirror.sync_folder(&folder, sync)?;
        }
        mirror.sync_folder(&conflicts, sync)
    }
}

/// Gives a file that stays the same a name in the new folder too: a second link to the same file, or
/// a copy if the file system has no links.
fn link(held: &Folder, new: &Folder, name: &str, sync: Sync) -> Result<(), MirrorError> {
    match held.link(name, new, name) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::XDEV) => {}
        Err(error) => return Err(held.error("link", name, error)),
    }
    copy_file(held, new, name, sync)
}

/// Copies a file from one folder to another, with its checksum.
pub(super) fn copy_file(
    held: &Folder,
    new: &Folder,
    name: &str,
    sync: Sync,
) -> Result<(), MirrorError> {
    let mut from = held.open_file(name)?.ok_or_else(|| held.error("open", name, Errno::NOENT))?;
    let mut to = new.create_file(name)?;
    io::copy(&mut from, &mut to).map_err(|error| copy_failed(held, name, error))?;
    keep_checksum(&from, &to);
    sync.file(&to).map_err(|error| copy_failed(held, name, error))
}

fn copy_failed(held: &Folder, name: &str, error: io::Error) -> MirrorError {
    MirrorError::io("copy", held.path().join(name), error)
}

/// Notes the checksum of a file beside its copy too, if the file system can.
fn keep_checksum(from: &File, to: &File) {
    let mut sum = [0; 32];
    if rustix::fs::fgetxattr(from, CHECKSUM_ATTRIBUTE, &mut sum) == Ok(sum.len()) {
        let _ = rustix::fs::fsetxattr(to, CHECKSUM_ATTRIBUTE, &sum, XattrFlags::empty());
    }
}

impl Staged {
    /// A change without any staged files yet.
    fn nothing_of(name: Name, deleted: bool) -> Self {
        let (files, record) = (Vec::new(), String::new());
        Self { name, step: Step::Remove, files, attachments: 0, bytes: 0, record, deleted }
    }

    /// Counts a file that was written.
    fn take(&mut self, entry: &mut InventoryEntry, path: String, sum: FileSum) {
        self.bytes += sum.length;
        entry.files.push((path, sum));
    }

    fn recorded_as(self, id: Option<&str>, entry: &InventoryEntry) -> Self {
        let record = entry_of(self.name.as_str(), id, entry);
        Self { record, ..self }
    }

    /// The path of its files in staging.
    pub(super) fn temporary(&self) -> Option<&str> {
        match &self.step {
            Step::Add { temporary }
            | Step::ReplaceBody { temporary, .. }
            | Step::ReplaceFolder { temporary } => Some(temporary),
            Step::Remove => None,
        }
    }

    /// The inventory's record for the change.
    pub(super) fn recorded(&self) -> NewRecord<'_> {
        let replaces = !matches!(self.step, Step::Add { .. });
        NewRecord { name: self.name.as_str(), line: &self.record, replaces }
    }
}

impl Mirror {
    /// JSON text in the layout of the mirror.
    pub(super) fn laid_out<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        match self.options.json {
            JsonStyle::AsSent => text.into(),
            JsonStyle::Pretty => pretty(text).into(),
        }
    }

    /// Whether a body's file contains this text, in either layout. Comparing revisions is not
    /// enough: RxDB migrates documents without giving them a new one.
    pub(super) fn wrote(&self, file: &[u8], text: &[u8]) -> bool {
        let held = file.strip_suffix(b"\n");
        held == Some(text) || held.is_some_and(|held| *held == *pretty(text))
    }

    /// A folder that was just created in staging.
    fn staged_folder(&self, path: &str) -> Result<Folder, MirrorError> {
        self.staging.open(path)?.ok_or_else(|| self.staging.error("open", path, Errno::NOENT))
    }

    /// Makes the names in a folder of staging durable, if folders are synced one by one.
    fn sync_folder(&self, path: &str, sync: Sync) -> Result<(), MirrorError> {
        if sync == Sync::Each { self.staged_folder(path)?.sync() } else { Ok(()) }
    }

    /// Writes JSON text and the newline that ends it.
    pub(super) fn stage_text(
        &self,
        name: &str,
        text: &[u8],
        sync: Sync,
    ) -> Result<FileSum, MirrorError> {
        let body = self.laid_out(text);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&body).update(b"\n");
        trial::pass("stage-text");
        let mut file = self.staging.create_file(name)?;
        let failed = |error| MirrorError::io("write", self.staging.path().join(name), error);
        write_all(&mut file, [&body, b"\n"]).map_err(failed)?;
        let sum = Some(self.note_checksum(&file, &hasher));
        sync.file(&file).map_err(failed)?;
        Ok(FileSum { length: body.len() as u64 + 1, sum })
    }

    /// Notes the checksum of the written bytes beside the file, if the file system can.
    pub(super) fn note_checksum(&self, file: &File, hasher: &blake3::Hasher) -> Checksum {
        let checksum = hasher.finalize();
        if !self.keeps_attributes.load(Ordering::Relaxed) {
            return *checksum.as_bytes();
        }
        let noted = rustix::fs::fsetxattr(
            file,
            CHECKSUM_ATTRIBUTE,
            checksum.as_bytes(),
            XattrFlags::empty(),
        );
        if noted == Err(Errno::OPNOTSUPP) {
            self.keeps_attributes.store(false, Ordering::Relaxed);
        }
        *checksum.as_bytes()
    }
}

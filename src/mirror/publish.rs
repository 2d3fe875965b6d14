//! Moves staged files into place, one document in one step.

use rustix::io::Errno;

use super::Lane;
use super::collection::Collection;
use super::stage::{Staged, Step, copy_file};
use super::sync::Sync;
use crate::document::Tally;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{DOCUMENT, TOMBSTONE, file_path};
use crate::tree::names::Name;

/// A change that readers of the tree can see.
#[derive(Debug)]
pub struct Published {
    /// The paths written, relative to the mirror; none for a removal.
    pub files: Vec<String>,
    /// Bytes written.
    pub bytes: u64,
    /// How many attachments were written.
    pub attachments: u64,
    /// The name in staging of what the change replaced.
    pub(super) replaced: Option<String>,
    /// The name of the document's folder.
    pub(super) document: String,
    /// The change in the number of documents and tombstones, if it is known.
    pub tally: Option<Tally>,
}

impl Collection {
    /// Moves a staged change into place. If that fails, none of its files stay in staging.
    pub fn publish(&self, staged: Staged, sync: Sync) -> Result<Published, MirrorError> {
        let temporary = staged.temporary().map(str::to_owned);
        let published = self.put(staged, sync);
        if published.is_err()
            && let Some(temporary) = temporary
        {
            // If this fails too, the next start removes it.
            let _ = self.mirror.staging.remove(&temporary);
        }
        published
    }

    fn put(&self, staged: Staged, sync: Sync) -> Result<Published, MirrorError> {
        let name = &staged.name;
        let replaced = match &staged.step {
            Step::Add { temporary } => self.add(temporary, name)?,
            Step::ReplaceFolder { temporary } => self.replace_folder(temporary, name)?,
            Step::ReplaceBody { temporary, file } => {
                let folder = self.folder.open(name.as_str())?;
                let missing = || self.folder.error("open", name.as_str(), Errno::NOENT);
                let folder = folder.ok_or_else(missing)?;
                let replaced = self.mirror.replace_body(temporary, &folder, file)?;
                if sync == Sync::Each {
                    folder.sync()?;
                }
                replaced
            }
            Step::Remove => {
                self.remove(name, self.mirror.aside_deleted(&self.encoded, Lane::default()))?
            }
        };
        let brought = match staged.step {
            Step::Remove | Step::ReplaceBody { .. } => Tally::default(),
            Step::Add { .. } | Step::ReplaceFolder { .. } => Tally::one(staged.deleted),
        };
        let taken = match &replaced {
            Some(name) => self.mirror.tally_of_replaced(name),
            None => Some(Tally::default()),
        };
        let tally = taken.map(|taken| brought - taken);
        let path = |file: &String| file_path(&self.encoded, name.as_str(), file);
        let files = staged.files.iter().map(path).collect();
        let Staged { bytes, attachments, .. } = staged;
        let document = name.as_str().to_owned();
        Ok(Published { files, bytes, attachments, replaced, document, tally })
    }

    fn add(&self, temporary: &str, name: &Name) -> Result<Option<String>, MirrorError> {
        let staging = &self.mirror.staging;
        match staging.rename_new(temporary, &self.folder, name.as_str()) {
            Ok(()) => Ok(None),
            // Something appeared in its place meanwhile; it is treated as a replaced folder.
            Err(Errno::EXIST) => self.replace_folder(temporary, name),
            Err(Errno::INVAL | Errno::NOSYS) => {
                // This file system cannot rename without replacing, but a plain rename of a folder
                // replaces at most an empty folder.
                staging
                    .rename(temporary, &self.folder, name.as_str())
                    .map_err(|error| self.folder.error("rename to", name.as_str(), error))?;
                Ok(None)
            }
            Err(error) => Err(self.folder.error("rename to", name.as_str(), error)),
        }
    }

    fn replace_folder(&self, temporary: &str, name: &Name) -> Result<Option<String>, MirrorError> {
        let staging = &self.mirror.staging;
        match staging.exchange(temporary, &self.folder, name.as_str()) {
            Ok(()) => Ok(Some(temporary.to_owned())),
            Err(Errno::NOENT) => self.add(temporary, name),
            // Overlay file systems do not move folders of their lower layers.
            Err(Errno::INVAL | Errno::NOSYS | Errno::XDEV) => {
                self.replace_stepwise(temporary, name)
            }
            Err(error) => Err(self.folder.error("exchange", name.as_str(), error)),
        }
    }

    /// For file systems that cannot swap two folders: the old one is moved away first. A reader may
    /// find no document for a moment, but never half of one.
    fn replace_stepwise(
        &self,
        temporary: &str,
        name: &Name,
    ) -> Result<Option<String>, MirrorError> {
        let aside = self.mirror.aside_like(temporary, &self.encoded);
        let replaced = self.remove(name, aside)?;
        if let Err(error) = self.mirror.staging.rename(temporary, &self.folder, name.as_str()) {
            if let Some(aside) = &replaced {
                // The document is back, as it was.
                self.mirror
                    .staging
                    .rename(aside, &self.folder, name.as_str())
                    .map_err(|error| self.folder.error("rename back to", name.as_str(), error))?;
            }
            return Err(self.folder.error("rename to", name.as_str(), error));
        }
        Ok(replaced)
    }

    fn remove(&self, name: &Name, aside: String) -> Result<Option<String>, MirrorError> {
        match self.folder.rename(name.as_str(), &self.mirror.staging, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(Errno::NOENT) => {
                // Either of the two names is missing.
                self.mirror.epoch.check_lanes()?;
                Ok(None)
            }
            Err(Errno::XDEV) => {
                self.remove_by_copy(name, &aside)?;
                Ok(Some(aside))
            }
            Err(error) => Err(self.folder.error("move away", name.as_str(), error)),
        }
    }
}

impl Collection {
    /// The same if a folder cannot be renamed, as in an overlay's lower layer: it is copied and then
    /// removed, body first, because a folder without a body is not a document.
    fn remove_by_copy(&self, name: &Name, aside: &str) -> Result<(), MirrorError> {
        let staging = &self.mirror.staging;
        let missing = || self.folder.error("open", name.as_str(), Errno::NOENT);
        let held = self.folder.open(name.as_str())?.ok_or_else(missing)?;
        if !held.place()?.reaches(&staging.place()?) {
            return Err(self.folder.error("move away", name.as_str(), Errno::XDEV));
        }
        let copied = staging.create(aside).and_then(|()| copy_folder(&held, staging, aside));
        if copied.is_err() {
            // If this fails too, the next start removes it.
            let _ = staging.remove(aside);
        }
        copied?;
        // This may be the only copy of the document.
        staging.sync_file_system()?;
        self.mirror.epoch.check_lanes()?;
        for body in [DOCUMENT, TOMBSTONE] {
            held.remove(body)?;
        }
        self.folder.remove(name.as_str())
    }
}

/// Copies all files of a folder to the folder at a path in staging, with their checksums.
fn copy_folder(from: &Folder, staging: &Folder, path: &str) -> Result<(), MirrorError> {
    let missing = |folder: &Folder, name: &str| folder.error("open", name, Errno::NOENT);
    let to = staging.open(path)?.ok_or_else(|| missing(staging, path))?;
    for (name, kind) in from.entries()? {
        match kind {
            Some(kind) if kind.is_dir() => {
                let inner = from.open(&name)?.ok_or_else(|| missing(from, &name))?;
                to.create(&name)?;
                copy_folder(&inner, staging, &format!("{path}/{name}"))?;
            }
            Some(kind) if kind.is_file() => copy_file(from, &to, &name, Sync::Together)?,
            _ => {}
        }
    }
    Ok(())
}

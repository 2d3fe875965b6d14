//! Folders in an archive, and that of a document: its attachments, and the entries that do not belong there.

use std::fs::File;

use rustix::fs::FileType;

use super::Problem;
use super::document::{StoredAttachment, StoredDocument};
use crate::document::Stub;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::ATTACHMENTS;

/// Opens a folder that is several folders deep, one after the other, so that no link is followed.
pub(super) fn beneath(root: &Folder, path: &str) -> Result<Option<Folder>, MirrorError> {
    let mut folder: Option<Folder> = None;
    for part in path.split('/') {
        if matches!(part, "" | "." | "..") {
            return Ok(None);
        }
        folder = match folder.as_ref().unwrap_or(root).open(part)? {
            Some(next) => Some(next),
            None => return Ok(None),
        };
    }
    Ok(folder)
}

/// The folder of a document.
#[derive(Debug)]
pub(super) struct DocumentFolder {
    pub folder: Folder,
    /// Its entries when it was opened.
    entries: Vec<(String, Option<FileType>)>,
}

impl DocumentFolder {
    pub fn of(folder: Folder) -> Result<Self, MirrorError> {
        let entries = folder.entries()?;
        Ok(Self { folder, entries })
    }

    /// Whether it has an entry of this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(own, _)| own == name)
    }

    /// Opens the file of an attachment; `None` if there is no regular file.
    pub fn open(&self, attachment: &StoredAttachment) -> Result<Option<File>, MirrorError> {
        match self.folder.open_folder(ATTACHMENTS)? {
            Some(folder) => folder.open_file(&attachment.encoded),
            None => Ok(None),
        }
    }

    /// The attachments of a body, with the lengths of their files.
    pub fn attachments(
        &self,
        stubs: impl IntoIterator<Item = (String, Stub)>,
        encode: impl Fn(&str) -> String,
    ) -> Result<Vec<StoredAttachment>, MirrorError> {
        let mut stubs = stubs.into_iter().peekable();
        let stored = match stubs.peek() {
            Some(_) => self.folder.open_folder(ATTACHMENTS)?,
            None => None,
        };
        let mut attachments = Vec::new();
        for (name, stub) in stubs {
            let encoded = encode(&name);
            let mut size = None;
            if let Some(stored) = &stored
                && let Some(file) = stored.open_file(&encoded)?
            {
                let looked = file.metadata();
                let failed =
                    |error| MirrorError::io("look at", stored.path().join(&encoded), error);
                size = Some(looked.map_err(failed)?.len());
            }
            attachments.push(StoredAttachment { name, stub, size, encoded });
        }
        Ok(attachments)
    }

    /// The entries that are not attachments of the document, and that `is_known` does not know.
    pub fn extras(
        &self,
        document: &StoredDocument,
        is_known: impl Fn(&str, FileType) -> bool,
    ) -> Result<Vec<Problem>, MirrorError> {
        let mut extras = Vec::new();
        let mut extra = |within: &str, what| {
            extras.push(Problem::extra(format!("{}/{within}", document.path), what));
        };
        for (name, kind) in &self.entries {
            match *kind {
                // A name that is not valid UTF-8 was changed on reading, so it is not found again.
                None if !name.contains(char::REPLACEMENT_CHARACTER) => {}
                Some(kind) if is_known(name, kind) => {}
                Some(FileType::Directory) if name == ATTACHMENTS => {
                    let Some(folder) = self.folder.open(ATTACHMENTS)? else { continue };
                    let own = &document.attachments;
                    for name in folder.names()? {
                        if !own.iter().any(|one| one.encoded == name) {
                            let within = format!("{ATTACHMENTS}/{name}");
                            extra(&within, "a file that the body does not name");
                        }
                    }
                }
                _ => extra(name, "a file that does not belong to a document"),
            }
        }
        Ok(extras)
    }
}

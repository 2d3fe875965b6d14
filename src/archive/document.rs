//! A document in the tree, with its attachments and its branches.

use std::fs::File;

use bytes::Bytes;
use rustix::fs::FileType;

use super::{Problem, StoredText};
use crate::document::{DocumentId, Head, Revision, Stub};
use crate::json::pretty::pretty;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::checksum::{Noted, Unnoted, checksum};
use crate::tree::layout::{ATTACHMENTS, CONFLICTS, HISTORY, body_file};

/// A document in the tree.
#[derive(Debug)]
pub struct StoredDocument {
    /// Its id.
    pub id: DocumentId,
    /// Its revision, if the body contains one.
    pub revision: Option<Revision>,
    /// Whether it is deleted: then the body is its tombstone.
    pub deleted: bool,
    /// Its body, without the newline that ends the file.
    pub body: Bytes,
    /// The revisions that led to this one, as JSON text; only kept on request.
    pub history: Option<StoredText>,
    /// The branches that lost a conflict; only kept on request.
    pub conflicts: Vec<StoredDocument>,
    /// What is wrong with its history and its branches.
    pub problems: Vec<Problem>,
    /// Its attachments, by name. In a mirror without attachments they have no files.
    pub attachments: Vec<StoredAttachment>,
    /// The path of its folder, relative to the mirror.
    pub path: String,
    /// The BLAKE3 noted beside the file from which the body was read.
    pub checksum: Noted,
    pub(super) folder: Folder,
    /// The entries of the folder when the body was read.
    pub(super) entries: Vec<(String, Option<FileType>)>,
    /// The whole file of the body. `None` if it is the body and a newline.
    pub written: Option<Bytes>,
    pub(super) ways: Ways,
}

/// The ways of an archive with the folder of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    /// Whether checksums are noted beside files.
    pub notes: bool,
    /// Whether the folder may hold folders of other documents.
    pub nests: bool,
    /// A known reason why an attachment may differ from its stub.
    pub caveat: &'static str,
}

impl Ways {
    /// Those of a mirror.
    pub const MIRROR: Self = Self { notes: true, nests: false, caveat: "" };
}

/// An attachment in the tree.
#[derive(Debug)]
pub struct StoredAttachment {
    /// Its name, as the source spells it.
    pub name: String,
    /// Its stub in the body.
    pub stub: Stub,
    /// The length of its file; `None` if there is no regular file.
    pub size: Option<u64>,
    pub(super) encoded: String,
}

impl StoredDocument {
    /// Opens the file of an attachment; `None` if there is no regular file.
    pub fn open_attachment(
        &self,
        attachment: &StoredAttachment,
    ) -> Result<Option<File>, MirrorError> {
        match self.folder.open_folder(ATTACHMENTS)? {
            Some(folder) => folder.open_file(&attachment.encoded),
            None => Ok(None),
        }
    }

    /// Whether the body is this text, in either layout.
    pub fn holds(&self, sent: &[u8]) -> bool {
        self.body == sent || *self.body == *pretty(sent)
    }

    /// Whether the body has the same revision as another body.
    pub fn is_at_revision_of(&self, body: &[u8]) -> bool {
        let head = Head::read(body).unwrap_or_default();
        self.revision.as_ref().map(Revision::as_str) == head.revision.as_deref()
    }

    /// The branch at this revision, as an index into [`conflicts`](Self::conflicts).
    pub fn branch_at(&self, revision: &Revision) -> Option<usize> {
        self.conflicts.iter().position(|branch| branch.revision.as_ref() == Some(revision))
    }

    /// Whether one of its files has no checksum beside it.
    pub fn lacks_checksums(&self) -> Result<bool, MirrorError> {
        let lacks = |text: &StoredText| text.checksum.is_err();
        if self.checksum.is_err() || self.history.as_ref().is_some_and(lacks) {
            return Ok(true);
        }
        for attachment in &self.attachments {
            if let Some(file) = self.open_attachment(attachment)?
                && self.noted(&file).is_err()
            {
                return Ok(true);
            }
        }
        for branch in &self.conflicts {
            if branch.lacks_checksums()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The note beside the file of an attachment.
    pub fn noted(&self, file: &File) -> Noted {
        if self.ways.notes { checksum(file) } else { Err(Unnoted::Unsupported) }
    }

    /// The path of the body's file, relative to the mirror.
    pub fn body_path(&self) -> String {
        format!("{}/{}", self.path, body_file(self.deleted))
    }

    /// A known reason why an attachment may differ from its stub.
    pub fn caveat(&self) -> &'static str {
        self.ways.caveat
    }

    /// The path of an attachment's file, relative to the mirror.
    pub fn attachment_path(&self, attachment: &StoredAttachment) -> String {
        format!("{}/{ATTACHMENTS}/{}", self.path, attachment.encoded)
    }

    /// The entries of the document's folder that are neither its body nor one of its attachments.
    pub fn extras(&self) -> Result<Vec<Problem>, MirrorError> {
        let mut extras = Vec::new();
        for (name, kind) in &self.entries {
            match (name.as_str(), *kind) {
                (body, _) if body == body_file(self.deleted) => {}
                (HISTORY, Some(kind)) if kind.is_file() => {}
                (CONFLICTS, Some(kind)) if kind.is_dir() && !self.is_branch() => {}
                // A name that is not valid UTF-8 was changed on reading, so it is not found again.
                (other, None) if !other.contains(char::REPLACEMENT_CHARACTER) => {}
                (ATTACHMENTS, Some(FileType::Directory)) => self.extra_attachments(&mut extras)?,
                (_, Some(FileType::Directory)) if self.ways.nests => {}
                _ => {
                    let path = format!("{}/{name}", self.path);
                    extras.push(Problem::extra(path, "a file that does not belong to a document"));
                }
            }
        }
        for branch in &self.conflicts {
            extras.extend(branch.extras()?);
        }
        Ok(extras)
    }

    /// Whether its folder has an entry of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(own, _)| own == name)
    }

    /// Whether it is a branch of another document.
    fn is_branch(&self) -> bool {
        let folder = self.path.rsplit('/').nth(1);
        folder == Some(CONFLICTS) && self.path.matches('/').count() > 1
    }

    fn extra_attachments(&self, extras: &mut Vec<Problem>) -> Result<(), MirrorError> {
        let Some(folder) = self.folder.open(ATTACHMENTS)? else { return Ok(()) };
        for name in folder.names()? {
            if !self.attachments.iter().any(|attachment| attachment.encoded == name) {
                let path = format!("{}/{ATTACHMENTS}/{name}", self.path);
                extras.push(Problem::extra(path, "a file that the body does not name"));
            }
        }
        Ok(())
    }
}

/// The attachments in a body, with their files in the document's folder.
pub(super) fn attachments(
    folder: &Folder,
    stubs: impl IntoIterator<Item = (String, Stub)>,
    encode: impl Fn(&str) -> String,
) -> Result<Vec<StoredAttachment>, MirrorError> {
    let mut stubs = stubs.into_iter().peekable();
    let stored = match stubs.peek() {
        Some(_) => folder.open_folder(ATTACHMENTS)?,
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
            let failed = |error| MirrorError::io("look at", stored.path().join(&encoded), error);
            size = Some(looked.map_err(failed)?.len());
        }
        attachments.push(StoredAttachment { name, stub, size, encoded });
    }
    Ok(attachments)
}

//! A document at rest, with its attachments and its branches.

use std::fmt::Debug;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io::{self, Read, Seek, SeekFrom};

use super::{Problem, StoredText};
use crate::document::{DocumentId, Head, Revision, Stub};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::checksum::{Noted, Unnoted, checksum};
use crate::tree::layout::{ATTACHMENTS, DOCUMENT, TOMBSTONE};

/// An entry of a collection.
#[derive(Debug)]
pub enum Entry {
    /// An intact document.
    Document(Box<StoredDocument>),
    /// An entry that is not an intact document.
    Problem(Problem),
}

/// A document at rest.
#[derive(Debug)]
pub struct StoredDocument {
    /// Its id.
    pub id: DocumentId,
    /// Its revision, if the body contains one.
    pub revision: Option<Revision>,
    /// Whether it is deleted: then the body is its tombstone.
    pub deleted: bool,
    /// Its body.
    pub body: StoredText,
    /// The revisions that led to this one, as JSON text; only kept on request.
    pub history: Option<StoredText>,
    /// The branches that lost a conflict; only kept on request.
    pub conflicts: Vec<StoredDocument>,
    /// What is wrong with its history and its branches.
    pub problems: Vec<Problem>,
    /// Its attachments, by name. In a mirror without attachments they have no files.
    pub attachments: Vec<StoredAttachment>,
    /// Its path, relative to the archive.
    pub path: String,
    /// A known reason why an attachment may differ from its stub; empty without one.
    pub caveat: &'static str,
    pub(super) files: Box<dyn DocumentFiles>,
}

/// An attachment at rest.
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

/// The files of one document of an archive.
pub(super) trait DocumentFiles: Debug + Send + Sync {
    /// Opens the file of an attachment; `None` if there is no regular file.
    fn open(
        &self,
        attachment: &StoredAttachment,
    ) -> Result<Option<Box<dyn StoredFile>>, MirrorError>;

    /// Opens the file of its body; `None` if there is no regular file.
    fn open_body(&self, deleted: bool) -> Result<Option<Box<dyn StoredFile>>, MirrorError>;

    /// The entries that belong neither to the document nor to another one.
    fn extras(&self, document: &StoredDocument) -> Result<Vec<Problem>, MirrorError>;
}

/// An open file of an archive.
pub trait StoredFile: Read + Seek + Send {
    /// The checksum that was noted beside it.
    fn noted(&self) -> Noted;
}

impl StoredFile for File {
    fn noted(&self) -> Noted {
        checksum(self)
    }
}

/// A file of an archive that notes no checksums.
pub(super) struct Plain<T>(pub T);

impl<T: Read + Seek + Send> StoredFile for Plain<T> {
    fn noted(&self) -> Noted {
        Err(Unnoted::Unsupported)
    }
}

impl<T: Read> Read for Plain<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<T: Seek> Seek for Plain<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// The identity of an entry, which shows whether it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryVersion(u64);

impl EntryVersion {
    /// The identity of what these bytes, times or inodes describe.
    pub(super) fn of(what: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The identity of a document's folder.
    pub(super) fn of_folder(above: &Folder, name: &str) -> Result<Self, MirrorError> {
        let folder = above.stamp(name)?;
        let body = match above.stamp(&format!("{name}/{DOCUMENT}"))? {
            None => above.stamp(&format!("{name}/{TOMBSTONE}"))?,
            body => body,
        };
        Ok(Self::of((folder, body)))
    }
}

impl StoredDocument {
    /// Opens the file of an attachment; `None` if there is no regular file.
    pub fn open_attachment(
        &self,
        attachment: &StoredAttachment,
    ) -> Result<Option<Box<dyn StoredFile>>, MirrorError> {
        self.files.open(attachment)
    }

    /// Opens the file of the body; `None` if there is no regular file. It may have been replaced since the
    /// document was read.
    pub fn open_body(&self) -> Result<Option<Box<dyn StoredFile>>, MirrorError> {
        self.files.open_body(self.deleted)
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
        if lacks(&self.body) || self.history.as_ref().is_some_and(lacks) {
            return Ok(true);
        }
        for attachment in &self.attachments {
            if let Some(file) = self.open_attachment(attachment)?
                && file.noted().is_err()
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

    /// The path of an attachment's file, relative to the mirror.
    pub fn attachment_path(&self, attachment: &StoredAttachment) -> String {
        format!("{}/{ATTACHMENTS}/{}", self.path, attachment.encoded)
    }

    /// The entries beside it that are neither its body nor one of its attachments.
    pub fn extras(&self) -> Result<Vec<Problem>, MirrorError> {
        let mut extras = self.files.extras(self)?;
        for branch in &self.conflicts {
            extras.extend(branch.files.extras(branch)?);
        }
        Ok(extras)
    }
}

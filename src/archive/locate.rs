//! Where a document lies in an archive, and which document a path of one belongs to.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::{Archive, Entry, Problem, ProblemKind, open};
use crate::document::{CollectionName, DocumentId};
use crate::tree::MirrorError;
use crate::tree::layout::{ATTACHMENTS, FORMAT, OURS, RXDB_META};

/// What a mirror holds in a document's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// The document.
    Document,
    /// Its tombstone.
    Tombstone,
    /// Something that cannot be read as the document.
    Damaged(Problem),
    /// Nothing.
    Nothing,
}

/// Where a document is, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Its folder, relative to the mirror.
    pub path: String,
    /// What is there.
    pub found: Located,
}

/// Which document a path belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its collection.
    pub collection: CollectionName,
    /// Its id.
    pub id: DocumentId,
    /// What is there.
    pub found: Located,
}

/// A document or a path that cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The mirror cannot be read.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The path itself cannot be followed.
    #[error("{} cannot be followed: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The path leads through a link below the mirror.
    #[error(
        "{} is a symbolic link in a mirror, and is not followed: no mirror contains links, so something \
         else put it there",
        link.display()
    )]
    Link {
        /// The link.
        link: PathBuf,
    },
    /// No folder above the path is a mirror.
    #[error(
        "{} is not in a mirror: neither it nor a folder above it holds .plainfold/format.json or a backup of RxDB's \
         plugin",
        path.display()
    )]
    NoMirror {
        /// The path.
        path: PathBuf,
    },
    /// The mirror does not hold the collection.
    #[error("the mirror has no collection `{0}`")]
    NoCollection(CollectionName),
    /// No path leads to a document with this id.
    #[error("RxDB's backup plugin has no folder for a document with the id `{0}`")]
    NoFolder(DocumentId),
    /// The path is not a document's.
    #[error("{path} does not belong to a document: it is {what}")]
    NoDocument {
        /// The path, relative to the mirror or as it was given.
        path: String,
        /// What it is.
        what: String,
    },
    /// The name is shortened, and nothing else tells the id.
    #[error(
        "the id of {path} is not known: its name is shortened, and neither a document there nor the \
         inventory has the id"
    )]
    NoId {
        /// The path, relative to the mirror or as it was given.
        path: String,
    },
}

impl LocateError {
    /// The path is not a document's, but this.
    pub(super) fn no_document(path: &Path, what: &str) -> Self {
        Self::NoDocument { path: path.display().to_string(), what: what.to_owned() }
    }

    /// The same about the path as it was typed.
    pub fn about(self, typed: &Path) -> Self {
        let path = typed.display().to_string();
        match self {
            Self::NoDocument { what, .. } => Self::NoDocument { path, what },
            Self::NoId { .. } => Self::NoId { path },
            other => other,
        }
    }
}

impl Located {
    /// What an entry is, for a document with this id.
    pub(super) fn of(entry: Option<Entry>, id: &DocumentId) -> Self {
        match entry {
            None => Self::Nothing,
            // RxDB's plugin gives some ids the same folder.
            Some(Entry::Document(document)) if document.id != *id => Self::Nothing,
            Some(Entry::Document(document)) if document.deleted => Self::Tombstone,
            Some(Entry::Document(_)) => Self::Document,
            Some(Entry::Problem(problem)) => Self::of_problem(problem),
        }
    }

    pub(super) fn of_problem(problem: Problem) -> Self {
        match problem.kind {
            ProblemKind::Missing => Self::Nothing,
            _ => Self::Damaged(problem),
        }
    }
}

/// Where the document with this id is or would be.
pub fn locate(
    archive: &dyn Archive,
    collection: &CollectionName,
    id: &DocumentId,
) -> Result<Location, LocateError> {
    let (collections, _) = archive.collections()?;
    let found = collections.into_iter().find(|one| one.name() == collection);
    let found = found.ok_or_else(|| LocateError::NoCollection(collection.clone()))?;
    let name = found.name_of(id);
    if name.is_empty() {
        return Err(LocateError::NoFolder(id.clone()));
    }
    let path = found.path_of(&name);
    Ok(Location { path, found: Located::of(found.entry(&name)?, id) })
}

/// The archive that a path lies in, and the path relative to it. The path itself need not exist. No
/// link below the archive is followed.
pub fn around(path: &Path) -> Result<(Arc<dyn Archive>, PathBuf), LocateError> {
    let failed = |source| LocateError::Path { path: path.to_owned(), source };
    let there = plain(path).map_err(failed)?;
    let is_ours = |folder: &&Path| folder.join(OURS).join(FORMAT).is_file();
    let is_backup = |folder: &&Path| {
        folder.join(RXDB_META).is_file()
            && folder.file_name().is_none_or(|name| name != ATTACHMENTS)
    };
    let root = there.ancestors().find(is_ours).or_else(|| there.ancestors().find(is_backup));
    let root = root.ok_or_else(|| LocateError::NoMirror { path: path.to_owned() })?;
    let outermost = there.ancestors().filter(is_ours).last().unwrap_or(root);
    for below in there.ancestors().take_while(|below| *below != outermost) {
        if below.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            return Err(LocateError::Link { link: below.to_owned() });
        }
    }
    let within = there.strip_prefix(root).unwrap_or(&there).to_owned();
    Ok((open(root)?, within))
}

/// The parts of a path in an archive.
pub(super) fn parts(path: &Path) -> Result<Vec<&str>, LocateError> {
    let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
    let what = "something whose name is not even text";
    parts.ok_or_else(|| LocateError::no_document(path, what))
}

/// A path from the root, without dots. Its links stay.
fn plain(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    Ok(plain)
}

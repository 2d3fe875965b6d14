//! Where a document lies in a mirror, and which document a path of a mirror belongs to.
//!
//! It only reads, and takes no lock.

use std::collections::HashSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Entry, Problem, ProblemKind, Tree, TreeCollection};
use crate::document::{CollectionName, DocumentId};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{ATTACHMENTS, FORMAT, OURS, RXDB_META, SECURITY, TRASH};
use crate::tree::names::Decoded;

/// What a mirror holds in a document's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
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
    pub found: Found,
}

/// Which document a path belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its collection.
    pub collection: CollectionName,
    /// Its id.
    pub id: DocumentId,
    /// What is there.
    pub found: Found,
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

impl Found {
    /// What an entry is, for a document with this id.
    fn of(entry: Option<Entry>, id: &DocumentId) -> Self {
        match entry {
            None => Self::Nothing,
            // RxDB's plugin gives some ids the same folder.
            Some(Entry::Document(document)) if document.id != *id => Self::Nothing,
            Some(Entry::Document(document)) if document.deleted => Self::Tombstone,
            Some(Entry::Document(_)) => Self::Document,
            Some(Entry::Problem(problem)) => Self::of_problem(problem),
        }
    }

    fn of_problem(problem: Problem) -> Self {
        match problem.kind {
            ProblemKind::Missing => Self::Nothing,
            _ => Self::Damaged(problem),
        }
    }
}

impl Tree {
    /// Where the document with this id is or would be.
    pub fn locate(
        &self,
        collection: &CollectionName,
        id: &DocumentId,
    ) -> Result<Location, LocateError> {
        let (collections, _) = self.collections()?;
        let found = collections.into_iter().find(|one| one.name == *collection);
        let found = found.ok_or_else(|| LocateError::NoCollection(collection.clone()))?;
        let name = found.name_of(id);
        if name.is_empty() {
            return Err(LocateError::NoFolder(id.clone()));
        }
        let path = found.path_of(&name);
        Ok(Location { path, found: Found::of(found.entry(&name)?, id) })
    }

    /// The mirror that a path lies in, and the path relative to it. The path itself need not exist. No
    /// link below a mirror is followed.
    pub fn around(path: &Path) -> Result<(Self, PathBuf), LocateError> {
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
        Ok((Self::open(root)?, within))
    }

    /// The document that a path belongs to: the path of its folder, or of anything in that folder,
    /// relative to the mirror.
    pub fn identify(&self, path: &Path) -> Result<Identity, LocateError> {
        let shown = path.display().to_string();
        let foreign =
            |what: &str| LocateError::NoDocument { path: shown.clone(), what: what.to_owned() };
        let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
        let parts = parts.ok_or_else(|| foreign("something whose name is not even text"))?;
        if self.backup.is_some() {
            return self
                .identify_in_backup(&parts)
                .ok_or_else(|| foreign("not in the folder of a document"))?;
        }
        let (above, collection, document, is_trash) = match parts[..] {
            [] => return Err(foreign("the mirror itself")),
            [OURS, TRASH, day, collection, document, ..] => {
                (format!("{OURS}/{TRASH}/{day}/"), collection, document, true)
            }
            [OURS, ..] => return Err(foreign("Plainfold's own")),
            [_] => return Err(foreign("not in the folder of a document")),
            [_, SECURITY, ..] => return Err(foreign("the security object of a collection")),
            [collection, document, ..] => (String::new(), collection, document, false),
        };
        let name = self.name_of(collection)?;
        let name = name.ok_or_else(|| foreign("in a folder that is not a collection's"))?;
        let encoded = above + collection;
        let mut folder = Some(Folder::open_path(self.root.path())?);
        for part in encoded.split('/') {
            folder = folder.map(|above| above.open(part)).transpose()?.flatten();
        }
        let Some(folder) = folder else {
            return match self.spelling.decode(document) {
                Decoded::Exact(id) if !is_trash => {
                    Ok(Identity { collection: name, id: id.into(), found: Found::Nothing })
                }
                _ => Err(foreign("in a folder that does not exist")),
            };
        };
        let place = self.collection_in(folder, name, encoded, is_trash)?;
        place.identify(document).unwrap_or_else(|| Err(foreign("something that no document has")))
    }

    /// The document whose folder is the path or, else, nearest above it: folders may lie in one another.
    fn identify_in_backup(&self, parts: &[&str]) -> Option<Result<Identity, LocateError>> {
        let collection = self.collections().ok()?.0.pop()?;
        (1..=parts.len()).rev().find_map(|length| {
            let name = parts.get(..length)?.join("/");
            match collection.entry(&name) {
                Ok(Some(Entry::Document(document))) => Some(Ok(Identity {
                    collection: collection.name.clone(),
                    id: document.id,
                    found: Found::Document,
                })),
                Ok(_) => None,
                Err(error) => Some(Err(error.into())),
            }
        })
    }
}

impl TreeCollection {
    /// The document under a name; `None` if the name is not a document's.
    fn identify(&self, name: &str) -> Option<Result<Identity, LocateError>> {
        let entry = match self.entry(name) {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error.into())),
        };
        let identity = |id: DocumentId, found: Found| {
            Some(Ok(Identity { collection: self.name.clone(), id, found }))
        };
        let found = match entry {
            Some(Entry::Document(document)) => {
                let id = document.id.clone();
                return identity(id.clone(), Found::of(Some(Entry::Document(document)), &id));
            }
            Some(Entry::Problem(problem)) if problem.kind == ProblemKind::Extra => return None,
            Some(Entry::Problem(problem)) => Found::of_problem(problem),
            None => Found::Nothing,
        };
        let id = match self.decoded(name) {
            Decoded::Exact(id) => Ok(Some(id.into())),
            Decoded::Hashed => self.recorded_id(name),
            Decoded::Foreign => return None,
        };
        match id {
            Ok(Some(id)) => identity(id, found),
            Ok(None) => Some(Err(LocateError::NoId { path: self.path_of(name) })),
            Err(error) => Some(Err(error.into())),
        }
    }

    /// The id that the inventory has for a shortened name.
    fn recorded_id(&self, name: &str) -> Result<Option<DocumentId>, MirrorError> {
        let (recorded, _) = self.recorded(HashSet::from([name.to_owned()]))?;
        let ids = recorded.into_iter().filter_map(|recorded| recorded.id).map(DocumentId::from);
        Ok(ids.into_iter().find(|id| self.name_of(id) == name))
    }
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

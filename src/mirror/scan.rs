//! Lists what the tree holds.

use std::path::PathBuf;

use walkdir::WalkDir;

use super::collection::Collection;
use super::interrupted::body_text;
use crate::document::{DocumentId, Head};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{DOCUMENT, SECURITY, STAGING};
use crate::tree::names::Decoded;

/// Whether this file system treats upper and lower case as equal.
/// No file is created for the test: the disk may be full.
pub(super) fn folds_case(ours: &Folder) -> Result<bool, MirrorError> {
    Ok(ours.kind(&STAGING.to_ascii_uppercase())?.is_some())
}

impl Collection {
    /// Whether the tree holds no document of this collection.
    pub fn is_empty(&self) -> Result<bool, MirrorError> {
        if self.is_new() {
            return Ok(true);
        }
        for name in entries(&self.folder) {
            if name? != SECURITY {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The ids of all documents in the tree, in no order. Folders that Plainfold could not have
    /// written are skipped.
    pub fn documents(&self) -> impl Iterator<Item = Result<DocumentId, MirrorError>> + '_ {
        entries(&self.folder).filter_map(|entry| match entry {
            Ok(name) => self.id_of(&name).transpose(),
            Err(error) => Some(Err(error)),
        })
    }

    /// The number of documents in the tree. Tombstones do not count; if the collection keeps them,
    /// every folder is opened.
    pub fn count(&self) -> Result<u64, MirrorError> {
        let mut count = 0;
        for name in entries(&self.folder) {
            let name = name?;
            let living = match self.kept.deleted {
                true => match self.folder.open(&name) {
                    Ok(Some(folder)) => folder.kind(DOCUMENT)?.is_some(),
                    _ => false,
                },
                false => name != SECURITY,
            };
            count += u64::from(living);
        }
        Ok(count)
    }

    /// The id of a folder's name, if the name alone shows it.
    pub(super) fn id_told_by(&self, name: &str) -> Option<String> {
        match self.mirror.spelling.decode(name) {
            Decoded::Exact(id) => Some(id),
            Decoded::Hashed | Decoded::Foreign => None,
        }
    }

    /// The id of the document with this folder name; `None` if it is not a document's.
    pub(super) fn id_of(&self, name: &str) -> Result<Option<DocumentId>, MirrorError> {
        match self.mirror.spelling.decode(name) {
            Decoded::Exact(id) => Ok(Some(id.into())),
            Decoded::Foreign => Ok(None),
            Decoded::Hashed => {
                let Some(folder) = self.folder.open_folder(name)? else { return Ok(None) };
                let Some(text) = body_text(&folder)? else { return Ok(None) };
                let id = Head::read(&text).unwrap_or_default().id;
                let fits = |id: &str| self.document_name(id).as_str() == name;
                Ok(id.filter(|id| fits(id)).map(|id| DocumentId::from(&*id)))
            }
        }
    }
}

/// The names in a folder. `walkdir` never follows a link in it; the path itself was opened without
/// following one.
fn entries(folder: &Folder) -> impl Iterator<Item = Result<String, MirrorError>> {
    let path: PathBuf = folder.path().to_owned();
    let walk = WalkDir::new(&path).min_depth(1).max_depth(1).follow_root_links(false);
    walk.into_iter().map(move |entry| match entry {
        Ok(entry) => Ok(entry.file_name().to_string_lossy().into_owned()),
        Err(error) => {
            let at = error.path().map_or_else(|| path.clone(), std::path::Path::to_owned);
            Err(MirrorError::io("list", at, std::io::Error::from(error)))
        }
    })
}

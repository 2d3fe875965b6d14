//! What an interrupted run has left of a collection, and the files of a document.

use std::collections::HashMap;
use std::sync::PoisonError;

use super::collection::Collection;
use crate::document::{DocumentId, Revision};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{body_file, file_path};

impl Collection {
    /// The documents whose folders an interrupted run was replacing or removing, each with a
    /// revision that it had.
    pub fn interrupted(&self) -> HashMap<DocumentId, Revision> {
        let known = self.mirror.interrupted.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&*self.encoded).map(|left| left.documents.clone()).unwrap_or_default()
    }

    /// Called when the events that an interrupted run may not have emitted are emitted. Removed
    /// documents are now deleted, or moved to the trash.
    pub fn forget_interrupted(&self) -> Result<(), MirrorError> {
        let mirror = &*self.mirror;
        let mut known = mirror.interrupted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = known.get_mut(&*self.encoded) else { return Ok(()) };
        mirror.dispose_interrupted(&mut left.removed)
    }

    /// The files of a document, relative to the mirror; `None` if the tree does not hold it.
    pub fn files_of(&self, id: &str) -> Result<Option<Vec<String>>, MirrorError> {
        let name = self.document_name(id);
        let Some(folder) = self.folder.open_folder(name.as_str())? else { return Ok(None) };
        let Some(body) = body(&folder)? else { return Ok(None) };
        let mut files = files(&folder, "")?;
        files.sort_unstable_by_key(|file| (file != body, file.clone()));
        let path = |file: &String| file_path(&self.encoded, name.as_str(), file);
        Ok(Some(files.iter().map(path).collect()))
    }
}

/// The name of the file of a document's body or tombstone.
fn body(folder: &Folder) -> Result<Option<&'static str>, MirrorError> {
    for name in [body_file(false), body_file(true)] {
        if folder.open_file(name)?.is_some() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The regular files in a document's folder, as paths within it.
fn files(folder: &Folder, below: &str) -> Result<Vec<String>, MirrorError> {
    let mut found = Vec::new();
    for (name, kind) in folder.entries()? {
        match kind {
            Some(kind) if kind.is_file() => found.push(format!("{below}{name}")),
            Some(kind) if kind.is_dir() => {
                if let Some(inner) = folder.open_folder(&name)? {
                    found.extend(files(&inner, &format!("{below}{name}/"))?);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

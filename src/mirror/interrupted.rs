//! What an interrupted run had in hand: published perhaps, and perhaps not committed, so that
//! subscribers may not have been told.
//!
//! A folder that was replaced or removed lies in staging until its commit is durable, and a body
//! that was written tells by its time. Both serve the next run to tell of such documents again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::beneath::Folder;
use super::collection::Collection;
use super::error::MirrorError;
use super::lanes;
use super::layout::{body_file, file_path};
use crate::document::{DocumentId, Head, Revision};

/// The documents found in staging, with the revisions found there, by the encoded name of their
/// collection.
pub(super) type Interrupted = HashMap<String, HashMap<DocumentId, Revision>>;

/// Stands between the number of a temporary name and the collection. No encoded name has it but for
/// long ones, and the first one counts.
pub(super) const SEPARATOR: char = '~';

/// A name in staging.
pub(super) fn temporary_name(number: u64, collection: &str) -> String {
    format!("{number:x}{SEPARATOR}{collection}")
}

/// The collection of a name in staging.
pub(super) fn collection_of(name: &str) -> Option<&str> {
    name.split_once(SEPARATOR).map(|(_, collection)| collection)
}

/// Reads staging before it is swept.
pub(super) fn find(staging: &Folder) -> Result<Interrupted, MirrorError> {
    let mut found = Interrupted::new();
    for path in lanes::contents(staging)? {
        let Some(collection) = collection_of(&path) else { continue };
        // Files are bodies and attachments that were not published yet.
        let Ok(Some(folder)) = staging.open(&path) else { continue };
        let Some((mut file, _)) = body(&folder)? else { continue };
        let mut text = Vec::new();
        file.read_to_end(&mut text)
            .map_err(|error| MirrorError::io("read", folder.path(), error))?;
        let head = Head::read(&text).unwrap_or_default();
        if let Some(id) = head.id {
            let revision = Revision::from(head.revision.as_deref().unwrap_or_default());
            found.entry(collection.to_owned()).or_default().insert((&*id).into(), revision);
        }
    }
    Ok(found)
}

impl Collection {
    /// The documents whose folders an interrupted run was replacing or removing, and a revision that
    /// each had.
    pub fn interrupted(&self) -> HashMap<DocumentId, Revision> {
        let known = self.mirror.interrupted.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&*self.encoded).cloned().unwrap_or_default()
    }

    /// The files of a document whose body was written at `since` or later, relative to the mirror.
    pub fn written_since(
        &self,
        id: &str,
        since: SystemTime,
    ) -> Result<Option<Vec<String>>, MirrorError> {
        let name = self.document_name(id);
        let Ok(Some(folder)) = self.folder.open(name.as_str()) else { return Ok(None) };
        let Some((file, body)) = body(&folder)? else { return Ok(None) };
        let written = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map_err(|error| MirrorError::io("look at", folder.path().join(body), error))?;
        if written < since {
            return Ok(None);
        }
        let mut files = files(&folder, "")?;
        files.sort_unstable_by_key(|file| (file != body, file.clone()));
        let path = |file: &String| file_path(&self.encoded, name.as_str(), file);
        Ok(Some(files.iter().map(path).collect()))
    }
}

/// A document's body or tombstone, and the name of its file.
fn body(folder: &Folder) -> Result<Option<(File, &'static str)>, MirrorError> {
    for name in [body_file(false), body_file(true)] {
        if let Some(file) = folder.open_file(name)? {
            return Ok(Some((file, name)));
        }
    }
    Ok(None)
}

/// The regular files in a document's folder, as paths within it.
fn files(folder: &Folder, below: &str) -> Result<Vec<String>, MirrorError> {
    let mut found = Vec::new();
    for name in folder.names()? {
        match folder.kind(&name)? {
            Some(kind) if kind.is_file() => found.push(format!("{below}{name}")),
            Some(kind) if kind.is_dir() => {
                if let Ok(Some(inner)) = folder.open(&name) {
                    found.extend(files(&inner, &format!("{below}{name}/"))?);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

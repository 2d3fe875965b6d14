//! What an interrupted run had in hand: published perhaps, and perhaps not committed, so that
//! subscribers may not have been told.
//!
//! A folder that was replaced or removed lies in staging until its commit is durable, and a body
//! that was written tells by its time. Both serve the next run to tell of such documents again.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::beneath::Folder;
use super::collection::Collection;
use super::error::MirrorError;
use super::lanes;
use super::layout::{ATTACHMENTS, CONFLICTS, body_file, file_path};
use super::trash;
use crate::document::{DocumentId, Head, Revision};

/// What an interrupted run has left in staging, by the encoded name of the collection.
pub(super) type Interrupted = HashMap<String, Left>;

/// What it has left of one collection.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The documents, with the revisions found in staging.
    pub documents: HashMap<DocumentId, Revision>,
    /// The names of removed documents in staging. They stay there until their removal was told: nothing
    /// else remembers it.
    pub removed: Vec<String>,
}

/// Stands between the number of a temporary name and the collection. No encoded name has it but for
/// long ones, and the first one counts.
pub(super) const SEPARATOR: char = '~';

/// Stands between the number and the separator in the name of what was removed from the tree.
const REMOVED: &str = "-removed";

/// A name in staging.
pub(super) fn temporary_name(number: u64, collection: &str) -> String {
    format!("{number:x}{SEPARATOR}{collection}")
}

/// The collection of a path in staging.
pub(super) fn collection_of(path: &str) -> Option<&str> {
    path.split_once(SEPARATOR).map(|(_, collection)| collection)
}

/// The name in staging of what was removed from the tree.
pub(super) fn removed_name(number: u64, collection: &str) -> String {
    format!("{number:x}{REMOVED}{SEPARATOR}{collection}")
}

/// Whether a path in staging is that of something that was removed from the tree.
fn is_removed(path: &str) -> bool {
    let number = path.split_once(SEPARATOR).map(|(number, _)| number);
    number.is_some_and(|number| number.ends_with(REMOVED)) || trash::is_marked(path)
}

/// The number in a path in staging, where it has one.
fn number_of(path: &str) -> Option<u64> {
    let (number, _) = path.split_once(SEPARATOR)?;
    let number = number.rsplit('/').next()?.split('-').next()?;
    u64::from_str_radix(number, 16).ok()
}

/// Reads staging, and removes from it what is of no more use. Also gives the first number that no name
/// in it has.
pub(super) fn sweep(staging: &Folder) -> Result<(Interrupted, u64), MirrorError> {
    let found = find(staging)?;
    let kept: HashSet<&str> =
        found.values().flat_map(|left| &left.removed).map(String::as_str).collect();
    for path in lanes::contents(staging)? {
        if !kept.contains(&*path) {
            staging.remove(&path)?;
        } else if !trash::is_marked(&path)
            && let Some(folder) = staging.open(&path)?
        {
            // The body tells all that is to be told, and the rest may be large.
            folder.remove(ATTACHMENTS)?;
            folder.remove(CONFLICTS)?;
        }
    }
    let next = kept.iter().filter_map(|path| number_of(path)).max().map_or(0, |last| last + 1);
    Ok((found, next))
}

/// Reads staging.
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
        let left = found.entry(collection.to_owned()).or_default();
        if let Some(id) = head.id {
            let revision = Revision::from(head.revision.as_deref().unwrap_or_default());
            left.documents.insert((&*id).into(), revision);
        }
        if is_removed(&path) {
            left.removed.push(path);
        }
    }
    Ok(found)
}

impl Collection {
    /// The documents whose folders an interrupted run was replacing or removing, and a revision that
    /// each had.
    pub fn interrupted(&self) -> HashMap<DocumentId, Revision> {
        let known = self.mirror.interrupted.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&*self.encoded).map(|left| left.documents.clone()).unwrap_or_default()
    }

    /// What an interrupted run has left to be told has been told. What was removed goes now, or to the
    /// trash.
    pub fn forget_interrupted(&self) -> Result<(), MirrorError> {
        let mirror = &*self.mirror;
        let mut known = mirror.interrupted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = known.get_mut(&*self.encoded) else { return Ok(()) };
        trash::rescue(&mirror.ours, &mirror.staging, mirror.format.names, &left.removed)?;
        for path in left.removed.drain(..) {
            mirror.staging.remove(&path)?;
        }
        Ok(())
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

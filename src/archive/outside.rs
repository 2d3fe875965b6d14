//! The parts of a check of a mirror that go beyond its documents: checksums, documents that are just
//! being replaced, leftovers, and unexpected files.
//!
//! It takes no lock and writes nothing.

use std::collections::HashSet;

use super::{Problem, ProblemKind, Tree, TreeCollection};
use crate::document::DocumentId;
use crate::tree::MirrorError;
use crate::tree::bare::Holdings;
use crate::tree::beneath::Stamp;
use crate::tree::layout::{DOCUMENT, LOCK, SECURITY, STAGING, TOMBSTONE};
use crate::tree::names::Decoded;
use crate::tree::record::{Record, record_name};
use crate::tree::{lanes, lock, unremovable};

/// The identity of an entry, which shows whether it was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    folder: Option<Stamp>,
    body: Option<Stamp>,
}

impl Tree {
    /// The number of leftovers of interrupted runs in staging; 0 while a process works on the
    /// mirror. They harm no document, and the next run removes them.
    pub fn leftovers(&self) -> Result<u64, MirrorError> {
        let Some(ours) = &self.ours else { return Ok(0) };
        let lock = ours.path().join(LOCK);
        let Some(staging) = ours.open_unless_file(STAGING)? else { return Ok(0) };
        if lock::holder(&lock)?.is_some() {
            return Ok(0);
        }
        let names = lanes::contents(&staging)?;
        // A run that began after the first look created them.
        if names.is_empty() || lock::holder(&lock)?.is_some() {
            return Ok(0);
        }
        Ok(names.len() as u64)
    }

    /// The number of files and folders that could not be removed, and are in
    /// `.plainfold/unremovable/`.
    pub fn unremovable(&self) -> u64 {
        self.ours.as_ref().map_or(0, unremovable::count)
    }

    /// The folders of recorded collections that are missing.
    pub fn missing_collections(
        &self,
        present: &[TreeCollection],
    ) -> Result<Vec<Problem>, MirrorError> {
        let Some(records) = &self.records else { return Ok(Vec::new()) };
        let present: HashSet<String> =
            present.iter().map(|collection| record_name(&collection.encoded)).collect();
        let mut missing = Vec::new();
        for name in records.names()? {
            let Some(folder) = name.strip_suffix(".json") else { continue };
            // A collection that appeared meanwhile was created after the folders were listed.
            let gone = !present.contains(&name)
                && self.root.kind(folder)?.is_none()
                && records.kind(&name)?.is_some();
            if gone {
                let reason = "the folder of a collection is missing";
                missing.push(Problem::new(ProblemKind::Missing, folder.to_owned(), reason));
            }
        }
        Ok(missing)
    }

    /// Whether a run has recorded that it made this collection. Without any records, every
    /// collection counts as recorded.
    pub fn is_recorded(&self, collection: &TreeCollection) -> Result<bool, MirrorError> {
        match &self.records {
            Some(records) => Ok(records.kind(&record_name(&collection.encoded))?.is_some()),
            None => Ok(true),
        }
    }

    /// Whether a collection's attachments are mirrored, as the last run had it.
    pub fn holds_attachments(&self, collection: &TreeCollection) -> Result<bool, MirrorError> {
        if self.is_bare() {
            return Ok(Holdings::of(&collection.folder)?.attachments);
        }
        let Some(records) = &self.records else { return Ok(true) };
        let record = Record::read(records, &collection.encoded)?;
        Ok(record.and_then(|record| record.attachments).unwrap_or(true))
    }
}

/// Names, and problems for entries without a readable name.
pub type EachName<'a> = Box<dyn Iterator<Item = Result<Result<String, Problem>, MirrorError>> + 'a>;

impl TreeCollection {
    /// The names in the collection's folder, one by one and in no order, so that it may hold any
    /// number. A name that is not valid UTF-8 comes as a problem.
    pub fn each_name(&self) -> Result<EachName<'_>, MirrorError> {
        if let Some(backup) = &self.backup {
            return Ok(Box::new(backup.walk(&self.folder)?));
        }
        let foreign = |name: String| {
            let path = format!("{}/{name}", self.encoded);
            Problem::extra(path, "a file or folder whose name is not valid UTF-8")
        };
        let names = self.folder.each_name()?;
        let names = names.filter(|name| !matches!(name, Ok(Ok(name)) if name == SECURITY));
        Ok(Box::new(names.map(move |name| name.map(|name| name.map_err(foreign)))))
    }

    /// The id of the document with this folder name. A shortened name alone does not show it.
    pub fn id_of(&self, name: &str) -> Option<DocumentId> {
        match self.spelling.decode(name) {
            Decoded::Exact(id) => Some(id.into()),
            Decoded::Hashed | Decoded::Foreign => None,
        }
    }

    /// The present identity of an entry.
    pub fn standing(&self, name: &str) -> Result<Standing, MirrorError> {
        let folder = self.folder.stamp(name)?;
        let body = match self.folder.stamp(&format!("{name}/{DOCUMENT}"))? {
            None => self.folder.stamp(&format!("{name}/{TOMBSTONE}"))?,
            body => body,
        };
        Ok(Standing { folder, body })
    }
}

//! What a check of a whole mirror asks beyond its documents: checksums, what is being replaced just
//! now, what was left behind, and what stands where no collection should.
//!
//! Like [`read`](super::read), it takes no lock and writes nothing.

use std::collections::HashSet;
use std::fs::File;

use rustix::io::Errno;

use super::bare::Holdings;
use super::beneath::Stamp;
use super::collection::{Record, record_name};
use super::error::MirrorError;
use super::lanes;
use super::layout::{DOCUMENT, LOCK, SECURITY, STAGING, TOMBSTONE};
use super::lock;
use super::names::Decoded;
use super::read::{Problem, ProblemKind, Tree, TreeCollection};
use super::stage::CHECKSUM_ATTRIBUTE;
use super::unremovable;
use crate::document::DocumentId;

/// A BLAKE3.
pub type Checksum = [u8; 32];

/// What may stand beside the collections without being ours: users keep a repository there, and a
/// file system of its own has a folder of its own.
const NEIGHBOURS: [&str; 2] = [".git", "lost+found"];

/// Why there is no checksum beside a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnoted {
    /// The file system keeps extended attributes, so the file has lost it.
    Lost,
    /// The file system keeps none.
    Unsupported,
}

/// What is noted beside a file.
pub type Noted = Result<Checksum, Unnoted>;

/// The checksum that was noted beside a file when it was written.
pub fn checksum(file: &File) -> Noted {
    let mut noted = [0_u8; 33];
    match rustix::fs::fgetxattr(file, CHECKSUM_ATTRIBUTE, &mut noted) {
        Ok(length) => {
            noted.get(..length).and_then(|noted| noted.try_into().ok()).ok_or(Unnoted::Lost)
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(Unnoted::Unsupported),
        Err(_) => Err(Unnoted::Lost),
    }
}

/// What stands under a document's name, as far as it shows that somebody has replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    folder: Option<Stamp>,
    body: Option<Stamp>,
}

impl Tree {
    /// How much an interrupted run has left in staging; nothing while somebody works on the mirror. No
    /// document is harmed by it, and the next run removes it.
    pub fn leftovers(&self) -> Result<u64, MirrorError> {
        let Some(ours) = &self.ours else { return Ok(0) };
        let lock = ours.path().join(LOCK);
        let Some(staging) = ours.open_unless_file(STAGING)? else { return Ok(0) };
        if lock::holder(&lock)?.is_some() {
            return Ok(0);
        }
        let names = lanes::contents(&staging)?;
        // A run that began after the first look has put them there.
        if names.is_empty() || lock::holder(&lock)?.is_some() {
            return Ok(0);
        }
        Ok(names.len() as u64)
    }

    /// How many things could not be removed, and are in `.plainfold/unremovable/`.
    pub fn unremovable(&self) -> u64 {
        self.ours.as_ref().map_or(0, unremovable::count)
    }

    /// Whether something at the top of a mirror is known to be the user's own.
    pub fn is_neighbour(name: &str) -> bool {
        NEIGHBOURS.contains(&name)
    }

    /// The folders of recorded collections that are not there.
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
            // One that came meanwhile has been made since the list of those present.
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

    /// Whether a run has recorded that it made this collection. Where there are no records at all,
    /// every one counts as recorded.
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

/// Names, and what has none that can be read.
pub type EachName<'a> = Box<dyn Iterator<Item = Result<Result<String, Problem>, MirrorError>> + 'a>;

impl TreeCollection {
    /// The names of what lies in the collection's folder, one by one and in no order, so that it
    /// may hold any number. A name that is no text comes as what it means.
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

    /// The id of the document that belongs under a name. A shortened name alone does not tell it.
    pub fn id_of(&self, name: &str) -> Option<DocumentId> {
        match self.spelling.decode(name) {
            Decoded::Exact(id) => Some(id.into()),
            Decoded::Hashed | Decoded::Foreign => None,
        }
    }

    /// What stands under one of the names just now.
    pub fn standing(&self, name: &str) -> Result<Standing, MirrorError> {
        let folder = self.folder.stamp(name)?;
        let body = match self.folder.stamp(&format!("{name}/{DOCUMENT}"))? {
            None => self.folder.stamp(&format!("{name}/{TOMBSTONE}"))?,
            body => body,
        };
        Ok(Standing { folder, body })
    }
}

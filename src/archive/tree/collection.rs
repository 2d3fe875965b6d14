//! A collection of a tree: one folder, or a part of it, or what the trash holds of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use jiff::civil::Date;

use super::Tree;
use crate::archive::text::{Unchecked, read};
use crate::archive::{
    EachName, Entry, EntryVersion, Problem, ProblemKind, StoredCollection, StoredText,
};
use crate::document::{CollectionName, DocumentId, Properties};
use crate::tree::MirrorError;
use crate::tree::bare::Holdings;
use crate::tree::beneath::Folder;
use crate::tree::inventory::{Inventory, Recorded, Snapshot, unknown};
use crate::tree::layout::SECURITY;
use crate::tree::names::{Decoded, Spelling};
use crate::tree::record::{Record, record_name};

/// The name in the trash of a document without a known id.
pub(super) const NAMELESS: &str = "without an id";

/// A collection of a tree.
#[derive(Debug)]
pub(super) struct TreeCollection {
    pub tree: Arc<Tree>,
    pub name: CollectionName,
    pub folder: Folder,
    /// The path of the folder, relative to the mirror.
    pub encoded: String,
    /// The folder of all inventories, if one of them is this collection's.
    pub inventories: Option<Arc<Folder>>,
    /// How it was created at its source, if a run has recorded that.
    pub properties: Option<Properties>,
    /// The only names that belong to it, if it is a part of a collection.
    pub only: Option<Vec<String>>,
    /// Whether its names end with a number, as in the trash.
    pub numbered: bool,
}

impl TreeCollection {
    pub fn new(tree: Arc<Tree>, name: CollectionName, folder: Folder, encoded: String) -> Self {
        let (inventories, properties, only) = (None, None, None);
        Self { tree, name, folder, encoded, inventories, properties, only, numbered: false }
    }

    pub fn spelling(&self) -> Spelling {
        self.tree.spelling
    }

    /// A name, or a path, without the number that is appended in the trash.
    pub fn unnumbered<'a>(&self, name: &'a str) -> &'a str {
        let cut = numbered(name).filter(|_| self.numbered);
        cut.map_or(name, |(document, _)| document)
    }

    /// What the name of a document's folder says of its id. In the trash, a document without an id
    /// has a name that says nothing.
    pub fn decoded(&self, name: &str) -> Decoded {
        match self.spelling().decode(self.unnumbered(name)) {
            Decoded::Exact(id) if self.numbered && id == NAMELESS => Decoded::Hashed,
            decoded => decoded,
        }
    }
}

/// The name of the document, and the number that is appended to it in the trash.
pub(super) fn numbered(name: &str) -> Option<(&str, u64)> {
    let (document, number) = name.rsplit_once('-')?;
    Some((document, number.parse().ok()?))
}

impl StoredCollection for TreeCollection {
    fn name(&self) -> &CollectionName {
        &self.name
    }

    fn path(&self) -> &str {
        &self.encoded
    }

    fn name_of(&self, id: &DocumentId) -> String {
        self.spelling().encode(id.as_str()).as_str().to_owned()
    }

    fn id_of(&self, name: &str) -> Option<DocumentId> {
        match self.spelling().decode(name) {
            Decoded::Exact(id) => Some(id.into()),
            Decoded::Hashed | Decoded::Foreign => None,
        }
    }

    fn each_name(&self) -> Result<EachName<'_>, MirrorError> {
        let foreign = |name: String| {
            let path = self.path_of(&name);
            Problem::extra(path, "a file or folder whose name is not valid UTF-8")
        };
        let names = self.folder.each_name()?;
        let names = names.filter(|name| !matches!(name, Ok(Ok(name)) if name == SECURITY));
        Ok(Box::new(names.map(move |name| name.map(|name| name.map_err(foreign)))))
    }

    fn entry_names(&self) -> Result<Vec<String>, MirrorError> {
        if let Some(only) = &self.only {
            return Ok(only.clone());
        }
        let mut names = self.folder.names()?;
        names.retain(|name| name != SECURITY);
        names.sort_unstable();
        Ok(names)
    }

    fn entry(&self, name: &str) -> Result<Option<Entry>, MirrorError> {
        self.read(name)
    }

    fn version(&self, name: &str) -> Result<EntryVersion, MirrorError> {
        EntryVersion::of_folder(&self.folder, name)
    }

    fn is_part(&self) -> bool {
        self.only.is_some()
    }

    fn properties(&self) -> Option<Properties> {
        self.properties
    }

    fn is_recorded(&self) -> Result<bool, MirrorError> {
        match self.tree.records() {
            Some(records) => Ok(records.kind(&record_name(&self.encoded))?.is_some()),
            None => Ok(true),
        }
    }

    fn holds_attachments(&self) -> Result<bool, MirrorError> {
        if self.tree.ours.is_none() {
            return Ok(Holdings::of(&self.folder)?.attachments);
        }
        let Some(records) = self.tree.records() else { return Ok(true) };
        let record = Record::read(records, &self.encoded)?;
        Ok(record.and_then(|record| record.attachments).unwrap_or(true))
    }

    fn security(&self) -> Result<Option<Result<StoredText, Problem>>, MirrorError> {
        let read = read(&self.folder, &self.encoded, SECURITY)?;
        if read.is_none() && self.folder.kind(SECURITY)?.is_some() {
            let reason = "it is not a regular file";
            let problem = Problem::new(ProblemKind::Altered, self.security_path(), reason);
            return Ok(Some(Err(problem)));
        }
        Ok(read.map(Unchecked::json))
    }

    fn inventory(&self) -> Result<Option<Inventory>, MirrorError> {
        let read = |folder: &Arc<Folder>| Inventory::read(folder, &self.encoded);
        self.inventories.as_ref().map_or(Ok(None), read)
    }

    fn recorded(
        &self,
        names: HashSet<String>,
    ) -> Result<(Vec<Recorded>, Option<Snapshot>), MirrorError> {
        match &self.inventories {
            Some(folder) => Inventory::of(folder, &self.encoded, names),
            None => Ok((unknown(names), None)),
        }
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, MirrorError> {
        let read = |folder: &Arc<Folder>| Inventory::snapshot(folder, &self.encoded);
        self.inventories.as_ref().map_or(Ok(None), read)
    }

    fn deleted(
        &self,
        held: &BTreeSet<DocumentId>,
        since: Option<Date>,
    ) -> Result<Vec<Arc<dyn StoredCollection>>, MirrorError> {
        self.held_or_in_trash(held, since)
    }
}

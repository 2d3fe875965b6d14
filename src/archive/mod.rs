//! Reads a mirror from outside: it takes no lock and writes nothing, and it reports entries that do
//! not belong there instead of skipping them.
//!
//! A mirror may be written to while it is read. A document that changes meanwhile is read again.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FileType;

use crate::document::{CollectionName, DocumentId, Head, Properties, Revision};
use crate::tree::MirrorError;
use crate::tree::bare::Bare;
use crate::tree::beneath::Folder;
use crate::tree::format;
use crate::tree::inventory::{Inventory, Recorded, Snapshot, unknown};
use crate::tree::layout::{
    COLLECTIONS, CONFLICTS, DOCUMENT, HISTORY, INVENTORY, OURS, SECURITY, body_file,
};
use crate::tree::names::{Decoded, Spelling};
use crate::tree::record::Record;

#[cfg(test)]
pub(crate) mod conformance;
mod deleted;
mod document;
pub mod locate;
pub mod outside;
mod problem;
mod rxdb;
mod text;

pub use document::{StoredAttachment, StoredDocument};
pub use problem::{Problem, ProblemKind};
pub use text::StoredText;

use deleted::NAMELESS;
use document::{Ways, attachments};
use rxdb::Backup;
use text::{Unchecked, read};

/// A mirror, or the output of RxDB's backup plugin, opened for reading.
#[derive(Debug)]
pub struct Tree {
    pub(crate) root: Folder,
    /// `.plainfold`, which only a mirror has.
    pub(crate) ours: Option<Folder>,
    pub(crate) records: Option<Folder>,
    lineage: Option<String>,
    pub(crate) spelling: Spelling,
    /// Set for a folder of RxDB's backup plugin.
    backup: Option<Backup>,
    /// The folders that are collections, of a tree without `.plainfold`.
    bare: Option<Vec<String>>,
}

/// A collection of a [`Tree`].
#[derive(Debug)]
pub struct TreeCollection {
    /// Its name, as the source spells it.
    pub name: CollectionName,
    pub(crate) folder: Folder,
    pub(crate) encoded: String,
    pub(crate) spelling: Spelling,
    pub(crate) backup: Option<Backup>,
    /// The folder of all inventories.
    pub(crate) inventories: Option<Arc<Folder>>,
    /// How it was created at its source, if a run has recorded that.
    properties: Option<Properties>,
    /// The only names that belong to it, if it is a part of a collection.
    only: Option<Vec<String>>,
    /// Whether its names end with a number, as in the trash.
    numbered: bool,
}

/// An entry of a collection's folder.
#[derive(Debug)]
pub enum Entry {
    /// An intact document.
    Document(Box<StoredDocument>),
    /// An entry that is not an intact document.
    Problem(Problem),
}

impl Tree {
    /// Opens the mirror in `path`, a copy of one without its `.plainfold`, or the output of RxDB's
    /// backup plugin.
    pub fn open(path: &Path) -> Result<Self, MirrorError> {
        if !path.is_dir() {
            let path = path.to_owned();
            return Err(match path.is_file() {
                true => MirrorError::NotADirectory { path },
                false => MirrorError::NothingToRead { path },
            });
        }
        let root = Folder::open_path(path)?;
        let ours = root.open(OURS)?;
        let format = match &ours {
            Some(ours) => format::read(path, ours)?,
            None => None,
        };
        let (Some(ours), Some(format)) = (ours, format) else {
            return Self::open_foreign(path, root);
        };
        let records = ours.open_unless_file(COLLECTIONS)?;
        let (spelling, lineage) = (format.spelling(), Some(format.lineage));
        let (backup, bare) = (None, None);
        Ok(Self { root, ours: Some(ours), records, lineage, spelling, backup, bare })
    }

    /// Opens a directory without `.plainfold`: the output of RxDB's backup plugin, or a mirror's
    /// tree.
    fn open_foreign(path: &Path, root: Folder) -> Result<Self, MirrorError> {
        let (ours, records, lineage) = (None, None, None);
        if let Some(backup) = Backup::recognise(path, &root)? {
            let (spelling, backup, bare) = (Spelling::default(), Some(backup), None);
            return Ok(Self { root, ours, records, lineage, spelling, backup, bare });
        }
        match Bare::recognise(&root)? {
            Some(Bare { spelling, collections }) => {
                let (backup, bare) = (None, Some(collections));
                Ok(Self { root, ours, records, lineage, spelling, backup, bare })
            }
            None => Err(MirrorError::NothingToRead { path: path.to_owned() }),
        }
    }

    /// Whether this is a mirror's tree without its `.plainfold`.
    pub fn is_bare(&self) -> bool {
        self.bare.is_some()
    }

    /// Why bodies are not those that the source sent, byte for byte; `None` if they are.
    pub fn rewritten(&self) -> Option<&'static str> {
        self.backup.as_ref().map(|_| rxdb::REWRITTEN)
    }

    /// Whether the collections have the names that their source gave them.
    pub fn has_names(&self) -> bool {
        self.backup.is_none()
    }

    /// The lineage, which identifies this mirror and its copies. `None` if there is no `.plainfold`.
    pub fn lineage(&self) -> Option<&str> {
        self.lineage.as_deref()
    }

    /// The collections, by name, and the other entries beside them.
    pub fn collections(&self) -> Result<(Vec<TreeCollection>, Vec<Problem>), MirrorError> {
        let (mut collections, mut problems) = (Vec::new(), Vec::new());
        if let Some(backup) = &self.backup {
            let folder = Folder::open_path(self.root.path())?;
            let (name, encoded) = (backup.name.as_str().into(), ".".to_owned());
            let (spelling, problem) = (self.spelling, backup.problem.clone());
            let backup = Some(backup.clone());
            let collection = TreeCollection::new(name, folder, encoded, spelling, backup);
            collections.push(collection);
            return Ok((collections, problem.into_iter().collect()));
        }
        let inventories = match &self.ours {
            Some(ours) => ours.open_folder(INVENTORY)?.map(Arc::new),
            None => None,
        };
        for encoded in self.root.names()? {
            // Other entries beside the collections, such as `.git`, belong to the user. Here no
            // collection's name begins with a dot.
            if encoded.starts_with('.') {
                continue;
            }
            let folder = match self.root.open(&encoded) {
                Ok(Some(folder)) => folder,
                Ok(None) => continue,
                Err(MirrorError::InTheWay { what, .. }) => {
                    problems.push(Problem::extra(encoded, what));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if self.bare.as_ref().is_some_and(|bare| !bare.contains(&encoded)) {
                problems.push(Problem::extra(encoded, "a folder without documents"));
                continue;
            }
            match self.name_of(&encoded)? {
                None if self.spelling.decode(&encoded) == Decoded::Hashed => {
                    let what = "a collection with a shortened name, whose full name only \
                                .plainfold/collections records, and no record of it is readable there";
                    problems.push(Problem::extra(encoded, what));
                }
                Some(name) => {
                    let (properties, inventories) =
                        (self.properties_of(&encoded), inventories.clone());
                    let whole = TreeCollection::new(name, folder, encoded, self.spelling, None);
                    collections.push(TreeCollection { properties, inventories, ..whole });
                }
                None => problems
                    .push(Problem::extra(encoded, "a folder that does not belong to a collection")),
            }
        }
        collections.sort_by(|left, right| left.name.cmp(&right.name));
        Ok((collections, problems))
    }

    /// The recorded properties of a collection's database. An unreadable record counts as missing.
    fn properties_of(&self, encoded: &str) -> Option<Properties> {
        let record = self.records.as_ref().map(|records| Record::read(records, encoded));
        let record = record.and_then(|record| record.ok().flatten());
        record.and_then(|record| record.properties)
    }

    /// A folder of this mirror, relative to it, as a collection: one in the trash has numbered documents,
    /// and no inventory.
    pub(crate) fn collection_in(
        &self,
        folder: Folder,
        name: CollectionName,
        encoded: String,
        numbered: bool,
    ) -> Result<TreeCollection, MirrorError> {
        let inventories = match &self.ours {
            Some(ours) if !numbered => ours.open_folder(INVENTORY)?.map(Arc::new),
            _ => None,
        };
        let collection = TreeCollection::new(name, folder, encoded, self.spelling, None);
        Ok(TreeCollection { inventories, numbered, ..collection })
    }

    pub(crate) fn name_of(&self, encoded: &str) -> Result<Option<CollectionName>, MirrorError> {
        match self.spelling.decode(encoded) {
            Decoded::Exact(name) => Ok(Some(name.into())),
            Decoded::Foreign => Ok(None),
            Decoded::Hashed => {
                let Some(records) = &self.records else { return Ok(None) };
                let record = Record::read(records, encoded)?;
                let fits = |name: &String| self.spelling.encode(name).as_str() == encoded;
                Ok(record.map(|record| record.name).filter(fits).map(Into::into))
            }
        }
    }
}

impl TreeCollection {
    fn new(
        name: CollectionName,
        folder: Folder,
        encoded: String,
        spelling: Spelling,
        backup: Option<Backup>,
    ) -> Self {
        let (properties, only, numbered) = (None, None, false);
        let inventories = None;
        Self { name, folder, encoded, spelling, backup, inventories, properties, only, numbered }
    }

    /// Some of its documents as a collection in a separate folder.
    fn part(&self, folder: Folder, encoded: String, only: Vec<String>, numbered: bool) -> Self {
        let part = Self::new(self.name.clone(), folder, encoded, self.spelling, None);
        // The inventory no longer lists what is in the trash.
        let inventories = self.inventories.clone().filter(|_| !numbered);
        Self { properties: self.properties, inventories, only: Some(only), numbered, ..part }
    }

    /// Whether it holds only some documents of a collection.
    pub fn is_part(&self) -> bool {
        self.only.is_some()
    }

    /// How it was created at its source, if a run has recorded that.
    pub fn properties(&self) -> Properties {
        self.properties.unwrap_or_default()
    }

    /// Whether a run has recorded how it was created, which only a CouchDB reports.
    pub fn has_properties(&self) -> bool {
        self.properties.is_some()
    }

    /// The names in the collection's folder, in order, except that of the security object.
    pub fn entry_names(&self) -> Result<Vec<String>, MirrorError> {
        if let Some(only) = &self.only {
            return Ok(only.clone());
        }
        let mut names = match &self.backup {
            // An entry that belongs to no document is found again, and reported, when it is read.
            Some(backup) => {
                let found = backup.walk(&self.folder)?;
                let name = |found: Result<String, Problem>| found.unwrap_or_else(|one| one.path);
                found.map(|found| found.map(name)).collect::<Result<_, _>>()?
            }
            None => {
                let mut names = self.folder.names()?;
                names.retain(|name| name != SECURITY);
                names
            }
        };
        names.sort_unstable();
        Ok(names)
    }

    /// The path of the collection, relative to the mirror.
    pub fn path(&self) -> &str {
        &self.encoded
    }

    /// The path of an entry, relative to the mirror.
    pub fn path_of(&self, name: &str) -> String {
        match self.backup {
            Some(_) => name.to_owned(),
            None => format!("{}/{name}", self.encoded),
        }
    }

    /// The name of a document's folder here.
    pub fn name_of(&self, id: &DocumentId) -> String {
        if self.backup.is_some() {
            return rxdb::folder_of(id.as_str()).unwrap_or_default();
        }
        self.spelling.encode(id.as_str()).as_str().to_owned()
    }

    /// Reads the entry under one of [`entry_names`](Self::entry_names); `None` if it has been
    /// removed meanwhile.
    pub fn entry(&self, name: &str) -> Result<Option<Entry>, MirrorError> {
        if self.backup.is_some() {
            return rxdb::entry(&self.folder, name);
        }
        let path = format!("{}/{name}", self.encoded);
        let folder = match self.folder.open(name) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(None),
            Err(MirrorError::InTheWay { what, .. }) => {
                return Ok(Some(Entry::Problem(Problem::extra(path, what))));
            }
            Err(error) => return Err(error),
        };
        let decoded = self.spelling.decode(self.unnumbered(name));
        if decoded == Decoded::Foreign {
            let what = "a folder whose name cannot be that of a document";
            return Ok(Some(Entry::Problem(Problem::extra(path, what))));
        }
        let entries = folder.entries()?;
        for deleted in [false, true] {
            if let Some(text) = read(&folder, &path, body_file(deleted))? {
                let mut entry = self.document(path, (folder, entries), decoded, text, deleted)?;
                if let Entry::Document(document) = &mut entry {
                    self.add_branches(document)?;
                }
                return Ok(Some(entry));
            }
        }
        if self.folder.open(name)?.is_none() {
            return Ok(None);
        }
        let path = format!("{path}/{DOCUMENT}");
        Ok(Some(Entry::Problem(Problem::new(ProblemKind::Missing, path, "it is missing"))))
    }

    /// The security object, or what is wrong with its file; `None` if it does not exist.
    pub fn security(&self) -> Result<Option<Result<StoredText, Problem>>, MirrorError> {
        if self.backup.is_some() {
            return Ok(None);
        }
        let read = read(&self.folder, &self.encoded, SECURITY)?;
        if read.is_none() && self.folder.kind(SECURITY)?.is_some() {
            let reason = "it is not a regular file";
            let problem = Problem::new(ProblemKind::Altered, self.security_path(), reason);
            return Ok(Some(Err(problem)));
        }
        Ok(read.map(Unchecked::json))
    }

    /// The path of the security object, relative to the mirror.
    pub fn security_path(&self) -> String {
        format!("{}/{SECURITY}", self.encoded)
    }

    /// Its inventory; `None` if it has none.
    pub fn inventory(&self) -> Result<Option<Inventory>, MirrorError> {
        match &self.inventories {
            Some(folder) => Inventory::read(folder, &self.encoded),
            None => Ok(None),
        }
    }

    /// What the inventory says of some folders, and the file that was read.
    pub fn recorded(
        &self,
        names: HashSet<String>,
    ) -> Result<(Vec<Recorded>, Option<Snapshot>), MirrorError> {
        match &self.inventories {
            Some(folder) => Inventory::of(folder, &self.encoded, names),
            None => Ok((unknown(names), None)),
        }
    }

    /// The inventory's file as it is now.
    pub fn snapshot(&self) -> Result<Option<Snapshot>, MirrorError> {
        match &self.inventories {
            Some(folder) => Inventory::snapshot(folder, &self.encoded),
            None => Ok(None),
        }
    }

    /// Reads the history and the branches of a document.
    fn add_branches(&self, document: &mut StoredDocument) -> Result<(), MirrorError> {
        if document.has(HISTORY) {
            match read(&document.folder, &document.path, HISTORY)?.map(Unchecked::json) {
                Some(Ok(history)) => document.history = Some(history),
                Some(Err(problem)) => document.problems.push(problem),
                None => {}
            }
        }
        if !document.has(CONFLICTS) {
            return Ok(());
        }
        let Some(conflicts) = document.folder.open_folder(CONFLICTS)? else { return Ok(()) };
        let mut names = conflicts.names()?;
        names.sort_unstable();
        for name in names {
            let path = format!("{}/{CONFLICTS}/{name}", document.path);
            match self.branch(&conflicts, &name, path, &document.id)? {
                Entry::Document(branch) => document.conflicts.push(*branch),
                Entry::Problem(problem) => document.problems.push(problem),
            }
        }
        Ok(())
    }

    fn branch(
        &self,
        conflicts: &Folder,
        name: &str,
        path: String,
        id: &DocumentId,
    ) -> Result<Entry, MirrorError> {
        let Some(folder) = conflicts.open_folder(name)? else {
            return Ok(Entry::Problem(Problem::extra(
                path,
                "a folder or file that does not belong to a branch",
            )));
        };
        let Some(text) = read(&folder, &path, DOCUMENT)? else {
            let path = format!("{path}/{DOCUMENT}");
            let problem = Problem::new(ProblemKind::Missing, path, "it is missing");
            return Ok(Entry::Problem(problem));
        };
        let decoded = Decoded::Exact(id.as_str().to_owned());
        let entries = folder.entries()?;
        let entry = self.document(path, (folder, entries), decoded, text, false)?;
        Ok(match entry {
            Entry::Document(branch) if !self.names_revision(name, branch.revision.as_ref()) => {
                let path = format!("{}/{DOCUMENT}", branch.path);
                let reason = "its `_rev` does not match the name of its folder";
                Entry::Problem(Problem::new(ProblemKind::Altered, path, reason))
            }
            entry => entry,
        })
    }

    /// A name, or a path, without the number that is appended in the trash.
    fn unnumbered<'a>(&self, name: &'a str) -> &'a str {
        let cut = deleted::numbered(name).filter(|_| self.numbered);
        cut.map_or(name, |(document, _)| document)
    }

    /// What the name of a document's folder says of its id. In the trash, a document without an id has
    /// a name that says nothing.
    pub(crate) fn decoded(&self, name: &str) -> Decoded {
        match self.spelling.decode(self.unnumbered(name)) {
            Decoded::Exact(id) if self.numbered && id == NAMELESS => Decoded::Hashed,
            decoded => decoded,
        }
    }

    fn names_revision(&self, name: &str, revision: Option<&Revision>) -> bool {
        revision.is_some_and(|revision| self.spelling.encode(revision.as_str()).as_str() == name)
    }

    fn document(
        &self,
        path: String,
        (folder, entries): (Folder, Vec<(String, Option<FileType>)>),
        decoded: Decoded,
        text: Unchecked,
        deleted: bool,
    ) -> Result<Entry, MirrorError> {
        let StoredText { text: body, path: file, checksum, .. } = match text.whole() {
            Ok(text) => text,
            Err(problem) => return Ok(Entry::Problem(problem)),
        };
        let problem =
            |kind, reason: String| Ok(Entry::Problem(Problem::new(kind, file.clone(), reason)));
        let head = match Head::read(&body) {
            Ok(head) => head,
            Err(error) => return problem(ProblemKind::Altered, format!("it is not JSON: {error}")),
        };
        let id: DocumentId = match (decoded, head.id.as_deref()) {
            (Decoded::Exact(id), None) if !self.numbered || id != NAMELESS => id.into(),
            (Decoded::Exact(id), Some(own)) if id == own => id.into(),
            (Decoded::Hashed, Some(own))
                if self.unnumbered(&path).ends_with(self.spelling.encode(own).as_str()) =>
            {
                own.into()
            }
            (_, own) => {
                let own = own.map_or("none".to_owned(), |own| format!("{own:?}"));
                let reason =
                    format!("its `_id` is {own}, which does not match the name of its folder");
                return problem(ProblemKind::Altered, reason);
            }
        };
        let revision = head.revision.as_deref().map(Revision::from);
        let encode = |name: &str| self.spelling.encode(name).as_str().to_owned();
        let attachments = attachments(&folder, head.stubs(), encode)?;
        Ok(Entry::Document(Box::new(StoredDocument {
            id,
            revision,
            deleted,
            body,
            history: None,
            conflicts: Vec::new(),
            problems: Vec::new(),
            attachments,
            path,
            checksum,
            folder,
            entries,
            written: None,
            ways: Ways::MIRROR,
        })))
    }
}

//! Documents at rest: an archive is anything that holds them, and is only read. It takes no lock, and
//! reports entries that do not belong there instead of skipping them.
//!
//! Each format is one implementation of [`Archive`]: a mirror, a mirror's tree without its
//! `.plainfold`, the folders of RxDB's backup plugin. An archive may be written to while it is read. A
//! document that changes meanwhile is read again.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use jiff::civil::Date;

use crate::document::{CollectionName, DocumentId, Properties};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::inventory::{Inventory, Recorded, Snapshot, unknown};
use crate::tree::layout::SECURITY;

mod bare;
#[cfg(test)]
pub(crate) mod conformance;
mod document;
mod folder;
pub mod locate;
mod mirror;
mod problem;
mod rxdb;
mod text;
mod tree;

pub use document::{Entry, EntryVersion, StoredAttachment, StoredDocument, StoredFile};
pub use problem::{Problem, ProblemKind};
pub use text::StoredText;

/// Names, and problems for entries without a readable name.
pub type EachName<'a> = Box<dyn Iterator<Item = Result<Result<String, Problem>, MirrorError>> + 'a>;

/// The collections of an archive, by name, and the other entries beside them.
pub type Collections = (Vec<Arc<dyn StoredCollection>>, Vec<Problem>);

/// Something that holds documents at rest. All calls block, and write nothing.
pub trait Archive: Debug + Send + Sync {
    /// The collections, by name, and the other entries beside them.
    fn collections(&self) -> Result<Collections, MirrorError>;

    /// The names of the collections, in order. No more than one of their folders is open at a time.
    fn names(&self) -> Result<Vec<CollectionName>, MirrorError> {
        let (collections, _) = self.collections()?;
        Ok(collections.iter().map(|one| one.name().clone()).collect())
    }

    /// The collection of this name, if there is one. The others are not looked at where that is possible.
    fn collection(
        &self,
        name: &CollectionName,
    ) -> Result<Option<Arc<dyn StoredCollection>>, MirrorError> {
        let (collections, _) = self.collections()?;
        Ok(collections.into_iter().find(|one| one.name() == name))
    }

    /// The document that a path belongs to: the path of its folder, or of anything in that folder,
    /// relative to the archive.
    fn identify(&self, path: &Path) -> Result<locate::Identity, locate::LocateError>;

    /// The lineage, which identifies a mirror and its copies.
    fn lineage(&self) -> Option<&str> {
        None
    }

    /// Why bodies are not those that the source sent, byte for byte; `None` if they are.
    fn rewritten(&self) -> Option<&'static str> {
        None
    }

    /// Whether the collections have the names that their source gave them.
    fn has_names(&self) -> bool {
        true
    }

    /// What cannot be determined for this archive, in words.
    fn unknown(&self) -> Option<&'static str> {
        None
    }

    /// The recorded collections that are missing; `present` are those that were found.
    fn missing(&self, _present: &[Arc<dyn StoredCollection>]) -> Result<Vec<Problem>, MirrorError> {
        Ok(Vec::new())
    }

    /// The number of leftovers of interrupted runs; 0 while a process works on the archive. They
    /// harm no document, and the next run removes them.
    fn leftovers(&self) -> Result<u64, MirrorError> {
        Ok(0)
    }

    /// The number of replaced or deleted files and folders that could not be removed.
    fn unremovable(&self) -> u64 {
        0
    }
}

/// A collection of an archive. Each document has a name in it, which need not be its id.
pub trait StoredCollection: Debug + Send + Sync {
    /// Its name, as the source spells it.
    fn name(&self) -> &CollectionName;

    /// Its path, relative to the archive.
    fn path(&self) -> &str;

    /// The path of an entry, relative to the archive.
    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.path())
    }

    /// The name of the entry to which a path belongs, relative to the archive.
    fn entry_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.path())?.strip_prefix('/')?.split('/').next()
    }

    /// The name of a document here; empty if the archive cannot hold a document with this id.
    fn name_of(&self, id: &DocumentId) -> String;

    /// The id of the document with this name, if the name alone shows it.
    fn id_of(&self, name: &str) -> Option<DocumentId>;

    /// The names of all entries, one by one and in no order, so that there may be any number. A name
    /// that cannot be read comes as a problem.
    fn each_name(&self) -> Result<EachName<'_>, MirrorError>;

    /// The names of all entries, in order.
    fn entry_names(&self) -> Result<Vec<String>, MirrorError> {
        // An entry that belongs to no document is found again, and reported, when it is read.
        let name = |found: Result<String, Problem>| found.unwrap_or_else(|one| one.path);
        let names = self.each_name()?.map(|found| found.map(name));
        let mut names: Vec<_> = names.collect::<Result<_, _>>()?;
        names.sort_unstable();
        Ok(names)
    }

    /// Reads an entry; `None` if it has been removed meanwhile.
    fn entry(&self, name: &str) -> Result<Option<Entry>, MirrorError>;

    /// The present identity of an entry.
    fn version(&self, name: &str) -> Result<EntryVersion, MirrorError>;

    /// Whether it holds only some documents of a collection.
    fn is_part(&self) -> bool {
        false
    }

    /// How it was created at its source, if that is known, which only a CouchDB reports.
    fn properties(&self) -> Option<Properties> {
        None
    }

    /// Whether a run has recorded that it made this collection. Without any records, every
    /// collection counts as recorded.
    fn is_recorded(&self) -> Result<bool, MirrorError> {
        Ok(true)
    }

    /// Whether the files of its attachments are held, as the last run had it.
    fn holds_attachments(&self) -> Result<bool, MirrorError> {
        Ok(true)
    }

    /// The security object, or what is wrong with its file; `None` if it does not exist.
    fn security(&self) -> Result<Option<Result<StoredText, Problem>>, MirrorError> {
        Ok(None)
    }

    /// The path of the security object, relative to the archive.
    fn security_path(&self) -> String {
        format!("{}/{SECURITY}", self.path())
    }

    /// Its inventory; `None` if it has none.
    fn inventory(&self) -> Result<Option<Inventory>, MirrorError> {
        Ok(None)
    }

    /// What the inventory says of some entries, and the file that was read.
    fn recorded(
        &self,
        names: HashSet<String>,
    ) -> Result<(Vec<Recorded>, Option<Snapshot>), MirrorError> {
        Ok((unknown(names), None))
    }

    /// The inventory's file as it is now.
    fn snapshot(&self) -> Result<Option<Snapshot>, MirrorError> {
        Ok(None)
    }

    /// The newest version of each document that was deleted at the source and is still held. For the
    /// documents in `held` that is their entry here. For all others without an entry here, it is the
    /// version that was kept last, on the day `since` or later. They are returned as separate
    /// collections; each document is in one of them.
    fn deleted(
        &self,
        _held: &BTreeSet<DocumentId>,
        _since: Option<Date>,
    ) -> Result<Vec<Arc<dyn StoredCollection>>, MirrorError> {
        Ok(Vec::new())
    }
}

/// Opens what is in the directory `path`: a mirror, a copy of one without its `.plainfold`, or the
/// output of RxDB's backup plugin.
pub fn open(path: &Path) -> Result<Arc<dyn Archive>, MirrorError> {
    if path.is_file() {
        return Err(MirrorError::NotADirectory { path: path.to_owned() });
    }
    let nothing = || MirrorError::NothingToRead { path: path.to_owned() };
    if !path.is_dir() {
        return Err(nothing());
    }
    let root = Folder::open_path(path)?;
    if let Some(mirror) = mirror::recognise(&root)? {
        return Ok(mirror);
    }
    if let Some(backup) = rxdb::recognise(&root)? {
        return Ok(backup);
    }
    bare::recognise(&root)?.ok_or_else(nothing)
}

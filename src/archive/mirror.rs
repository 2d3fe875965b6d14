//! A mirror: a tree with its `.plainfold`.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::locate::{Identity, LocateError};
use super::tree::{Ours, Tree};
use super::{Archive, Collections, Problem, ProblemKind, StoredCollection};
use crate::document::CollectionName;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{COLLECTIONS, LOCK, OURS, STAGING};
use crate::tree::record::record_name;
use crate::tree::{format, lanes, lock, unremovable};

/// A mirror.
#[derive(Debug)]
struct MirrorArchive {
    tree: Arc<Tree>,
    ours: Arc<Ours>,
    lineage: String,
}

/// The mirror in a folder; `None` if it is not one.
pub(super) fn recognise(root: &Folder) -> Result<Option<Arc<dyn Archive>>, MirrorError> {
    let Some(folder) = root.open(OURS)? else { return Ok(None) };
    let Some(format) = format::read(root.path(), &folder)? else { return Ok(None) };
    let records = folder.open_unless_file(COLLECTIONS)?;
    let ours = Arc::new(Ours { folder, records });
    let root = Folder::open_path(root.path())?;
    let tree = Tree { root, spelling: format.spelling(), ours: Some(Arc::clone(&ours)) };
    Ok(Some(Arc::new(MirrorArchive { tree: Arc::new(tree), ours, lineage: format.lineage })))
}

impl Archive for MirrorArchive {
    fn collections(&self) -> Result<Collections, MirrorError> {
        self.tree.collections(|_| true)
    }

    fn names(&self) -> Result<Vec<CollectionName>, MirrorError> {
        self.tree.names()
    }

    fn collection(
        &self,
        name: &CollectionName,
    ) -> Result<Option<Arc<dyn StoredCollection>>, MirrorError> {
        self.tree.collection(name)
    }

    fn identify(&self, path: &Path) -> Result<Identity, LocateError> {
        self.tree.identify(path)
    }

    fn lineage(&self) -> Option<&str> {
        Some(&self.lineage)
    }

    fn missing(&self, present: &[Arc<dyn StoredCollection>]) -> Result<Vec<Problem>, MirrorError> {
        let Some(records) = &self.ours.records else { return Ok(Vec::new()) };
        let present: HashSet<String> =
            present.iter().map(|collection| record_name(collection.path())).collect();
        let mut missing = Vec::new();
        for name in records.names()? {
            let Some(folder) = name.strip_suffix(".json") else { continue };
            // A collection that appeared meanwhile was created after the folders were listed.
            let gone = !present.contains(&name)
                && self.tree.root.kind(folder)?.is_none()
                && records.kind(&name)?.is_some();
            if gone {
                let reason = "the folder of a collection is missing";
                missing.push(Problem::new(ProblemKind::Missing, folder.to_owned(), reason));
            }
        }
        Ok(missing)
    }

    fn leftovers(&self) -> Result<u64, MirrorError> {
        let ours = &self.ours.folder;
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

    fn unremovable(&self) -> u64 {
        unremovable::count(&self.ours.folder)
    }
}

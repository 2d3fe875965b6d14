//! Lists the collections of a tree.

use std::sync::Arc;

use rustix::fs::FileType;

use super::Tree;
use super::collection::TreeCollection;
use crate::archive::{Collections, Problem, StoredCollection};
use crate::document::CollectionName;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::names::Decoded;
use crate::tree::record::Record;

impl Tree {
    /// The collections, by name, and the other entries beside them. `holds` says whether a folder
    /// may be a collection.
    pub fn collections(
        self: &Arc<Self>,
        holds: impl Fn(&str) -> bool,
    ) -> Result<Collections, MirrorError> {
        let (mut collections, mut problems) = (Vec::new(), Vec::new());
        let inventories = self.inventories()?;
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
            if !holds(&encoded) {
                problems.push(Problem::extra(encoded, "a folder without documents"));
                continue;
            }
            let Some(name) = self.name_of(&encoded)? else {
                let what = match self.spelling.decode(&encoded) {
                    Decoded::Hashed => {
                        "a collection with a shortened name, whose full name only \
                         .plainfold/collections records, and no record of it is readable there"
                    }
                    _ => "a folder that does not belong to a collection",
                };
                problems.push(Problem::extra(encoded, what));
                continue;
            };
            let collection = self.opened(name, folder, encoded, inventories.clone());
            collections.push(Arc::new(collection) as Arc<dyn StoredCollection>);
        }
        collections.sort_by(|left, right| left.name().cmp(right.name()));
        Ok((collections, problems))
    }
    /// The names of the collections, in order.
    pub fn names(&self) -> Result<Vec<CollectionName>, MirrorError> {
        let mut names = Vec::new();
        for encoded in self.root.names()? {
            let is_folder =
                || self.root.kind(&encoded).map(|kind| kind.is_some_and(FileType::is_dir));
            if !encoded.starts_with('.') && is_folder()? {
                names.extend(self.name_of(&encoded)?);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The collection of this name.
    pub fn collection(
        self: &Arc<Self>,
        name: &CollectionName,
    ) -> Result<Option<Arc<dyn StoredCollection>>, MirrorError> {
        let encoded = self.spelling.encode(name.as_str()).to_string();
        let Some(folder) = self.root.open_folder(&encoded)? else { return Ok(None) };
        // Only its record tells whether a shortened name is this one's.
        if self.name_of(&encoded)?.as_ref() != Some(name) {
            return Ok(None);
        }
        let inventories = self.inventories()?;
        Ok(Some(Arc::new(self.opened(name.clone(), folder, encoded, inventories))))
    }

    fn opened(
        self: &Arc<Self>,
        name: CollectionName,
        folder: Folder,
        encoded: String,
        inventories: Option<Arc<Folder>>,
    ) -> TreeCollection {
        // An unreadable record counts as missing.
        let record = self.records().map(|records| Record::read(records, &encoded));
        let record = record.and_then(|record| record.ok().flatten());
        TreeCollection {
            properties: record.and_then(|record| record.properties),
            inventories,
            ..TreeCollection::new(Arc::clone(self), name, folder, encoded)
        }
    }
}

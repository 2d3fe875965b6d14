//! What a mirror and a mirror without its `.plainfold` have in common: a folder for each collection,
//! and in it a folder for each document.

use std::sync::Arc;

use crate::document::CollectionName;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::INVENTORY;
use crate::tree::names::{Decoded, Spelling};
use crate::tree::record::Record;

mod collection;
mod collections;
mod deleted;
mod document;
mod identify;

/// A tree of collections.
#[derive(Debug)]
pub(super) struct Tree {
    pub root: Folder,
    pub spelling: Spelling,
    /// `None` without `.plainfold`.
    pub ours: Option<Arc<Ours>>,
}

/// The folder `.plainfold`.
#[derive(Debug)]
pub(super) struct Ours {
    pub folder: Folder,
    /// The records of collections.
    pub records: Option<Folder>,
}

impl Tree {
    /// The records of collections, if there are any.
    fn records(&self) -> Option<&Folder> {
        self.ours.as_ref().and_then(|ours| ours.records.as_ref())
    }

    /// The folder of all inventories.
    fn inventories(&self) -> Result<Option<Arc<Folder>>, MirrorError> {
        match &self.ours {
            Some(ours) => Ok(ours.folder.open_folder(INVENTORY)?.map(Arc::new)),
            None => Ok(None),
        }
    }

    /// The name of the collection in a folder. If it is shortened, only the record has it.
    fn name_of(&self, encoded: &str) -> Result<Option<CollectionName>, MirrorError> {
        match self.spelling.decode(encoded) {
            Decoded::Exact(name) => Ok(Some(name.into())),
            Decoded::Foreign => Ok(None),
            Decoded::Hashed => {
                let Some(records) = self.records() else { return Ok(None) };
                let record = Record::read(records, encoded)?;
                let fits = |name: &String| self.spelling.encode(name).as_str() == encoded;
                Ok(record.map(|record| record.name).filter(fits).map(Into::into))
            }
        }
    }
}

//! The document that a path of a tree belongs to.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::Tree;
use super::collection::TreeCollection;
use crate::archive::folder::beneath;
use crate::archive::locate::{Identity, LocateError, Located, parts};
use crate::archive::{Entry, ProblemKind, StoredCollection};
use crate::document::DocumentId;
use crate::tree::MirrorError;
use crate::tree::layout::{OURS, SECURITY, TRASH};
use crate::tree::names::Decoded;

impl Tree {
    /// The document that a path belongs to.
    pub fn identify(self: &Arc<Self>, path: &Path) -> Result<Identity, LocateError> {
        let foreign = |what: &str| LocateError::no_document(path, what);
        let (above, collection, document, is_trash) = match parts(path)?[..] {
            [] => return Err(foreign("the mirror itself")),
            [OURS, TRASH, day, collection, document, ..] => {
                (format!("{OURS}/{TRASH}/{day}/"), collection, document, true)
            }
            [OURS, ..] => return Err(foreign("Plainfold's own")),
            [_] => return Err(foreign("not in the folder of a document")),
            [_, SECURITY, ..] => return Err(foreign("the security object of a collection")),
            [collection, document, ..] => (String::new(), collection, document, false),
        };
        let name = self.name_of(collection)?;
        let name = name.ok_or_else(|| foreign("in a folder that is not a collection's"))?;
        let encoded = above + collection;
        let Some(folder) = beneath(&self.root, &encoded)? else {
            return match self.spelling.decode(document) {
                Decoded::Exact(id) if !is_trash => {
                    Ok(Identity { collection: name, id: id.into(), found: Located::Nothing })
                }
                _ => Err(foreign("in a folder that does not exist")),
            };
        };
        // Documents in the trash have numbers, and no inventory.
        let place = TreeCollection {
            inventories: if is_trash { None } else { self.inventories()? },
            numbered: is_trash,
            ..TreeCollection::new(Arc::clone(self), name, folder, encoded)
        };
        place.identify(document)?.ok_or_else(|| foreign("something that no document has"))
    }
}

impl TreeCollection {
    /// The document under a name; `None` if the name is not a document's.
    fn identify(&self, name: &str) -> Result<Option<Identity>, LocateError> {
        let identity = |id, found| Ok(Some(Identity { collection: self.name.clone(), id, found }));
        let found = match self.entry(name)? {
            Some(Entry::Document(document)) => {
                let id = document.id.clone();
                return identity(id.clone(), Located::of(Some(Entry::Document(document)), &id));
            }
            Some(Entry::Problem(problem)) if problem.kind == ProblemKind::Extra => {
                return Ok(None);
            }
            Some(Entry::Problem(problem)) => Located::of_problem(problem),
            None => Located::Nothing,
        };
        let id = match self.decoded(name) {
            Decoded::Exact(id) => Some(id.into()),
            Decoded::Hashed => self.recorded_id(name)?,
            Decoded::Foreign => return Ok(None),
        };
        match id {
            Some(id) => identity(id, found),
            None => Err(LocateError::NoId { path: self.path_of(name) }),
        }
    }

    /// The id that the inventory has for a shortened name.
    fn recorded_id(&self, name: &str) -> Result<Option<DocumentId>, MirrorError> {
        let (recorded, _) = self.recorded(HashSet::from([name.to_owned()]))?;
        let mut ids = recorded.into_iter().filter_map(|one| one.id).map(DocumentId::from);
        Ok(ids.find(|id| self.name_of(id) == name))
    }
}

//! Counts the documents in the tree: once by reading it, then by the effect of each published
//! change.

use rustix::fs::FileType;

use super::Mirror;
use super::collection::Collection;
use crate::document::Tally;
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{DOCUMENT, TOMBSTONE};

impl Collection {
    /// Counts the documents and tombstones of the tree. Opens every folder.
    pub fn tally(&self) -> Result<Tally, MirrorError> {
        Ok(self.tally_up_to(usize::MAX)?.unwrap_or_default())
    }

    /// The same; `None` if there are more folders than `most`.
    pub fn tally_up_to(&self, most: usize) -> Result<Option<Tally>, MirrorError> {
        let mut tally = Tally::default();
        for (number, id) in self.documents().enumerate() {
            if number >= most {
                return Ok(None);
            }
            let name = self.document_name(id?.as_str());
            // An entry that cannot be opened is not one of our documents.
            if let Ok(Some(folder)) = self.folder.open(name.as_str()) {
                tally += of(&folder)?;
            }
        }
        Ok(Some(tally))
    }
}

impl Mirror {
    /// The count for the document that was moved to staging under this name. `None` if it cannot be
    /// read.
    pub(super) fn tally_of_replaced(&self, name: &str) -> Option<Tally> {
        let folder = self.staging.open_folder(name).ok()?;
        folder.map_or(Some(Tally::default()), |folder| of(&folder).ok())
    }
}

/// One document, one tombstone, or neither.
fn of(folder: &Folder) -> Result<Tally, MirrorError> {
    let holds = |name| Ok::<_, MirrorError>(folder.kind(name)?.is_some_and(FileType::is_file));
    Ok(match holds(DOCUMENT)? {
        true => Tally::one(false),
        false if holds(TOMBSTONE)? => Tally::one(true),
        false => Tally::default(),
    })
}

//! A mirror's tree without its `.plainfold`.

use std::path::Path;
use std::sync::Arc;

use super::locate::{Identity, LocateError};
use super::tree::Tree;
use super::{Archive, Collections};
use crate::tree::MirrorError;
use crate::tree::bare::Bare;
use crate::tree::beneath::Folder;

/// What cannot be determined without `.plainfold`.
const UNKNOWN: &str = "without .plainfold, verify cannot tell whether documents are missing, \
                       whether files without a checksum were altered, whether all attachments were mirrored, and which source the mirror follows";

/// A tree of collections that nothing describes.
#[derive(Debug)]
struct BareMirror {
    tree: Arc<Tree>,
    /// The folders that are collections.
    collections: Vec<String>,
}

/// The tree in a folder; `None` if it holds no collection.
pub(super) fn recognise(root: &Folder) -> Result<Option<Arc<dyn Archive>>, MirrorError> {
    let Some(Bare { spelling, collections }) = Bare::recognise(root)? else { return Ok(None) };
    let root = Folder::open_path(root.path())?;
    let tree = Arc::new(Tree { root, spelling, ours: None });
    Ok(Some(Arc::new(BareMirror { tree, collections })))
}

impl Archive for BareMirror {
    fn collections(&self) -> Result<Collections, MirrorError> {
        self.tree.collections(|encoded| self.collections.iter().any(|one| one == encoded))
    }

    fn identify(&self, path: &Path) -> Result<Identity, LocateError> {
        self.tree.identify(path)
    }

    fn unknown(&self) -> Option<&'static str> {
        Some(UNKNOWN)
    }
}

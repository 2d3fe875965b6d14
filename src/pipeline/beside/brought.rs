//! What comes of a document that is fetched beside the feed.

use crate::checkpoint::Failure;
use crate::document::DocumentId;
use crate::mirror::Material;
use crate::pipeline::batch::Item;
use crate::pipeline::pending::Pending;

/// The result of a fetch.
#[derive(Debug)]
pub enum Brought {
    /// Everything that a planned write needs.
    Complete(Pending),
    /// A state of the document that has to be planned, with the parts that were fetched for it
    /// already.
    Found(Item, Material),
    /// The source does not know the document.
    Gone(DocumentId),
    /// The source cannot be asked: the tree keeps its version.
    Unchanged(DocumentId),
    /// It could not be fetched.
    Failed(DocumentId, Failure),
}

impl Brought {
    /// The document's id.
    pub fn id(&self) -> &DocumentId {
        match self {
            Self::Complete(pending) => &pending.item.change.id,
            Self::Found(item, _) => &item.change.id,
            Self::Gone(id) | Self::Unchanged(id) | Self::Failed(id, _) => id,
        }
    }
}

//! What publishing takes out of the tree: the version that a change replaces, and the document that
//! it deletes.
//!
//! Publishing destroys no folder. It moves the folder to staging under a name that this module gives,
//! and hands it over after the commit. This module alone decides what becomes of it: today a deleted
//! document goes to the trash, if there is one, and everything else is removed.

use super::publish::Published;
use super::{Lane, Mirror};
use crate::tree::MirrorError;
use crate::tree::temporary::{Purpose, Temporary};
use crate::trial;

impl Mirror {
    /// A name in staging for a folder that leaves the tree because a newer version takes its place.
    /// The name says what becomes of the folder, also to the next run.
    pub(super) fn aside_replaced(&self, collection: &str, lane: Lane) -> String {
        self.name_for(Purpose::Passing, collection, lane)
    }

    /// The same if its document is deleted.
    pub(super) fn aside_deleted(&self, collection: &str, lane: Lane) -> String {
        let purpose = if self.has_trash() { Purpose::Discarded } else { Purpose::Removed };
        self.name_for(purpose, collection, lane)
    }

    /// Another name for a folder that would have left the tree under this one.
    pub(super) fn aside_like(&self, name: &str, collection: &str) -> String {
        let purpose = Temporary::of(name).map_or(Purpose::Passing, |one| one.purpose);
        self.name_for(purpose, collection, Lane::default())
    }

    /// Called after the commit: what published changes took out of the tree goes to the trash, or is
    /// removed.
    pub fn dispose<'a>(
        &self,
        published: impl IntoIterator<Item = &'a Published> + Clone,
    ) -> Result<(), MirrorError> {
        if self.has_trash() {
            self.discard(published.clone())?;
        }
        for name in published.into_iter().filter_map(|published| published.replaced.as_deref()) {
            trial::pass("dispose");
            // What went to the trash is no longer there.
            self.clear_away(name)?;
        }
        Ok(())
    }

    /// Called when the events of an interrupted run are emitted: the same for what it took out of the
    /// tree.
    pub(super) fn dispose_interrupted(&self, removed: &mut Vec<String>) -> Result<(), MirrorError> {
        self.rescue(removed)?;
        for path in removed.drain(..) {
            self.clear_away(&path)?;
        }
        Ok(())
    }

    fn has_trash(&self) -> bool {
        self.options.trash > 0
    }
}

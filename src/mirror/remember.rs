//! Saves the options of an open mirror.

use super::Mirror;
use super::options::Remembered;
use crate::document::{CollectionName, Kept};
use crate::tree::MirrorError;
use crate::tree::layout::OPTIONS;
use crate::tree::record::Record;

impl Mirror {
    /// The options of this mirror.
    pub fn options(&self) -> &Remembered {
        &self.options
    }

    /// Saves the options of the mirror durably if they have changed, except the selected
    /// collections: [`remember_collections`](Self::remember_collections) saves those, because a name
    /// or the server may be mistyped.
    pub fn remember(&mut self, options: Remembered) -> Result<(), MirrorError> {
        let written = Remembered::read(&self.ours)?;
        let collections = written.as_ref().map(|written| written.collections.clone());
        let now = Remembered { collections: collections.unwrap_or_default(), ..options.clone() };
        if written.as_ref() != Some(&now) {
            self.epoch.write(&self.ours, OPTIONS, &now)?;
        }
        self.options = options;
        Ok(())
    }

    /// Saves durably which collections are selected, if that has changed.
    pub fn remember_collections(&self) -> Result<(), MirrorError> {
        if Remembered::read(&self.ours)?.as_ref() != Some(&self.options) {
            self.epoch.write(&self.ours, OPTIONS, &self.options)?;
        }
        Ok(())
    }

    /// Which revisions are kept of any collection in addition to the winners.
    pub fn kept_anywhere(&self) -> Result<Kept, MirrorError> {
        let mut kept = self.options.kept();
        for record in Record::all(&self.collections)? {
            let one = self.wanted.kept_of(&self.options, Some(&record)).kept;
            kept.revisions |= one.revisions;
            kept.deleted |= one.deleted;
        }
        Ok(kept)
    }

    /// Whether an earlier run has recorded any collection.
    pub fn has_past(&self) -> Result<bool, MirrorError> {
        Ok(!self.collections.names()?.is_empty())
    }

    /// The recorded collections, and the source that each follows.
    pub fn recorded(&self) -> Result<Vec<(CollectionName, String)>, MirrorError> {
        let records = Record::all(&self.collections)?;
        Ok(records.into_iter().map(|record| (record.name.into(), record.source)).collect())
    }
}

//! Recorded feeds: a file of newline-delimited JSON, one change a line in the shape of CouchDB's
//! `_changes` rows with `include_docs=true`.
//!
//! ```text
//! {"seq":1,"id":"a","changes":[{"rev":"1-x"}],"doc":{"_id":"a","_rev":"1-x"}}
//! {"seq":2,"id":"b","changes":[{"rev":"2-y"}],"deleted":true,"collection":"books"}
//! ```
//!
//! What `curl` prints of a continuous or a normal feed is taken as it is. Attachments are inline
//! (`data`, base64), in files beneath the feed file's folder (`file`, a path), or stubs that only
//! say what there was. The modules in reading order:
//!
//! 1. [`json`]: JSON text in place; `lines`: a feed cut into lines; `row`: one row; `stubs`:
//!    attachments taken out of a document; `content`: their bytes; `large`: rows too long for memory.
//! 2. `place`: positions; `loaded`, `rows`, `reader`: a file's lines made into events; `lookup`: one
//!    document; `listing`: collections; `follow`: growth; `queue`: from threads to streams.
//! 3. `file`: the source of a feed file; this file: the stores.
//!
//! It must not know mirrors, checkpoints, or which of its collections anybody wants.

use std::path::Path;
use std::sync::Arc;

use futures_util::stream::BoxStream;

use self::file::{FeedFile, FileSource};
use super::{Mode, Selection, Source, SourceError, Store, StoreEvent};
use crate::document::CollectionName;

mod attachment;
mod content;
mod file;
mod follow;
pub(crate) mod json;
mod large;
mod lines;
mod listing;
mod loaded;
mod lookup;
mod place;
mod queue;
mod reader;
mod row;
mod rows;
mod stubs;
#[cfg(test)]
mod tests;

/// A recorded feed.
#[derive(Debug)]
pub struct FeedStore {
    feed: Arc<FeedFile>,
    selection: Selection,
}

impl FeedStore {
    /// The feed in this file. Rows that name no collection belong to `collection`; without one, to
    /// a collection named as the file is, up to its extension. Does no I/O.
    pub fn file(
        path: impl AsRef<Path>,
        collection: Option<CollectionName>,
        selection: Selection,
    ) -> Self {
        Self { feed: Arc::new(FeedFile::new(path.as_ref(), collection)), selection }
    }
}

impl Store for FeedStore {
    fn identity(&self) -> String {
        format!("feed:{}", self.feed.path().display())
    }

    fn collections(&self, mode: Mode) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
        listing::collections(self.feed.clone(), self.selection.clone(), mode)
    }

    fn open(&self, collection: &CollectionName) -> Arc<dyn Source> {
        Arc::new(FileSource::new(self.feed.clone(), collection.clone()))
    }
}

//! Recorded feeds: a file of newline-delimited JSON, one change a line in the shape of CouchDB's
//! `_changes` rows with `include_docs=true`.
//!
//! ```text
//! {"seq":1,"id":"a","changes":[{"rev":"1-x"}],"doc":{"_id":"a","_rev":"1-x"}}
//! {"seq":2,"id":"b","changes":[{"rev":"2-y"}],"deleted":true,"collection":"books"}
//! ```
//!
//! What `curl` prints of a continuous or a normal feed is read as it is. Attachments are inline
//! (`data`, base64), in files beneath the feed file's folder (`file`, a path), or stubs that only
//! describe what there was. The modules in reading order:
//!
//! 1. `json`: JSON text in place; `lines`: a feed cut into lines; `row`: one row; `stubs`:
//!    attachments taken out of a document; `content`: their bytes; `large`: rows too long for memory.
//! 2. `place`: positions; `loaded`, `rows`: lines made into events; `lookup`: one document; `names`:
//!    those of the collections; `queue`: from threads to streams; `routes`, `router`: from one reading
//!    to all collections.
//! 3. `packed`: gzip and zstd; `beginning`, `other`: what is not a feed; `begun`, `spool`: how each
//!    reading begins.
//! 4. `file`: a feed file; `follow`: its growth; `reader`: the readings of a file; `pipe`: that of
//!    standard input; `collection`: one of those that they bring; this file: the stores.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};

pub use self::begun::Input;
use self::collection::{FeedCollection, Origin};
use self::content::Folder;
use self::file::FeedFile;
use self::pipe::Pipe;
use super::{Capabilities, Feed, Mode, Selection, SourceError, Store, StoreEvent, Streams};
use crate::document::{CollectionName, Position};

mod attachment;
mod beginning;
mod begun;
mod collection;
mod content;
mod file;
mod follow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod large;
mod lines;
mod loaded;
mod lookup;
mod names;
mod other;
mod packed;
mod pipe;
mod place;
mod queue;
mod reader;
mod router;
mod routes;
mod row;
mod rows;
mod spool;
mod stubs;
#[cfg(test)]
mod tests;

/// A recorded feed.
pub struct FeedStore {
    origin: Origin,
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
        let feed = FeedFile::new(path.as_ref(), collection);
        Self { origin: Origin::File(Arc::new(feed)), selection }
    }

    /// The feed on standard input. Rows that name no collection belong to `collection`; without
    /// one, to `stdin`. Files that rows name are looked for beneath the current folder.
    pub fn stdin(input: Input, collection: Option<CollectionName>, selection: Selection) -> Self {
        Self::input(input, collection, selection, Folder::new("."))
    }

    /// Refuses a file that is not a feed, or that cannot be read in this mode, by its beginning.
    /// Blocks. That it cannot be read at all is left to its reading.
    pub fn refuse(path: &Path, mode: Mode) -> Result<(), SourceError> {
        FeedFile::new(path, None).refuse(mode)
    }

    /// The identity of the feed at this path; `None` is standard input.
    pub fn identity_of(path: Option<&Path>) -> String {
        match path {
            Some(path) => format!("feed:{}", FeedFile::new(path, None).path().display()),
            None => "feed:-".to_owned(),
        }
    }

    /// The feed that is read from here, once, by a thread that is blocked while nothing comes.
    /// Files that rows name are looked for beneath `folder`.
    ///
    /// Each collection must be opened and read once it has been named, before `Listed`: until then
    /// its rows take up the room that the others' need.
    pub fn reader(
        reader: impl Read + Send + 'static,
        collection: Option<CollectionName>,
        selection: Selection,
        folder: impl Into<PathBuf>,
    ) -> Self {
        Self::input(Input::of(reader), collection, selection, Folder::new(folder))
    }

    fn input(
        input: Input,
        collection: Option<CollectionName>,
        selection: Selection,
        folder: Folder,
    ) -> Self {
        let collection = collection.unwrap_or_else(|| "stdin".into());
        let pipe = Pipe::new(input, collection, selection.clone(), folder);
        Self { origin: Origin::Pipe(Arc::new(pipe)), selection }
    }
}

impl fmt::Debug for FeedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FeedStore").field(&self.identity()).finish()
    }
}

impl Store for FeedStore {
    fn identity(&self) -> String {
        match &self.origin {
            Origin::File(feed) => Self::identity_of(Some(feed.path())),
            Origin::Pipe(_) => Self::identity_of(None),
        }
    }

    fn origin(&self, _collection: &CollectionName) -> String {
        self.identity()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { attachments: true, ..Capabilities::default() }
    }

    fn wants(&self, collection: &CollectionName) -> bool {
        self.selection.wants(collection)
    }

    fn collections(
        &self,
        mode: Mode,
        since: Option<Position>,
    ) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
        self.list(mode, since, false)
    }

    fn collections_to_read(
        &self,
        mode: Mode,
        since: Option<Position>,
    ) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
        self.list(mode, since, true)
    }

    fn streams(&self) -> Streams {
        match &self.origin {
            Origin::File(_) => Streams::Shared,
            Origin::Pipe(_) => Streams::Once,
        }
    }

    fn let_go(&self, collection: &CollectionName) {
        match &self.origin {
            Origin::File(feed) => {
                if let Some(routes) = feed.together() {
                    routes.let_go(collection);
                }
            }
            Origin::Pipe(pipe) => pipe.let_go(collection),
        }
    }

    fn open(&self, collection: &CollectionName) -> Arc<dyn Feed> {
        Arc::new(FeedCollection::new(self.origin.clone(), collection.clone()))
    }
}

impl FeedStore {
    fn list(
        &self,
        mode: Mode,
        since: Option<Position>,
        reads: bool,
    ) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
        let names = match &self.origin {
            Origin::File(feed) => {
                reader::list(Arc::clone(feed), self.selection.clone(), mode, since, reads)
            }
            Origin::Pipe(pipe) => pipe.names(mode),
        };
        let names = match names {
            Ok(names) => names,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let names =
            stream::unfold(names, |mut names| async move { Some((names.next().await?, names)) });
        match mode {
            Mode::CatchUp => names.boxed(),
            // A pipe that has ended is still followed.
            Mode::Follow => names.chain(stream::pending()).boxed(),
        }
    }
}

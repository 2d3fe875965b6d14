//! Where changes come from: the traits that every source keeps, and their errors.
//!
//! A [`Store`] holds collections and opens a [`Source`] for each. A source turns one collection's
//! feed into a stream of [`FeedEvent`]s. Errors stay in the stream and are classified here; waiting
//! and trying again is done in one place, [`retry`]. Sources must not know paths of the mirror,
//! sled, or when to retry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::document::{Attachment, Branch, Change, CollectionName, DocumentId, Position};
use crate::document::{Properties, Revision};

pub mod couchdb;
pub mod feed;
pub mod outage;
pub mod retry;
#[cfg(test)]
pub(crate) mod scripted;

use outage::{Ended, Mention, Outage, Said};

pub use crate::document::{BadGlob, Pattern, Selection};

/// What a feed says, in the order in which it says it.
///
/// Delivery is at least once: a change may be repeated, and after a fault at the source the feed
/// may rewind. Changes must be applied idempotently.
#[derive(Clone, Debug)]
pub enum FeedEvent {
    /// A document's newest state.
    Change(Change),
    /// A row that could not be made into a change. The feed continues after it.
    Unreadable(Unreadable),
    /// Nothing to write; everything before this position has been delivered.
    Position(Position),
    /// History was lost: a full listing of the collection follows. `reason` says why, for people.
    ScanStarted {
        /// Why the listing is needed, as a clause: "the database was created again".
        reason: String,
    },
    /// The listing is complete: documents not seen since `ScanStarted` are gone from the source,
    /// if `exhaustive`; a source that cannot list what it holds says `false` and nothing is removed.
    ScanFinished {
        /// The position that the listing has reached.
        position: Position,
        /// Whether every document of the collection was in the listing.
        exhaustive: bool,
    },
    /// The source's own counts. They are reported only if nothing was written between the reading of the
    /// feed and the counting, so that everything up to here makes these numbers.
    Holds(Holds),
    /// The source's present end. Repeated while following, whenever the source shows that it has nothing
    /// newer (a heartbeat).
    CaughtUp,
    /// How far the feed has been read, for a progress bar.
    Progress(Progress),
}

/// A row that could not be made into a change: it is not JSON, or lacks what a row must have, or
/// its document could not be read from the source.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The document, where at least its id could be read.
    pub id: Option<DocumentId>,
    /// Its revision, where known.
    pub revision: Option<Revision>,
    /// Where the row is, for people: "row at byte 1234 of library.ndjson".
    pub place: String,
    /// The position after this row, if the source gave one.
    pub position: Option<Position>,
    /// What is wrong, and what can be done about it.
    pub reason: String,
}

/// A source's counts, if it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// Documents that are not deleted.
    pub documents: Option<u64>,
    /// Tombstones.
    pub tombstones: Option<u64>,
}

/// How far a feed has been read, in the source's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Units read so far.
    pub done: u64,
    /// Units in all, as far as the source can tell.
    pub total: u64,
}

/// Whether a feed ends at the source's present end or continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// End after the first [`FeedEvent::CaughtUp`].
    CatchUp,
    /// Continue after it, as long as the stream is polled.
    Follow,
}

/// A stream of an attachment's own bytes. It ends with an error, never early, when they are cut
/// short or do not match the attachment's digest.
pub type ByteStream = BoxStream<'static, Result<Bytes, SourceError>>;

/// How many pieces of an attachment may wait for the thread that takes them.
pub const PIECES: usize = 4;

/// Passes a stream's pieces to a thread, to the end of the stream or until the thread takes no more; the
/// thread then knows the reason.
pub async fn pass_on(mut pieces: ByteStream, to: mpsc::Sender<Bytes>) -> Result<(), SourceError> {
    while let Some(piece) = pieces.next().await {
        if to.send(piece?).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The newest state of one document, read apart from the feed.
#[derive(Clone, Debug)]
pub enum Reading {
    /// The source answered with this state (it may be a deletion).
    Found(Change),
    /// The source does not know the document, or cannot look a document up outside its feed.
    Unknown,
}

/// One collection of a store.
///
/// Any number of streams may be open on one source, and a stream may be dropped at any await.
pub trait Source: Send + Sync + 'static {
    /// Opens the feed after `since`, or from the beginning.
    ///
    /// Yields [`FeedEvent`]s; a change with a position promises that all before it were yielded.
    /// Ends after `CaughtUp` with [`Mode::CatchUp`]; with [`Mode::Follow`] it ends only by an error.
    /// After an error the stream is over; open it again from the last position yielded. An
    /// [`SourceError::Expired`] means that `since` is no longer of use: open it again from
    /// [`Since::Scan`].
    fn changes(
        &self,
        since: Since,
        mode: Mode,
    ) -> BoxStream<'static, Result<FeedEvent, SourceError>>;

    /// The number of documents that the source counted when it was asked last, where it counts them.
    fn counted(&self) -> Option<u64> {
        None
    }

    /// Resolves when a pause that the source asked for may be cut short.
    fn recovers(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The progress of all collections of the server, if they come from one.
    fn server(&self) -> Option<&ServerProgress> {
        None
    }

    /// Reads the newest state of a document apart from the feed. `position` is where the feed
    /// named it, for sources that can only look there.
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>>;

    /// Opens one attachment of a revision of a document, for large ones.
    fn attachment<'a>(
        &'a self,
        id: &'a DocumentId,
        revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>>;

    /// Reads many small attachments at once, in the order of `wanted`; one answer each. The caller
    /// bounds the sum of their lengths. One that turns out longer than its stub says may be refused
    /// as [`SourceError::Permanent`], and still be readable as a stream.
    fn attachments<'a>(
        &'a self,
        wanted: &'a [Wanted],
    ) -> BoxFuture<'a, Result<Vec<Result<Bytes, SourceError>>, SourceError>>;

    /// Reads revisions with the histories that lead to them, in the order of `wanted`; one answer
    /// each. Never called for a source that knows winners only.
    fn branches<'a>(
        &'a self,
        wanted: &'a [(DocumentId, Revision)],
    ) -> BoxFuture<'a, Result<Vec<Result<Branch, SourceError>>, SourceError>> {
        let unknown = |(id, revision): &(DocumentId, Revision)| {
            let what = format!("this source has no history of `{id}` at {revision}");
            Err(SourceError::permanent(what))
        };
        let answers = wanted.iter().map(unknown).collect();
        Box::pin(async { Ok(answers) })
    }

    /// How the collection was created; `None` where the source does not say.
    fn properties(&self) -> BoxFuture<'_, Result<Option<Properties>, SourceError>> {
        Box::pin(async { Ok(None) })
    }

    /// The collection's security object, as JSON; `None` if the source has none.
    fn security(&self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async { Ok(None) })
    }
}

/// From where a feed is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// From its beginning, into a mirror that holds nothing of this collection.
    Start,
    /// After this position.
    Position(Position),
    /// From its beginning, as a full listing between `ScanStarted` and `ScanFinished`: the mirror
    /// holds documents whose history is unknown. The text says why, as a clause.
    Scan(String),
}

/// Whether the collections of a server make progress. If a server serves one after another, the
/// collections that wait do not give up.
#[derive(Clone, Debug, Default)]
pub struct ServerProgress {
    /// Steps of all collections of the server.
    all: Arc<AtomicU64>,
    /// Steps of this collection.
    own: Arc<AtomicU64>,
    outage: Arc<Outage>,
}

impl ServerProgress {
    /// The same server for another collection.
    pub fn for_another(&self) -> Self {
        let (all, outage) = (Arc::clone(&self.all), Arc::clone(&self.outage));
        Self { all, own: Arc::default(), outage }
    }

    /// This collection has come a step further.
    pub fn note(&self) {
        self.own.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    /// What the log is to say of an error of a collection, or of the list of them; `None` if it is not
    /// the whole server's.
    pub fn mention(
        &self,
        collection: Option<&CollectionName>,
        error: &SourceError,
        said: &mut Said,
    ) -> Option<Mention> {
        let SourceError::Transient { what, cause: Some(cause), .. } = error else { return None };
        let steps = self.all.load(Ordering::Relaxed);
        Some(self.outage.note(collection, (cause, what), (steps, Instant::now()), said))
    }

    /// One that waited works again; see [`Outage::end`].
    pub fn end_outage(&self) -> Option<Ended> {
        self.outage.end()
    }

    /// The steps of the other collections.
    pub fn of_others(&self) -> u64 {
        self.all.load(Ordering::Relaxed).saturating_sub(self.own.load(Ordering::Relaxed))
    }
}

/// One attachment of a bulk request.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose it is.
    pub id: DocumentId,
    /// Of which revision.
    pub revision: Revision,
    /// Which.
    pub attachment: Attachment,
}

/// What a store says about its collections.
#[derive(Clone, Debug)]
pub enum StoreEvent {
    /// A collection to be mirrored. Named once in a stream.
    Collection(CollectionName),
    /// A pattern of the selection that matches no collection that the store holds. Comes before `Listed`.
    Unmatched(Pattern),
    /// All present collections of the store have been named. A store for which a listing is much work says
    /// up to where it has read, so that the next listing may begin there.
    Listed(Option<Position>),
}

/// What a store announces about its collections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// It announces what changes from now on.
    Begun,
    /// This collection has changed, or was created or deleted.
    Changed(CollectionName),
    /// Nothing else has changed until now.
    Silence,
}

/// A document store: a server, or a recorded feed.
pub trait Store: Send + Sync + 'static {
    /// The store's address, without credentials, for people.
    fn identity(&self) -> String;

    /// The address of one of its collections, without credentials. A mirror remembers it, so that it does
    /// not follow another one by mistake.
    fn origin(&self, collection: &CollectionName) -> String;

    /// Whether the store can list all that a collection holds, so that a scan may remove what is
    /// not in it. A recorded feed cannot.
    fn lists_everything(&self) -> bool;

    /// Whether a collection of this name would be named if the store held it.
    fn wants(&self, collection: &CollectionName) -> bool;

    /// Whether the store is one collection, named in its address.
    fn is_single(&self) -> bool {
        false
    }

    /// Whether the collections come mixed in one stream. Then all have to be read at once, or all stop.
    fn is_mixed(&self) -> bool {
        false
    }

    /// Names the store's collections. With [`Mode::CatchUp`] it ends after `Listed`; with
    /// [`Mode::Follow`] it continues with collections that appear later. The [`Selection`] has been applied.
    /// `since` comes from an earlier `Listed`, of any selection: all collections are named again.
    fn collections(
        &self,
        mode: Mode,
        since: Option<Position>,
    ) -> BoxStream<'static, Result<StoreEvent, SourceError>>;

    /// Announces which collections change, where the store can do so. The stream ends with an error, and
    /// may be opened again.
    fn updates(&self) -> Option<BoxStream<'static, Result<Update, SourceError>>> {
        None
    }

    /// A mark for each of these collections, which is another one if the collection has changed; `None`
    /// where it is not known. At most 100 at once.
    fn marks<'a>(
        &'a self,
        collections: &'a [CollectionName],
    ) -> BoxFuture<'a, Result<Vec<Option<String>>, SourceError>> {
        let marks = vec![None; collections.len()];
        Box::pin(async { Ok(marks) })
    }

    /// Resolves when a pause that the store asked for may be cut short.
    fn recovers(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The source of one collection. Does no I/O.
    fn open(&self, collection: &CollectionName) -> Arc<dyn Source>;
}

/// What went wrong at a source, by what can be done about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// It may work later: a lost connection, an overloaded server, a broken feed.
    #[error("{what}")]
    Transient {
        /// What happened, to what.
        what: String,
        /// How long the source asked us to wait.
        retry_after: Option<Duration>,
        /// What happened, without the request, if it may happen to all requests to this server.
        cause: Option<String>,
    },
    /// The position is no longer of use: scan.
    #[error("{reason}")]
    Expired {
        /// Why, as a clause: "the database was created again".
        reason: String,
    },
    /// The credentials were refused. It is not tried again at once, because servers lock users out.
    #[error("{what}")]
    Refused {
        /// What was refused, and what to do.
        what: String,
    },
    /// The collection, document or attachment is not there.
    #[error("{what}")]
    Missing {
        /// What is not there.
        what: String,
    },
    /// What was given as a recorded feed is another format, or is not read in this mode. Nothing was
    /// read of it but its beginning.
    #[error("{what}")]
    NotAFeed {
        /// What it is, and what to do.
        what: String,
    },
    /// It fails however often it is tried.
    #[error("{what}")]
    Permanent {
        /// What happened, to what, and what to do.
        what: String,
    },
}

impl SourceError {
    /// A transient error without a time to wait.
    pub fn transient(what: impl Into<String>) -> Self {
        Self::Transient { what: what.into(), retry_after: None, cause: None }
    }

    /// An error that a retry does not resolve.
    pub fn permanent(what: impl Into<String>) -> Self {
        Self::Permanent { what: what.into() }
    }

    /// Something is not there.
    pub fn missing(what: impl Into<String>) -> Self {
        Self::Missing { what: what.into() }
    }
}

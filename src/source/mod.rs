//! Where changes come from: the traits that every source keeps, and their errors.
//!
//! A [`Store`] holds collections and opens a [`Feed`] for each. A feed is a stream of [`FeedEvent`]s,
//! with an optional interface for each kind of request that a store may answer beside it. Errors stay
//! in the stream and are classified here; waiting and trying again is done in one place, [`retry`].

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

#[cfg(test)]
pub(crate) mod conformance;
pub mod couchdb;
mod error;
pub mod feed;
pub mod outage;
pub mod retry;
#[cfg(test)]
pub(crate) mod scripted;

use outage::{Ended, Mention, Outage, Said};

pub use self::error::SourceError;
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

/// How far a position is behind the source's end, as the source states it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Behind {
    /// This number of changes comes after it.
    Changes(u64),
    /// This number of bytes comes after it.
    Bytes(u64),
}

impl Behind {
    /// Whether it is the source's end.
    pub fn is_nothing(self) -> bool {
        matches!(self, Self::Changes(0) | Self::Bytes(0))
    }
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

/// The changes of one collection of a store, and the requests that the store answers beside them.
///
/// Any number of streams may be open on one feed, and a stream may be dropped at any await.
pub trait Feed: Send + Sync + 'static {
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

    /// Everything up to this position is durable in the mirror, which opens the feed before it only for
    /// a scan. Called after a commit with a new position; of several commits, perhaps only for the last.
    /// A store that keeps its history until it is told ([`Capabilities::acknowledges`]) discards it
    /// here. The call may fail, or be left out by a crash; a later one counts for it.
    fn acknowledge<'a>(
        &'a self,
        _position: &'a Position,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The number of documents that the source counted when it was asked last, where it counts them.
    fn counted(&self) -> Option<u64> {
        None
    }

    /// How often [`behind`](Self::behind) may be asked; `None` if the source cannot say it.
    fn measured_every(&self) -> Option<Duration> {
        None
    }

    /// How far a position is behind the source's present end; without one, how much there is. `None` if the
    /// source does not say it.
    fn behind<'a>(
        &'a self,
        _position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Option<Behind>, SourceError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// What the source says by [`FeedEvent::CaughtUp`] of the distance to its end, if it counts it.
    fn nothing_behind(&self) -> Option<Behind> {
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

    /// Reads documents apart from the feed.
    fn reads(&self) -> Option<&dyn Reads> {
        None
    }

    /// Reads attachments that the feed names without their bytes.
    fn attachments(&self) -> Option<&dyn Attachments> {
        None
    }

    /// Reads histories and losing revisions.
    fn branches(&self) -> Option<&dyn Branches> {
        None
    }

    /// Reads the collection's security object.
    fn security(&self) -> Option<&dyn Security> {
        None
    }

    /// Reads how the collection was created.
    fn origins(&self) -> Option<&dyn Origins> {
        None
    }
}

/// Documents, one at a time.
pub trait Reads: Send + Sync {
    /// Reads the newest state of a document. `position` is where the feed named it: without
    /// [`Capabilities::single_reads`], a document is only found from there on.
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>>;
}

/// The bytes of attachments.
pub trait Attachments: Send + Sync {
    /// Opens one attachment of a revision of a document, for large ones.
    fn stream<'a>(
        &'a self,
        id: &'a DocumentId,
        revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>>;

    /// Reads many small attachments at once, in the order of `wanted`; one answer each. The caller
    /// bounds the sum of their lengths. One that turns out longer than its stub says may be refused
    /// as [`SourceError::Permanent`], and still be readable as a stream.
    fn many<'a>(&'a self, wanted: &'a [Wanted]) -> Answers<'a, Bytes>;
}

/// Revisions with the histories that lead to them.
pub trait Branches: Send + Sync {
    /// Reads revisions in the order of `wanted`; one answer each.
    fn many<'a>(&'a self, wanted: &'a [(DocumentId, Revision)]) -> Answers<'a, Branch>;
}

/// The security object of a collection.
pub trait Security: Send + Sync {
    /// The object as JSON; `None` if this collection has none.
    fn object(&self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>>;
}

/// How a collection was created.
pub trait Origins: Send + Sync {
    /// Its properties; `None` where the source does not say.
    fn properties(&self) -> BoxFuture<'_, Result<Option<Properties>, SourceError>>;
}

/// The answers to a request for many things: an error for all, or an answer for each.
pub type Answers<'a, T> = BoxFuture<'a, Result<Vec<Result<T, SourceError>>, SourceError>>;

/// What a request is answered with, where the store has no interface for it.
impl dyn Feed {
    /// See [`Reads::document`]. Without reads, no document is known.
    pub async fn document(
        &self,
        id: &DocumentId,
        position: Option<&Position>,
    ) -> Result<Reading, SourceError> {
        match self.reads() {
            Some(reads) => reads.document(id, position).await,
            None => Ok(Reading::Unknown),
        }
    }

    /// See [`Attachments::stream`].
    pub async fn attachment(
        &self,
        id: &DocumentId,
        revision: &Revision,
        attachment: &Attachment,
    ) -> Result<ByteStream, SourceError> {
        match self.attachments() {
            Some(attachments) => attachments.stream(id, revision, attachment).await,
            None => Err(SourceError::missing("this source has no attachments")),
        }
    }

    /// See [`Attachments::many`].
    pub async fn many_attachments(
        &self,
        wanted: &[Wanted],
    ) -> Result<Vec<Result<Bytes, SourceError>>, SourceError> {
        match self.attachments() {
            Some(attachments) => attachments.many(wanted).await,
            None => Err(SourceError::missing("this source has no attachments")),
        }
    }

    /// See [`Branches::many`].
    pub async fn many_branches(
        &self,
        wanted: &[(DocumentId, Revision)],
    ) -> Result<Vec<Result<Branch, SourceError>>, SourceError> {
        match self.branches() {
            Some(branches) => branches.many(wanted).await,
            None => Err(SourceError::permanent("this source has winning revisions only")),
        }
    }

    /// See [`Security::object`]. Without security, a collection has none.
    pub async fn security_object(&self) -> Result<Option<Bytes>, SourceError> {
        match self.security() {
            Some(security) => security.object().await,
            None => Ok(None),
        }
    }

    /// See [`Origins::properties`]. Without origins, none is known.
    pub async fn properties(&self) -> Result<Option<Properties>, SourceError> {
        match self.origins() {
            Some(origins) => origins.properties().await,
            None => Ok(None),
        }
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

/// What a store can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Its listings are complete: it no longer holds what they do not name, neither a collection nor,
    /// after a scan, a document.
    pub exhaustive_scan: bool,
    /// A document can be read by its id alone.
    pub single_reads: bool,
    /// A mirror of one origin never follows another one unless the user says that it has moved: a scan of
    /// the wrong one would remove everything that it does not hold.
    pub refuses_other_origin: bool,
    /// Attachments can be read ([`Feed::attachments`]).
    pub attachments: bool,
    /// It knows histories and losing revisions ([`Feed::branches`]).
    pub branches: bool,
    /// Its collections have security objects ([`Feed::security`]).
    pub security: bool,
    /// It keeps its history until it is told that it is durable elsewhere ([`Feed::acknowledge`]).
    pub acknowledges: bool,
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

/// What tells whether a collection has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeMark {
    /// It is another one if the collection has changed.
    At(String),
    /// The store does not have the collection.
    Missing,
    /// The store does not say it: the collection may have changed.
    Unknown,
}

/// How the collections of a store come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// There is one, named in the store's address.
    One,
    /// Each has a stream of its own.
    Each,
    /// All come in one stream, and are read at the same time. One that is left behind is read again.
    Shared,
    /// All come in one stream that cannot be read twice.
    Once,
}

/// A document store: a server, or a recorded feed.
pub trait Store: Send + Sync + 'static {
    /// The store's address, without credentials, for people.
    fn identity(&self) -> String;

    /// The address of one of its collections, without credentials. A mirror remembers it, so that it does
    /// not follow another one by mistake.
    fn origin(&self, collection: &CollectionName) -> String;

    /// What it can do. The same for its whole life.
    fn capabilities(&self) -> Capabilities;

    /// Whether a collection of this name would be named if the store held it.
    fn wants(&self, collection: &CollectionName) -> bool;

    /// Names the store's collections. With [`Mode::CatchUp`] it ends after `Listed`; with
    /// [`Mode::Follow`] it continues with collections that appear later. The [`Selection`] has been applied.
    /// `since` comes from an earlier `Listed`, of any selection: all collections are named again.
    fn collections(
        &self,
        mode: Mode,
        since: Option<Position>,
    ) -> BoxStream<'static, Result<StoreEvent, SourceError>>;

    /// The same to a caller that reads each collection once it has been named, or [lets it
    /// go](Self::let_go). A store whose collections come mixed in one stream reads it once for all of them.
    fn collections_to_read(
        &self,
        mode: Mode,
        since: Option<Position>,
    ) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
        self.collections(mode, since)
    }

    /// How its collections come.
    fn streams(&self) -> Streams {
        Streams::Each
    }

    /// A collection that was named will not be read.
    fn let_go(&self, _collection: &CollectionName) {}

    /// Announces which collections change, where the store can do so. The stream ends with an error, and
    /// may be opened again.
    fn updates(&self) -> Option<BoxStream<'static, Result<Update, SourceError>>> {
        None
    }

    /// A mark for each of these collections. At most 100 at once.
    fn marks<'a>(
        &'a self,
        collections: &'a [CollectionName],
    ) -> BoxFuture<'a, Result<Vec<ChangeMark>, SourceError>> {
        let marks = vec![ChangeMark::Unknown; collections.len()];
        Box::pin(async { Ok(marks) })
    }

    /// Resolves when a pause that the store asked for may be cut short.
    fn recovers(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The feed of one collection. Does no I/O.
    fn open(&self, collection: &CollectionName) -> Arc<dyn Feed>;
}

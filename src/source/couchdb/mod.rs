//! A server speaking the CouchDB protocol as a store, and each of its databases as a source.

mod attachments;
mod bound;
mod branches;
mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod listing;
mod lookup;
mod news;
mod origin;
mod reader;
mod row;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::value::RawValue;

use self::feed::{Live, Stuck, Trust};
use self::listing::Listing;
use self::lookup::TooLarge;
use super::{
    Answers, Attachments, Behind, Branches, ByteStream, Capabilities, ChangeMark, Feed, FeedEvent,
    Mode, Origins, Reading, Reads, Security, Selection, ServerProgress, Since, SourceError, Store,
    StoreEvent, Streams, Update, Wanted,
};
use crate::client::couchdb::{Address, Client, ClientOptions, Database, Error, Given, Kind};
use crate::document::{Attachment, Branch, CollectionName, DocumentId, Kept, Position};
use crate::document::{Properties, Revision};

/// The options of a [`CouchStore`].
#[derive(Clone, Debug)]
pub struct CouchOptions {
    /// Where the server is.
    pub address: Address,
    /// How it is entered and asked.
    pub client: ClientOptions,
    /// Which databases.
    pub databases: Databases,
    /// The server's address, if the path of the URL turns out to be a proxy's.
    pub below: Option<Address>,
    /// What is read beside the winning revisions.
    pub kept: Kept,
    /// How long things may take, and how often they are done.
    pub timings: Timings,
}

/// Which databases of a server are the store's collections.
#[derive(Clone, Debug)]
pub enum Databases {
    /// This one. Listing all needs an admin, reading one does not.
    One(CollectionName),
    /// All that the selection wants.
    Selected(Selection),
}

impl CouchOptions {
    /// What a URL says: the one database in its path, or else all of them. See
    /// [`resolve`](Self::resolve) for a path that ends in a slash.
    pub fn of(given: Given) -> Self {
        let all = || Databases::Selected(Selection::default());
        Self {
            address: given.address,
            client: ClientOptions { credentials: given.credentials, ..ClientOptions::default() },
            databases: given.database.map_or_else(all, Databases::One),
            below: given.below,
            kept: Kept::default(),
            timings: Timings::default(),
        }
    }

    /// Finds out whether a path that ends in a slash is that of a whole server behind a proxy; if not, it is
    /// a database. If the request fails, the database's own requests fail too.
    pub async fn resolve(&mut self) {
        if let Some(below) = self.below.take()
            && Client::is_server(&below, &self.client).await
        {
            self.be_server(below);
        }
    }

    /// Treats the whole path as a server's.
    pub fn be_server(&mut self, address: Address) {
        self.address = address;
        self.databases = Databases::Selected(Selection::default());
    }
}

/// How long things may take, and how often they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// The heartbeat of a continuous feed. After three of them in silence, the feed counts as lost.
    pub heartbeat: Duration,
    /// After this silence behind a row of a continuous feed, the source counts as caught up.
    pub quiet: Duration,
    /// How often an idle continuous feed is checked against its database, which may have been created
    /// again without a trace in the feed.
    pub check: Duration,
    /// The wait before a continuous feed that the server ended is opened again.
    pub reopen: Duration,
    /// How often the server is asked for new databases.
    pub poll: Duration,
    /// How often the server is asked, at most, how many changes are pending in a database that is not at its end.
    pub measure: Duration,
    /// The waits before a document is requested again that the feed named without its body: a cluster's
    /// nodes may lag behind one another.
    pub lag: [Duration; 3],
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            quiet: Duration::from_millis(100),
            check: Duration::from_secs(60),
            reopen: Duration::from_secs(1),
            poll: Duration::from_secs(5),
            measure: Duration::from_secs(5),
            lag: [100, 400, 1500].map(Duration::from_millis),
        }
    }
}

/// A server speaking the CouchDB protocol.
#[derive(Clone, Debug)]
pub struct CouchStore {
    client: Client,
    databases: Databases,
    kept: Kept,
    timings: Timings,
    progress: Arc<ServerProgress>,
}

impl CouchStore {
    /// The store at a server. Does no I/O.
    pub fn new(options: CouchOptions) -> Result<Self, SourceError> {
        let CouchOptions { address, client, databases, kept, timings, .. } = options;
        let client = Client::new(address, client)?;
        Ok(Self { client, databases, kept, timings, progress: Arc::default() })
    }

    /// The databases that the server has now.
    async fn list(&self) -> Result<Vec<CollectionName>, SourceError> {
        Ok(self.client.all_databases().await?)
    }
}

impl Store for CouchStore {
    fn identity(&self) -> String {
        match &self.databases {
            Databases::One(name) => self.client.address().database(name),
            Databases::Selected(_) => self.client.address().to_string(),
        }
    }

    fn origin(&self, collection: &CollectionName) -> String {
        self.client.address().database(collection)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exhaustive_scan: true,
            single_reads: true,
            refuses_other_origin: true,
            attachments: true,
            branches: true,
            security: true,
            acknowledges: false,
        }
    }

    fn streams(&self) -> Streams {
        match &self.databases {
            Databases::One(_) => Streams::One,
            Databases::Selected(_) => Streams::Each,
        }
    }

    fn wants(&self, collection: &CollectionName) -> bool {
        match &self.databases {
            Databases::One(name) => name == collection,
            Databases::Selected(selection) => selection.wants(collection),
        }
    }

    fn collections(
        &self,
        mode: Mode,
        _: Option<Position>,
    ) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
        let listing = Listing::new(self.clone(), mode);
        stream::unfold(listing, |mut listing| async {
            listing.next().await.map(|event| (event, listing))
        })
        .boxed()
    }

    fn recovers(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.client.recovers())
    }

    fn updates(&self) -> Option<BoxStream<'static, Result<Update, SourceError>>> {
        Some(news::updates(self.client.clone(), self.timings.heartbeat))
    }

    fn marks<'a>(
        &'a self,
        collections: &'a [CollectionName],
    ) -> BoxFuture<'a, Result<Vec<ChangeMark>, SourceError>> {
        Box::pin(news::marks(&self.client, collections))
    }

    fn open(&self, collection: &CollectionName) -> Arc<dyn Feed> {
        let database = self.client.database(collection);
        let progress = self.progress.for_another();
        let (client, kept, timings) = (self.client.clone(), self.kept, self.timings);
        let (large, trust, stuck, live) = Default::default();
        Arc::new(CouchFeed {
            client,
            database,
            kept,
            timings,
            progress,
            counted: Arc::new(AtomicU64::new(u64::MAX)),
            large,
            trust,
            stuck,
            live,
        })
    }
}

/// One database.
#[derive(Clone, Debug)]
struct CouchFeed {
    client: Client,
    database: Database,
    kept: Kept,
    timings: Timings,
    /// The documents that are known to be too large.
    large: Arc<TooLarge>,
    /// Whether damage on the network is suspected.
    trust: Arc<Trust>,
    /// Where the feed breaks off.
    stuck: Arc<Stuck>,
    /// Whether the live feed arrives as it is sent.
    live: Arc<Live>,
    progress: ServerProgress,
    /// The number of documents that the database counted last; `u64::MAX` before it was asked.
    counted: Arc<AtomicU64>,
}

impl Feed for CouchFeed {
    fn counted(&self) -> Option<u64> {
        Some(self.counted.load(Ordering::Relaxed)).filter(|count| *count != u64::MAX)
    }

    fn changes(
        &self,
        since: Since,
        mode: Mode,
    ) -> BoxStream<'static, Result<FeedEvent, SourceError>> {
        feed::events(self.clone(), since, mode)
    }

    fn measured_every(&self) -> Option<Duration> {
        Some(self.timings.measure)
    }

    fn behind<'a>(
        &'a self,
        position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Option<Behind>, SourceError>> {
        Box::pin(async move {
            let token = position.map(Position::token);
            if let Some(changes) = self.database.changes_after(token).await? {
                return Ok(Some(Behind::Changes(changes)));
            }
            let end = self.database.info().await?.update_seq;
            Ok(origin::distance(token, end.get()).map(Behind::Changes))
        })
    }

    fn nothing_behind(&self) -> Option<Behind> {
        Some(Behind::Changes(0))
    }

    fn server(&self) -> Option<&ServerProgress> {
        Some(&self.progress)
    }

    fn recovers(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.client.recovers())
    }

    fn reads(&self) -> Option<&dyn Reads> {
        Some(self)
    }

    fn attachments(&self) -> Option<&dyn Attachments> {
        Some(self)
    }

    fn branches(&self) -> Option<&dyn Branches> {
        Some(self)
    }

    fn security(&self) -> Option<&dyn Security> {
        Some(self)
    }

    fn origins(&self) -> Option<&dyn Origins> {
        Some(self)
    }
}

impl Reads for CouchFeed {
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        _position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>> {
        Box::pin(lookup::document(&self.database, id, self.kept, &self.large))
    }
}

impl Attachments for CouchFeed {
    fn stream<'a>(
        &'a self,
        id: &'a DocumentId,
        revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>> {
        Box::pin(attachments::stream(&self.database, id, revision, attachment))
    }

    fn many<'a>(&'a self, wanted: &'a [Wanted]) -> Answers<'a, Bytes> {
        Box::pin(async {
            let answers = attachments::many(&self.database, wanted).await?;
            if answers.iter().any(Result::is_ok) {
                self.progress.note();
            }
            Ok(answers)
        })
    }
}

impl Branches for CouchFeed {
    fn many<'a>(&'a self, wanted: &'a [(DocumentId, Revision)]) -> Answers<'a, Branch> {
        Box::pin(branches::many(&self.database, wanted))
    }
}

impl Origins for CouchFeed {
    fn properties(&self) -> BoxFuture<'_, Result<Option<Properties>, SourceError>> {
        Box::pin(async {
            let revs_limit = match self.database.revs_limit().await {
                Ok(limit) => Some(limit),
                // pouchdb-server does not have it.
                Err(error) if !matches!(error.kind(), Kind::Transient { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            // An exposed RxDB says 1, which describes its own way of storing revisions.
            let props = self.database.props().await?;
            Ok(props.map(|props| Properties { partitioned: props.partitioned, revs_limit }))
        })
    }
}

impl Security for CouchFeed {
    fn object(&self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async {
            let answer = match self.database.security().await {
                // An exposed RxDB has no security object.
                Err(error) if error.kind() == Kind::Missing => return Ok(None),
                answer => answer?,
            };
            let object: Result<&RawValue, _> = serde_json::from_slice(&answer);
            match object {
                Ok(object) if object.get().starts_with('{') => {
                    Ok(Some(answer.slice_ref(object.get().as_bytes())))
                }
                _ => Err(SourceError::permanent(format!(
                    "the security object of {} is not a JSON object",
                    self.database.url()
                ))),
            }
        })
    }
}

/// What happened, without the request, if the connection or a gateway failed: that is not the matter of
/// one database.
fn cause_at_server(error: &Error) -> Option<String> {
    if !matches!(error.status(), None | Some(502..=504)) {
        return None;
    }
    let text = error.to_string();
    let (_, request) = text.split_once(" http")?;
    let (_, cause) = request.split_once(": ")?;
    Some(cause.to_owned())
}

impl From<Error> for SourceError {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        match error.kind() {
            Kind::Transient { retry_after } => {
                Self::Transient { cause: cause_at_server(&error), what, retry_after }
            }
            Kind::Expired => Self::Expired {
                reason: format!("the server no longer understands the position ({what})"),
            },
            Kind::Refused => Self::Refused { what },
            Kind::Missing => Self::Missing { what },
            Kind::TooLarge | Kind::Permanent => Self::Permanent { what },
        }
    }
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;

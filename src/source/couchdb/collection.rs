//! One database as a collection: its feed, and the requests that are answered beside it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde_json::value::RawValue;

use super::feed::{self, KnownDatabase};
use super::options::Timings;
use super::{attachments, branches, lookup, origin};
use crate::client::couchdb::{Client, Kind};
use crate::document::{
    Attachment, Branch, CollectionName, DocumentId, Kept, Position, Properties, Revision,
};
use crate::source::{
    Answers, Attachments, Behind, Branches, ByteStream, Feed, FeedEvent, Mode, Origins, Reading,
    Reads, Security, ServerProgress, Since, SourceError, Wanted,
};

/// One database.
#[derive(Debug)]
pub(super) struct CouchCollection {
    client: Client,
    progress: ServerProgress,
    known: Arc<KnownDatabase>,
}

impl CouchCollection {
    /// The database as the collection of a server. Does no I/O.
    pub fn new(
        client: Client,
        progress: ServerProgress,
        name: &CollectionName,
        kept: Kept,
        timings: Timings,
    ) -> Self {
        let known = Arc::new(KnownDatabase::new(client.database(name), kept, timings));
        Self { client, progress, known }
    }
}

impl Feed for CouchCollection {
    fn counted(&self) -> Option<u64> {
        self.known.counted()
    }

    fn changes(
        &self,
        since: Since,
        mode: Mode,
    ) -> BoxStream<'static, Result<FeedEvent, SourceError>> {
        feed::events(Arc::clone(&self.known), since, mode)
    }

    fn measured_every(&self) -> Option<Duration> {
        Some(self.known.timings.measure)
    }

    fn behind<'a>(
        &'a self,
        position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Option<Behind>, SourceError>> {
        Box::pin(async move {
            let database = &self.known.database;
            let token = position.map(Position::token);
            if let Some(changes) = database.changes_after(token).await? {
                return Ok(Some(Behind::Changes(changes)));
            }
            let end = database.info().await?.update_seq;
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

impl Reads for CouchCollection {
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        _position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>> {
        let known = &self.known;
        Box::pin(lookup::document(&known.database, id, known.kept, &known.large))
    }
}

impl Attachments for CouchCollection {
    fn stream<'a>(
        &'a self,
        id: &'a DocumentId,
        revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>> {
        Box::pin(attachments::stream(&self.known.database, id, revision, attachment))
    }

    fn many<'a>(&'a self, wanted: &'a [Wanted]) -> Answers<'a, Bytes> {
        Box::pin(async {
            let answers = attachments::many(&self.known.database, wanted).await?;
            if answers.iter().any(Result::is_ok) {
                self.progress.note();
            }
            Ok(answers)
        })
    }
}

impl Branches for CouchCollection {
    fn many<'a>(&'a self, wanted: &'a [(DocumentId, Revision)]) -> Answers<'a, Branch> {
        Box::pin(branches::many(&self.known.database, wanted))
    }
}

impl Origins for CouchCollection {
    fn properties(&self) -> BoxFuture<'_, Result<Option<Properties>, SourceError>> {
        Box::pin(async {
            let revs_limit = match self.known.database.revs_limit().await {
                Ok(limit) => Some(limit),
                // pouchdb-server does not have it.
                Err(error) if !matches!(error.kind(), Kind::Transient { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            // An exposed RxDB says 1, which describes its own way of storing revisions.
            let props = self.known.database.props().await?;
            Ok(props.map(|props| Properties { partitioned: props.partitioned, revs_limit }))
        })
    }
}

impl Security for CouchCollection {
    fn object(&self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async {
            let answer = match self.known.database.security().await {
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
                    self.known.database.url()
                ))),
            }
        })
    }
}

//! A server as a store: each of its databases is a collection.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::collection::CouchCollection;
use super::listing::Listing;
use super::news;
use super::options::{CouchOptions, Databases, Timings};
use crate::client::couchdb::Client;
use crate::document::{CollectionName, Kept, Position};
use crate::source::{
    Capabilities, ChangeMark, Feed, Mode, ServerProgress, SourceError, Store, StoreEvent, Streams,
    Update,
};

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
        let (client, databases) = (self.client.clone(), self.databases.clone());
        Listing::new(client, databases, self.timings.poll, Arc::clone(&self.progress), mode)
            .events()
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
        let (client, progress) = (self.client.clone(), self.progress.for_another());
        Arc::new(CouchCollection::new(client, progress, collection, self.kept, self.timings))
    }
}

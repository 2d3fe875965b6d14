//! A real server, pouchdb-server, keeps the contract of sources.

use std::sync::Arc;
use std::time::Duration;

use ::plainfold::client::couchdb::Address;
use ::plainfold::source::couchdb::{CouchOptions, CouchStore, Timings};
use ::plainfold::source::{Mode, Store};
use ::plainfold::{document, source};

use self::suite::{Can, Row, Subject};
use crate::env::pouchdb::PouchServer;

#[path = "../../src/source/conformance/suite.rs"]
#[macro_use]
mod suite;

impl Subject for PouchServer {
    const CAN: Can = Can { swap: false, keep_bytes: false, fail: false, ..Can::EVERYTHING };

    async fn start(rows: &[Row]) -> Self {
        let server = Self::start();
        server.create_db("shelf");
        server.append(rows).await;
        server
    }

    fn store(&self, _: Mode) -> Arc<dyn Store> {
        let mut options = CouchOptions::of(Address::parse(&self.url()).unwrap());
        let [soon, now] = [Duration::from_millis(10), Duration::ZERO];
        options.timings = Timings { quiet: soon, reopen: now, poll: soon, ..Timings::default() };
        Arc::new(CouchStore::new(options).unwrap())
    }

    async fn append(&self, rows: &[Row]) {
        for row in rows {
            self.put_revision("shelf", &row.body(true), row.revision);
        }
    }

    async fn replace(&self, rows: &[Row]) {
        self.delete_db("shelf");
        self.create_db("shelf");
        self.append(rows).await;
    }

    async fn cut(&self) {}

    async fn spoil(&self, _: &'static str, _: &'static str) {}

    async fn create(&self, name: &str) {
        self.create_db(name);
    }

    async fn missing() -> Option<Self> {
        Some(Self::start())
    }
}

suite! {
    pouchdb_server: crate::env::pouchdb::PouchServer;
}

//! A real server, pouchdb-server, keeps the contract of targets.

use ::plainfold::client::couchdb::{Address, Client, ClientOptions};
use ::plainfold::document::CollectionName;
use ::plainfold::restore::{Cause, CouchTarget};
use ::plainfold::{document, restore};
use serde_json::Value;

use self::suite::{Seen, Subject, seen};
use crate::env::pouchdb::{PouchServer, encoded};

#[path = "../../src/restore/conformance/suite.rs"]
#[macro_use]
mod suite;

/// A server and the target in it.
pub struct Pouch {
    server: PouchServer,
    target: CouchTarget,
}

fn target(url: &str) -> CouchTarget {
    let given = Address::parse(url).unwrap();
    let options = ClientOptions { credentials: given.credentials, ..ClientOptions::default() };
    CouchTarget::new(Client::new(given.address, options).unwrap())
}

impl Subject for Pouch {
    type Target = CouchTarget;

    const KNOWS_ANCESTORS: bool = false;
    const OUTLIVES_ABORTS: bool = false;

    async fn start() -> Self {
        let server = PouchServer::start_with_admin("admin", "right");
        Self { target: target(&server.url()), server }
    }

    fn target(&self) -> &CouchTarget {
        &self.target
    }

    fn refuses(&self) -> Option<&'static str> {
        None
    }

    async fn broken(&self) -> Vec<(CouchTarget, Cause)> {
        let refused = target(&self.server.url().replace("right", "wrong"));
        // The database does not exist.
        vec![(target(&self.server.url()), Cause::Unusable), (refused, Cause::Credentials)]
    }

    async fn look(&self, collection: &CollectionName) -> Seen {
        let path = format!("/{}", encoded(collection.as_str()));
        let get =
            |path: &str| -> Value { self.server.request("GET", path, b"").assert_ok().json() };
        let listed = get(&format!("{path}/_all_docs"));
        let ids = listed["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap());
        let held = ids.map(|id| get(&format!("{path}/{}?attachments=true", encoded(id))));
        seen(held.collect())
    }
}

suite! {
    pouchdb_server: super::Pouch;
}

//! What a server is opened with: its address, its databases, and how long things may take.

use std::time::Duration;

use crate::client::couchdb::{Address, Client, ClientOptions, Given};
use crate::document::{CollectionName, Kept};
use crate::source::Selection;

/// The options of a [`CouchStore`](super::CouchStore).
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

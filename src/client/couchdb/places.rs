//! The connections to one server: each request has a place as long as it has a connection, and the
//! places are limited.
//!
//! A request waits only for a place of its kind, and holds no other meanwhile. No place depends on
//! whether its caller is polled, but those of bodies that are passed on: of a feed, whose run has no other
//! feed, and of attachments, whose readers wait only for the disk.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use super::error::Error;

/// The kind of place that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is answered soon.
    Short,
    /// It may take long: an attachment, or many documents at once. Stalled attachments of one database
    /// must not hold up the openings and heartbeats of the others.
    Long,
    /// The change feed of a database.
    Feed,
    /// The feed of changed databases.
    Updates,
}

/// How many connections a server gets, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// For requests that are answered soon.
    pub short: usize,
    /// For requests that may take long.
    pub long: usize,
    /// For the change feeds of databases, of which each run has one.
    pub feeds: usize,
    /// The most idle connections that are kept.
    pub idle: usize,
}

impl Connections {
    /// Divides this number of connections: a tenth for requests, and at least one of each kind; one for
    /// the feed of changed databases; and the rest for runs. As many idle connections as requests are
    /// kept, and none of few: a connection is still open for a moment after its request has ended.
    pub fn of(connections: usize) -> Self {
        /// With fewer, none is kept idle.
        const FEW: usize = 8;
        let requests = (connections / 10).max(2);
        let idle = if connections < FEW { 0 } else { requests };
        let long = requests / 2;
        let feeds = connections.saturating_sub(requests + idle + 1).max(1);
        Self { short: requests - long, long, feeds, idle }
    }
}

/// The places of one server's requests.
#[derive(Debug)]
pub(super) struct Places {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
    updates: Arc<Semaphore>,
}

impl Places {
    pub fn new(Connections { short, long, feeds, .. }: Connections) -> Self {
        let of = |places| Arc::new(Semaphore::new(places));
        Self { short: of(short), long: of(long), feeds: of(feeds), updates: of(1) }
    }

    /// Waits for a place of this kind.
    pub async fn take(&self, kind: Kind) -> Option<OwnedSemaphorePermit> {
        let places = match kind {
            Kind::Short => &self.short,
            Kind::Long => &self.long,
            Kind::Feed => &self.feeds,
            Kind::Updates => &self.updates,
        };
        // It is never closed.
        Arc::clone(places).acquire_owned().await.ok()
    }
}

/// Runs a request in a task of its own: its place and the locks that it holds do not depend on whether its
/// caller is polled, who may be waiting for another request. The task ends if the caller is dropped.
pub(super) async fn apart<T: Send + 'static>(
    request: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match AbortOnDropHandle::new(tokio::spawn(request)).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Error::transient(format!("a request has ended: {error}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_connections_are_no_more_than_the_whole() {
        for connections in 4..=500 {
            let Connections { short, long, feeds, idle } = Connections::of(connections);
            assert!(short >= long && long >= 1 && feeds >= 1, "{connections}");
            assert!(idle == 0 || idle >= short + long, "{connections}");
            assert_eq!(short + long + feeds + idle + 1, connections);
        }
        let all = Connections { short: 5, long: 5, feeds: 79, idle: 10 };
        assert_eq!(Connections::of(100), all);
    }
}

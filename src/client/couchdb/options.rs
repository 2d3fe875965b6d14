//! How a server is spoken to.

use std::time::Duration;

use super::access::Refusal;
use super::advice::ServerRole;
use super::credentials::Credentials;
use super::pacer;
use super::tls::Tls;

/// How long a server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// To accept a connection.
    pub connect: Duration,
    /// To begin an answer, and then from one piece of it to the next.
    pub answer: Duration,
    /// The longest pause of all requests that the server may ask for.
    pub asked: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // pouchdb-server builds the whole of a feed before it sends the first byte.
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(120),
            asked: pacer::LONGEST_ASKED,
        }
    }
}

/// How a server is spoken to.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// The user, or the token.
    pub credentials: Option<Credentials>,
    /// What follows when the server refuses the credentials.
    pub refusal: Refusal,
    /// How encrypted connections are made.
    pub tls: Tls,
    /// How long the server may take.
    pub patience: Patience,
    /// Whether it is read or written.
    pub side: ServerRole,
    /// Whether a server of this protocol is known to be there. If not, a first answer that is not of this
    /// protocol is a permanent error, and so is a wrong scheme and a proxy that refuses.
    pub is_known: bool,
    /// How many requests may be under way at the same time beside the change feeds, and how many idle
    /// connections are kept. `None` is no limit.
    pub beside: Option<Beside>,
}

/// Connections to a server beside those of its change feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// The places of requests that are answered soon.
    pub short: usize,
    /// The places of requests that may take long: attachments, and many documents at once.
    pub long: usize,
    /// The most idle connections that are kept.
    pub idle: usize,
}

impl Beside {
    /// Divides this number of connections: a tenth for requests, and at least one of each kind; a tenth
    /// for idle connections; one for the feed of changed databases. Returns what is left for runs, too.
    pub fn of(connections: usize) -> (Self, usize) {
        let idle = connections / 10;
        let requests = idle.max(2);
        let long = requests / 2;
        let runs = connections.saturating_sub(requests + idle + 1).max(1);
        (Self { short: requests - long, long, idle }, runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_connections_are_no_more_than_the_whole() {
        for connections in 4..=500 {
            let (Beside { short, long, idle }, runs) = Beside::of(connections);
            assert!(short >= long && long >= 1 && runs >= 1, "{connections}");
            assert_eq!(short + long + idle + runs + 1, connections);
        }
        assert_eq!(Beside::of(100), (Beside { short: 5, long: 5, idle: 10 }, 79));
    }
}

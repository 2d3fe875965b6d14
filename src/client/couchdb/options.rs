//! How a server is spoken to.

use std::time::Duration;

use super::access::Refusal;
use super::advice::ServerRole;
use super::credentials::Credentials;
use super::limit;
use super::places::Connections;
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
    /// To begin the first answer over TLS, until the port is probed. The answer itself may be slow, so only
    /// what the port speaks decides.
    pub unprobed: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // pouchdb-server builds the whole of a feed before it sends the first byte.
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(120),
            asked: limit::LONGEST_ASKED,
            unprobed: Duration::from_secs(1),
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
    /// How many connections are open at the same time; `None` is no limit.
    pub connections: Option<Connections>,
}

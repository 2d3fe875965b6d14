//! What can go wrong at a source.

use std::time::Duration;

/// What went wrong at a source, by what can be done about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// It may work later: a lost connection, an overloaded server, a broken feed.
    #[error("{what}")]
    Transient {
        /// What happened, to what.
        what: String,
        /// How long the source asked us to wait.
        retry_after: Option<Duration>,
        /// What happened, without the request, if it may happen to all requests to this server.
        cause: Option<String>,
    },
    /// The position is no longer of use: scan.
    #[error("{reason}")]
    Expired {
        /// Why, as a clause: "the database was created again".
        reason: String,
    },
    /// The credentials were refused. It is not tried again at once, because servers lock users out.
    #[error("{what}")]
    Refused {
        /// What was refused, and what to do.
        what: String,
    },
    /// The collection, document or attachment is not there.
    #[error("{what}")]
    Missing {
        /// What is not there.
        what: String,
    },
    /// What was given as a recorded feed is another format, or is not read in this mode. Nothing was
    /// read of it but its beginning.
    #[error("{what}")]
    NotAFeed {
        /// What it is, and what to do.
        what: String,
    },
    /// It fails however often it is tried.
    #[error("{what}")]
    Permanent {
        /// What happened, to what, and what to do.
        what: String,
    },
}

impl SourceError {
    /// A transient error without a time to wait.
    pub fn transient(what: impl Into<String>) -> Self {
        Self::Transient { what: what.into(), retry_after: None, cause: None }
    }

    /// An error that a retry does not resolve.
    pub fn permanent(what: impl Into<String>) -> Self {
        Self::Permanent { what: what.into() }
    }

    /// Something is not there.
    pub fn missing(what: impl Into<String>) -> Self {
        Self::Missing { what: what.into() }
    }
}

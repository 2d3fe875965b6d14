//! Options that make no sense, and mirrors, sources and targets that cannot be opened.

use crate::checkpoint::StateError;
use crate::client::couchdb;
use crate::source::{BadGlob, SourceError};
use crate::tree::MirrorError;

/// What is wrong with the options.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The source is neither a URL nor a feed.
    #[error(
        "`{given}` is not a source{}: a source is {forms}",
        meant.as_ref().map(|meant| format!(" ({meant})")).unwrap_or_default()
    )]
    UnknownSource {
        /// What was given, without credentials.
        given: String,
        /// How sources are typed.
        forms: String,
        /// What to type instead, if that can be guessed.
        meant: Option<String>,
    },
    /// The target is neither a URL nor a feed.
    #[error(
        "`{given}` is not a target{}: a target is http(s)://host:port or http+unix://%2Fpath%2Fsocket, \
         the same with /database, feed:FILE, or feed:- for standard output",
        meant.as_ref().map(|meant| format!(" ({meant})")).unwrap_or_default()
    )]
    UnknownTarget {
        /// What was given, without credentials.
        given: String,
        /// What to type instead, if that can be guessed.
        meant: Option<String>,
    },
    /// The target's URL cannot be used.
    #[error("the target's URL cannot be used: {0}")]
    TargetUrl(#[source] couchdb::BadAddress),
    /// The certificates or the credentials cannot be used.
    #[error(transparent)]
    Client(couchdb::Error),
    /// The URL cannot be used.
    #[error("the source's URL cannot be used: {0}")]
    Url(#[from] couchdb::BadAddress),
    /// A glob cannot be read.
    #[error(transparent)]
    Glob(#[from] BadGlob),
    /// The URL names a database, and collections are selected too.
    #[error(
        "the source's URL names the database `{}`, and --collections selects databases of a server: \
         leave one of them out, or end the URL in a slash if it is the path of a server behind a proxy",
        database
    )]
    CollectionsBesideDatabase {
        /// The database in the URL.
        database: String,
    },
    /// The credentials are incomplete, or exclude each other.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Revisions were asked for of a source that has none.
    #[error("a recorded feed holds winning revisions only: --revisions needs a server")]
    RevisionsOfFeed,
    /// Standard input cannot be compared with.
    #[error("a feed on standard input cannot be compared with a mirror: save it as a file first")]
    StandardInput,
}

/// Why a mirror could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The mirror on disk.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Its state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A glob that the mirror remembers.
    #[error("the mirror remembers a glob that cannot be read: {0}; give --collections again")]
    Glob(#[source] BadGlob),
}

/// Why a source could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Credentials that are incomplete, or that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// A password was given, and no user.
    #[error(
        "a password was given but no user: name the user in the URL, as in http://user@host/database"
    )]
    PasswordWithoutUser,
    /// A user was named, and no password was given, or an empty one.
    #[error(
        "the user `{0}` was named, but no password was given: give it with --password-file, or in {1}"
    )]
    UserWithoutPassword(String, &'static str),
    /// A session needs a user.
    #[error(
        "--auth session needs a user: name the user in the URL, as in http://user@host/database"
    )]
    SessionWithoutUser,
    /// A token was given, and also a user or a password.
    #[error("a token was given, and a user or a password too: give only one of them")]
    TokenBesideUser,
}

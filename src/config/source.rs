//! What a person typed as a source, and the store that it becomes.
//!
//! It must not know the mirror.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Access, AccessError, ConfigError};
use crate::client::couchdb::{Address, Patience, Refusal, typed};
use crate::document::{CollectionName, Kept};
use crate::source::couchdb::{CouchOptions, CouchStore, Databases};
use crate::source::feed::{FeedStore, Input};
use crate::source::{Mode, Selection, SourceError, Store};

/// Where changes come from.
#[derive(Clone, Debug)]
pub(super) enum SourceConfig {
    Couch(Box<CouchOptions>),
    Feed(FeedConfig),
}

#[derive(Clone, Debug)]
pub(super) struct FeedConfig {
    /// `None` is standard input.
    pub path: Option<PathBuf>,
    pub selection: Selection,
}

/// What follows `feed:`, if a source or a target begins so.
pub fn feed(text: &str) -> Option<&str> {
    let (scheme, path) = text.trim_start().split_once(':')?;
    scheme.eq_ignore_ascii_case("feed").then_some(path)
}

/// What to type for a source or a target that is neither a URL nor a feed, if it can be guessed.
pub fn meant(text: &str) -> Option<String> {
    let path = Path::new(text);
    let is_feed = ["ndjson", "jsonl", "json", "gz", "zst"]
        .iter()
        .any(|kind| path.extension().is_some_and(|extension| extension == *kind));
    if path.is_dir() {
        return Some(
            "it is a directory, and a source or a target is a server or a file".to_owned(),
        );
    }
    let has_scheme = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:"));
    if !Address::is_url_like(text) && (path.is_file() || is_feed && !has_scheme) {
        return Some(format!("for a recorded feed, write feed:{text}"));
    }
    typed::meant(text)
}

impl SourceConfig {
    /// Finds out what the path of a URL that ends in a slash is.
    pub async fn resolve(&mut self) {
        if let Self::Couch(couch) = self {
            couch.resolve().await;
        }
    }

    /// The identity of the source, if globs select among its collections.
    pub fn selects(&self) -> Option<String> {
        match self {
            Self::Couch(couch) => match &couch.databases {
                Databases::One(_) => None,
                Databases::Selected(_) => Some(couch.address.to_string()),
            },
            Self::Feed(feed) => Some(FeedStore::identity_of(feed.path.as_deref())),
        }
    }

    pub fn select(&mut self, wanted: Selection) {
        match self {
            Self::Couch(couch) => {
                if let Databases::Selected(selection) = &mut couch.databases {
                    *selection = wanted;
                }
            }
            Self::Feed(feed) => feed.selection = wanted,
        }
    }

    pub fn keep(&mut self, kept: Kept) {
        if let Self::Couch(couch) = self {
            couch.kept = kept;
        }
    }

    /// A run that gives up after this time does not wait longer for an answer, or for a piece of one.
    pub fn wait_at_most(&mut self, patience: Option<Duration>) {
        if let (Self::Couch(couch), Some(most)) = (self, patience) {
            let Patience { connect, answer, asked } = couch.timings.patience;
            couch.timings.patience = Patience {
                connect: connect.min(most),
                answer: answer.min(most),
                asked: asked.min(most),
            };
        }
    }

    /// What a mirror has followed before is known: the server had accepted the credentials, and had
    /// answered as a server of its protocol. A run that follows waits for such a server.
    pub fn know(&mut self, followed: &[(CollectionName, String)], mode: Mode) {
        if let Self::Couch(couch) = self {
            let before =
                |(name, origin): &(CollectionName, String)| couch.address.database(name) == *origin;
            couch.is_known = followed.iter().any(before);
            if mode == Mode::Follow {
                couch.refusal = Refusal::Wait {
                    accepted_before: couch.is_known,
                    several: matches!(couch.databases, Databases::Selected(_)),
                };
            }
        }
    }

    /// Divides the connections of a server among the runs, the requests beside their feeds, the idle
    /// connections, and the feed of changed databases. Returns the number of runs, if it is limited.
    pub fn limit(&mut self, connections: usize, mode: Mode) -> Option<usize> {
        match self {
            Self::Couch(couch)
                if mode == Mode::Follow && matches!(couch.databases, Databases::Selected(_)) =>
            {
                let beside = (connections / 10).max(1);
                couch.beside = Some(beside);
                Some(connections.saturating_sub(2 * beside + 1).max(1))
            }
            _ => None,
        }
    }

    pub fn enter(&mut self, access: Access) -> Result<(), AccessError> {
        if let Self::Couch(couch) = self {
            couch.credentials = access.credentials(couch.credentials.take())?;
            couch.tls = access.tls;
        }
        Ok(())
    }

    pub fn parse(source: &str) -> Result<Self, ConfigError> {
        let selection = Selection::default();
        let path = feed(source).filter(|path| !path.is_empty());
        if let Some(path) = path.filter(|path| !Address::is_url_like(path)) {
            let path = (path != "-").then(|| PathBuf::from(path));
            return Ok(Self::Feed(FeedConfig { path, selection }));
        }
        if Address::is_meant(source) {
            return Ok(Self::Couch(Box::new(CouchOptions::from_url(source, selection)?)));
        }
        Err(ConfigError::UnknownSource { given: Address::hidden(source), meant: meant(source) })
    }

    /// Refuses a file that is not a feed, before a mirror is opened. Returns standard input if it is
    /// the feed.
    pub async fn refuse(&self, mode: Mode) -> Result<Option<Input>, SourceError> {
        let Self::Feed(feed) = self else { return Ok(None) };
        let Some(path) = feed.path.clone() else { return Input::stdin().await.map(Some) };
        match tokio::task::spawn_blocking(move || FeedStore::refuse(&path, mode)).await {
            Ok(refused) => refused.map(|()| None),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    pub fn open(self, input: Option<Input>) -> Result<Arc<dyn Store>, SourceError> {
        Ok(match self {
            Self::Couch(options) => Arc::new(CouchStore::new(*options)?),
            Self::Feed(FeedConfig { path: Some(path), selection }) => {
                Arc::new(FeedStore::file(path, None, selection))
            }
            Self::Feed(FeedConfig { path: None, selection }) => {
                let input = input.unwrap_or_else(Input::unread);
                Arc::new(FeedStore::stdin(input, None, selection))
            }
        })
    }
}

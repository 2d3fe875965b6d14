//! What a person typed as a source, and the store that it becomes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{Access, feed, meant};
use super::error::{AccessError, ConfigError};
use crate::client::couchdb::{Address, Beside, Patience, Refusal};
use crate::document::{CollectionName, Kept};
use crate::source::couchdb::{CouchOptions, CouchStore, Databases};
use crate::source::feed::{FeedStore, Input};
use crate::source::{Mode, Selection, SourceError, Store};

/// A kind of source.
struct Kind {
    /// What its URLs begin with, without the colon.
    schemes: &'static [&'static str],
    /// How it is typed, for the refusal of what is not a source.
    forms: &'static [&'static str],
    /// How it is typed, in sentences.
    help: &'static str,
    /// Reads what was typed with one of its schemes; `None` if it is not a source.
    read: fn(&str) -> Result<Option<SourceConfig>, ConfigError>,
}

/// All kinds of sources. Nothing else is a source, and `--help` lists them from here.
const KINDS: [Kind; 2] = [
    Kind {
        schemes: &Address::SCHEMES,
        forms: &["http(s)://host:port/database", "http+unix://%2Fpath%2Fsocket/database"],
        help: "http(s)://user@host:port/database is one database. Without /database, or with a path \
               that ends in a slash, it is every database of the server. \
               http+unix://user@%2Fpath%2Fsocket/database is the same on a Unix socket.",
        read: SourceConfig::server,
    },
    Kind {
        schemes: &["feed"],
        forms: &["feed:FILE", "feed:- for standard input"],
        help: "feed:FILE is a recorded feed; feed:- is one on standard input.",
        read: SourceConfig::recording,
    },
];

/// The forms of all sources: `a, b, or c`.
fn forms() -> String {
    let mut forms: Vec<_> = KINDS.iter().flat_map(|kind| kind.forms).copied().collect();
    match forms.pop() {
        Some(last) if !forms.is_empty() => format!("{}, or {last}", forms.join(", ")),
        last => last.unwrap_or_default().to_owned(),
    }
}

/// How each kind of source is typed, in sentences.
pub fn kinds() -> String {
    KINDS.map(|kind| kind.help).join(" ")
}

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
                let (beside, runs) = Beside::of(connections);
                couch.beside = Some(beside);
                Some(runs)
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
        let scheme = source.trim_start().split_once(':').map_or("", |(scheme, _)| scheme);
        let is_of = |one: &&str| one.eq_ignore_ascii_case(scheme);
        let kind = KINDS.iter().find(|kind| kind.schemes.iter().any(is_of));
        let read = kind.map_or(Ok(None), |kind| (kind.read)(source))?;
        let (given, meant) = (Address::hidden(source), meant(source));
        read.ok_or(ConfigError::UnknownSource { given, forms: forms(), meant })
    }

    fn server(url: &str) -> Result<Option<Self>, ConfigError> {
        if !Address::is_meant(url) {
            return Ok(None);
        }
        let options = CouchOptions::from_url(url, Selection::default())?;
        Ok(Some(Self::Couch(Box::new(options))))
    }

    fn recording(text: &str) -> Result<Option<Self>, ConfigError> {
        let path = feed(text).filter(|path| !path.is_empty() && !Address::is_url_like(path));
        let selection = Selection::default();
        let path = path.map(|path| (path != "-").then(|| PathBuf::from(path)));
        Ok(path.map(|path| Self::Feed(FeedConfig { path, selection })))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_source_reads_its_forms_and_is_listed() {
        let (help, forms) = (kinds(), forms());
        for kind in &KINDS {
            assert!(help.contains(kind.help));
            for form in kind.forms {
                assert!(forms.contains(form), "{form} in {forms}");
                let typed = form.split(' ').next().unwrap().replace("(s)", "").replace("port", "1");
                assert!((kind.read)(&typed).unwrap().is_some(), "{typed}");
                SourceConfig::parse(&typed).unwrap();
            }
            let shared = |scheme: &&str| {
                let has = |other: &&Kind| other.schemes.contains(scheme);
                KINDS.iter().filter(has).count() != 1
            };
            assert!(!kind.schemes.iter().any(shared), "a scheme of two kinds");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused_with_the_list() {
        for typed in ["postgres://me@h/db", "feed:", "feed:http://h/db", "http:h", "h/db", ""] {
            let error = SourceConfig::parse(typed).unwrap_err();
            assert!(matches!(error, ConfigError::UnknownSource { .. }), "{typed}: {error}");
            assert!(error.to_string().ends_with(&format!(": a source is {}", forms())), "{error}");
        }
    }
}

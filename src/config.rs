//! What a mirror is to be, validated and lowered into the options of the layers below.
//!
//! This is also where the library begins: [`MirrorConfig::new`], then [`MirrorConfig::start`]. It
//! must not know clap, nor read the environment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::agent::{Agent, AgentOptions, DeletionLimit, Repairer};
use crate::checkpoint::{Bounds, Checkpoints, StateError};
use crate::client::couchdb::{Address, Credentials, Patience};
use crate::document::{CollectionName, Kept};
use crate::mirror::names::Codec;
use crate::mirror::{Holder, JsonStyle, Mirror, MirrorError, MirrorOptions};
use crate::source::couchdb::{CouchOptions, CouchStore, Databases};
use crate::source::feed::FeedStore;
use crate::source::{BadGlob, Mode, Selection, SourceError, Store};

/// A mirror that can be started.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    source: SourceConfig,
    directory: PathBuf,
    mode: Mode,
    options: MirrorOptions,
    bounds: Bounds,
    give_up_after: Option<Option<Duration>>,
    source_moved: bool,
    deletions: Option<DeletionLimit>,
    allow_empty: bool,
}

/// Where changes come from.
#[derive(Clone, Debug)]
enum SourceConfig {
    Couch(Box<CouchOptions>),
    Feed(FeedConfig),
}

#[derive(Clone, Debug)]
struct FeedConfig {
    /// `None` is standard input.
    path: Option<PathBuf>,
    selection: Selection,
}

/// What is wrong with what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The source is neither a URL nor a feed.
    #[error(
        "`{given}` is not a source: give http(s)://host:port/database, http+unix://%2Fpath%2Fsocket/database, \
         feed:<file.ndjson>, or feed:- for standard input"
    )]
    UnknownSource {
        /// What was given, without credentials.
        given: String,
    },
    /// The URL cannot be used.
    #[error("the source's URL cannot be used: {0}")]
    Url(#[from] crate::client::couchdb::BadAddress),
    /// A glob cannot be read.
    #[error(transparent)]
    Glob(#[from] BadGlob),
    /// The URL names a database, and collections are selected too.
    #[error(
        "the source's URL names the database `{}`, and --collections selects databases of a server: \
         leave one of them out",
        database.escape_debug()
    )]
    CollectionsBesideDatabase {
        /// The database in the URL.
        database: String,
    },
    /// A password was given, and no user.
    #[error(
        "a password was given but no user: name the user in the URL, as in http://user@host/database"
    )]
    PasswordWithoutUser,
    /// Revisions were asked for of a source that has none.
    #[error("a recorded feed holds winning revisions only: --revisions needs a server")]
    RevisionsOfFeed,
    /// Standard input cannot be compared with.
    #[error("a feed on standard input cannot be compared with: save it as a file first")]
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
}

impl MirrorConfig {
    /// A mirror of `source` (`http(s)://user:password@host:port/database`, the same without a path
    /// for every database of the server, `feed:<file.ndjson>` or `feed:-`) in `directory`.
    pub fn new(source: &str, directory: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Ok(Self {
            source: SourceConfig::parse(source)?,
            directory: directory.as_ref().to_owned(),
            mode: Mode::CatchUp,
            options: MirrorOptions::default(),
            bounds: Bounds::DEFAULT,
            give_up_after: None,
            source_moved: false,
            deletions: Some(DeletionLimit::DEFAULT),
            allow_empty: false,
        })
    }

    /// Goes on after it has caught up, following the source.
    pub fn live(mut self, live: bool) -> Self {
        self.mode = if live { Mode::Follow } else { Mode::CatchUp };
        self
    }

    /// Mirrors the collections that have one of these names or match one of these globs; without any,
    /// all but those whose name starts with `_`. Refused beside a database in the source's URL.
    pub fn collections<S: AsRef<str>>(mut self, globs: &[S]) -> Result<Self, ConfigError> {
        if let SourceConfig::Couch(couch) = &self.source
            && let Databases::One(database) = &couch.databases
            && !globs.is_empty()
        {
            let database = database.to_string();
            return Err(ConfigError::CollectionsBesideDatabase { database });
        }
        self.source.select(Selection::new(globs)?);
        Ok(self)
    }

    /// Whether the branches that lost a conflict are kept, and the histories of all revisions. Only
    /// a server knows these.
    pub fn revisions(mut self, keep: bool) -> Result<Self, ConfigError> {
        if keep && matches!(self.source, SourceConfig::Feed(_)) {
            return Err(ConfigError::RevisionsOfFeed);
        }
        self.options.kept.revisions = keep;
        Ok(self)
    }

    /// Whether the tombstones of deleted documents are kept.
    pub fn keep_deleted(mut self, keep: bool) -> Self {
        self.options.kept.deleted = keep;
        self
    }

    /// The password of the user named in the URL, for those who keep it out of there.
    pub fn password(mut self, password: SecretString) -> Result<Self, ConfigError> {
        self.source.authenticate(password)?;
        Ok(self)
    }

    /// Whether attachments are mirrored, or only the stubs that stand for them in the bodies.
    pub fn attachments(mut self, attachments: bool) -> Self {
        self.options.attachments = attachments;
        self
    }

    /// How bodies are written.
    pub fn json(mut self, style: JsonStyle) -> Self {
        self.options.json = style;
        self
    }

    /// The codec for the names of a new mirror.
    pub fn names(mut self, codec: Codec) -> Self {
        self.options.names = Some(codec);
        self
    }

    /// How much of the journal of write events is kept.
    pub fn journal(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// How long a source that does not answer is tried; `None` is for ever.
    pub fn give_up_after(mut self, patience: Option<Duration>) -> Self {
        self.give_up_after = Some(patience);
        self
    }

    /// Follows this source although the mirror followed another: it has moved.
    pub fn source_moved(mut self, moved: bool) -> Self {
        self.source_moved = moved;
        self
    }

    /// So many bytes of the mirror's file system stay free: no batch is begun that would take them.
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.options.reserve = bytes;
        self
    }

    /// For how many days deleted documents are kept in the mirror's trash; 0 is not at all.
    pub fn trash(mut self, days: u32) -> Self {
        self.options.trash_days = days;
        self
    }

    /// How much of a collection may be deleted at a time, by one catch-up or an hour of following;
    /// more is held back until it is released. `None` is all.
    pub fn max_delete(mut self, limit: Option<DeletionLimit>) -> Self {
        self.deletions = limit;
        self
    }

    /// Takes it for success when a pattern matches nothing, the source is empty, or a database that was
    /// followed before has vanished.
    pub fn allow_empty(mut self, allow: bool) -> Self {
        self.allow_empty = allow;
        self
    }

    /// Whether it goes on after it has caught up.
    pub fn is_live(&self) -> bool {
        self.mode == Mode::Follow
    }

    /// Opens the mirror, taking its lock, and starts the agent. Needs a tokio runtime.
    pub async fn start(self) -> Result<Agent, StartError> {
        let holder = Holder::this_process("mirror");
        let Self { directory, options, bounds, .. } = self.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            let mirror = Mirror::open(&directory, &options, &holder)?;
            let state = open_state(&mirror, bounds)?;
            Ok((mirror, state))
        });
        let (mirror, state) = match opened.await {
            Ok(opened) => opened?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let mut agent = AgentOptions::new(self.mode);
        agent.source_moved = self.source_moved;
        agent.deletions = self.deletions;
        agent.allow_empty = self.allow_empty;
        if let Some(patience) = self.give_up_after {
            agent.retry.give_up_after = patience;
        }
        let mut source = self.source;
        source.keep(self.options.kept);
        source.wait_at_most(self.give_up_after.flatten());
        let store = source.open()?;
        Ok(Agent::start(store, Arc::new(mirror), Arc::new(state), agent))
    }
}

fn open_state(mirror: &Mirror, bounds: Bounds) -> Result<Checkpoints, StateError> {
    let opened = Checkpoints::open(&mirror.state_path(), bounds)?;
    if let Some(damaged) = opened.damaged {
        tracing::warn!("{damaged}");
    }
    Ok(opened.state)
}

/// Opens the mirror in `directory` to repair documents of it, and takes its lock for `command`.
/// Blocks.
pub fn open_for_repair(directory: &Path, command: &str) -> Result<Repairer, StartError> {
    let mirror = Mirror::open_existing(directory, &Holder::this_process(command))?;
    let state = open_state(&mirror, Bounds::DEFAULT)?;
    Ok(Repairer::new(Arc::new(mirror), Arc::new(state)))
}

/// A source that was opened to be read and compared with.
pub struct OpenedSource {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The one collection that the source names, if it names one.
    pub only: Option<CollectionName>,
}

impl OpenedSource {
    /// Opens `source`, as [`MirrorConfig::new`] takes it, with the collections that match one of
    /// the globs, and tells of what is `kept` beside the winning revisions. Does no I/O. A feed on standard input is refused: it cannot be read twice.
    pub fn open<S: AsRef<str>>(
        source: &str,
        collections: &[S],
        password: Option<SecretString>,
        kept: Kept,
    ) -> Result<Self, OpenError> {
        let mut config = SourceConfig::parse(source)?;
        config.keep(kept);
        config.select(Selection::new(collections).map_err(ConfigError::from)?);
        if let Some(password) = password {
            config.authenticate(password)?;
        }
        let only = match &config {
            SourceConfig::Couch(couch) => match &couch.databases {
                Databases::One(name) => Some(name.clone()),
                Databases::Selected(_) => None,
            },
            SourceConfig::Feed(FeedConfig { path: None, .. }) => {
                return Err(ConfigError::StandardInput.into());
            }
            SourceConfig::Feed(_) => None,
        };
        Ok(Self { store: config.open()?, only })
    }
}

/// Why a source could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What was asked for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl SourceConfig {
    fn select(&mut self, wanted: Selection) {
        match self {
            Self::Couch(couch) => {
                if let Databases::Selected(selection) = &mut couch.databases {
                    *selection = wanted;
                }
            }
            Self::Feed(feed) => feed.selection = wanted,
        }
    }

    fn keep(&mut self, kept: Kept) {
        if let Self::Couch(couch) = self {
            couch.kept = kept;
        }
    }

    /// Who gives up after so long does not wait longer for an answer, or for the next piece of one.
    fn wait_at_most(&mut self, patience: Option<Duration>) {
        if let (Self::Couch(couch), Some(most)) = (self, patience) {
            let Patience { connect, answer } = couch.timings.patience;
            couch.timings.patience =
                Patience { connect: connect.min(most), answer: answer.min(most) };
        }
    }

    fn authenticate(&mut self, password: SecretString) -> Result<(), ConfigError> {
        if let Self::Couch(couch) = self {
            let given = couch.credentials.as_ref().ok_or(ConfigError::PasswordWithoutUser)?;
            couch.credentials = Some(Credentials::new(given.user(), password));
        }
        Ok(())
    }

    fn parse(source: &str) -> Result<Self, ConfigError> {
        let selection = Selection::default();
        if let Some(path) = source.strip_prefix("feed:").filter(|path| !path.is_empty()) {
            let path = (path != "-").then(|| PathBuf::from(path));
            return Ok(Self::Feed(FeedConfig { path, selection }));
        }
        if Address::is_meant(source) {
            return Ok(Self::Couch(Box::new(CouchOptions::from_url(source, selection)?)));
        }
        // What stands before an `@` may be a password.
        let given = source.rsplit_once('@').map_or(source, |(_, rest)| rest).to_owned();
        Err(ConfigError::UnknownSource { given })
    }

    fn open(self) -> Result<Arc<dyn Store>, SourceError> {
        Ok(match self {
            Self::Couch(options) => Arc::new(CouchStore::new(*options)?),
            Self::Feed(FeedConfig { path: Some(path), selection }) => {
                Arc::new(FeedStore::file(path, None, selection))
            }
            Self::Feed(FeedConfig { path: None, selection }) => {
                Arc::new(FeedStore::stdin(None, selection))
            }
        })
    }
}

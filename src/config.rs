//! What a mirror is to be, validated and lowered into the options of the layers below.
//!
//! This is also where the library begins: [`MirrorConfig::new`], then [`MirrorConfig::start`]. It
//! must not know clap, nor read the environment.

mod access;
mod remembered;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::agent::{Agent, AgentOptions, DeletionLimit, Repairer};
use crate::checkpoint::{Before, Bounds, Checkpoints, StateError};
use crate::client::couchdb::{Address, Patience, Refusal, Secret, typed};
use crate::document::{CollectionName, FolderMode, Kept, MaxDelete};
use crate::mirror::names::Codec;
use crate::mirror::{Deleted, Holder, JsonStyle, Mirror, MirrorError, Wanted};
use crate::source::couchdb::{CouchOptions, CouchStore, Databases};
use crate::source::feed::FeedStore;
use crate::source::{BadGlob, Mode, Selection, SourceError, Store};

pub use self::access::{Access, AccessError};

/// A mirror that can be started.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    source: SourceConfig,
    directory: PathBuf,
    mode: Mode,
    names: Option<Codec>,
    wanted: Wanted,
    /// The globs that were named; an empty list is the default again.
    collections: Option<Vec<String>>,
    bounds: Bounds,
    give_up_after: Option<Option<Duration>>,
    source_moved: bool,
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
        "`{given}` is not a source{}: a source is http(s)://host:port/database, \
         http+unix://%2Fpath%2Fsocket/database, feed:FILE, or feed:- for standard input",
        meant.as_ref().map(|meant| format!(" ({meant})")).unwrap_or_default()
    )]
    UnknownSource {
        /// What was given, without credentials.
        given: String,
        /// What to type instead, if that can be guessed.
        meant: Option<String>,
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
         leave one of them out, or end the URL in a slash if it is the path of a server behind a proxy",
        database
    )]
    CollectionsBesideDatabase {
        /// The database in the URL.
        database: String,
    },
    /// Ways of entering the server do not go together.
    #[error(transparent)]
    Access(#[from] AccessError),
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
    /// A glob that the mirror remembers.
    #[error("the mirror remembers a glob that cannot be read: {0}; give --collections again")]
    Glob(#[source] BadGlob),
}

impl MirrorConfig {
    /// A mirror of `source` (`http(s)://user:password@host:port/database`, the same without a path
    /// for every database of the server, `feed:<file.ndjson>` or `feed:-`) in `directory`.
    pub fn new(source: &str, directory: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Ok(Self {
            source: SourceConfig::parse(source)?,
            directory: directory.as_ref().to_owned(),
            mode: Mode::CatchUp,
            names: None,
            wanted: Wanted::default(),
            collections: None,
            bounds: Bounds::DEFAULT,
            give_up_after: None,
            source_moved: false,
            allow_empty: false,
        })
    }

    /// Goes on after it has caught up, following the source.
    pub fn live(mut self, live: bool) -> Self {
        self.mode = if live { Mode::Follow } else { Mode::CatchUp };
        self
    }

    /// Mirrors the collections that have one of these names or match one of these globs. An empty list
    /// selects all but those whose name starts with `_`. Without this call the mirror's own globs for this
    /// source count. Refused beside a database in the source's URL.
    pub fn collections<S: AsRef<str>>(mut self, globs: &[S]) -> Result<Self, ConfigError> {
        if let SourceConfig::Couch(couch) = &mut self.source
            && let Databases::One(database) = &couch.databases
            && !globs.is_empty()
        {
            let database = database.to_string();
            match couch.below.take() {
                // Who selects databases means a server.
                Some(below) => couch.be_server(below),
                None => return Err(ConfigError::CollectionsBesideDatabase { database }),
            }
        }
        Selection::new(globs)?;
        self.collections = Some(globs.iter().map(|glob| glob.as_ref().to_owned()).collect());
        Ok(self)
    }

    /// Whether the losing revisions of conflicts are kept, and the histories of all revisions. Only
    /// a server knows these.
    ///
    /// This option, and [`keep_deleted`](Self::keep_deleted), [`attachments`](Self::attachments),
    /// [`json`](Self::json), [`reserve`](Self::reserve), [`trash`](Self::trash),
    /// [`max_delete`](Self::max_delete) and [`collections`](Self::collections), are remembered by the
    /// mirror: one that is not named stays as it was.
    pub fn revisions(mut self, keep: bool) -> Result<Self, ConfigError> {
        if keep && matches!(self.source, SourceConfig::Feed(_)) {
            return Err(ConfigError::RevisionsOfFeed);
        }
        self.wanted.revisions = Some(keep);
        Ok(self)
    }

    /// Whether the tombstones of deleted documents are kept.
    pub fn keep_deleted(mut self, keep: bool) -> Self {
        self.wanted.deleted = Some(if keep { Deleted::Keep } else { Deleted::Remove });
        self
    }

    /// Discards what the options that are named here make superfluous. Without it, such options are
    /// refused when the mirror is started.
    pub fn discard(mut self, discard: bool) -> Self {
        self.wanted.discard = discard;
        self
    }

    /// Takes a mirror's tree without its `.plainfold` on as a mirror, and compares everything.
    pub fn adopt(mut self, adopt: bool) -> Self {
        self.wanted.adopt = adopt;
        self
    }

    /// The password of the user named in the URL, for those who keep it out of there.
    pub fn password(self, password: SecretString) -> Result<Self, ConfigError> {
        let password = Some(Secret::Fixed(password));
        self.access(Access { password, ..Access::default() })
    }

    /// How the server is entered, for those who keep secrets out of the URL. Ignored for feeds.
    pub fn access(mut self, access: Access) -> Result<Self, ConfigError> {
        self.source.enter(access)?;
        Ok(self)
    }

    /// Whether attachments are mirrored, or only the stubs that stand for them in the bodies.
    pub fn attachments(mut self, attachments: bool) -> Self {
        self.wanted.attachments = Some(attachments);
        self
    }

    /// How bodies are written.
    pub fn json(mut self, style: JsonStyle) -> Self {
        self.wanted.json = Some(style);
        self
    }

    /// The codec for the names of a new mirror.
    pub fn names(mut self, codec: Codec) -> Self {
        self.names = Some(codec);
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

    /// This number of bytes of the mirror's file system stays free: no batch is begun that would take
    /// them.
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.wanted.reserve = Some(bytes);
        self
    }

    /// For how many days deleted documents are kept in the mirror's trash; 0 is not at all.
    pub fn trash(mut self, days: u32) -> Self {
        self.wanted.trash = Some(days);
        self
    }

    /// The mode of folders, and, without execution, of files that are written from now on. Where the
    /// process's umask is stricter, it counts: [`FolderMode::umask`] is the one that goes with the mode.
    /// A new directory is made with this mode, by default with 0700.
    pub fn mode(mut self, mode: FolderMode) -> Self {
        self.wanted.mode = Some(mode);
        self
    }

    /// Refuses to create a mirror: it must be there.
    pub fn existing(mut self, existing: bool) -> Self {
        self.wanted.existing = existing;
        self
    }

    /// How much of a collection may be deleted at a time, by one catch-up or an hour of following;
    /// more is held back until it is released. `None` is all.
    pub fn max_delete(mut self, limit: Option<DeletionLimit>) -> Self {
        self.wanted.max_delete = Some(MaxDelete(limit));
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
    pub async fn start(mut self) -> Result<Agent, StartError> {
        self.source.wait_at_most(self.give_up_after.flatten());
        self.source.resolve().await;
        let holder = Holder::this_process("mirror");
        self.wanted.winners_only = matches!(self.source, SourceConfig::Feed(_));
        let opened = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            let wanted = &self.wanted;
            let mirror = Mirror::open_wanted(&self.directory, self.names, wanted, &holder)?;
            let state = open_state(&mirror, self.bounds)?;
            if wanted.max_delete == Some(MaxDelete(None)) && !wanted.discard {
                refuse_to_release(&mirror, &state)?;
            }
            Ok((self, mirror, state))
        });
        let (config, mut mirror, state) = match opened.await {
            Ok(opened) => opened?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let mut agent = AgentOptions::new(config.mode);
        agent.source_moved = config.source_moved;
        agent.allow_empty = config.allow_empty;
        agent.deletions = mirror.options().max_delete.0;
        if let Some(patience) = config.give_up_after {
            agent.retry.give_up_after = patience;
        }
        let mut source = config.source;
        source.keep(mirror.kept_anywhere()?);
        source.wait_at_most(config.give_up_after.flatten());
        source.know(&mirror.followed()?, config.mode);
        let mut options = mirror.options().clone();
        let globs = source.selects().map(|identity| {
            let all = &mut options.collections;
            remembered::globs(all, &identity, config.collections, config.source_moved)
        });
        if let Some(globs) = &globs {
            source.select(Selection::new(&globs.now).map_err(StartError::Glob)?);
        }
        let store = source.open()?;
        if let Some(globs) = &globs {
            remembered::say(&mirror, &*store, globs)?;
        }
        mirror.remember(options)?;
        Ok(Agent::start(store, Arc::new(mirror), Arc::new(state), agent))
    }
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
        return Some("it is a directory: look at the order of the arguments in --help".to_owned());
    }
    if !Address::is_url_like(text) && (path.is_file() || is_feed) {
        return Some(format!("for a recorded feed, write feed:{text}"));
    }
    typed::meant(text)
}

/// Refuses to drop the limit on deletions while it holds deletions back.
fn refuse_to_release(mirror: &Mirror, state: &Checkpoints) -> Result<(), StartError> {
    for name in state.collections()? {
        let held = state.count_held_back(&name)?;
        if held > 0 {
            let unit = if held == 1 { "document" } else { "documents" };
            return Err(StartError::Mirror(MirrorError::Discards {
                path: mirror.path().to_owned(),
                option: "--max-delete off".to_owned(),
                what: format!("{held} {unit} of `{name}` whose deletion is held back"),
            }));
        }
    }
    Ok(())
}

fn open_state(mirror: &Mirror, bounds: Bounds) -> Result<Checkpoints, StartError> {
    let before = if mirror.has_past()? { Before::Something } else { Before::Nothing };
    let clock = Arc::clone(mirror.clock());
    let opened = Checkpoints::open_with(&mirror.state_path(), bounds, clock, before)?;
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
    /// the globs, and tells of what is `kept` beside the winning revisions. A feed on standard input is refused: it cannot be read twice.
    pub async fn open<S: AsRef<str>>(
        source: &str,
        collections: &[S],
        access: Access,
        kept: Kept,
    ) -> Result<Self, OpenError> {
        let mut config = SourceConfig::parse(source)?;
        config.keep(kept);
        config.enter(access).map_err(ConfigError::from)?;
        config.resolve().await;
        config.select(Selection::new(collections).map_err(ConfigError::from)?);
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
    /// Asks what the path of a URL that ends in a slash is.
    async fn resolve(&mut self) {
        if let Self::Couch(couch) = self {
            couch.resolve().await;
        }
    }

    /// Who the source is, where globs select among its collections.
    fn selects(&self) -> Option<String> {
        match self {
            Self::Couch(couch) => match &couch.databases {
                Databases::One(_) => None,
                Databases::Selected(_) => Some(couch.address.to_string()),
            },
            Self::Feed(feed) => Some(feed.store().identity()),
        }
    }

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
    fn know(&mut self, followed: &[(CollectionName, String)], mode: Mode) {
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

    fn enter(&mut self, access: Access) -> Result<(), AccessError> {
        if let Self::Couch(couch) = self {
            couch.credentials = access.credentials(couch.credentials.take())?;
            couch.tls = access.tls;
        }
        Ok(())
    }

    fn parse(source: &str) -> Result<Self, ConfigError> {
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

    fn open(self) -> Result<Arc<dyn Store>, SourceError> {
        Ok(match self {
            Self::Couch(options) => Arc::new(CouchStore::new(*options)?),
            Self::Feed(feed) => Arc::new(feed.store()),
        })
    }
}

impl FeedConfig {
    /// Does no I/O.
    fn store(&self) -> FeedStore {
        match &self.path {
            Some(path) => FeedStore::file(path, None, self.selection.clone()),
            None => FeedStore::stdin(None, self.selection.clone()),
        }
    }
}

//! The options of a mirror, validated and lowered into the options of the layers below.
//!
//! The library begins here, with [`MirrorConfig::new`] and [`MirrorConfig::start`].

mod access;
mod choices;
mod endpoint;
mod error;
pub mod file;
mod probe;
mod remembered;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Semaphore;

use crate::checkpoint::{Bounds, Checkpoints};
use crate::client::couchdb::Secret;
use crate::document::{CollectionName, FolderMode, Kept, MaxDelete};
use crate::mirror::{self, Deleted, JsonStyle, Mirror};
use crate::runner::{
    DeletionLimit, DriftOptions, Reopen, Repairer, Session, SessionOptions, open_state,
};
use crate::source::couchdb::Databases;
use crate::source::{Mode, Selection, Store};
use crate::tree::names::Codec;
use crate::tree::{AgentMirror, Holder, MirrorError};

use self::source::{FeedConfig, SourceConfig};

pub use self::access::{AccessOptions, SecretError, SecretPlace, WrittenSecret};
pub use self::choices::MirrorChoices;
pub use self::endpoint::{Access, Endpoint, feed, meant};
pub use self::error::{AccessError, ConfigError, OpenError, StartError};
pub use self::probe::Probe;
pub use self::source::kinds;

/// The connections that a server serves, if nothing else was said.
const MAX_RUNS: u16 = 100;

/// The number of unreadable rows after which a catch-up ends, unless told otherwise.
const MAX_FAILURES: u64 = 1000;

/// A mirror that can be started.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    source: SourceConfig,
    directory: PathBuf,
    mode: Mode,
    names: Option<Codec>,
    wanted: mirror::WantedOptions,
    /// The globs that were named; an empty list means the default.
    collections: Option<Vec<String>>,
    excluded: Vec<String>,
    bounds: Bounds,
    give_up_after: Option<Option<Duration>>,
    source_moved: bool,
    allow_empty: bool,
    max_failures: Option<u64>,
    max_runs: usize,
    turns: Option<Arc<Semaphore>>,
    agent: Option<Box<AgentMirror>>,
    drift: Option<DriftOptions>,
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
            wanted: mirror::WantedOptions::default(),
            collections: None,
            excluded: Vec::new(),
            bounds: Bounds::DEFAULT,
            give_up_after: None,
            source_moved: false,
            allow_empty: false,
            max_failures: Some(MAX_FAILURES),
            max_runs: MAX_RUNS.into(),
            turns: None,
            agent: None,
            drift: None,
        })
    }

    /// While a whole server is followed, it serves at most this number of connections, and at least 4.
    /// If it has more databases, the others sleep until they change.
    pub fn max_runs(mut self, limit: usize) -> Self {
        self.max_runs = limit;
        self
    }

    /// Whether the run follows the source after it has caught up.
    pub fn live(mut self, live: bool) -> Self {
        self.mode = if live { Mode::Follow } else { Mode::CatchUp };
        self
    }

    /// Mirrors the collections that have one of these names or match one of these globs. An empty list
    /// selects all but those whose name starts with `_`. Without this call, the globs that the mirror
    /// remembers for this source apply. Refused beside a database in the source's URL.
    pub fn collections<S: AsRef<str>>(mut self, globs: &[S]) -> Result<Self, ConfigError> {
        if let SourceConfig::Couch(couch) = &mut self.source
            && let Databases::One(database) = &couch.databases
            && !globs.is_empty()
        {
            let database = database.to_string();
            match couch.below.take() {
                // A selection of databases means a server.
                Some(below) => couch.be_server(below),
                None => return Err(ConfigError::CollectionsBesideDatabase { database }),
            }
        }
        Selection::new(globs)?;
        self.collections = Some(globs.iter().map(|glob| glob.as_ref().to_owned()).collect());
        Ok(self)
    }

    /// Leaves out the collections that have one of these names or match one of these globs. Not
    /// remembered. Ignored beside a database in the source's URL.
    pub fn exclude<S: AsRef<str>>(mut self, globs: &[S]) -> Result<Self, ConfigError> {
        Selection::default().without(globs)?;
        self.excluded = globs.iter().map(|glob| glob.as_ref().to_owned()).collect();
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

    /// Whether to discard what the named options make superfluous. Without it, such options are refused at
    /// the start.
    pub fn discard(mut self, discard: bool) -> Self {
        self.wanted.discard = discard;
        self
    }

    /// Adopts a mirror's tree without its `.plainfold` as a mirror, and compares everything.
    pub fn adopt(mut self, adopt: bool) -> Self {
        self.wanted.adopt = adopt;
        self
    }

    /// The password of the user named in the URL, if the URL does not hold it.
    pub fn password(self, password: SecretString) -> Result<Self, ConfigError> {
        let password = Some(Secret::Fixed(password));
        self.access(Access { password, ..Access::default() })
    }

    /// Credentials and certificates, if the URL does not hold them. Ignored for feeds.
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

    /// The number of bytes of the state that are kept in memory.
    pub fn cache(mut self, bytes: u64) -> Self {
        self.bounds.cache = bytes;
        self
    }

    /// Shared with other mirrors of this process: bounds how many collections of all of them catch up at the
    /// same time.
    pub fn turns(mut self, turns: Arc<Semaphore>) -> Self {
        self.turns = Some(turns);
        self
    }

    /// How the mirror is verified while it runs, without which it is not.
    pub fn drift(mut self, options: Option<DriftOptions>) -> Self {
        self.drift = options;
        self
    }

    /// Which mirror of `plainfold run` it is, so that others who meet its lock are told.
    pub fn agent(mut self, mirror: AgentMirror) -> Self {
        self.agent = Some(mirror.into());
        self
    }

    /// How long to try a source that does not answer; `None` means without end.
    pub fn give_up_after(mut self, patience: Option<Duration>) -> Self {
        self.give_up_after = Some(patience);
        self
    }

    /// Whether to follow this source although the mirror followed another: the source has moved.
    pub fn source_moved(mut self, moved: bool) -> Self {
        self.source_moved = moved;
        self
    }

    /// The number of bytes of the mirror's file system that stay free: a batch that would take them is not
    /// begun.
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.wanted.reserve = Some(bytes);
        self
    }

    /// The number of days for which the mirror's trash keeps deleted documents; 0 means not at all.
    pub fn trash(mut self, days: u32) -> Self {
        self.wanted.trash = Some(days);
        self
    }

    /// The mode of folders, and, without execution, of files that are written from now on. If the
    /// process's umask is stricter, the umask applies: [`FolderMode::umask`] fits the mode. A new directory
    /// gets this mode, by default 0700.
    pub fn mode(mut self, mode: FolderMode) -> Self {
        self.wanted.mode = Some(mode);
        self
    }

    /// Refuses to create a mirror: it must exist.
    pub fn existing(mut self, existing: bool) -> Self {
        self.wanted.existing = existing;
        self
    }

    /// Whether to take the mirror over although another process holds its lock. That process can
    /// change nothing in the mirror any more, even if it was only paused.
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.wanted.take_over = take_over;
        self
    }

    /// How much of a collection one catch-up, or one hour of following, may delete. Further deletions are
    /// held back until they are released. `None` means all.
    pub fn max_delete(mut self, limit: Option<DeletionLimit>) -> Self {
        self.wanted.max_delete = Some(MaxDelete(limit));
        self
    }

    /// Whether it counts as success if a pattern matches nothing, the source is empty, or a database that
    /// was followed before has vanished.
    pub fn allow_empty(mut self, allow: bool) -> Self {
        self.allow_empty = allow;
        self
    }

    /// After this number of rows of a recorded feed that cannot be read, the catch-up of their
    /// collection ends; `None` is no limit. Ignored for servers, and while a feed is followed.
    pub fn max_failures(mut self, limit: Option<u64>) -> Self {
        self.max_failures = limit;
        self
    }

    /// Whether the run follows the source after it has caught up.
    pub fn is_live(&self) -> bool {
        self.mode == Mode::Follow
    }

    /// Opens the mirror, taking its lock, and starts the session. Needs a tokio runtime.
    pub async fn start(self) -> Result<Session, StartError> {
        self.start_after(|_| {}).await
    }

    /// The same; when all is open, and before anything is mirrored, `begin` gets the name of the
    /// source, without credentials.
    pub async fn start_after(mut self, begin: impl FnOnce(&str)) -> Result<Session, StartError> {
        self.source.wait_at_most(self.give_up_after.flatten());
        self.source.resolve().await;
        let input = self.source.refuse(self.mode).await?;
        let holder = Holder { agent: self.agent.take(), ..Holder::this_process("mirror") };
        self.wanted.winners_only = matches!(self.source, SourceConfig::Feed(_));
        let opened = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            let wanted = &self.wanted;
            let mirror = Mirror::open_wanted(&self.directory, self.names, wanted, &holder)?;
            let state = open_state::<StartError>(&mirror, self.bounds)?;
            if wanted.max_delete == Some(MaxDelete(None)) && !wanted.discard {
                refuse_to_release(&mirror, &state)?;
            }
            Ok((self, mirror, state))
        });
        let (config, mut mirror, state) = match opened.await {
            Ok(opened) => opened?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let mut session = SessionOptions::new(config.mode);
        session.source_moved = config.source_moved;
        session.allow_empty = config.allow_empty;
        session.turns = config.turns;
        session.drift = config.drift;
        // The documents of a server fail one by one, and never end the mirroring of the others.
        let is_feed = matches!(config.source, SourceConfig::Feed(_));
        session.max_failures = config.max_failures.filter(|_| is_feed);
        session.deletions = mirror.options().max_delete.0;
        let mut source = config.source;
        session.max_runs = source.limit(config.max_runs, config.mode);
        if let Some(patience) = config.give_up_after {
            session.retry.give_up_after = patience;
        }
        source.keep(mirror.kept_anywhere()?);
        source.wait_at_most(config.give_up_after.flatten());
        source.know(&mirror.followed()?, config.mode);
        let mut options = mirror.options().clone();
        let globs = source.selects().map(|identity| {
            let all = &mut options.collections;
            remembered::globs(all, &identity, config.collections, config.source_moved)
        });
        if let Some(globs) = &globs {
            let selection = Selection::new(&globs.now).map_err(StartError::Glob)?;
            source.select(selection.without(&config.excluded).map_err(StartError::Glob)?);
        }
        if let SourceConfig::Feed(FeedConfig { path: Some(_), .. }) = &source {
            let again = source.clone();
            session.reopen = Some(Reopen::new(move || again.clone().open(None)));
        }
        let store = source.open(input)?;
        begin(&store.identity());
        if let Some(globs) = &globs {
            remembered::say(&mirror, &*store, globs, &config.excluded)?;
        }
        mirror.remember(options)?;
        Ok(Session::start(store, Arc::new(mirror), Arc::new(state), session))
    }
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

/// Opens the mirror in `directory` to repair documents of it, and takes its lock for `command`, with
/// `take_over` also from another process. Blocks.
pub fn open_for_repair(
    directory: &Path,
    command: &str,
    take_over: bool,
) -> Result<Repairer, StartError> {
    let mirror = Mirror::open_existing(directory, &Holder::this_process(command), take_over)?;
    let state = open_state::<StartError>(&mirror, Bounds::DEFAULT)?;
    Ok(Repairer::new(Arc::new(mirror), Arc::new(state)))
}

/// A source that was opened for a comparison.
pub struct OpenedSource {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The one collection that the source names, if it names one.
    pub only: Option<CollectionName>,
}

impl OpenedSource {
    /// Opens `source`, as [`MirrorConfig::new`] takes it, with the collections that match one of
    /// the globs, and with what is `kept` beside the winning revisions. A feed on standard input is refused,
    /// because it cannot be read twice.
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
        let input = config.refuse(Mode::CatchUp).await?;
        Ok(Self { store: config.open(input)?, only })
    }
}

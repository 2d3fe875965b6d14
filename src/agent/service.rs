//! The agent: a keeper for each mirror of the config that is in force.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use url::Url;

use super::alarm::Alarm;
use super::home::span;
use super::keeper::{Begin, Keeper, Means};
use super::roster::{MirrorHandle, Roster};
use super::state::MirrorState;
use crate::config::file::{
    AgentConfig, AlertHooks, AlertsConfig, ConfigChange, MirrorEntry, difference,
};
use crate::document::MirrorName;
use crate::runner::TreeWatch;

/// The number of mirrors that start at the same time: they may be of one server.
const STARTS: usize = 8;

/// The number of collections of all mirrors that catch up at the same time. Each holds a few batches of
/// up to 4 MiB in memory.
const TURNS: usize = 24;

/// What the states of all mirrors cache together, in bytes.
const CACHE: u64 = 64 << 20;

/// What the state of one mirror caches at most, and at least.
const CACHE_OF_ONE: (u64, u64) = (8 << 20, 512 << 10);

/// Every mirror of a config.
pub struct Agent {
    /// The path of the config.
    path: PathBuf,
    config: AgentConfig,
    roster: Roster,
    begin: Begin,
    starts: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    kept: HashMap<MirrorName, Kept>,
    keepers: JoinSet<()>,
    stop: CancellationToken,
    /// The directories of mirrors that are ending, each with the token of its end.
    ending: Vec<(PathBuf, CancellationToken)>,
    /// What watches the folders of all mirrors, if that is possible.
    tree_watch: Option<Arc<TreeWatch>>,
    /// What watches all mirrors.
    alarm: Option<Alarm>,
}

/// A mirror that is kept.
struct Kept {
    handle: MirrorHandle,
    stop: CancellationToken,
    gone: CancellationToken,
}

impl Agent {
    /// Starts to keep the mirrors of a config that was read from `path`. `begin` begins what observes each
    /// session.
    pub fn start(path: &Path, config: AgentConfig, begin: Begin) -> Self {
        let refused = |error: &std::io::Error| {
            tracing::warn!(
                "changes by others are only noticed by the slow verification: the kernel refuses to watch \
                 folders: {error}"
            );
        };
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut agent = Self {
            roster: Roster::empty(path.clone()),
            path,
            config: AgentConfig {
                api: config.api.clone(),
                alerts: AlertsConfig::default(),
                mirrors: Vec::new(),
            },
            begin,
            starts: Arc::new(Semaphore::new(STARTS)),
            turns: Arc::new(Semaphore::new(TURNS)),
            kept: HashMap::new(),
            keepers: JoinSet::new(),
            stop: CancellationToken::new(),
            ending: Vec::new(),
            tree_watch: TreeWatch::start().map(Arc::new).inspect_err(refused).ok(),
            alarm: None,
        };
        agent.reload(config);
        agent
    }

    /// The mirrors, for observers.
    pub fn roster(&self) -> Roster {
        self.roster.clone()
    }

    /// Puts another config into force: mirrors that it removes or changes end, with their batch in flight
    /// committed, and those that it adds or changes start. All others are not interrupted.
    pub fn reload(&mut self, config: AgentConfig) -> ConfigChange {
        let change = difference(&self.config, &config);
        while self.keepers.try_join_next().is_some() {}
        self.ending.retain(|(_, gone)| !gone.is_cancelled());
        for name in change.removed.iter().chain(&change.changed) {
            if let Some(Kept { handle, stop, gone }) = self.kept.remove(name) {
                stop.cancel();
                self.ending.push((handle.directory().to_owned(), gone));
            }
        }
        let means = Arc::new(Means {
            begin: Arc::clone(&self.begin),
            watch: self.tree_watch.clone(),
            path: self.path.clone(),
            ends: self.stop.clone(),
            starts: Arc::clone(&self.starts),
            turns: Arc::clone(&self.turns),
            threads: threads(config.mirrors.len()),
            cache: cache(config.mirrors.len()),
        });
        let mut handles = Vec::new();
        for entry in &config.mirrors {
            let handle = match self.kept.get(&entry.name) {
                Some(kept) => kept.handle.clone(),
                None => {
                    let has_changed = change.changed.contains(&entry.name);
                    self.keep(entry.clone(), has_changed, &means)
                }
            };
            handles.push(handle);
        }
        self.roster.set(handles);
        self.roster.note_trouble(None);
        if change.alerts || self.alarm.is_none() {
            self.alarm = Some(self.watch(&config.alerts));
        }
        self.config = config;
        change
    }

    /// Notes that the config on disk is wrong. The one before stays in force.
    pub fn refuse(&self, error: String) {
        self.roster.note_trouble(Some(error));
    }

    /// Starts the mirrors that are parked, or that failed, at once.
    pub fn start_stuck(&self) {
        let stuck =
            |state| matches!(state, MirrorState::Parked { .. } | MirrorState::Failed { .. });
        for mirror in self.roster.mirrors() {
            if stuck(mirror.state()) {
                mirror.start_now();
            }
        }
    }

    /// Ends all mirrors, with their batches in flight committed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.keepers.join_next().await.is_some() {}
        self.roster.note_end();
    }

    /// Watches all mirrors. If an address cannot be read, alerts only reach the log.
    fn watch(&self, alerts: &AlertsConfig) -> Alarm {
        let hooks = alerts.lower().unwrap_or_else(|error| {
            tracing::error!("alerts are only logged, and there is no heartbeat: {error}");
            AlertHooks::default()
        });
        Alarm::start(self.roster.clone(), hooks, alerts.late_after)
    }

    fn keep(&mut self, entry: MirrorEntry, has_changed: bool, means: &Arc<Means>) -> MirrorHandle {
        let (stop, gone) = (self.stop.child_token(), CancellationToken::new());
        let source = without_user(&entry.source);
        let handle = MirrorHandle::new(
            entry.name.clone(),
            &entry.directory,
            source,
            entry.schedule.clone(),
            self.roster.changes(),
        );
        let is_same = |directory: &Path| {
            directory.starts_with(&entry.directory) || entry.directory.starts_with(directory)
        };
        let before = self.ending.iter().filter(|(directory, _)| is_same(directory));
        let keeper = Keeper {
            handle: handle.clone(),
            means: Arc::clone(means),
            stop: stop.clone(),
            has_changed,
            before: before.map(|(_, gone)| gone.clone()).collect(),
            gone: gone.clone(),
            entry,
        };
        let span = span(handle.name());
        let name = handle.name().clone();
        self.keepers.spawn(keeper.keep().instrument(span));
        self.kept.insert(name, Kept { handle: handle.clone(), stop, gone });
        handle
    }
}

/// Waits until every mirror of the roster has been started once, or cannot be, or is not due.
pub async fn all_started(roster: &Roster) {
    let mut changed = roster.changed();
    loop {
        changed.borrow_and_update();
        let waits = |mirror: &MirrorHandle| {
            mirror.state() == MirrorState::Starting && mirror.last_run().is_none()
        };
        if !roster.mirrors().iter().any(waits) || changed.changed().await.is_err() {
            return;
        }
    }
}

/// The threads of each session's runtime: few mirrors may use all processors, many one each.
fn threads(mirrors: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors / mirrors.max(1)).clamp(1, processors)
}

/// The bytes that the state of each mirror caches.
fn cache(mirrors: usize) -> u64 {
    let (most, least) = CACHE_OF_ONE;
    (CACHE / mirrors.max(1) as u64).clamp(least, most)
}

/// A source without the user in its URL.
fn without_user(source: &str) -> String {
    let Ok(mut url) = Url::parse(source) else { return source.to_owned() };
    if url.username().is_empty() && url.password().is_none() {
        return source.to_owned();
    }
    match (url.set_username(""), url.set_password(None)) {
        (Ok(()), Ok(())) => url.into(),
        _ => url.scheme().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mirrors_share_is_divided_among_them() {
        assert_eq!(cache(1), 8 << 20);
        assert_eq!(cache(64), 1 << 20);
        assert_eq!(cache(200), 512 << 10);
        assert_eq!(threads(200), 1);
        assert!(threads(1) >= 1);
    }

    #[test]
    fn a_source_is_shown_without_its_user() {
        assert_eq!(without_user("http://me@h:1/db"), "http://h:1/db");
        assert_eq!(without_user("http://me:pw@h:1/db"), "http://h:1/db");
        assert_eq!(without_user("http://h:1/db"), "http://h:1/db");
        assert_eq!(without_user("feed:/a@b"), "feed:/a@b");
        assert_eq!(without_user("http+unix://me@%2Fs/db"), "http+unix://%2Fs/db");
    }

    #[tokio::test]
    async fn a_session_that_panics_parks_its_mirror_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let feed = std::path::absolute("fixtures/library.ndjson").unwrap();
        let mirror = |name: &str| {
            format!(
                "[[mirror]]\nname = '{name}'\nsource = 'feed:{}'\ndirectory = '{name}'\n",
                feed.display()
            )
        };
        let text = mirror("panics") + &mirror("fine");
        let path = dir.path().join("plainfold.toml");
        let config = AgentConfig::parse(&text, &path).unwrap();
        let begin: Begin = Arc::new(|_, entry| {
            let panics = entry.name.as_str() == "panics";
            Box::pin(async move {
                assert!(!panics, "a test's own");
                let end: super::super::keeper::SessionEnd = Box::new(|| Box::pin(async {}));
                Ok(end)
            })
        });
        let agent = Agent::start(&path, config, begin);
        let roster = agent.roster();
        let mut changed = roster.changed();
        let state = |name: &str| roster.get(&name.parse().unwrap()).unwrap().state();
        let is_settled = || {
            matches!(state("panics"), MirrorState::Parked { .. })
                && matches!(state("fine"), MirrorState::Running { .. })
        };
        while !is_settled() {
            changed.changed().await.unwrap();
        }
        all_started(&roster).await;
        assert!(state("panics").error().unwrap().contains("a test's own"));
        let fine = roster.get(&"fine".parse().unwrap()).unwrap();
        assert!(fine.watcher().unwrap().caught_up().await);
        assert!(fine.summary().documents.is_some());
        agent.stop().await;
        assert!(fine.watcher().is_none());
    }
}

//! Wakes the readers that follow a growing file: by events of the file system, and every few seconds
//! where a file system sends none.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// How often a file is looked at without an event: network file systems send none.
const POLL: Duration = Duration::from_secs(3);

/// Watches one file. All who follow it share a watch, because a user may open few of them.
#[derive(Debug)]
pub(super) struct FileWatch {
    touched: watch::Sender<u64>,
    _watcher: Option<RecommendedWatcher>,
}

/// One follower's view of a watch.
#[derive(Debug)]
pub(super) struct Growth {
    touched: watch::Receiver<u64>,
    _watch: Arc<FileWatch>,
}

impl FileWatch {
    /// Begins to watch. If that is not possible, the file is only looked at every few seconds.
    pub fn start(path: &Path) -> Arc<Self> {
        let touched = watch::Sender::new(0);
        let watcher = watch_folders(path, touched.clone()).inspect_err(|error| {
            let path = path.display();
            tracing::warn!("{path} cannot be watched, and is checked for new rows every {POLL:?} instead: {error}");
        });
        Arc::new(Self { touched, _watcher: watcher.ok() })
    }

    /// Everything that happens from now on wakes the follower.
    pub fn subscribe(self: &Arc<Self>) -> Growth {
        Growth { touched: self.touched.subscribe(), _watch: self.clone() }
    }
}

impl Growth {
    /// Waits until the file may have changed since the last time.
    pub async fn wait(&mut self) {
        // Neither a timeout nor a watch without its sender differs from an event: look again.
        let _ = tokio::time::timeout(POLL, self.touched.changed()).await;
    }
}

/// Watches the folder rather than the file, which may be replaced; of a link, its target's too.
fn watch_folders(path: &Path, touched: watch::Sender<u64>) -> notify::Result<RecommendedWatcher> {
    let mut paths = vec![path.to_owned()];
    paths.extend(path.canonicalize().ok().filter(|target| target != path));
    let names: Vec<_> =
        paths.iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect();
    let concerns_us = move |event: &Event| {
        let ours =
            |path: &PathBuf| path.file_name().is_none_or(|name| names.iter().any(|n| n == name));
        event.need_rescan()
            || (!matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(ours))
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, &concerns_us) {
            touched.send_modify(|count| *count += 1);
        }
    })?;
    for folder in paths.iter().filter_map(|path| path.parent()) {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

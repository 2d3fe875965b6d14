//! Wakes the readers that follow a growing file: by events of the file system, and every few seconds
//! where a file system sends none.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// How often a file is looked at without an event: network file systems send none.
const POLL: Duration = Duration::from_secs(3);

/// How often something has happened to a file.
#[derive(Debug, Default)]
struct Touched {
    count: Mutex<u64>,
    more: Condvar,
}

/// Watches one file. All who follow it share a watch, because a user may open few of them.
#[derive(Debug)]
pub(super) struct FileWatch {
    touched: Arc<Touched>,
    _watcher: Option<RecommendedWatcher>,
}

/// One follower's view of a watch.
#[derive(Debug)]
pub(super) struct Growth {
    /// How often something had happened when it was looked at.
    seen: u64,
    watch: Arc<FileWatch>,
}

impl FileWatch {
    /// Begins to watch. If that is not possible, the file is only looked at every few seconds.
    pub fn start(path: &Path) -> Arc<Self> {
        let touched = Arc::<Touched>::default();
        let watcher = watch_folders(path, Arc::clone(&touched)).inspect_err(|error| {
            let path = path.display();
            tracing::warn!("{path} cannot be watched, and is checked for new rows every {POLL:?} instead: {error}");
        });
        Arc::new(Self { touched, _watcher: watcher.ok() })
    }

    /// Everything that happens from now on wakes the follower.
    pub fn subscribe(self: &Arc<Self>) -> Growth {
        let seen = *self.touched.count.lock().unwrap_or_else(PoisonError::into_inner);
        Growth { seen, watch: self.clone() }
    }
}

impl Growth {
    /// Waits until the file may have changed since the last time. Blocks.
    pub fn wait(&mut self) {
        let Touched { count, more } = &*self.watch.touched;
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |count: &mut u64| *count == self.seen;
        let waited = more.wait_timeout_while(count, POLL, same);
        self.seen = *waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Watches the folder rather than the file, which may be replaced; of a link, its target's too.
fn watch_folders(path: &Path, touched: Arc<Touched>) -> notify::Result<RecommendedWatcher> {
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
            *touched.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            touched.more.notify_all();
        }
    })?;
    for folder in paths.iter().filter_map(|path| path.parent()) {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

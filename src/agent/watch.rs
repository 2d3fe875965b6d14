//! Notices that a config file has changed. Editors replace a file by renaming another one over it, so its
//! folder is watched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, timeout_at};

/// The file is read when nothing has happened to it for this time, so that it is complete.
const QUIET: Duration = Duration::from_millis(300);

/// The file is read after this time, whatever happens to it.
const LONGEST: Duration = Duration::from_secs(3);

/// Watches one file.
#[derive(Debug)]
pub struct ConfigWatch {
    touched: Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl ConfigWatch {
    /// Begins to watch; of a link, its target too.
    pub fn start(path: &Path) -> notify::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut paths = vec![path.clone()];
        paths.extend(path.canonicalize().ok().filter(|target| *target != path));
        let folders: Vec<PathBuf> =
            paths.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        let (sender, touched) = channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let is_reading =
                |event: &Event| matches!(event.kind, EventKind::Access(_)) && !event.need_rescan();
            if !event.as_ref().is_ok_and(is_reading) {
                // One that waits already says the same.
                let _waits = sender.try_send(());
            }
        })?;
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { touched, _watcher: watcher })
    }

    /// Waits until something in the folder of the file has changed, and is quiet again.
    pub async fn changed(&mut self) {
        if self.touched.recv().await.is_none() {
            return std::future::pending().await;
        }
        let last = Instant::now() + LONGEST;
        while timeout_at(last.min(Instant::now() + QUIET), self.touched.recv()).await.is_ok()
            && Instant::now() < last
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "a").unwrap();
        let mut watch = ConfigWatch::start(&path).unwrap();
        std::fs::write(&path, "b").unwrap();
        watch.changed().await;
        let other = dir.path().join("other");
        std::fs::write(&other, "c").unwrap();
        watch.changed().await;
        std::fs::rename(&other, &path).unwrap();
        watch.changed().await;
    }
}

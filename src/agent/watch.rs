//! Notices that a config file has changed. Editors replace a file by renaming another one over it, so its
//! folder is watched.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
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
    path: PathBuf,
    seen: Option<Stamp>,
    touched: Receiver<()>,
    _watcher: RecommendedWatcher,
}

/// What differs when a file was written or replaced, or its mode was changed: device, inode, length, and
/// the time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let of = |it: Metadata| (it.dev(), it.ino(), it.len(), it.ctime(), it.ctime_nsec());
    std::fs::metadata(path).ok().map(of)
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
        let seen = stamp(&path);
        Ok(Self { path, seen, touched, _watcher: watcher })
    }

    /// Waits until the file has changed, and its folder is quiet again.
    pub async fn changed(&mut self) {
        while self.touched.recv().await.is_some() {
            let last = Instant::now() + LONGEST;
            while timeout_at(last.min(Instant::now() + QUIET), self.touched.recv()).await.is_ok()
                && Instant::now() < last
            {}
            if self.has_changed() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Whether the file is another one than it was. Its folder may contain files that change all the
    /// time, such as the agent's own log.
    fn has_changed(&mut self) -> bool {
        let now = stamp(&self.path);
        std::mem::replace(&mut self.seen, now) != now
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
        assert!(!watch.has_changed(), "another file of the folder");
        std::fs::rename(&other, &path).unwrap();
        watch.changed().await;
        assert!(!watch.has_changed());
    }

    #[test]
    fn a_target_that_a_link_is_set_to_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (folder, text) in [("one", "a"), ("two", "b")] {
            std::fs::create_dir(at(folder)).unwrap();
            std::fs::write(at(folder).join("config.toml"), text).unwrap();
        }
        std::os::unix::fs::symlink("one", at("now")).unwrap();
        std::os::unix::fs::symlink("now/config.toml", at("config.toml")).unwrap();
        let mut watch = ConfigWatch::start(&at("config.toml")).unwrap();
        std::os::unix::fs::symlink("two", at("next")).unwrap();
        std::fs::rename(at("next"), at("now")).unwrap();
        assert!(watch.has_changed());
    }
}

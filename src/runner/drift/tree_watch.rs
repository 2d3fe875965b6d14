//! Notices by the kernel which entries of collections somebody touches, and it does not matter who.
//!
//! One watch of the kernel's for each folder, within a budget that all mirrors of the process share. It
//! does not know what a document is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::time::Instant;
use walkdir::WalkDir;

use crate::document::CollectionName;

/// The most watches of a process, however many the kernel allows: each takes about 1 KiB of the kernel's
/// memory.
const MOST: usize = 32_768;

/// The part of the kernel's limit that a process takes: other programs of the user watch too.
const PART: usize = 4;

/// The number of touched entries of a collection that are remembered. If more are touched, all of it is to
/// be looked at.
const TOUCHED: usize = 20_000;

/// How deep the folders of a document are: `conflicts/<revision>/attachments`.
const DEPTH: usize = 3;

/// Watches folders for all mirrors of a process.
#[derive(Debug)]
pub struct TreeWatch {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: Arc<OwnedFd>,
    most: usize,
    known: Mutex<HashMap<i32, Watched>>,
}

/// What a watch is about.
#[derive(Clone, Debug)]
struct Watched {
    watcher: Weak<Register>,
    collection: CollectionName,
    /// The entry whose folder it is, or to whose folder it belongs; the collection's own folder has none.
    entry: Option<Arc<str>>,
}

/// What somebody has touched in one mirror.
#[derive(Debug, Default)]
pub(super) struct Register {
    touched: Mutex<BTreeMap<CollectionName, Touched>>,
    notify: Notify,
}

/// What somebody has touched in one collection.
#[derive(Debug)]
pub(super) struct Touched {
    /// The names of the entries.
    pub names: BTreeSet<String>,
    /// Whether it is not known which entries were touched.
    pub any: bool,
    /// Whether the folder of the collection is no longer the one that is watched.
    pub has_left: bool,
    /// When the first and the last was touched.
    first: Instant,
    last: Instant,
}

/// Why a collection is not watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwatched {
    /// The budget is spent.
    #[error("it has more folders than the {0} that are left of the watches of this process")]
    Budget(usize),
    /// The kernel refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl TreeWatch {
    /// Begins, within a part of the kernel's limit.
    pub fn start() -> io::Result<Self> {
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches");
        let limit = limit.ok().and_then(|text| text.trim().parse::<usize>().ok());
        Self::within((limit.unwrap_or(8192) / PART).min(MOST))
    }

    /// Begins, with at most this number of watches.
    pub fn within(most: usize) -> io::Result<Self> {
        let fd = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let inner = Arc::new(Inner { fd, most, known: Mutex::default() });
        let reading = Arc::downgrade(&inner);
        std::thread::Builder::new().name("drift".to_owned()).spawn(move || read(&reading))?;
        Ok(Self { inner })
    }

    /// The most watches.
    pub(super) fn most(&self) -> usize {
        self.inner.most
    }

    /// The number of watches that are left.
    pub(super) fn left(&self) -> usize {
        self.inner.most.saturating_sub(self.inner.known().len())
    }

    /// Watches the folder of a collection, and those of all its entries. Blocks. If that is not possible, none
    /// of them is watched.
    pub(super) fn watch_collection(
        &self,
        register: &Arc<Register>,
        collection: &CollectionName,
        folder: &Path,
    ) -> Result<(), Unwatched> {
        let watch = || {
            self.add(register, collection, None, folder)?;
            for entry in WalkDir::new(folder).min_depth(1).max_depth(1) {
                let entry = entry.map_err(io::Error::from)?;
                if entry.file_type().is_dir() {
                    let name = entry.file_name().to_string_lossy();
                    self.watch_entry(register, collection, &name, entry.path())?;
                }
            }
            Ok(())
        };
        watch().inspect_err(|_: &Unwatched| self.unwatch_collection(register, collection))
    }

    /// Watches all folders of an entry, if it is a folder. Blocks.
    pub(super) fn watch_entry(
        &self,
        register: &Arc<Register>,
        collection: &CollectionName,
        name: &str,
        folder: &Path,
    ) -> Result<(), Unwatched> {
        let name: Arc<str> = name.into();
        for entry in WalkDir::new(folder).max_depth(DEPTH) {
            // What is gone, or cannot be read, is found when the entry is verified.
            let Ok(entry) = entry else { continue };
            if entry.file_type().is_dir() {
                self.add(register, collection, Some(&name), entry.path())?;
            }
        }
        Ok(())
    }

    /// Watches a collection no longer.
    pub(super) fn unwatch_collection(&self, register: &Arc<Register>, name: &CollectionName) {
        self.inner.forget(|watched| {
            watched.collection == *name && watched.watcher.as_ptr() == Arc::as_ptr(register)
        });
    }

    fn add(
        &self,
        register: &Arc<Register>,
        collection: &CollectionName,
        entry: Option<&Arc<str>>,
        folder: &Path,
    ) -> Result<(), Unwatched> {
        let flags = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::EXCL_UNLINK;
        let mut known = self.inner.known();
        if known.len() >= self.inner.most {
            return Err(Unwatched::Budget(0));
        }
        match inotify::add_watch(&*self.inner.fd, folder, flags) {
            Ok(watch) => {
                let watched = Watched {
                    watcher: Arc::downgrade(register),
                    collection: collection.clone(),
                    entry: entry.cloned(),
                };
                known.insert(watch, watched);
                Ok(())
            }
            // It is gone already, or not a folder any more: who looks at it finds that.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(Errno::NOSPC) => Err(Unwatched::Budget(0)),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, HashMap<i32, Watched>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the watches to which this applies.
    fn forget(&self, applies: impl Fn(&Watched) -> bool) {
        self.known().retain(|watch, watched| {
            let goes = applies(watched);
            if goes {
                // Its folder may be gone already.
                let _gone = inotify::remove_watch(&*self.fd, *watch);
            }
            !goes
        });
    }

    fn take(&self, watch: i32, flags: ReadFlags, name: Option<&[u8]>) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.note_overflow();
        }
        let mut known = self.known();
        if flags.contains(ReadFlags::IGNORED) {
            known.remove(&watch);
            return;
        }
        let Some(Watched { watcher, collection, entry }) = known.get(&watch).cloned() else {
            return;
        };
        let has_left = flags.intersects(ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF);
        if has_left && entry.is_some() {
            // What is in the folder now has no place in the mirror. A new one has its own watch.
            known.remove(&watch);
            let _gone = inotify::remove_watch(&*self.fd, watch);
        }
        drop(known);
        let Some(register) = watcher.upgrade() else { return };
        match (entry, name) {
            (Some(entry), _) => register.touch(&collection, Some(&entry)),
            (None, Some(name)) => {
                register.touch(&collection, Some(&String::from_utf8_lossy(name)));
            }
            (None, None) if has_left => register.leave(&collection),
            (None, None) => register.touch(&collection, None),
        }
    }

    /// Events were lost: anything may have been touched.
    fn note_overflow(&self) {
        let mut all = HashSet::new();
        for watched in self.known().values() {
            all.insert((watched.watcher.as_ptr() as usize, watched.collection.clone()));
        }
        let known: Vec<Watched> = self.known().values().cloned().collect();
        for Watched { watcher, collection, .. } in known {
            let is_new = all.remove(&(watcher.as_ptr() as usize, collection.clone()));
            if let Some(register) = watcher.upgrade().filter(|_| is_new) {
                register.touch(&collection, None);
            }
        }
    }
}

impl Register {
    /// Somebody has touched an entry, or it is not known which.
    pub fn touch(&self, collection: &CollectionName, name: Option<&str>) {
        self.note(collection, |touched| match name {
            Some(name) if touched.names.contains(name) => {}
            Some(name) if touched.names.len() < TOUCHED && !touched.any => {
                touched.names.insert(name.to_owned());
            }
            Some(_) | None => {
                touched.any = true;
                touched.names.clear();
            }
        });
    }

    /// The folder of a collection was moved away or removed. Another one may have its name.
    fn leave(&self, collection: &CollectionName) {
        self.note(collection, |touched| touched.has_left = true);
    }

    fn note(&self, collection: &CollectionName, change: impl FnOnce(&mut Touched)) {
        let now = Instant::now();
        let mut all = self.touched();
        let touched = all.entry(collection.clone()).or_insert_with(|| Touched {
            names: BTreeSet::new(),
            any: false,
            has_left: false,
            first: now,
            last: now,
        });
        touched.last = now;
        change(touched);
        drop(all);
        self.notify.notify_one();
    }

    /// Waits until something was touched.
    pub async fn touched_again(&self) {
        self.notify.notified().await;
    }

    /// Takes what was touched in collections that have been quiet for a while, or not for long.
    pub fn take_quiet(&self, quiet: Duration, longest: Duration) -> Vec<(CollectionName, Touched)> {
        let now = Instant::now();
        let mut all = self.touched();
        let is_quiet = |touched: &Touched| {
            now.duration_since(touched.last) >= quiet
                || now.duration_since(touched.first) >= longest
        };
        let names: Vec<_> =
            all.iter().filter(|(_, one)| is_quiet(one)).map(|(name, _)| name.clone()).collect();
        names.into_iter().filter_map(|name| all.remove_entry(&name)).collect()
    }

    /// Whether anything was touched that was not taken.
    pub fn is_empty(&self) -> bool {
        self.touched().is_empty()
    }

    fn touched(&self) -> MutexGuard<'_, BTreeMap<CollectionName, Touched>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the kernel's events, on a thread of its own, until nobody watches any more.
fn read(inner: &Weak<Inner>) {
    /// How soon it notices that nobody does.
    const LOOK: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
    let mut space = vec![MaybeUninit::uninit(); 64 << 10];
    while let Some(watching) = inner.upgrade() {
        let fd = Arc::clone(&watching.fd);
        drop(watching);
        // A signal, or the end of the time, finds nothing to read.
        let _woken = poll(&mut [PollFd::new(&*fd, PollFlags::IN)], Some(&LOOK));
        let Some(watching) = inner.upgrade() else { return };
        let mut reader = Reader::new(&*fd, &mut space);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes());
                    watching.take(event.wd(), event.events(), name);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    tracing::warn!("changes by others are not noticed any more: {error}");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That these entries have been touched since the last time, and no others.
    async fn names(register: &Register, folder: &Path, wanted: &[&str]) {
        // The kernel reports in order, and this once: all that was done before has come when it comes.
        let last = format!("after {}", wanted.join(" and "));
        std::fs::File::create(folder.join(&last)).unwrap();
        let mut found = BTreeSet::new();
        while !found.remove(&last) {
            for (_, touched) in register.take_quiet(Duration::ZERO, Duration::ZERO) {
                found.extend(touched.names);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(found, wanted.iter().map(|name| (*name).to_owned()).collect());
    }

    #[tokio::test]
    async fn what_is_touched_in_the_folders_of_a_collection_is_named_by_its_entry() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        for folder in ["a/attachments", "b", "c"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("a/attachments/one"), "1").unwrap();
        std::fs::write(at("b/document.json"), "1").unwrap();
        let (watch, register) = (TreeWatch::within(100).unwrap(), Arc::<Register>::default());
        let name: CollectionName = "c".into();
        watch.watch_collection(&register, &name, place.path()).unwrap();
        assert_eq!(watch.left(), 95);
        std::fs::read(at("b/document.json")).unwrap();
        std::fs::write(at("a/attachments/one"), "2").unwrap();
        names(&register, place.path(), &["a"]).await;
        std::fs::remove_dir(at("c")).unwrap();
        std::fs::write(at("d"), "x").unwrap();
        names(&register, place.path(), &["c", "d"]).await;
        // A folder that is moved away is watched no longer.
        std::fs::rename(at("b"), place.path().join("e")).unwrap();
        names(&register, place.path(), &["b", "e"]).await;
        std::fs::write(at("e/document.json"), "2").unwrap();
        assert!(register.take_quiet(Duration::ZERO, Duration::ZERO).is_empty());
        watch.unwatch_collection(&register, &name);
        assert_eq!(watch.left(), 100);
    }

    #[tokio::test]
    async fn a_collection_whose_folder_is_moved_away_is_said_to_have_left() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("c");
        std::fs::create_dir(&folder).unwrap();
        let (watch, register) = (TreeWatch::within(100).unwrap(), Arc::<Register>::default());
        watch.watch_collection(&register, &"c".into(), &folder).unwrap();
        std::fs::rename(&folder, place.path().join("d")).unwrap();
        register.touched_again().await;
        let touched = register.take_quiet(Duration::ZERO, Duration::ZERO);
        assert!(touched[0].1.has_left && touched[0].1.names.is_empty());
    }

    #[tokio::test]
    async fn a_collection_that_does_not_fit_is_not_watched_at_all() {
        let place = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::create_dir(place.path().join(name)).unwrap();
        }
        let (watch, register) = (TreeWatch::within(3).unwrap(), Arc::<Register>::default());
        let refused = watch.watch_collection(&register, &"c".into(), place.path());
        assert!(matches!(refused, Err(Unwatched::Budget(_))));
        assert_eq!(watch.left(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_touched_is_taken_when_it_is_quiet_and_after_a_while_in_any_case() {
        let register = Register::default();
        let name: CollectionName = "c".into();
        let take = || register.take_quiet(Duration::from_secs(1), Duration::from_secs(5));
        register.touch(&name, Some("a"));
        assert!(take().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(take()[0].1.names, BTreeSet::from(["a".to_owned()]));
        for _ in 0..10 {
            register.touch(&name, Some("a"));
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert_eq!(take().len(), 1);
        for number in 0..=TOUCHED {
            register.touch(&name, Some(&number.to_string()));
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(take()[0].1.any && register.is_empty());
    }
}

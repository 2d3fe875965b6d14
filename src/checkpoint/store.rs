//! Opens sled in a folder that contains only its own files; a damaged store is set aside.
//!
//! The mirror may have come from somebody else. So sled gets a folder that is held open, after each
//! file in it was checked: sled would write through a link, and wait for a pipe.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::contained::{Escaped, Worker, contain};
use super::copy;
use super::error::StateError;
use super::journal::{Bounds, Journal};
use crate::place::{Desk, Place};

/// The only folder inside the state's folder.
const BLOBS: &str = "blobs";

/// A damaged state that was set aside. Its text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state could not be read ({reason}); it was set aside as {} and is rebuilt", path.display())]
pub struct SetAside {
    /// Its new path.
    pub path: PathBuf,
    /// The damage.
    pub reason: String,
}

/// The data by kind. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trees {
    pub checkpoints: sled::Tree,
    pub failures: sled::Tree,
    pub held: sled::Tree,
    pub released: sled::Tree,
    pub listings: sled::Tree,
    pub current: sled::Tree,
    pub verifications: sled::Tree,
    pub cursors: sled::Tree,
    pub journal: Journal,
    pub db: sled::Db,
}

/// sled, opened.
#[derive(Debug)]
pub struct StateStore {
    /// Taken when it is closed.
    trees: Option<Trees>,
    worker: Arc<Worker>,
    config: sled::Config,
    /// sled's file, which we sync: sled's own flush leaves the last half second to the kernel.
    pub file: File,
    /// Held because sled opens further files in it later.
    _folder: Place,
}

/// How a run left the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanEnd {
    /// The number of the last event.
    pub last: u64,
    /// The store's [`digest`](StateStore::digest).
    pub digest: String,
}

/// A state compared with what the last run recorded.
enum Likeness {
    Same,
    /// A later run may have been killed.
    Other,
    /// The end of the journal is missing.
    Older,
}

/// The number of attempts to open a store that has lost its end, or is damaged: a disk may fail
/// several of sled's threads once each.
const TRIES: u32 = 12;

/// Why opening failed, if setting the store aside may help.
struct Damaged(String);

impl StateStore {
    /// Opens or creates the store in the folder `path`; a damaged one is set aside first.
    ///
    /// `noted` is how the last run that ended normally left it.
    pub fn open(
        path: &Path,
        desk: &Desk,
        bounds: Bounds,
        noted: Option<&CleanEnd>,
    ) -> Result<(Self, Option<SetAside>), StateError> {
        let failed = |source| StateError::io("open", path, source);
        let (place, name) = Place::with_desk(path, desk).map_err(failed)?;
        let stuck = |source| StateError::io("move aside", path, source);
        let mut damaged = None;
        if let Some(reason) = in_the_way(&place, &name).map_err(failed)? {
            damaged = Some(SetAside { path: set_aside(&place, &name).map_err(stuck)?, reason });
        }
        let is_there = place.look(&name).map_err(failed)?.is_some();
        if is_there && (desk.displaces() || is_shared(&place, &name).map_err(failed)?) {
            copy::replace(&place, &name, &name)?;
        }
        let worker = Arc::new(Worker::start().map_err(failed)?);
        match Self::open_checked(&place, &name, bounds, noted, &worker)? {
            Ok(store) => Ok((store, damaged)),
            Err(Damaged(reason)) => {
                let aside = SetAside { path: set_aside(&place, &name).map_err(stuck)?, reason };
                let store =
                    Self::open_in(&place, &name, bounds, &worker)?.map_err(|Damaged(reason)| {
                        let what = Escaped::Panicked(reason);
                        StateError::Escaped { path: path.to_owned(), what }
                    })?;
                Ok((store, Some(aside)))
            }
        }
    }

    /// sled mistakes an unreadable part for one that was never written, and clears everything after
    /// it. So a copy is kept while it opens the store. If the result is not what the last run
    /// recorded, because a read failed or that run was killed, the copy is opened instead.
    fn open_checked(
        place: &Place,
        name: &str,
        bounds: Bounds,
        noted: Option<&CleanEnd>,
        worker: &Arc<Worker>,
    ) -> Result<Result<Self, Damaged>, StateError> {
        let failed = |source| StateError::io("copy", &place.at(name), source);
        let copy = place.temporary(&format!("{name}.before"));
        let kept = copy::keep(place, name, &copy).map_err(failed)?;
        let mut tries = if kept { TRIES } else { 1 };
        let opened = loop {
            let mut opened = Self::open_in(place, name, bounds, worker);
            tries -= 1;
            match (&opened, noted) {
                // Waiting solves it, or nothing does.
                (Err(_), _) => tries = 0,
                (Ok(Err(_)), _) => {}
                (Ok(Ok(_)), None) => break opened,
                (Ok(Ok(store)), Some(noted)) => match store.compare(noted) {
                    Likeness::Same => break opened,
                    Likeness::Other if tries == 0 => break opened,
                    Likeness::Other => tries = 1,
                    Likeness::Older if !kept => break opened,
                    // Data that is written after the damage would be lost at the next opening.
                    Likeness::Older if tries == 0 => {
                        opened = Ok(Err(Damaged("the end of its journal is missing".to_owned())));
                    }
                    Likeness::Older => {}
                },
            }
            // Closed before its files are replaced.
            let unusable = opened.map(|store| store.err());
            if kept {
                copy::replace(place, &copy, name)?;
            }
            match unusable {
                Err(failure) => break Err(failure),
                Ok(Some(damaged)) if tries == 0 => break Ok(Err(damaged)),
                Ok(_) => {}
            }
        };
        place.remove(&copy).map_err(failed)?;
        opened
    }

    fn compare(&self, noted: &CleanEnd) -> Likeness {
        let range = self.read(|trees| trees.journal.range());
        let last = range.ok().and_then(Result::ok).flatten().map_or(0, |range| range.last);
        match self.digest() {
            Some(digest) if digest == noted.digest => Likeness::Same,
            _ if last < noted.last => Likeness::Older,
            _ => Likeness::Other,
        }
    }

    /// The inner error means that the store is damaged. The outer one means that the file system
    /// failed, which setting the store aside would not solve.
    fn open_in(
        place: &Place,
        name: &str,
        bounds: Bounds,
        worker: &Arc<Worker>,
    ) -> Result<Result<Self, Damaged>, StateError> {
        let path = place.at(name);
        let failed = |source| StateError::io("open", &path, source);
        let folder = match place.look(name).map_err(failed)? {
            Some(_) => place.open(name),
            None => create(place, name),
        };
        let folder = folder.map_err(failed)?;
        place.check_desk().map_err(failed)?;
        let config = sled::Config::new()
            .path(folder.reach())
            .cache_capacity(bounds.cache)
            // We flush every commit.
            .flush_every_ms(None);
        let opened = worker.run(&config, {
            let config = config.clone();
            move || open_trees(&config, bounds)
        });
        let trees = match opened {
            Ok(Ok(trees)) => trees,
            Ok(Err(source @ sled::Error::Io(_))) => return Err(StateError::Store { path, source }),
            Ok(Err(error)) => return Ok(Err(Damaged(error.to_string()))),
            // sled panics on some damaged files.
            Err(Escaped::Panicked(_)) => {
                return Ok(Err(Damaged("its files are damaged".to_owned())));
            }
            Err(what @ Escaped::Stuck(_)) => return Err(StateError::Escaped { path, what }),
        };
        let file =
            folder.open_file("db").and_then(|file| file.ok_or(io::ErrorKind::NotFound.into()));
        let file = file.map_err(failed)?;
        let worker = Arc::clone(worker);
        Ok(Ok(Self { trees: Some(trees), worker, config, file, _folder: folder }))
    }

    /// Runs a reading call.
    pub fn read<T>(
        &self,
        call: impl FnOnce(&Trees) -> Result<T, sled::Error>,
    ) -> Result<Result<T, sled::Error>, Escaped> {
        let trees = self.trees()?;
        contain(|| call(trees))
    }

    /// Runs a writing call.
    pub fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Trees) -> Result<T, sled::Error> + Send + 'static,
    ) -> Result<Result<T, sled::Error>, Escaped> {
        let trees = self.trees()?.clone();
        self.worker.run(&self.config, move || call(&trees))
    }

    /// A digest that distinguishes this content from any other. Events are represented by the
    /// numbers of the first and the last. `None` if it cannot be read.
    pub fn digest(&self) -> Option<String> {
        let digest = self.read(|trees| {
            let mut hasher = blake3::Hasher::new();
            let Trees { checkpoints, failures, held, released, cursors, .. } = trees;
            // Without a cursor, the digest is that of older versions.
            let cursors = Some(cursors).filter(|cursors| !cursors.is_empty());
            for tree in [checkpoints, failures, held, released].into_iter().chain(cursors) {
                for entry in tree {
                    let (key, value) = entry?;
                    for part in [&key, &value] {
                        hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
                    }
                }
                hasher.update(&u64::MAX.to_be_bytes());
            }
            let range = trees.journal.range()?.map(|range| [range.first, range.last]);
            for number in range.into_iter().flatten() {
                hasher.update(&number.to_be_bytes());
            }
            Ok(hasher.finalize().to_hex().to_string())
        });
        digest.ok()?.ok()
    }

    pub fn trees(&self) -> Result<&Trees, Escaped> {
        self.trees.as_ref().ok_or_else(|| Escaped::Stuck("it is closed".to_owned()))
    }
}

impl Drop for StateStore {
    fn drop(&mut self) {
        // sled syncs its file once more, and panics if that fails. Every commit has been synced
        // already.
        let trees = self.trees.take();
        if let Err(Escaped::Panicked(words) | Escaped::Stuck(words)) =
            self.worker.run(&self.config, move || drop(trees))
        {
            tracing::debug!("the state was not closed cleanly: {words}");
        }
    }
}

fn open_trees(config: &sled::Config, bounds: Bounds) -> Result<Trees, sled::Error> {
    let db = config.open()?;
    Ok(Trees {
        checkpoints: db.open_tree("checkpoints")?,
        failures: db.open_tree("failures")?,
        held: db.open_tree("held")?,
        released: db.open_tree("released")?,
        listings: db.open_tree("listings")?,
        current: db.open_tree("current")?,
        verifications: db.open_tree("verifications")?,
        cursors: db.open_tree("cursors")?,
        journal: Journal::new(db.open_tree("journal")?, bounds),
        db,
    })
}

/// What is wrong with the type of the state's folder, or of a file in it, if anything. A link is not
/// followed.
pub fn in_the_way(place: &Place, name: &str) -> io::Result<Option<String>> {
    match place.look(name)? {
        None => return Ok(None),
        Some(found) if !found.is_folder() => return Ok(Some("it is not a folder".to_owned())),
        Some(_) => {}
    }
    let folder = place.open(name)?;
    for name in folder.names()? {
        match folder.look(&name)? {
            Some(found) if name == BLOBS && found.is_folder() => {
                let blobs = folder.open(BLOBS)?;
                for name in blobs.names()? {
                    if blobs.look(&name)?.is_some_and(|found| !found.is_file()) {
                        return Ok(Some(format!("its `{BLOBS}/{name}` is not a file")));
                    }
                }
            }
            Some(_) if name == BLOBS => {
                return Ok(Some(format!("its `{BLOBS}` is not a folder")));
            }
            Some(found) if !found.is_file() => {
                return Ok(Some(format!("its `{name}` is not a file")));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Whether a file of the state has a second name: writing to it would change a copy that was made
/// with hard links, or somebody else's file.
fn is_shared(place: &Place, name: &str) -> io::Result<bool> {
    if place.look(name)?.is_none() {
        return Ok(false);
    }
    let folder = place.open(name)?;
    for name in folder.names()? {
        let is_shared = match folder.look(&name)? {
            Some(found) if found.is_folder() => is_shared(&folder, &name)?,
            found => found.is_some_and(|found| found.is_shared()),
        };
        if is_shared {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Creates the state's folder.
fn create(place: &Place, name: &str) -> io::Result<Place> {
    let new = place.temporary(name);
    let folder = place.create(&new)?;
    if new != name {
        place.rename(&new, name)?;
    }
    Ok(folder)
}

/// Sets a damaged file or folder of the state aside, so that it can be examined.
pub(super) fn set_aside(place: &Place, name: &str) -> io::Result<PathBuf> {
    let aside = format!("{name}.damaged-{}", Timestamp::now().as_millisecond());
    let by_way_of = place.temporary(&aside);
    place.rename(name, &by_way_of)?;
    place.rename(&by_way_of, &aside)?;
    Ok(place.at(&aside))
}

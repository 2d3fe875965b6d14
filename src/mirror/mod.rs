//! The tree on disk: one folder per document, replaced in single steps. No link out of it is
//! followed.
//!
//! A change goes through [`Collection::plan`] (decides by what the tree holds),
//! [`Collection::stage`] (new files under temporary names), [`Mirror::sync_staged`],
//! [`Collection::publish`] (renames) and [`Mirror::sync_published`]. All calls block.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

mod adopt;
mod blame;
mod collection;
mod durable;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod interrupted;
mod inventory;
mod kept;
mod newcomers;
mod options;
mod plan;
mod publish;
mod remember;
mod repair;
mod room;
mod scan;
mod security;
mod spare;
mod stage;
mod sync;
mod tally;
mod trash;

pub use crate::tree::lanes::Lane;
#[cfg(test)]
pub(crate) use crate::tree::lanes::staged;
pub use collection::Collection;
pub use inventory::Stamped;
pub use options::{Deleted, JsonStyle, Remembered, WantedOptions};
pub use plan::{Authority, Held, Plan, Write};
pub use publish::Published;
pub use stage::{Blob, BlobWriter, BranchFiles, Material, Staged};
pub use sync::Sync;

use crate::clock::Clock;
use crate::document::{CollectionName, FolderMode, Kept, MaxDelete};
use crate::place::Desk;
use crate::tree::Lock;
use crate::tree::beneath::Folder;
use crate::tree::lanes::Lanes;
use crate::tree::names::{Codec, Spelling};
use crate::tree::record::Record;
use crate::tree::temporary::{Purpose, Temporary};
use crate::tree::{
    Epoch, Format, Holder, MirrorError, SharedLock, format, layout, names, unremovable,
};
use adopt::Adopted;
use interrupted::Interrupted;

/// How a mirror is opened.
#[derive(Clone, Debug)]
pub struct MirrorOptions {
    /// The codec of a new mirror. For an existing one it must be the same, or `None`.
    pub names: Option<Codec>,
    /// The layout of documents.
    pub json: JsonStyle,
    /// Whether attachments are mirrored, or only their stubs.
    pub attachments: bool,
    /// Which revisions are kept in addition to the winners.
    pub kept: Kept,
    /// The number of days that deleted documents are kept in the trash; 0 switches it off.
    pub trash_days: u32,
    /// The number of bytes of the file system that stay free.
    pub reserve: u64,
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self {
            names: None,
            json: JsonStyle::AsSent,
            attachments: true,
            kept: Kept::default(),
            trash_days: 0,
            reserve: 0,
        }
    }
}

impl MirrorOptions {
    fn remembered(&self) -> Remembered {
        Remembered {
            revisions: self.kept.revisions,
            deleted: if self.kept.deleted { Deleted::Keep } else { Deleted::Remove },
            attachments: self.attachments,
            json: self.json,
            max_delete: MaxDelete::default(),
            trash: self.trash_days,
            reserve: self.reserve,
            mode: None,
            collections: Default::default(),
        }
    }
}

/// A mirror, locked by this process for as long as this value lives.
#[derive(Debug)]
pub struct Mirror {
    root: Folder,
    in_memory: bool,
    ours: Folder,
    staging: Folder,
    collections: Folder,
    inventories: Folder,
    spelling: Spelling,
    format: Format,
    /// The options of the mirror.
    options: Remembered,
    /// The options that this run was given.
    wanted: WantedOptions,
    clock: Arc<Clock>,
    /// The time of the last trash sweep, by the mirror's clock.
    trash_swept: std::sync::Mutex<Option<i64>>,
    policy: kept::Policy,
    /// The next temporary name.
    next_name: AtomicU64,
    lanes: Lanes,
    epoch: Arc<Epoch>,
    /// The process from which the lock was taken, if any.
    displaced: Option<Holder>,
    /// The documents that an interrupted run was replacing or removing.
    interrupted: std::sync::Mutex<Interrupted>,
    /// Whether this file system keeps extended attributes, as far as known.
    keeps_attributes: AtomicBool,
    /// Whether the space reserved for deletions was given back.
    saves: AtomicBool,
    lock: std::sync::Mutex<Lock>,
}

impl Mirror {
    /// Opens the mirror in `path`, or creates one in a new or empty directory, and takes its lock.
    /// Whatever an interrupted run left in staging is removed, except removed documents whose events
    /// were not emitted yet.
    pub fn open(
        path: &Path,
        options: &MirrorOptions,
        holder: &Holder,
    ) -> Result<Self, MirrorError> {
        let root = enter(path, &WantedOptions::default())?;
        let remembered = options.remembered();
        let wanted = WantedOptions::exactly(&remembered);
        let mirror =
            Self::open_ours(root, options.names, None, wanted, holder, |_, _| Ok(remembered))?;
        mirror.sweep_trash()?;
        Ok(mirror)
    }

    /// The same with the options that the mirror remembers, except those that `wanted` names.
    /// [`Mirror::remember`] must be called to save them.
    pub fn open_wanted(
        path: &Path,
        names: Option<Codec>,
        wanted: &WantedOptions,
        holder: &Holder,
    ) -> Result<Self, MirrorError> {
        let root = enter(path, wanted)?;
        let adopted = match wanted.adopt {
            true => Adopted::look(&root, names)?,
            false => None,
        };
        let resolve =
            |ours: &Folder, records: &Folder| options::resolve(path, ours, records, wanted);
        let mirror = Self::open_ours(root, names, adopted, wanted.clone(), holder, resolve)?;
        mirror.sweep_trash()?;
        Ok(mirror)
    }

    /// Opens an existing mirror, for a command that changes its state or its documents. With
    /// `take_over`, also if another process holds its lock.
    pub fn open_existing(
        path: &Path,
        holder: &Holder,
        take_over: bool,
    ) -> Result<Self, MirrorError> {
        Ours::find(path)?;
        let root = Folder::open_path(path)?;
        let wanted = WantedOptions { take_over, ..WantedOptions::default() };
        Self::open_ours(root, None, None, wanted, holder, options::recall)
    }

    fn open_ours(
        root: Folder,
        names: Option<Codec>,
        adopted: Option<Adopted>,
        wanted: WantedOptions,
        holder: &Holder,
        options: impl FnOnce(&Folder, &Folder) -> Result<Remembered, MirrorError>,
    ) -> Result<Self, MirrorError> {
        let (ours, _) = root.open_or_create(layout::OURS)?;
        // A mirror of an unknown format is refused before anything in it is touched.
        format::read(root.path(), &ours)?;
        let path = ours.path().join(layout::LOCK);
        let (lock, displaced) = Lock::take(&path, root.path(), holder, wanted.take_over)?;
        let check = || lock.check(root.path());
        let epoch = Epoch::begin(&ours, holder, displaced.is_some(), check);
        let epoch = Arc::new(epoch.map_err(|error| check().err().unwrap_or(error))?);
        if let Some(other) = &displaced {
            tracing::warn!(
                "the mirror was taken over from {other}, which can change nothing in it any more"
            );
        }
        let begun = Arc::clone(&epoch);
        let opened =
            Self::open_epoch(root, ours, names, adopted, wanted, (lock, displaced, epoch), options);
        opened.map_err(|error| begun.check().err().unwrap_or(error))
    }

    fn open_epoch(
        root: Folder,
        ours: Folder,
        names: Option<Codec>,
        adopted: Option<Adopted>,
        wanted: WantedOptions,
        (lock, displaced, epoch): (Lock, Option<Holder>, Arc<Epoch>),
        options: impl FnOnce(&Folder, &Folder) -> Result<Remembered, MirrorError>,
    ) -> Result<Self, MirrorError> {
        let (collections, _) = ours.open_or_rebuild(layout::COLLECTIONS)?;
        let shown = adopted.as_ref().map(Adopted::spelling);
        if let Some(adopted) = adopted {
            // Without a format file: an adoption that was begun and not finished is repeated.
            adopted.record(&epoch, &root, &ours, &collections)?;
        }
        let format = format::read_or_create(root.path(), &epoch, &ours, names, shown)?;
        let (staging, _) = ours.open_or_rebuild(layout::STAGING)?;
        let (inventories, _) = ours.open_or_rebuild(layout::INVENTORY)?;
        let options = options(&ours, &collections)?;
        let (interrupted, next_name) = interrupted::sweep(&epoch, &ours, &staging, None)?;
        unremovable::sweep(&epoch, &ours)?;
        if epoch.displaces() {
            inventory::displace(&epoch, &inventories)?;
        }
        if format.names == Codec::Native && scan::folds_case(&ours)? {
            return Err(MirrorError::FoldsCase { path: root.path().to_owned() });
        }
        root.sync()?;
        let clock = Arc::new(Clock::open(&ours.path().join(layout::CLOCK), epoch.desk()));
        let in_memory = root.is_in_memory();
        let mirror = Self {
            root,
            in_memory,
            ours,
            spelling: format.spelling(),
            staging,
            collections,
            inventories,
            format,
            options,
            wanted,
            clock,
            trash_swept: std::sync::Mutex::default(),
            policy: kept::Policy::default(),
            next_name: AtomicU64::new(next_name),
            lanes: Lanes::default(),
            epoch,
            displaced,
            interrupted: std::sync::Mutex::new(interrupted),
            keeps_attributes: AtomicBool::new(true),
            saves: AtomicBool::new(false),
            lock: std::sync::Mutex::new(lock),
        };
        mirror.open_spare()?;
        Ok(mirror)
    }

    /// The directory of the mirror.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The place of its state.
    pub fn state_path(&self) -> PathBuf {
        self.ours.path().join(layout::STATE)
    }

    /// The default path of the socket where a running mirror answers requests.
    pub fn socket_path(&self) -> PathBuf {
        self.ours.path().join(layout::SOCKET)
    }

    /// Fails if another process has taken over, so that this one can change nothing any more.
    pub fn check_epoch(&self) -> Result<(), MirrorError> {
        self.epoch.check()
    }

    /// The process from which the lock was taken, if it was taken from one.
    pub fn displaced(&self) -> Option<&Holder> {
        self.displaced.as_ref()
    }

    /// Where files of the state are prepared.
    pub(crate) fn desk(&self) -> Desk {
        self.epoch.desk()
    }

    /// The clock that measures the age of everything that is kept for a time.
    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// The content of `format.json`.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Updates the holder in the lock file.
    pub fn describe_holder(&self, holder: &Holder) -> Result<(), MirrorError> {
        let mut lock = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lock.describe(holder)
    }

    /// The number of files and folders that could not be removed, and are in `.plainfold/unremovable/`.
    pub fn unremovable(&self) -> u64 {
        unremovable::count(&self.ours)
    }

    /// Removes an entry of staging, or sets it aside.
    fn clear_away(&self, path: &str) -> Result<(), MirrorError> {
        unremovable::clear_away(&self.epoch, &self.ours, &self.staging, path).map(drop)
    }

    fn encode(&self, text: &str) -> names::Name {
        self.spelling.encode(text)
    }

    /// The best number of threads for staging a batch: more would contend for the disk's journal.
    pub fn stagers(&self) -> usize {
        if self.in_memory { 2 } else { 1 }
    }

    /// A part of staging for a separate thread.
    pub fn lane(&self) -> Lane {
        self.lanes.next()
    }

    /// A path in staging that this process has not used before, for a file or folder of this
    /// collection.
    fn temporary_name(&self, collection: &str, lane: Lane) -> String {
        self.name_for(Purpose::Passing, collection, lane)
    }

    fn name_for(&self, purpose: Purpose, collection: &str, lane: Lane) -> String {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        let name = Temporary { number, purpose, collection }.name();
        format!("{}/{name}", self.epoch.lane(lane.0))
    }
}

/// Opens the directory of a mirror that exists or is to be created there.
fn enter(path: &Path, wanted: &WantedOptions) -> Result<Folder, MirrorError> {
    if wanted.existing {
        return match Ours::find(path) {
            Err(MirrorError::NoMirror { path }) => Err(MirrorError::NotExisting { path }),
            Err(error) => Err(error),
            Ok(_) => Folder::open_path(path),
        };
    }
    if path.is_file() {
        return Err(MirrorError::NotADirectory { path: path.to_owned() });
    }
    format::refuse_inside_another(path)?;
    if wanted.adopt {
        return Folder::open_path(path);
    }
    // Whatever the umask allows, other users get no access to this folder unless the mode says so.
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(wanted.mode.unwrap_or_default().bits());
    builder.create(path).map_err(|error| MirrorError::io("create", path, error))?;
    let root = Folder::open_path(path)?;
    format::recognise(&root)?;
    Ok(root)
}

/// The `.plainfold` folder of a mirror, opened without taking its lock.
#[derive(Debug)]
pub struct Ours {
    path: PathBuf,
}

impl Ours {
    /// Finds the mirror in `path`; refuses a newer format, and a directory that is not a mirror.
    pub fn find(path: &Path) -> Result<Self, MirrorError> {
        let missing = || MirrorError::NoMirror { path: path.to_owned() };
        if path.is_file() {
            return Err(MirrorError::NotADirectory { path: path.to_owned() });
        }
        if !path.is_dir() {
            return Err(missing());
        }
        let root = Folder::open_path(path)?;
        let ours = root.open(layout::OURS)?.ok_or_else(missing)?;
        format::read(path, &ours)?.ok_or_else(missing)?;
        Ok(Self { path: path.join(layout::OURS) })
    }

    /// The place of its state.
    pub fn state_path(&self) -> PathBuf {
        self.path.join(layout::STATE)
    }

    /// The mode of new files and folders in the mirror.
    pub fn mode(&self) -> Result<FolderMode, MirrorError> {
        match self.options()?.mode {
            Some(mode) => Ok(mode),
            None => Folder::open_path(&self.path)?.mode(),
        }
    }

    /// The number of files and folders that could not be removed, and are in `.plainfold/unremovable/`.
    pub fn unremovable(&self) -> u64 {
        Folder::open_path(&self.path).map_or(0, |ours| unremovable::count(&ours))
    }

    /// The options of the mirror.
    pub fn options(&self) -> Result<Remembered, MirrorError> {
        options::recalled(&Folder::open_path(&self.path)?, || self.records())
    }

    /// The collections that are recorded.
    pub fn collections(&self) -> Result<Vec<CollectionName>, MirrorError> {
        Ok(self.records()?.into_iter().map(|record| record.name.into()).collect())
    }

    fn records(&self) -> Result<Vec<Record>, MirrorError> {
        let folder = Folder::open_path(&self.path)?.open_folder(layout::COLLECTIONS)?;
        folder.map_or_else(|| Ok(Vec::new()), |folder| Record::all(&folder))
    }

    /// Keeps others from working on the mirror while its state is read; the inner error is the
    /// process that works on it already. Writes nothing.
    pub fn share(&self) -> Result<Result<SharedLock, Holder>, MirrorError> {
        SharedLock::take(&self.path.join(layout::LOCK))
    }

    /// When the catch-up began that the last process on this mirror brought to its end, if it did.
    pub fn last_catch_up(&self) -> Option<jiff::Timestamp> {
        crate::tree::lock::last_holder(&self.path.join(layout::LOCK))?.caught_up
    }

    /// The process that works on the mirror right now, if any.
    pub fn holder(&self) -> Result<Option<Holder>, MirrorError> {
        crate::tree::lock::holder(&self.path.join(layout::LOCK))
    }
}

#[cfg(test)]
mod tests;

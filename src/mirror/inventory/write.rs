//! Maintains the inventory of a collection for the process that works on it: records before
//! publishing, a mark after the commit, another at the end of a run.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::PoisonError;

use super::log::{Log, NewRecord};
use crate::mirror::collection::Collection;
use crate::mirror::stage::Staged;
use crate::mirror::sync::Sync;
use crate::tree::beneath::{Folder, sync_file, write_all};
use crate::tree::checksum::{Unnoted, checksum};
use crate::tree::inventory::line::{self, Mark};
use crate::tree::inventory::read::{Scan, is_complete, records_of};
use crate::tree::inventory::resolve::{Trust, found_in};
use crate::tree::inventory::{Inventory, Recorded, State, gone, line_of};
use crate::tree::layout::{SECURITY, inventory_file};
use crate::tree::{Epoch, MirrorError};

/// The file is rewritten when this many of its bytes, and half of it, are obsolete.
const STALE: u64 = 256 << 10;

/// The same while a run is in progress.
const STALE_AT_WORK: u64 = 16 << 20;

/// Means every folder. No folder has this name: such a character is escaped.
const ANY: &str = "*";

fn replacing((name, line): &(String, String)) -> NewRecord<'_> {
    NewRecord { name, line, replaces: true }
}

impl Collection {
    /// Appends records of what is about to be published. They become durable with the staged files.
    pub fn record_staged(&self, staged: &[Staged], sync: Sync) -> Result<(), MirrorError> {
        self.append(staged.iter().map(Staged::recorded), sync)
    }

    /// Appends that these documents, whose deletion the source reports, have no folder.
    pub fn record_absent<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Result<(), MirrorError> {
        let lines: Vec<_> = ids
            .map(|id| {
                let name = self.document_name(id).as_str().to_owned();
                let line = gone(&name);
                (name, line)
            })
            .collect();
        // It is true already. If it is lost, a check requests the document again.
        self.append(lines.iter().map(replacing), Sync::Together)
    }

    /// Reverts the records of these documents from the batch that is being published: they stay as
    /// they were.
    pub fn record_unpublished<'a>(
        &self,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<(), MirrorError> {
        let names: HashSet<_> = ids.map(|id| self.document_name(id).to_string()).collect();
        if names.is_empty() { Ok(()) } else { self.take_back(&names) }
    }

    /// Reverts the records of these folders since the last mark.
    pub(in crate::mirror) fn take_back(&self, names: &HashSet<String>) -> Result<(), MirrorError> {
        self.with_log(|log| {
            let records = self.read_records(|name| names.contains(name))?;
            let mut text = String::new();
            for (name, Recorded { id, states, .. }) in &records {
                let before = states.iter().rev().nth(1).unwrap_or(&State::Unknown);
                text.push_str(&line_of(name, id.as_deref(), before));
            }
            log.stale += text.len() as u64;
            self.write(log, &text, Sync::Together)
        })
    }

    /// The records of some folders in the file.
    fn read_records(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<HashMap<String, Recorded>, MirrorError> {
        let name = inventory_file(&self.encoded);
        let folder = &self.mirror.inventories;
        let Some(file) = folder.open_file(&name)? else {
            return Err(folder.error("open", &name, rustix::io::Errno::NOENT));
        };
        let read = || records_of(&file, &Scan::of(&file)?, wanted);
        read().map_err(|error| self.log_failed("read", error))
    }

    pub(in crate::mirror) fn append<'a>(
        &self,
        records: impl Iterator<Item = NewRecord<'a>>,
        sync: Sync,
    ) -> Result<(), MirrorError> {
        self.with_log(|log| {
            let mut text = String::new();
            for NewRecord { name, line, replaces } in records {
                text.push_str(line);
                log.pending.insert(name.to_owned());
                log.stale += if replaces { line.len() as u64 } else { 0 };
            }
            if text.is_empty() {
                return Ok(());
            }
            log.closed = None;
            self.write(log, &text, sync)
        })
    }

    /// Marks the records as published and committed.
    pub fn note_committed(&self) -> Result<(), MirrorError> {
        self.with_log(|log| {
            if !log.pending.is_empty() {
                let mark = line::mark(Mark::Committed);
                self.write(log, &mark, Sync::Together)?;
                log.stale += mark.len() as u64;
                log.pending.clear();
            }
            match log.silent.is_empty() && log.is_stale(STALE_AT_WORK) {
                true => self.compact(log),
                false => Ok(()),
            }
        })
    }

    /// Marks all events of interrupted runs as emitted.
    pub fn note_emitted(&self) -> Result<(), MirrorError> {
        self.with_log(|log| {
            if log.silent.is_empty() {
                return Ok(());
            }
            log.silent.clear();
            self.write(log, &line::mark(Mark::Emitted), Sync::Together)
        })
    }

    /// The names of the folders that an interrupted run may have published without emitting their
    /// events. Settles its records by what the tree holds. `interrupted` says that there was such a
    /// run.
    pub fn silent(&self, interrupted: bool) -> Result<HashSet<String>, MirrorError> {
        self.with_log(|log| {
            if !log.pending.is_empty() {
                self.resolve(log)?;
            }
            if interrupted && std::mem::take(&mut log.created) {
                // An older version without an inventory made that run.
                log.silent.insert(ANY.to_owned());
                self.write(log, &line::resolved(vec![ANY.to_owned()]), Sync::Together)?;
            }
            Ok(log.silent.clone())
        })
    }

    /// Whether the document is in one of the folders that [`silent`](Self::silent) returns.
    pub fn is_among(&self, id: &str, names: &HashSet<String>) -> bool {
        names.contains(ANY) || names.contains(self.document_name(id).as_str())
    }

    /// Closes the inventory at the normal end of a run. Returns the token that the state remembers
    /// too.
    pub fn close_inventory(&self) -> Result<Option<String>, MirrorError> {
        self.with_log(|log| {
            if let Some(token) = &log.closed {
                return Ok(Some(token.clone()));
            }
            if !log.pending.is_empty() || !log.silent.is_empty() {
                return Ok(None);
            }
            if log.is_stale(STALE) {
                self.compact(log)?;
            }
            let token = crate::tree::format::lineage();
            self.write(log, &line::closed(&token, log.stale), Sync::Each)?;
            log.closed = Some(token.clone());
            Ok(Some(token))
        })
    }

    /// Called after a full listing: drops records of documents that have no folder and that the
    /// source does not hold.
    pub fn forget_absent(&self, is_there: impl Fn(&str) -> bool) -> Result<(), MirrorError> {
        let Some(inventory) = self.inventory()? else { return Ok(()) };
        let failed = |error| MirrorError::io("read", self.folder.path(), error);
        let mut lines = Vec::new();
        for recorded in inventory.iter().map_err(failed)? {
            let Recorded { name, id, states } = recorded.map_err(failed)?;
            let listed = states.iter().any(|state| matches!(state, State::Present(_)));
            if !listed || name == SECURITY || self.folder.kind(&name)?.is_some() {
                continue;
            }
            let id = id.or_else(|| self.id_told_by(&name));
            if !id.is_some_and(|id| is_there(&id)) {
                let line = gone(&name);
                lines.push((name, line));
            }
        }
        self.append(lines.iter().map(replacing), Sync::Together)?;
        self.note_committed()
    }

    /// Rewrites the inventory: it lists these folders, and covers all documents.
    pub fn stamp(
        &self,
        records: &mut dyn Iterator<Item = Result<Recorded, MirrorError>>,
    ) -> Result<(), MirrorError> {
        self.with_log(|log| self.replace(log, records, true))
    }

    /// Whether an earlier run left an inventory.
    pub fn has_inventory(&self) -> Result<bool, MirrorError> {
        Ok(self.mirror.inventories.kind(&inventory_file(&self.encoded))?.is_some())
    }

    /// The present inventory; `None` if it does not exist.
    pub(in crate::mirror) fn inventory(&self) -> Result<Option<Inventory>, MirrorError> {
        Inventory::read(&self.mirror.inventories, &self.encoded)
    }

    /// Whether a file has a checksum: beside it, or in an inventory that lists every document.
    /// Without one, only the source can show whether its bytes are right.
    pub(in crate::mirror) fn vouches_for(
        &self,
        folder: &Folder,
        name: &str,
    ) -> Result<bool, MirrorError> {
        if self.lists_all()? {
            return Ok(true);
        }
        let file = folder.open_file(name)?;
        Ok(file.is_some_and(|file| checksum(&file) != Err(Unnoted::Lost)))
    }

    fn lists_all(&self) -> Result<bool, MirrorError> {
        if let Some(complete) = self.inventory.complete.get() {
            return Ok(*complete);
        }
        let complete = self.with_log(|log| Ok(log.complete))?;
        Ok(*self.inventory.complete.get_or_init(|| complete))
    }

    fn with_log<T>(
        &self,
        work: impl FnOnce(&mut Log) -> Result<T, MirrorError>,
    ) -> Result<T, MirrorError> {
        let mut log = self.inventory.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_none() {
            *log = Some(self.open_log()?);
        }
        match log.as_mut() {
            Some(log) => work(log),
            None => {
                Err(self.mirror.inventories.error("open", &self.encoded, rustix::io::Errno::NOENT))
            }
        }
    }

    fn open_log(&self) -> Result<Log, MirrorError> {
        let (folder, name) = (&self.mirror.inventories, inventory_file(&self.encoded));
        let epoch = &self.mirror.epoch;
        unshare(epoch, folder, &name)?;
        let Some(file) = folder.append_file(&name)? else {
            epoch.check_lanes()?;
            folder.set_aside(&name, "was not a file")?;
            return self.create_log(&name);
        };
        // A process that takes over after this continues with a copy.
        epoch.check()?;
        let failed = |error| MirrorError::io("read", folder.path().join(&name), error);
        let scan = match Scan::of_closed(&file).map_err(failed)? {
            Some(scan) => scan,
            None => Scan::of(&file).map_err(failed)?,
        };
        if let Some(damage) = &scan.damage {
            tracing::warn!(
                collection = %self.name(),
                "{}: {damage}; the lines after it are dropped. Run `plainfold verify --stamp` to \
                 rewrite the inventory",
                folder.path().join(&name).display(),
            );
        }
        if scan.valid == 0 {
            return self.create_log(&name);
        }
        if scan.valid < scan.length() {
            folder.truncate(&name, &file, scan.valid)?;
        }
        let complete = is_complete(&file).map_err(failed)?;
        let Scan { valid, stale, pending, silent, closed, .. } = scan;
        Ok(Log { file, size: valid, stale, pending, silent, closed, created: false, complete })
    }

    /// Starts the inventory again, because it lists another tree. The events that an interrupted run
    /// may not have emitted are kept.
    pub fn restart_inventory(&self) -> Result<(), MirrorError> {
        self.with_log(|log| {
            if !log.pending.is_empty() {
                self.resolve(log)?;
            }
            self.replace(log, &mut std::iter::empty(), self.newcomers.is_some())
        })
    }

    fn create_log(&self, name: &str) -> Result<Log, MirrorError> {
        let folder = &self.mirror.inventories;
        let (complete, created) = (self.newcomers.is_some(), true);
        let log = self.mirror.epoch.replace(folder, name, |file| {
            let (pending, silent) = (HashSet::new(), HashSet::new());
            let mut log =
                Log { file, size: 0, stale: 0, pending, silent, closed: None, created, complete };
            self.write(&mut log, &line::header(complete), Sync::Each)?;
            Ok(log)
        })?;
        folder.sync()?;
        Ok(log)
    }

    fn write(&self, log: &mut Log, text: &str, sync: Sync) -> Result<(), MirrorError> {
        write_all(&mut log.file, [text.as_bytes(), b""])
            .and_then(|()| sync.file(&log.file))
            .map_err(|error| self.log_failed("write", error))?;
        log.size += text.len() as u64;
        Ok(())
    }

    fn log_failed(&self, action: &'static str, error: std::io::Error) -> MirrorError {
        let path = self.mirror.inventories.path().join(inventory_file(&self.encoded));
        MirrorError::io(action, path, error)
    }

    /// Settles records that an interrupted run left: the tree shows for each folder whether the
    /// record was applied; if not, the previous record is valid again.
    fn resolve(&self, log: &mut Log) -> Result<(), MirrorError> {
        let records = self.read_records(|name| log.pending.contains(name))?;
        let mut text = String::new();
        for (name, Recorded { id, states, .. }) in &records {
            let found = match found_in(&self.folder, name, Trust::Noted) {
                Err(error) if !error.is_disk() => {
                    tracing::warn!(collection = %self.name(), "{error}; the inventory lists its content as unknown");
                    text.push_str(&line_of(name, id.as_deref(), &State::Unknown));
                    continue;
                }
                found => found?,
            };
            let fits = |state: &&State| state.fits(found.as_ref());
            let (Some(first), Some(last)) = (states.first(), states.last()) else { continue };
            let state = states.iter().rev().find(fits).unwrap_or(first);
            if state == last {
                continue;
            }
            text.push_str(&line_of(name, id.as_deref(), state));
        }
        text.push_str(&line::resolved(Vec::new()));
        log.stale += text.len() as u64;
        log.silent.extend(log.pending.drain());
        self.write(log, &text, Sync::Together)
    }

    /// Rewrites the file without obsolete lines. Nothing may be pending.
    fn compact(&self, log: &mut Log) -> Result<(), MirrorError> {
        let Some(inventory) = self.inventory()? else { return Ok(()) };
        let failed = |error| self.log_failed("read", error);
        let mut records = inventory.iter().map_err(failed)?.map(|one| one.map_err(failed));
        self.replace(log, &mut records, inventory.complete)
    }

    fn replace(
        &self,
        log: &mut Log,
        records: &mut dyn Iterator<Item = Result<Recorded, MirrorError>>,
        complete: bool,
    ) -> Result<(), MirrorError> {
        /// The size of the write buffer, in bytes.
        const BUFFER: usize = 256 << 10;
        let (folder, name) = (&self.mirror.inventories, inventory_file(&self.encoded));
        *log = self.mirror.epoch.replace(folder, &name, |file| {
            let (pending, silent, created) = (HashSet::new(), log.silent.clone(), log.created);
            let mut new =
                Log { file, size: 0, stale: 0, pending, silent, closed: None, created, complete };
            let mut text = line::header(complete);
            for recorded in records {
                let Recorded { name, id, states } = recorded?;
                match states.last() {
                    // The first line says so for all folders that are not listed.
                    None | Some(State::Absent) if complete => {}
                    None | Some(State::Unknown) if !complete => {}
                    state => {
                        let state = state.unwrap_or(&State::Unknown);
                        text.push_str(&line_of(&name, id.as_deref(), state));
                    }
                }
                if text.len() > BUFFER {
                    self.write(&mut new, &text, Sync::Together)?;
                    text.clear();
                }
            }
            text.push_str(&match new.silent.is_empty() {
                true => line::mark(Mark::Committed),
                false => line::resolved(new.silent.iter().cloned().collect()),
            });
            self.write(&mut new, &text, Sync::Each)?;
            Ok(new)
        })?;
        folder.sync()
    }
}

/// Replaces all inventories by copies: a process that was displaced may append to the old files.
pub(in crate::mirror) fn displace(epoch: &Epoch, folder: &Folder) -> Result<(), MirrorError> {
    for name in folder.names()? {
        if let Some(file) = folder.open_file(&name)? {
            copy(epoch, folder, &name, file)?;
        }
    }
    Ok(())
}

/// Replaces the file `name` by a copy if it has a second name: appending to it would change a copy
/// that was made with hard links, or somebody else's file.
fn unshare(epoch: &Epoch, folder: &Folder, name: &str) -> Result<(), MirrorError> {
    let failed = |error| MirrorError::io("copy", folder.path().join(name), error);
    let Some(file) = folder.open_file(name)? else { return Ok(()) };
    match file.metadata().map_err(failed)?.nlink() < 2 {
        true => Ok(()),
        false => copy(epoch, folder, name, file),
    }
}

fn copy(epoch: &Epoch, folder: &Folder, name: &str, mut file: File) -> Result<(), MirrorError> {
    let failed = |error| MirrorError::io("copy", folder.path().join(name), error);
    epoch.replace(folder, name, |mut copy| {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                return sync_file(&copy).map_err(failed);
            }
            write_all(&mut copy, [&buffer[..read], b""]).map_err(failed)?;
        }
    })?;
    folder.sync()
}

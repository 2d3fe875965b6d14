//! Space that is reserved for deletions: on a full disk, a deletion still needs some bytes for the
//! state and the inventory, and sometimes a file, before it frees space.
//!
//! `.plainfold/spare/` holds one large file and some empty files.

use std::fs::File;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Mirror;
use crate::tree::beneath::{Folder, write_all};
use crate::tree::layout::SPARE;
use crate::tree::{Epoch, MirrorError};

/// The reserved bytes: more than the state needs for a commit.
const BYTES: u64 = 5 << 19;

/// Space is reserved only on a file system with this many bytes free.
const PLENTY: u64 = 6 << 20;

/// A smaller reserve is not worth a file.
const FEW: u64 = 64 << 10;

/// With less than this, a mirror counts as full.
const SHORT: u64 = 2 << 20;

/// The number of reserved empty files, if the file system limits the number of files.
const FILES: u64 = 8;

/// The large file.
const FILE: &str = "bytes";

impl Mirror {
    /// Reserves space for deletions if there is plenty, or gives it back if the disk is full.
    pub(super) fn open_spare(&self) -> Result<(), MirrorError> {
        let room = self.ours.room()?;
        match room.bytes < SHORT || room.files.is_some_and(|files| files < FILES / 2) {
            true => self.give_spare(),
            false => self.keep_spare(PLENTY),
        }
        Ok(())
    }

    /// Gives back the space that is reserved for deletions.
    pub fn give_spare(&self) {
        self.saves.store(true, Ordering::Release);
        if let Err(error) = self.epoch.remove(&self.ours, SPARE) {
            tracing::debug!("{error}");
        }
    }

    /// Reserves space for deletions again, as much as is free.
    pub fn take_spare(&self) {
        self.keep_spare(FEW);
    }

    /// Whether the reserved space was given back, so that only deletions may use it.
    pub fn saves_room(&self) -> bool {
        self.saves.load(Ordering::Acquire)
    }

    /// Reserves space for deletions if at least this many bytes are free. A failure is not an error.
    fn keep_spare(&self, free: u64) {
        self.saves.store(false, Ordering::Release);
        if let Err(error) = keep(&self.epoch, &self.ours, free) {
            tracing::debug!("{error}");
        }
    }
}

fn keep(epoch: &Epoch, ours: &Folder, free: u64) -> Result<(), MirrorError> {
    let room = ours.room()?;
    let (spare, _) = epoch.open_or_rebuild(ours, SPARE)?;
    if room.files.is_some() {
        for number in 0..FILES {
            let name = number.to_string();
            if spare.kind(&name)?.is_none() {
                epoch.replace(&spare, &name, |_| Ok(()))?;
            }
        }
    }
    let held = spare.length(FILE)?;
    if held < BYTES && room.bytes >= free {
        epoch.remove(&spare, FILE)?;
        let length = BYTES.min(room.bytes + held);
        epoch.replace(&spare, FILE, |mut file| {
            fill(&mut file, length)
                .map_err(|error| MirrorError::io("write", spare.path().join(FILE), error))
        })?;
    }
    Ok(())
}

/// Sets a file's length and allocates the disk space for it.
fn fill(file: &mut File, length: u64) -> std::io::Result<()> {
    match rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        done => return Ok(done?),
    }
    // Random bytes: zeros could be stored in less space.
    let mut bytes = blake3::Hasher::new().finalize_xof();
    let mut piece = [0; 1 << 14];
    for _ in 0..length / piece.len() as u64 {
        bytes.fill(&mut piece);
        write_all(file, [&piece, b""])?;
    }
    Ok(())
}

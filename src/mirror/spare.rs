//! Room that is kept for deletions: on a disk without any, a deletion still needs some bytes of the
//! state and the inventory, and now and then a file, before it makes room itself.
//!
//! `.plainfold/spare/` holds a file of bytes and some empty files. It must not know when they are needed.

use std::fs::File;
use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Mirror;
use super::beneath::{Folder, write_all};
use super::error::MirrorError;
use super::layout::SPARE;

/// Bytes that are kept: more than what the state needs for a commit.
const BYTES: u64 = 5 << 19;

/// They are taken from a file system that has so many left.
const PLENTY: u64 = 6 << 20;

/// Fewer are not worth a file.
const FEW: u64 = 64 << 10;

/// Below this, a mirror has no room.
const SHORT: u64 = 2 << 20;

/// Empty files that are kept, where the number of files is limited.
const FILES: u64 = 8;

/// The file of bytes.
const FILE: &str = "bytes";

impl Mirror {
    /// Keeps room for deletions where there is plenty, or gives it back where there is none.
    pub(super) fn open_spare(&self) -> Result<(), MirrorError> {
        let room = self.ours.room()?;
        match room.bytes < SHORT || room.files.is_some_and(|files| files < FILES / 2) {
            true => self.give_spare(),
            false => self.keep_spare(PLENTY),
        }
        Ok(())
    }

    /// Gives the room back that is kept for deletions.
    pub fn give_spare(&self) {
        self.saves.store(true, Ordering::Release);
        if let Err(error) = self.ours.remove(SPARE) {
            tracing::debug!("{error}");
        }
    }

    /// Takes room for deletions again, as much as there is.
    pub fn take_spare(&self) {
        self.keep_spare(FEW);
    }

    /// Whether the room that is kept for deletions was given back, so that nothing else may take it.
    pub fn saves_room(&self) -> bool {
        self.saves.load(Ordering::Acquire)
    }

    /// Keeps room for deletions, if at least so many bytes are free. That there is none is no reason to
    /// end.
    fn keep_spare(&self, free: u64) {
        self.saves.store(false, Ordering::Release);
        if let Err(error) = keep(&self.ours, free) {
            tracing::debug!("{error}");
        }
    }
}

fn keep(ours: &Folder, free: u64) -> Result<(), MirrorError> {
    let room = ours.room()?;
    let (spare, _) = ours.open_or_rebuild(SPARE)?;
    if room.files.is_some() {
        for number in 0..FILES {
            let name = number.to_string();
            if spare.kind(&name)?.is_none() {
                spare.create_file(&name)?;
            }
        }
    }
    let held = spare.length(FILE)?;
    if held < BYTES && room.bytes >= free {
        spare.remove(FILE)?;
        let length = BYTES.min(room.bytes + held);
        let mut file = spare.create_file(FILE)?;
        if let Err(error) = fill(&mut file, length) {
            spare.remove(FILE)?;
            return Err(MirrorError::io("write", spare.path().join(FILE), error));
        }
    }
    Ok(())
}

/// Gives a file a length, and the disk's room for it.
fn fill(file: &mut File, length: u64) -> std::io::Result<()> {
    match rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        done => return Ok(done?),
    }
    // Nothing that could be stored in less.
    let mut bytes = blake3::Hasher::new().finalize_xof();
    let mut piece = [0; 1 << 14];
    for _ in 0..length / piece.len() as u64 {
        bytes.fill(&mut piece);
        write_all(file, [&piece, b""])?;
    }
    Ok(())
}

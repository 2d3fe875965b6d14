//! A state whose disk was full or failed it. It must not know when to try again.
//!
//! sled does not come back from a write that failed: it may wait for ever, even when it is closed. So it
//! is kept from a disk without room; where it failed all the same it is left alone, and a copy
//! of its files is opened, as the lock on the old ones cannot be had any more.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, RenameFlags};

use super::{Checkpoints, SetAside, StateError, Store};

/// A commit and what sled writes on its own take less.
const ROOM: u64 = 2 * 1024 * 1024;

impl Checkpoints {
    /// Whether there is room for a commit.
    pub(super) fn check_room(&self, store: &Store) -> Result<(), StateError> {
        let failed = |source: rustix::io::Errno| StateError::Io {
            action: "look at the file system of",
            path: self.path.clone(),
            source: source.into(),
        };
        let stat = rustix::fs::fstatvfs(&store.file).map_err(failed)?;
        if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(failed(rustix::io::Errno::ROFS));
        }
        if stat.f_blocks == 0 {
            // As in a ramfs, which has no bounds.
            return Ok(());
        }
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < ROOM {
            return Err(StateError::NoRoom { path: self.path.clone(), free });
        }
        Ok(())
    }

    /// Opens the state again if sled had failed. Says where a state was set aside that had become
    /// damaged.
    pub fn recover(&self) -> Result<Option<SetAside>, StateError> {
        // Nobody commits meanwhile.
        let _turn = self.turn();
        let mut place = self.store.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*place
            && !self.broken.load(Ordering::Acquire)
        {
            self.check_room(store)?;
            return Ok(None);
        }
        std::mem::forget(place.take());
        self.copy()?;
        let (store, damaged) = Store::open(&self.path, self.bounds)?;
        *place = Some(store.into());
        self.broken.store(false, Ordering::Release);
        Ok(damaged)
    }

    /// Puts a copy of the state's files into their place.
    fn copy(&self) -> Result<(), StateError> {
        let copy = self.path.with_extension("copy");
        let failed = |source| StateError::Io { action: "copy", path: self.path.clone(), source };
        remove(&copy).map_err(failed)?;
        copy_folder(&self.path, &copy).map_err(failed)?;
        rustix::fs::renameat_with(CWD, &copy, CWD, &self.path, RenameFlags::EXCHANGE)
            .map_err(|error| failed(error.into()))?;
        if let Some(above) = self.path.parent() {
            File::open(above).and_then(|above| above.sync_all()).map_err(failed)?;
        }
        remove(&copy).map_err(failed)
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        if self.broken.load(Ordering::Acquire) {
            let place = self.store.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(place.take());
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::super::{Checkpoint, Commit};
    use super::*;

    #[test]
    fn a_state_that_failed_is_opened_again_as_a_copy_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (books, loans) = ("books".into(), "loans".into());
        let commit = Commit::new(Checkpoint { attachments: true, ..Checkpoint::default() });
        {
            let state = open(&path);
            state.turn().commit(&books, &commit, &[]).unwrap();
            assert_eq!(state.recover().unwrap(), None);
            drop(state.failed(sled::Error::Unsupported("a fault".into())));
            assert_eq!(state.recover().unwrap(), None);
            state.turn().commit(&loans, &commit, &[]).unwrap();
        }
        let state = open(&path);
        assert_eq!(state.collections().unwrap(), vec![books, loans]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the old files are gone");
    }

    #[test]
    fn what_cannot_be_removed_is_said() {
        let dir = tempfile::tempdir().unwrap();
        remove(&dir.path().join("nothing")).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "in the way").unwrap();
        remove(&file).unwrap_err();
    }
}

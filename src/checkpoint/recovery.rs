//! Handles a state whose disk was full or failed.
//!
//! sled does not recover from a failed write: it may wait forever, even when it is closed. So it
//! never writes to a full disk. If it fails nevertheless, it is abandoned, and a copy of its files
//! is opened, because the lock on the old files cannot be taken any more.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::store::StateStore;
use super::{Checkpoints, SetAside, StateError, copy};
use crate::place::Place;

/// The space for a commit, including what sled writes in the background.
const ROOM: u64 = 2 * 1024 * 1024;

impl Checkpoints {
    /// Whether there is space for a commit.
    pub(super) fn check_room(&self, store: &StateStore) -> Result<(), StateError> {
        let failed = |source: rustix::io::Errno| {
            StateError::io("look at the file system of", &self.path, source.into())
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

    /// Reopens the state if sled has failed. Returns where a damaged state was set aside.
    pub fn recover(&self) -> Result<Option<SetAside>, StateError> {
        // Nobody commits meanwhile.
        let _numbers = self.numbers();
        let mut place = self.store.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*place
            && !self.broken.load(Ordering::Acquire)
        {
            self.check_room(store)?;
            return Ok(None);
        }
        std::mem::forget(place.take());
        let failed = |source| StateError::io("open", &self.path, source);
        let (above, name) = Place::with_desk(&self.path, &self.desk).map_err(failed)?;
        if above.look(&name).map_err(failed)?.is_some() {
            copy::replace(&above, &name, &name)?;
        }
        let (store, damaged) = StateStore::open(&self.path, &self.desk, self.bounds, None)?;
        self.cursors.load(&store);
        *place = Some(store.into());
        self.broken.store(false, Ordering::Release);
        Ok(damaged)
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        let end = match self.store() {
            Ok(store) if !self.broken.load(Ordering::Acquire) => {
                let range = self.journal_range().ok().flatten();
                store.digest().map(|digest| (range.map_or(0, |range| range.last), digest))
            }
            _ => None,
        };
        if self.broken.load(Ordering::Acquire) {
            let place = self.store.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(place.take());
        }
        let numbers = self.numbers.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, digest)) = end
            && let Err(error) = numbers.end(last, digest)
        {
            tracing::debug!("how the state ended could not be noted: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use std::fs;

    use super::super::{Checkpoint, Commit};

    #[test]
    fn a_state_that_failed_is_opened_again_as_a_copy_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (books, loans) = ("books".into(), "loans".into());
        let commit = Commit::new(Checkpoint { attachments: true, ..Checkpoint::default() });
        {
            let state = open(&path);
            state.commit(&books, &commit).unwrap();
            assert_eq!(state.recover().unwrap(), None);
            drop(state.failed(sled::Error::Unsupported("a fault".into())));
            assert_eq!(state.recover().unwrap(), None);
            state.commit(&loans, &commit).unwrap();
        }
        let state = open(&path);
        assert_eq!(state.collections().unwrap(), vec![books, loans]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the old files are gone");
    }
}

//! Event numbers that never repeat, even when the state is lost.
//!
//! A small file beside the state says up to which number events may have been given out. It is
//! written once per [`BLOCK`] numbers, so it costs nothing; after a loss, counting goes on behind
//! the whole block.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::StateError;

/// How many numbers are set apart at a time.
const BLOCK: u64 = 1 << 20;

/// The numbers given out, and those set apart.
#[derive(Debug)]
pub struct HighWater {
    path: PathBuf,
    next: u64,
    reserved: u64,
}

impl HighWater {
    /// Reads the file at `path`. `last` is the highest number in the journal; `lost` says that the
    /// journal does not know all numbers given out.
    pub fn open(path: &Path, last: u64, lost: bool) -> Result<Self, StateError> {
        let reserved = match std::fs::read_to_string(path) {
            Ok(text) => text.trim().parse().unwrap_or(last),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(source) => {
                return Err(StateError::Io { action: "read", path: path.to_owned(), source });
            }
        };
        // An empty journal with a mark beside it: it was lost, or trimmed to nothing by age.
        let next = if lost || last == 0 { reserved.max(last) + 1 } else { last + 1 };
        Ok(Self { path: path.to_owned(), next, reserved })
    }

    /// The first of `count` fresh numbers.
    pub fn draw(&mut self, count: u64) -> Result<u64, StateError> {
        let first = self.next;
        let end = first + count;
        if end > self.reserved {
            self.reserve(end + BLOCK)?;
        }
        self.next = end;
        Ok(first)
    }

    /// The last number given out.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    fn reserve(&mut self, up_to: u64) -> Result<(), StateError> {
        let temporary = self.path.with_extension("high-water.new");
        let failed = |source| StateError::Io { action: "write", path: temporary.clone(), source };
        let mut file = File::create(&temporary).map_err(failed)?;
        writeln!(file, "{up_to}").map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&temporary, &self.path).map_err(failed)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        self.reserved = up_to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_where_the_journal_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.high-water");
        let mut numbers = HighWater::open(&path, 0, false).unwrap();
        assert_eq!(numbers.draw(3).unwrap(), 1);
        assert_eq!(numbers.draw(1).unwrap(), 4);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1048580\n", "it is seldom written");
        assert_eq!(HighWater::open(&path, 4, false).unwrap().draw(1).unwrap(), 5);
    }

    #[test]
    fn after_a_loss_no_number_comes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.high-water");
        let given = HighWater::open(&path, 0, false).unwrap().draw(10).unwrap() + 9;
        assert!(HighWater::open(&path, 0, true).unwrap().draw(1).unwrap() > given);
        assert!(HighWater::open(&path, 0, false).unwrap().draw(1).unwrap() > given);
    }
}

//! A copy of the state, for commands that must not write: sled writes even when it only opens a
//! state.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::copy::copy_folder;
use super::numbers::{LONGEST, marks};
use super::store::in_the_way;
use super::{Bounds, Checkpoints, Opened, SetAside, StateError};
use crate::place::Place;

/// The copied files of a state that has not been opened. The lock of the mirror is needed only until they
/// are copied.
#[derive(Debug)]
pub struct CopiedFiles {
    path: PathBuf,
    copy: PathBuf,
    in_the_way: Option<String>,
    folder: TempDir,
}

/// A copy of a state, in the folder of temporary files. Dropping it removes the copy.
#[derive(Debug)]
pub struct Copied {
    /// The state at the time of the copy.
    pub state: Arc<Checkpoints>,
    /// Why the state cannot be read, if so; then the copy is empty.
    pub damaged: Option<SetAside>,
    // After the state, so that it is dropped later.
    _folder: TempDir,
}

impl CopiedFiles {
    /// Copies the state in the folder `path`. Nobody may be writing to it.
    pub fn of(path: &Path) -> Result<Self, StateError> {
        let failed = |source: io::Error| StateError::Copy {
            path: path.to_owned(),
            to: std::env::temp_dir(),
            source: source.into(),
        };
        let folder = tempfile::Builder::new().prefix("plainfold-").tempdir().map_err(failed)?;
        let copy = folder.path().join("state");
        let (above, name) = Place::of(path).map_err(failed)?;
        let (to, new) = Place::of(&copy).map_err(failed)?;
        let in_the_way = in_the_way(&above, &name).map_err(failed)?;
        if in_the_way.is_none() && above.look(&name).map_err(failed)?.is_some() {
            copy_folder(&above.open(&name).map_err(failed)?, &to, &new, false).map_err(failed)?;
        }
        for (mark, new) in marks(&name).iter().zip(marks(&new)) {
            // A mark that is not a file counts as lost.
            if let Some(text) = above.read(mark, LONGEST).map_err(failed)? {
                to.replace(&new, &text).map_err(failed)?;
            }
        }
        Ok(Self { path: path.to_owned(), copy, in_the_way, folder })
    }

    /// Opens the copy. If there was no state, it is empty.
    pub fn open(self) -> Result<Copied, StateError> {
        let Self { path, copy, in_the_way, folder } = self;
        let Opened { state, damaged } = Checkpoints::open(&copy, Bounds::DEFAULT)?;
        let damaged = match in_the_way {
            Some(reason) => Some(SetAside { path, reason }),
            None => damaged,
        };
        Ok(Copied { state: state.into(), damaged, _folder: folder })
    }
}

impl Copied {
    /// Copies and opens the state in the folder `path`. Nobody may be writing to it. If there is no
    /// state, the copy is empty.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        CopiedFiles::of(path)?.open()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::tests::{commit_events, open};
    use super::*;

    #[test]
    fn a_copy_tells_what_the_state_does_and_leaves_it_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        {
            let state = open(&path);
            commit_events(&state, 1);
        }
        fs::set_permissions(path.join("db"), fs::Permissions::from_mode(0o400)).unwrap();
        let files = || -> Vec<_> {
            let files = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
            files.sort();
            files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect()
        };
        let before = files();
        let copied = Copied::open(&path).unwrap();
        assert_eq!(copied.state.collections().unwrap(), vec!["books".into()]);
        assert_eq!(copied.state.journal_after(0, 9).unwrap().len(), 1);
        let place = copied._folder.path().to_owned();
        drop(copied);
        assert!(files() == before && !place.exists());
    }

    #[test]
    fn a_damaged_state_is_said_to_be_and_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        drop(open(&path));
        let damage = vec![b'x'; 4096];
        fs::write(path.join("conf"), &damage).unwrap();
        let copied = Copied::open(&path).unwrap();
        assert!(copied.damaged.is_some());
        assert_eq!(fs::read(path.join("conf")).unwrap(), damage);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was set aside");
    }

    #[test]
    fn what_is_no_state_and_what_is_no_mark_is_not_copied_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "in the way").unwrap();
        fs::create_dir(path.with_extension("high-water")).unwrap();
        fs::write(path.with_file_name("event-numbers"), "7\n").unwrap();
        let copied = Copied::open(&path).unwrap();
        assert_eq!(copied.damaged.as_ref().map(|it| &*it.reason), Some("it is not a folder"));
        assert_eq!(copied.state.last_number(), 7, "the other mark is enough");
        assert_eq!(fs::read_to_string(&path).unwrap(), "in the way");
    }

    #[test]
    fn no_state_is_an_empty_one_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(Copied::open(&path).unwrap().state.collections().unwrap().is_empty());
        assert!(!path.exists());
    }
}

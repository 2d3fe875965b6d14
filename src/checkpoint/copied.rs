//! A copy of the state, for commands that must not write: sled writes even when it only opens a
//! state. It must not know whose state it is, nor who else may be writing.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::numbers::marks;
use super::{Bounds, Checkpoints, Opened, SetAside, StateError, in_the_way};

/// A copy of a state, in the folder of temporary files. It is removed with this value.
#[derive(Debug)]
pub struct Copied {
    /// The state as it was when it was copied.
    pub state: Arc<Checkpoints>,
    /// Why the state itself cannot be read, where that is so; then the copy is empty.
    pub damaged: Option<SetAside>,
    // After the state, so that it goes after it.
    _folder: TempDir,
}

impl Copied {
    /// Copies and opens the state in the folder `path`. Nobody may be writing to it. Where there is
    /// none, the copy is empty.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let failed =
            |source| StateError::Copy { path: path.to_owned(), to: std::env::temp_dir(), source };
        let folder = tempfile::Builder::new().prefix("plainfold-").tempdir().map_err(failed)?;
        let copy = folder.path().join("state");
        let in_the_way = in_the_way(path)?;
        if in_the_way.is_none() {
            copy_all(path, &copy).map_err(failed)?;
        }
        for (mark, to) in marks(path).iter().zip(marks(&copy)) {
            // A mark that is not a file counts as lost.
            if fs::symlink_metadata(mark).is_ok_and(|metadata| metadata.is_file()) {
                copy_file(mark, &to).map_err(failed)?;
            }
        }
        let Opened { state, damaged } = Checkpoints::open(&copy, Bounds::DEFAULT)?;
        let damaged = match in_the_way {
            Some(reason) => Some(SetAside { path: path.to_owned(), reason: reason.to_owned() }),
            None => damaged,
        };
        Ok(Self { state: state.into(), damaged, _folder: folder })
    }
}

/// What can be done about a copy that failed.
pub(super) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run this command as the user of the mirror",
        _ => "make room there, or set TMPDIR to another directory",
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    fs::create_dir(to)?;
    for entry in entries {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_all(&from, &to)?;
        } else if kind.is_file() {
            copy_file(&from, &to)?;
        }
    }
    Ok(())
}

/// Copies the bytes, and not the mode: the mirror may be one that its user cannot write to.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = match File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    io::copy(&mut from, &mut File::create(to)?).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::tests::open;
    use super::super::{Checkpoint, Commit, Record};
    use super::*;

    #[test]
    fn a_copy_tells_what_the_state_does_and_leaves_it_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        {
            let state = open(&path);
            let mut turn = state.turn();
            let number = turn.draw(1).unwrap();
            let records = [Record { number, text: "{}".to_owned() }];
            turn.commit(&"books".into(), &Commit::new(Checkpoint::default()), &records).unwrap();
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

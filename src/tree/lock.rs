//! One process at a time works on a mirror: the lock, and who holds it.
//!
//! The lock itself is the kernel's and vanishes with its process. The text in the file only tells
//! people and other commands who the holder is.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::beneath::aside;
use super::error::MirrorError;
use super::holder::{AgentMirror, Holder};
use crate::place::{Found, Place};

/// The lock of a mirror, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// The mirror of `plainfold run` that it locks.
    agent: Option<Box<AgentMirror>>,
}

impl Lock {
    /// Takes the lock file at `path` for `holder`. Waits for a command that only reads; the error
    /// names any other holder. With `force` the lock is taken from that holder, which is returned.
    pub fn take(
        path: &Path,
        mirror: &Path,
        holder: &Holder,
        force: bool,
    ) -> Result<(Self, Option<Holder>), MirrorError> {
        const PAUSE: Duration = Duration::from_millis(50);
        let failed = |error| MirrorError::io("lock", path, error);
        let (place, name) =
            Place::of(path).map_err(|error| MirrorError::io("open", path, error))?;
        let mut waited = 0;
        let mut displaced = None;
        let file = loop {
            let mut file = open(&place, &name)?;
            match file.try_lock() {
                Ok(()) => match ours(&place, &name, &mut file).map_err(failed)? {
                    true => break file,
                    // Its name belongs to another file now.
                    false => continue,
                },
                Err(TryLockError::WouldBlock) => {
                    // A process that shares the lock reads the state for a moment, and has written
                    // nothing here.
                    let other = match file.try_lock_shared() {
                        Ok(()) => Holder::default(),
                        Err(_) => read(&mut file),
                    };
                    file.unlock().map_err(|error| MirrorError::io("unlock", path, error))?;
                    waited += 1;
                    if waited > other.patience() && force {
                        displaced = Some(other);
                        break replace(&place, &name).map_err(failed)?;
                    }
                    if waited > other.patience() {
                        return Err(MirrorError::Locked { path: mirror.to_owned(), holder: other });
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        };
        let mut lock = Self { file, path: path.to_owned(), agent: holder.agent.clone() };
        lock.describe(holder)?;
        Ok((lock, displaced))
    }

    /// Fails if another process has taken the lock of this mirror: the locked file has lost its name.
    pub fn check(&self, mirror: &Path) -> Result<(), MirrorError> {
        let failed = |error| MirrorError::io("look at", &self.path, error);
        let (place, name) = Place::of(&self.path).map_err(failed)?;
        match is_named(&place, &name, &self.file).map_err(failed)? {
            true => Ok(()),
            false => {
                // It may have ended already.
                let text = place.open_file(&name).map_err(failed)?;
                let holder = text.map(|mut text| read(&mut text)).unwrap_or_default();
                Err(MirrorError::TakenOver { path: mirror.to_owned(), holder })
            }
        }
    }

    /// Writes the holder into the lock file. It works for the same mirror of `plainfold run` as before.
    pub fn describe(&mut self, holder: &Holder) -> Result<(), MirrorError> {
        let failed = |error| MirrorError::io("write", &self.path, error);
        let holder = Holder { agent: self.agent.clone(), ..holder.clone() };
        let text = serde_json::to_vec(&holder).map_err(|error| failed(error.into()))?;
        self.file.rewind().map_err(failed)?;
        self.file.set_len(0).map_err(failed)?;
        self.file.write_all(&text).map_err(failed)
    }
}

/// The lock shared with other readers: nobody works on the mirror while this value lives. A copy
/// without a lock file is not locked, and nobody works on it either.
#[derive(Debug)]
pub struct SharedLock {
    _file: Option<File>,
}

impl SharedLock {
    /// Shares the lock file at `path`, which is opened for reading only; the inner error is its
    /// holder.
    pub fn take(path: &Path) -> Result<Result<Self, Holder>, MirrorError> {
        let opening = |error| MirrorError::io("open", path, error);
        let (place, name) = Place::of(path).map_err(opening)?;
        loop {
            let opened = place.open_file(&name).map_err(opening)?;
            let Some(mut file) = opened else { return Ok(Ok(Self { _file: None })) };
            match file.try_lock_shared() {
                Ok(()) if is_named(&place, &name, &file).map_err(opening)? => {
                    return Ok(Ok(Self { _file: Some(file) }));
                }
                // The file was replaced meanwhile, and its new version may be locked.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Err(read(&mut file))),
                Err(TryLockError::Error(error)) => {
                    return Err(MirrorError::io("lock", path, error));
                }
            }
        }
    }
}

/// The present holder of the lock file at `path`; `None` if it is not locked.
pub fn holder(path: &Path) -> Result<Option<Holder>, MirrorError> {
    Ok(SharedLock::take(path)?.err())
}

/// The present or last holder of the lock file at `path`, if it can be read.
pub fn last_holder(path: &Path) -> Option<Holder> {
    let (place, name) = Place::of(path).ok()?;
    place.open_file(&name).ok()?.map(|mut file| read(&mut file))
}

/// Opens the lock file, and creates it if needed. Anything in its place that is not a file cannot
/// hold a lock, so it is set aside.
fn open(place: &Place, name: &str) -> Result<File, MirrorError> {
    let failed = |error| MirrorError::io("open", place.at(name), error);
    loop {
        if let Some(file) = place.open_to_write(name).map_err(failed)? {
            return Ok(file);
        }
        match place.look(name).map_err(failed)? {
            Some(found) if found.is_file() => {}
            Some(_) => {
                set_aside(place, name)
                    .map_err(|error| MirrorError::io("move aside", place.at(name), error))?;
            }
            None => match place.create_file(name) {
                // Another process was faster.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                created => return created.map_err(failed),
            },
        }
    }
}

/// Gives the name of the lock file to another file, which this process has locked. The process that
/// holds the old one keeps a lock without a name.
fn replace(place: &Place, name: &str) -> std::io::Result<File> {
    let new = format!("{name}.{}", std::process::id());
    place.remove(&new)?;
    let file = place.create_file(&new)?;
    file.try_lock()?;
    place.rename(&new, name)?;
    Ok(file)
}

fn set_aside(place: &Place, name: &str) -> std::io::Result<()> {
    let aside = aside(name);
    place.rename(name, &aside)?;
    tracing::warn!(
        "the lock was not a regular file of this mirror; it was set aside as {}",
        place.at(&aside).display()
    );
    Ok(())
}

/// Whether a lock that was taken may be written to. A file with a second name may be somebody
/// else's, or belong to a copy made with hard links: then another file is created under the name and
/// locked.
fn ours(place: &Place, name: &str, file: &mut File) -> std::io::Result<bool> {
    if !is_named(place, name, file)? {
        return Ok(false);
    }
    if !Found::of_file(file)?.is_shared() {
        return Ok(true);
    }
    match read(file).pid {
        0 => set_aside(place, name)?,
        // The old file survives under its other name.
        _ => place.remove(name)?,
    }
    Ok(false)
}

fn is_named(place: &Place, name: &str, file: &File) -> std::io::Result<bool> {
    let file = Found::of_file(file)?;
    Ok(place.look(name)?.is_some_and(|found| found.is_same(&file)))
}

/// The text of the lock file; an unknown holder if it is just being written. A foreign file may be
/// of any length.
fn read(file: &mut File) -> Holder {
    const LONGEST: u64 = 64 * 1024;
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(LONGEST).read_to_string(&mut text));
    read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(path: &Path, mirror: &Path, holder: &Holder) -> Result<Lock, MirrorError> {
        Lock::take(path, mirror, holder, false).map(|(lock, _)| lock)
    }

    #[test]
    fn the_second_is_told_who_holds_the_mirror() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let me = Holder::this_process("mirror");
        let held = take(&path, dir.path(), &me).unwrap();
        let error = take(&path, dir.path(), &me).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(holder(&path).unwrap(), Some(me));
        drop(held);
        assert_eq!(holder(&path).unwrap(), None);
    }

    #[test]
    fn a_lock_that_was_taken_by_force_belongs_to_the_second_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Holder { pid: 7, ..Holder::this_process("mirror") };
        let mut held = take(&path, dir.path(), &first).unwrap();
        let second = Holder::this_process("mirror");
        let (taken, displaced) = Lock::take(&path, dir.path(), &second, true).unwrap();
        assert_eq!(displaced, Some(first.clone()));
        taken.check(dir.path()).unwrap();
        held.check(dir.path()).unwrap_err();
        held.describe(&first).unwrap();
        drop(held);
        assert_eq!(holder(&path).unwrap(), Some(second));
        drop(taken);
        let (_taken, displaced) = Lock::take(&path, dir.path(), &first, true).unwrap();
        assert_eq!(displaced, None, "nobody held it");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_a_file_is_set_aside_and_never_followed_or_waited_for() {
        for what in ["folder", "link", "pipe", "hard link"] {
            let dir = tempfile::tempdir().unwrap();
            let (path, victim) = (dir.path().join("lock"), dir.path().join("victim"));
            std::fs::write(&victim, "precious").unwrap();
            match what {
                "folder" => std::fs::create_dir(&path).unwrap(),
                "link" => std::os::unix::fs::symlink(&victim, &path).unwrap(),
                "hard link" => std::fs::hard_link(&victim, &path).unwrap(),
                _ => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
                    assert!(made.success());
                }
            }
            assert_eq!(holder(&path).unwrap(), None, "{what}");
            let me = Holder::this_process("mirror");
            let held = take(&path, dir.path(), &me).unwrap();
            assert_eq!(holder(&path).unwrap(), Some(me), "{what}");
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
            let names = std::fs::read_dir(dir.path()).unwrap().filter_map(Result::ok);
            let damaged =
                |name: std::ffi::OsString| name.to_string_lossy().starts_with("lock.damaged-");
            assert_eq!(names.filter(|entry| damaged(entry.file_name())).count(), 1, "{what}");
            drop(held);
        }
    }

    #[test]
    fn a_copy_of_hard_links_gets_a_lock_of_its_own_and_a_held_lock_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("lock"), dir.path().join("copy"));
        let me = Holder::this_process("mirror");
        let held = take(&path, dir.path(), &me).unwrap();
        std::fs::hard_link(&path, &copy).unwrap();
        let error = take(&path, dir.path(), &me).unwrap_err();
        assert!(matches!(error, MirrorError::Locked { .. }), "{error}");
        drop(held);
        let before = std::fs::read(&copy).unwrap();
        let other = Holder { socket: Some("/other".into()), ..me };
        let held = take(&path, dir.path(), &other).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), before);
        assert_eq!(holder(&path).unwrap(), Some(other));
        assert_eq!(holder(&copy).unwrap(), None);
        drop(held);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing was set aside");
    }

    #[test]
    fn readers_share_the_lock_change_nothing_and_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(SharedLock::take(&path).unwrap().is_ok(), "there is no lock file");
        assert!(!path.exists());
        let me = Holder::this_process("mirror");
        drop(take(&path, dir.path(), &me).unwrap());
        let before = std::fs::read(&path).unwrap();
        let readers = [SharedLock::take(&path).unwrap(), SharedLock::take(&path).unwrap()];
        assert!(readers.iter().all(Result::is_ok));
        assert_eq!(holder(&path).unwrap(), None, "a reader does not count as a holder");
        let (entered, wait) = std::sync::mpsc::channel();
        let taking = std::thread::spawn({
            let (path, mirror, me) = (path.clone(), dir.path().to_owned(), me.clone());
            move || {
                entered.send(()).unwrap();
                take(&path, &mirror, &me)
            }
        });
        wait.recv().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
        drop(readers);
        let held = taking.join().unwrap().unwrap();
        assert_eq!(SharedLock::take(&path).unwrap().unwrap_err().pid, std::process::id());
        drop(held);
    }

    #[test]
    fn a_reader_in_passing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = take(&path, dir.path(), &Holder::this_process("status")).unwrap();
        let (entered, wait) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let (path, mirror) = (path.clone(), dir.path().to_owned());
            move || {
                entered.send(()).unwrap();
                take(&path, &mirror, &Holder::this_process("mirror")).map(drop)
            }
        });
        wait.recv().unwrap();
        drop(held);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn who_is_done_in_a_moment_is_waited_for_longer() {
        let patience = |command| Holder::this_process(command).patience();
        for command in ["status", "tail", "release"] {
            assert_eq!(patience(command), 60, "{command}");
        }
        assert_eq!((patience("mirror"), patience("restore")), (4, 4));
        assert_eq!(Holder::default().patience(), 60, "it has not written yet who it is");
    }
}

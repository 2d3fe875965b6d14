//! One process at a time works on a mirror: the lock, and who holds it.
//!
//! The lock itself is the kernel's and vanishes with its process; the text in the file only tells
//! people and other commands who that is.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::beneath::aside;
use super::error::MirrorError;

/// Who holds a mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// Its process id; 0 where it could not be read.
    pub pid: u32,
    /// What it does: "mirror", "status", …
    pub command: String,
    /// Since when, in RFC 3339.
    pub since: String,
    /// Where it answers questions, if it does: the path of a Unix socket.
    pub socket: Option<PathBuf>,
}

impl Holder {
    /// This process, from now on.
    pub fn this_process(command: &str) -> Self {
        Self {
            pid: std::process::id(),
            command: command.to_owned(),
            since: jiff::Timestamp::now().to_string(),
            socket: None,
        }
    }

    /// How often it is waited for: a command that is done in a moment, or that has not said yet what it
    /// is, longer than another. Whoever only looks who the holder is takes the lock for a moment too.
    fn patience(&self) -> u32 {
        let passing = matches!(self.command.as_str(), "status" | "tail" | "release");
        if passing || self.pid == 0 { 60 } else { 4 }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return f.write_str("another process that has not said who it is");
        }
        write!(f, "`plainfold {}` (process {}, since {})", self.command, self.pid, self.since)
    }
}

/// The lock of a mirror, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock file at `path` for `holder`. A command that only reads is waited for; any
    /// other holder is named in the error.
    pub fn take(path: &Path, mirror: &Path, holder: &Holder) -> Result<Self, MirrorError> {
        const PAUSE: Duration = Duration::from_millis(50);
        let mut lock = Self { file: open(path)?, path: path.to_owned() };
        let mut waited = 0;
        loop {
            match lock.file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    // Who shares the lock reads the state for a moment, and has written nothing here.
                    let other = match lock.file.try_lock_shared() {
                        Ok(()) => Holder::default(),
                        Err(_) => read(&mut lock.file),
                    };
                    lock.file.unlock().map_err(|error| MirrorError::io("unlock", path, error))?;
                    waited += 1;
                    if waited > other.patience() {
                        return Err(MirrorError::Locked { path: mirror.to_owned(), holder: other });
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::Error(error)) => {
                    return Err(MirrorError::io("lock", path, error));
                }
            }
        }
        lock.describe(holder)?;
        Ok(lock)
    }

    /// Writes down who holds the lock.
    pub fn describe(&mut self, holder: &Holder) -> Result<(), MirrorError> {
        let failed = |error| MirrorError::io("write", &self.path, error);
        let text = serde_json::to_vec(holder).map_err(|error| failed(error.into()))?;
        self.file.rewind().map_err(failed)?;
        self.file.set_len(0).map_err(failed)?;
        self.file.write_all(&text).map_err(failed)
    }
}

/// The lock shared with others that read: nobody works on the mirror while this value lives. Where there
/// is no lock file, as in a copy, nobody does either.
#[derive(Debug)]
pub struct SharedLock {
    _file: Option<File>,
}

impl SharedLock {
    /// Shares the lock file at `path`, which is opened for reading only; the inner error is who holds it.
    pub fn take(path: &Path) -> Result<Result<Self, Holder>, MirrorError> {
        let Some(mut file) = open_to_read(path)? else { return Ok(Ok(Self { _file: None })) };
        match file.try_lock_shared() {
            Ok(()) => Ok(Ok(Self { _file: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(Err(read(&mut file))),
            Err(TryLockError::Error(error)) => Err(MirrorError::io("lock", path, error)),
        }
    }
}

/// Who holds the lock file at `path` right now; `None` where nobody does.
pub fn holder(path: &Path) -> Result<Option<Holder>, MirrorError> {
    Ok(SharedLock::take(path)?.err())
}

/// What is not a file holds nothing.
fn open_to_read(path: &Path) -> Result<Option<File>, MirrorError> {
    let failed = |error| MirrorError::io("open", path, error);
    let file = match File::options().read(true).custom_flags(flags()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(_) if !is_file(path).map_err(failed)? => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let is_file = file.metadata().map_err(failed)?.is_file();
    Ok(is_file.then_some(file))
}

/// Opens the lock file. What stands in its place and is not a file cannot hold a lock: it is moved
/// aside.
fn open(path: &Path) -> Result<File, MirrorError> {
    let failed = |error| MirrorError::io("open", path, error);
    if !is_file(path).map_err(failed)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(aside(&name));
        std::fs::rename(path, &aside)
            .map_err(|error| MirrorError::io("move aside", path, error))?;
        tracing::warn!("the lock was not a file; it was set aside as {}", aside.display());
    }
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags())
        .open(path)
        .map_err(failed)
}

/// No link is followed, and nothing is waited for that has no other end.
fn flags() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32
}

/// Whether a file stands there, or nothing.
fn is_file(path: &Path) -> std::io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// What stands in the lock file; an unknown holder where it is being written just now.
fn read(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_the_mirror() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let me = Holder::this_process("mirror");
        let held = Lock::take(&path, dir.path(), &me).unwrap();
        let error = Lock::take(&path, dir.path(), &me).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(holder(&path).unwrap(), Some(me));
        drop(held);
        assert_eq!(holder(&path).unwrap(), None);
    }

    #[test]
    fn what_is_not_a_file_is_set_aside_and_never_followed_or_waited_for() {
        for what in ["folder", "link", "pipe"] {
            let dir = tempfile::tempdir().unwrap();
            let (path, victim) = (dir.path().join("lock"), dir.path().join("victim"));
            std::fs::write(&victim, "precious").unwrap();
            match what {
                "folder" => std::fs::create_dir(&path).unwrap(),
                "link" => std::os::unix::fs::symlink(&victim, &path).unwrap(),
                _ => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
                    assert!(made.success());
                }
            }
            assert_eq!(holder(&path).unwrap(), None, "{what}");
            let me = Holder::this_process("mirror");
            let held = Lock::take(&path, dir.path(), &me).unwrap();
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
    fn readers_share_the_lock_change_nothing_and_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(SharedLock::take(&path).unwrap().is_ok(), "there is no lock file");
        assert!(!path.exists());
        let me = Holder::this_process("mirror");
        drop(Lock::take(&path, dir.path(), &me).unwrap());
        let before = std::fs::read(&path).unwrap();
        let readers = [SharedLock::take(&path).unwrap(), SharedLock::take(&path).unwrap()];
        assert!(readers.iter().all(Result::is_ok));
        assert_eq!(holder(&path).unwrap(), None, "a reader does not count as a holder");
        let (entered, wait) = std::sync::mpsc::channel();
        let taking = std::thread::spawn({
            let (path, mirror, me) = (path.clone(), dir.path().to_owned(), me.clone());
            move || {
                entered.send(()).unwrap();
                Lock::take(&path, &mirror, &me)
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
        let held = Lock::take(&path, dir.path(), &Holder::this_process("status")).unwrap();
        let (entered, wait) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let (path, mirror) = (path.clone(), dir.path().to_owned());
            move || {
                entered.send(()).unwrap();
                Lock::take(&path, &mirror, &Holder::this_process("mirror")).map(drop)
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

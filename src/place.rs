//! A folder held open, for small files in it: they are read and replaced in one durable step, and
//! never through a link.
//!
//! The files of a mirror may have come from somebody else. So none of them is opened by its path, a
//! link is never followed, and a pipe is never waited for.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

/// The umask decides, as for everything in a mirror.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// An open folder.
#[derive(Debug)]
pub struct Place {
    fd: OwnedFd,
    path: PathBuf,
    desk: Desk,
}

/// Where a process prepares what it then renames into a folder. A process that takes over takes the
/// desk away, so that none of these renames succeeds any more. The default is the folder itself.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    /// A path in the folder that ends with a slash, or nothing.
    path: String,
    displaces: bool,
    settled: Arc<AtomicBool>,
    /// The desk exists as long as this does.
    _owner: Option<Arc<dyn std::fmt::Debug + Send + Sync>>,
}

impl Desk {
    /// The desk at a path in the folder, as long as `owner` exists. `displaces` says that an earlier
    /// process may be alive, and may have files of the folder open; `settled` is set when they were
    /// replaced.
    pub fn new(
        path: String,
        displaces: bool,
        settled: Arc<AtomicBool>,
        owner: Arc<dyn std::fmt::Debug + Send + Sync>,
    ) -> Self {
        Self { path, displaces, settled, _owner: Some(owner) }
    }

    /// Whether an earlier process may have files open that are to be replaced by copies.
    pub fn displaces(&self) -> bool {
        self.displaces && !self.settled.load(Ordering::Acquire)
    }

    /// Notes that the files were replaced by copies.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }
}

/// The type of a name, without following links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    kind: FileType,
    device: u64,
    inode: u64,
    links: u64,
}

impl Found {
    fn of(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            device: stat.st_dev,
            inode: stat.st_ino,
            // The type differs between architectures.
            #[allow(clippy::unnecessary_cast)]
            links: stat.st_nlink as u64,
        }
    }

    /// The type of an open file.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::fstat(file)?))
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind.is_file()
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind.is_dir()
    }

    /// Whether it is a file with a second name, which may be somebody else's.
    pub fn is_shared(&self) -> bool {
        self.is_file() && self.links > 1
    }

    /// Whether both are the same file.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Place {
    /// The folder of `path`, and the name in it. A link in the place of the folder is refused; the
    /// path to it is the user's, and may contain links.
    pub fn of(path: &Path) -> io::Result<(Self, String)> {
        let (folder, name) = match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => (folder, name),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let here = Path::new(".");
        let folder = if folder.as_os_str().is_empty() { here } else { folder };
        Ok((open_folder(CWD, folder, folder)?, name.to_string_lossy().into_owned()))
    }

    /// The same with a desk in the folder.
    pub fn with_desk(path: &Path, desk: &Desk) -> io::Result<(Self, String)> {
        let (place, name) = Self::of(path)?;
        Ok((Self { desk: desk.clone(), ..place }, name))
    }

    /// A temporary name on the desk, as a path in this folder.
    pub fn temporary(&self, name: &str) -> String {
        format!("{}{name}", self.desk.path)
    }

    /// Fails if the desk was taken away. What was opened before this succeeds was not opened after
    /// another process has taken over.
    pub fn check_desk(&self) -> io::Result<()> {
        match self.desk.path.trim_end_matches('/') {
            "" => Ok(()),
            path if self.look(path)?.is_some_and(|found| found.is_folder()) => Ok(()),
            _ => Err(Errno::STALE.into()),
        }
    }

    /// The path of an entry of this folder, for messages.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A path that leads a library to this folder, and to no other that has taken its name; valid as
    /// long as this value lives.
    pub fn reach(&self) -> PathBuf {
        let reach = PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
        // Without /proc, its own path is used.
        if reach.exists() { reach } else { self.path.clone() }
    }

    /// The type of this name; `None` if it does not exist.
    pub fn look(&self, name: &str) -> io::Result<Option<Found>> {
        found(rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))
    }

    /// The folder `name` in this one.
    pub fn open(&self, name: &str) -> io::Result<Self> {
        open_folder(&self.fd, Path::new(name), &self.path.join(name))
    }

    /// Creates the folder `name`, which must not exist, and opens it.
    pub fn create(&self, name: &str) -> io::Result<Self> {
        rustix::fs::mkdirat(&self.fd, name, FOLDER_MODE)?;
        self.open(name)
    }

    /// Opens this name if it is a regular file; `None` if it does not exist or is something else.
    pub fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        self.open_as(name, OFlags::RDONLY)
    }

    /// The same for reading and writing.
    pub fn open_to_write(&self, name: &str) -> io::Result<Option<File>> {
        self.open_as(name, OFlags::RDWR)
    }

    fn open_as(&self, name: &str, access: OFlags) -> io::Result<Option<File>> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => {
                let file = File::from(fd);
                Ok(Found::of_file(&file)?.is_file().then_some(file))
            }
            Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::NODEV) => Ok(None),
            // An entry that cannot be opened and is not a file does not matter.
            Err(error) => match self.look(name)? {
                Some(found) if found.is_file() => Err(error.into()),
                _ => Ok(None),
            },
        }
    }

    /// Creates the file `name`, which must not exist, for reading and writing.
    pub fn create_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, FILE_MODE)?.into())
    }

    /// Up to `limit` bytes of the regular file `name`; `None` if it does not exist or is something
    /// else.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let mut text = Vec::new();
        file.take(limit).read_to_end(&mut text)?;
        Ok(Some(text))
    }

    /// Replaces the file `name` in one durable step.
    pub fn replace(&self, name: &str, text: &[u8]) -> io::Result<()> {
        let temporary = self.temporary(&format!("{name}.new"));
        self.remove(&temporary)?;
        let mut file = self.create_file(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        self.rename(&temporary, name)?;
        self.sync()
    }

    /// Renames `name`, and replaces an entry that has the new name.
    pub fn rename(&self, name: &str, new_name: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, name, &self.fd, new_name)?)
    }

    /// Swaps two names in one step.
    pub fn exchange(&self, name: &str, other: &str) -> io::Result<()> {
        let flags = RenameFlags::EXCHANGE;
        Ok(rustix::fs::renameat_with(&self.fd, name, &self.fd, other, flags)?)
    }

    /// Removes `name`: a file, a link (never its target), or a folder with all its contents. A name
    /// that does not exist is not an error.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.look(name)? {
            None => return Ok(()),
            Some(found) if found.is_folder() => {
                let folder = self.open(name)?;
                for name in folder.names()? {
                    folder.remove(&name)?;
                }
                rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?;
            }
            Some(_) => rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?,
        }
        Ok(())
    }

    /// The names in this folder, in no order. One that is not valid UTF-8 is spelt as well as
    /// possible.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Makes the names in this folder durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

fn open_folder(at: impl rustix::fd::AsFd, name: &Path, path: &Path) -> io::Result<Place> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(at, name, flags, Mode::empty())?;
    Ok(Place { fd, path: path.to_owned(), desk: Desk::default() })
}

fn found(stat: rustix::io::Result<Stat>) -> io::Result<Option<Found>> {
    match stat {
        Ok(stat) => Ok(Some(Found::of(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_read_or_written_through_a_link_and_no_pipe_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("victim"), at("link.new")).unwrap();
        symlink(dir.path(), at("folder")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (place, name) = Place::of(&at("link")).unwrap();
        for name in ["link", "pipe", "folder", "none"] {
            assert!(place.read(name, 9).unwrap().is_none(), "{name}");
            assert!(place.open_to_write(name).unwrap().is_none(), "{name}");
        }
        place.open("folder").unwrap_err();
        Place::of(&at("folder/x")).unwrap_err();
        place.replace(&name, b"new").unwrap();
        assert_eq!(std::fs::read_to_string(at("victim")).unwrap(), "precious");
        assert_eq!(place.read("link", 2).unwrap().unwrap(), b"ne");
        place.remove("folder").unwrap();
        assert!(at("victim").exists(), "only the link is removed");
        place.remove("none").unwrap();
    }

    #[test]
    fn a_folder_is_reached_by_its_handle_whatever_has_taken_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (above, name) = Place::of(&dir.path().join("state")).unwrap();
        let place = above.create(&name).unwrap();
        place.create_file("ours").unwrap();
        above.rename("state", "moved").unwrap();
        symlink("/", dir.path().join("state")).unwrap();
        assert!(place.reach().join("ours").exists());
        above.remove("moved").unwrap();
        assert_eq!(above.names().unwrap(), ["state"]);
    }
}

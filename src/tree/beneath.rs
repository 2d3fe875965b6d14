//! A directory held open, and every operation on what lies directly in it.
//!
//! All paths of a mirror are opened one component at a time beneath a handle, and no link is ever
//! followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RawDir, RenameFlags, SeekFrom, StatxFlags,
};
use rustix::io::Errno;

mod place;
mod remove;

use super::error::{MirrorError, described};
use crate::document::{FolderIdentity, FolderMode};
use crate::trial::{self, Reach};

/// The umask decides: the command sets it to match the mode of the mirror, so that files that
/// libraries write get the same mode.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// The number of bytes that are read beyond the expected length, in case the file is longer.
const PIECE: usize = 8 << 10;

/// An open directory. The path is for messages only; all work goes through the handle.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// Changes when a file or folder is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i128),
}

impl Folder {
    /// Opens a directory by its path. The path itself is the user's and may lead through links.
    pub fn open_path(path: &Path) -> Result<Self, MirrorError> {
        let fd = rustix::fs::openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| MirrorError::io("open", path, error))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error for a file or folder in this folder.
    pub fn error(&self, action: &'static str, name: &str, source: Errno) -> MirrorError {
        MirrorError::io(action, self.path.join(name), source)
    }

    /// Opens what has this name if it is a folder, and no link.
    fn enter(&self, name: &OsStr) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        let fd = trial::attempt("io-open", open)?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Opens the folder `name` in this one; `None` if that name does not exist.
    pub fn open(&self, name: &str) -> Result<Option<Self>, MirrorError> {
        match self.enter(name.as_ref()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(error @ (Errno::NOTDIR | Errno::LOOP)) => {
                Err(match self.kind(name).ok().flatten() {
                    Some(kind) => {
                        MirrorError::InTheWay { path: self.path.join(name), what: described(kind) }
                    }
                    None => self.error("open", name, error),
                })
            }
            Err(error) => Err(self.error("open", name, error)),
        }
    }

    /// Opens the folder `name`; `None` if that name does not exist or is not a folder.
    pub fn open_folder(&self, name: &str) -> Result<Option<Self>, MirrorError> {
        match self.open(name) {
            Err(MirrorError::InTheWay { .. }) => Ok(None),
            opened => opened,
        }
    }

    /// The same, if a file in its place holds nothing that is needed. A link is reported.
    pub fn open_unless_file(&self, name: &str) -> Result<Option<Self>, MirrorError> {
        match self.kind(name)?.is_some_and(FileType::is_file) {
            true => Ok(None),
            false => self.open(name),
        }
    }

    /// Opens the folder `name`, and creates it if needed; says whether it was created.
    pub fn open_or_create(&self, name: &str) -> Result<(Self, bool), MirrorError> {
        let created = match self.make(name) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(self.error("create", name, error)),
        };
        match self.open(name)? {
            Some(folder) => Ok((folder, created)),
            None => Err(self.error("open", name, Errno::NOENT)),
        }
    }

    /// The same for a folder whose content can be rebuilt: a file in its place is set aside and
    /// logged.
    pub fn open_or_rebuild(&self, name: &str) -> Result<(Self, bool), MirrorError> {
        if self.kind(name)?.is_some_and(FileType::is_file) {
            self.set_aside(name, "was not a folder")?;
        }
        self.open_or_create(name)
    }

    /// Sets aside the file or folder of this name, if there is one, and logs `why`.
    pub fn set_aside(&self, name: &str, why: &str) -> Result<(), MirrorError> {
        if self.kind(name)?.is_none() {
            return Ok(());
        }
        let to = aside(name);
        self.rename_new(name, self, &to).map_err(|error| self.error("move aside", name, error))?;
        tracing::warn!(
            "{} {why}; it was set aside as {}, and is rebuilt",
            self.path.join(name).display(),
            self.path.join(&to).display(),
        );
        Ok(())
    }

    /// Creates the folder `name`, which must not exist.
    pub fn create(&self, name: &str) -> Result<(), MirrorError> {
        self.make(name).map_err(|error| self.error("create", name, error))
    }

    fn make(&self, name: &str) -> Result<(), Errno> {
        trial::limited(name)?;
        trial::attempt("io-make-folder", || rustix::fs::mkdirat(&self.fd, name, FOLDER_MODE))
            .inspect(|()| trial::made(&self.fd, name))
    }

    /// The type of this name, without following links; `None` if the name does not exist.
    pub fn kind(&self, name: &str) -> Result<Option<FileType>, MirrorError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error("look at", name, error)),
        }
    }

    /// Opens the regular file `name` for reading; `None` if that name does not exist or is not a
    /// regular file.
    pub fn open_file(&self, name: &str) -> Result<Option<File>, MirrorError> {
        Ok(self.open_regular(name)?.map(|(file, _)| file))
    }

    /// Reads the regular file `name` to its end; `None` as with [`open_file`](Self::open_file).
    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, MirrorError> {
        Ok(self.read_open_file(name)?.map(|(text, _)| text))
    }

    /// The same, with the file that was read.
    pub fn read_open_file(&self, name: &str) -> Result<Option<(Vec<u8>, File)>, MirrorError> {
        let Some((file, size)) = self.open_regular(name)? else { return Ok(None) };
        let mut text = Vec::new();
        text.reserve_exact(usize::try_from(size).unwrap_or(PIECE).max(1));
        loop {
            let read = || rustix::io::read(&file, spare_capacity(&mut text));
            match trial::attempt("io-read", read) {
                Ok(0) => break,
                // Nobody appends to a published file, so its length stays as it was.
                Ok(_) if text.len() as u64 == size => break,
                Ok(_) | Err(Errno::INTR) => text.reserve(PIECE),
                Err(error) => return Err(self.error("read", name, error)),
            }
        }
        Ok(Some((text, file)))
    }

    fn open_regular(&self, name: &str) -> Result<Option<(File, u64)>, MirrorError> {
        // Without NONBLOCK, a planted pipe would make us wait forever for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = trial::attempt("io-open-file", || {
            rustix::fs::openat(&self.fd, name, flags, Mode::empty())
        });
        match opened {
            Ok(fd) => {
                let stat =
                    rustix::fs::fstat(&fd).map_err(|error| self.error("look at", name, error))?;
                let regular = FileType::from_raw_mode(stat.st_mode).is_file();
                Ok(regular.then(|| (File::from(fd), stat.st_size as u64)))
            }
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Ok(None),
            Err(error) => Err(self.error("open", name, error)),
        }
    }

    /// Creates the file `name` for writing. It must not exist, and may lie in a folder that we have
    /// just made.
    pub fn create_file(&self, name: &str) -> Result<File, MirrorError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        trial::limited(name).map_err(|error| self.error("create", name, error))?;
        trial::attempt("io-make-file", || rustix::fs::openat(&self.fd, name, flags, FILE_MODE))
            .inspect(|_| trial::made(&self.fd, name))
            .map(File::from)
            .map_err(|error| self.error("create", name, error))
    }

    /// Opens the regular file `name` for appending; `None` as with [`open_file`](Self::open_file).
    pub fn append_file(&self, name: &str) -> Result<Option<File>, MirrorError> {
        let flags =
            OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => {
                let stat =
                    rustix::fs::fstat(&fd).map_err(|error| self.error("look at", name, error))?;
                let regular = FileType::from_raw_mode(stat.st_mode).is_file();
                Ok(regular.then(|| File::from(fd)))
            }
            Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => Ok(None),
            Err(error) => Err(self.error("open", name, error)),
        }
    }

    /// Truncates the open file `name` to a length, durably.
    pub fn truncate(&self, name: &str, file: &File, length: u64) -> Result<(), MirrorError> {
        rustix::fs::ftruncate(file, length)
            .and_then(|()| rustix::fs::fsync(file))
            .map_err(|error| self.error("cut", name, error))
    }

    /// Renames `name` to `new_name` in `to`, and replaces a file that has that name.
    pub fn rename(&self, name: &str, to: &Folder, new_name: &str) -> Result<(), Errno> {
        trial::limited(new_name)?;
        trial::attempt("io-rename", || rustix::fs::renameat(&self.fd, name, &to.fd, new_name))
            .inspect(|()| trial::renamed(&self.fd, name, &to.fd, new_name))
    }

    /// Renames `name` to `new_name` in `to`; fails with `EXIST` if that name exists.
    pub fn rename_new(&self, name: &str, to: &Folder, new_name: &str) -> Result<(), Errno> {
        let rename = |flags| rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, flags);
        trial::limited(new_name)?;
        trial::attempt("io-rename-new", || rename(RenameFlags::NOREPLACE))
            .inspect(|()| trial::renamed(&self.fd, name, &to.fd, new_name))
    }

    /// Swaps `name` with `other_name` in `other` in one step.
    pub fn exchange(&self, name: &str, other: &Folder, other_name: &str) -> Result<(), Errno> {
        let rename =
            |flags| rustix::fs::renameat_with(&self.fd, name, &other.fd, other_name, flags);
        trial::attempt("io-exchange", || rename(RenameFlags::EXCHANGE))
            .inspect(|()| trial::exchanged(&self.fd, name, &other.fd, other_name))
    }

    /// Gives the file `name` of this folder a second name in `to`.
    pub fn link(&self, name: &str, to: &Folder, new_name: &str) -> Result<(), Errno> {
        let link = || rustix::fs::linkat(&self.fd, name, &to.fd, new_name, AtFlags::empty());
        trial::limited(new_name)?;
        trial::attempt("io-link", link)
            .inspect(|()| trial::linked(&self.fd, name, &to.fd, new_name))
    }

    /// The length of the regular file `name` in bytes; 0 if there is no such file.
    pub fn length(&self, name: &str) -> Result<u64, MirrorError> {
        Ok(self.open_regular(name)?.map_or(0, |(_, length)| length))
    }

    /// Makes the names in this folder durable.
    pub fn sync(&self) -> Result<(), MirrorError> {
        let sync = || trial::attempt("io-sync", || rustix::fs::fsync(&self.fd));
        trial::synced(&self.fd, Reach::Itself, sync)
            .map_err(|error| MirrorError::io("sync", &self.path, error))
    }

    /// Makes the whole file system that holds this folder durable.
    pub fn sync_file_system(&self) -> Result<(), MirrorError> {
        let sync = || trial::attempt("io-sync-file-system", || rustix::fs::syncfs(&self.fd));
        trial::synced(&self.fd, Reach::FileSystem, sync)
            .map_err(|error| MirrorError::io("sync the file system of", &self.path, error))
    }

    /// Whether its file system is in memory, so that syncing is never needed.
    pub fn is_in_memory(&self) -> bool {
        const TMPFS: u64 = 0x0102_1994;
        rustix::fs::fstatfs(&self.fd).is_ok_and(|stat| stat.f_type as u64 == TMPFS)
    }

    /// Removes the folder `name` if it is empty; says whether it did.
    pub fn remove_empty(&self, name: &str) -> Result<bool, MirrorError> {
        match self.unlink(name.as_ref(), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(self.error("remove", name, error)),
        }
    }

    /// A name's inode and the time of its last change, which show a reader that the file was
    /// replaced; `None` if the name does not exist.
    pub fn stamp(&self, name: &str) -> Result<Option<Stamp>, MirrorError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stamp {
                inode: stat.st_ino,
                changed: (stat.st_ctime, i128::from(stat.st_ctime_nsec)),
            })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.error("look at", name, error)),
        }
    }

    /// The identity of this folder, which no copy shares.
    pub fn identity(&self) -> Result<FolderIdentity, MirrorError> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        if let Ok(stat) = rustix::fs::statx(&self.fd, "", AtFlags::EMPTY_PATH, wanted) {
            let is_told = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
            let born = is_told.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec));
            return Ok(FolderIdentity { inode: stat.stx_ino, born });
        }
        // A kernel or a sandbox without that call.
        let stat = rustix::fs::fstat(&self.fd)
            .map_err(|error| MirrorError::io("look at", &self.path, error))?;
        Ok(FolderIdentity { inode: stat.st_ino, born: None })
    }

    /// The mode of this folder.
    pub fn mode(&self) -> Result<FolderMode, MirrorError> {
        let stat = rustix::fs::fstat(&self.fd);
        let stat = stat.map_err(|error| MirrorError::io("look at", &self.path, error))?;
        Ok(FolderMode::of_folder(stat.st_mode))
    }

    /// The names in this folder one by one, without `.` and `..`, in no order. A name that is not
    /// valid UTF-8 comes as `Err`, spelt as well as possible.
    pub fn each_name(
        &self,
    ) -> Result<
        impl Iterator<Item = Result<Result<String, String>, MirrorError>> + use<>,
        MirrorError,
    > {
        let path = self.path.clone();
        let failed = move |error| MirrorError::io("list", &path, error);
        let names = Dir::read_from(&self.fd).map_err(&failed)?;
        Ok(names.filter_map(move |entry| match entry {
            Err(error) => Some(Err(failed(error))),
            Ok(entry) => {
                let name = entry.file_name().to_bytes();
                (name != b"." && name != b"..").then(|| {
                    Ok(match std::str::from_utf8(name) {
                        Ok(name) => Ok(name.to_owned()),
                        Err(_) => Err(String::from_utf8_lossy(name).into_owned()),
                    })
                })
            }
        }))
    }

    /// The names in this folder with their types, where these are known, without `.` and `..`, in no
    /// order. Nobody else may list the same handle meanwhile.
    pub fn entries(&self) -> Result<Vec<(String, Option<FileType>)>, MirrorError> {
        let failed = |error| MirrorError::io("list", &self.path, error);
        rustix::fs::seek(&self.fd, SeekFrom::Start(0)).map_err(failed)?;
        let mut buffer = [MaybeUninit::uninit(); 2048];
        let mut listing = RawDir::new(&self.fd, &mut buffer);
        let mut entries = Vec::new();
        while let Some(entry) = listing.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => self.kind(&name)?,
                kind => Some(kind),
            };
            entries.push((name.into_owned(), kind));
        }
        Ok(entries)
    }

    /// The names in this folder, without `.` and `..`, in no order.
    pub fn names(&self) -> Result<Vec<String>, MirrorError> {
        let failed = |error| MirrorError::io("list", &self.path, error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }
}

/// The new name of a damaged file or folder that is moved aside.
pub fn aside(name: &str) -> String {
    format!("{name}.damaged-{}", jiff::Timestamp::now().as_millisecond())
}

/// Makes the bytes of a file durable.
pub fn sync_file(file: &File) -> io::Result<()> {
    let sync = || trial::attempt("io-sync-file", || rustix::fs::fsync(file));
    Ok(trial::synced(file, Reach::Itself, sync)?)
}

/// Writes all of `parts` in order, in one call where the system allows it.
pub fn write_all(file: &mut File, parts: [&[u8]; 2]) -> io::Result<()> {
    let mut slices = [IoSlice::new(parts[0]), IoSlice::new(parts[1])];
    let mut left = &mut slices[..];
    while left.iter().any(|part| !part.is_empty()) {
        match trial::attempt("io-write", || rustix::io::writev(file.as_fd(), left)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    parts.iter().for_each(|part| trial::written(&*file, part));
    file.flush()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A temporary folder, removed with its guard.
    pub fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open_path(dir.path()).unwrap();
        (dir, folder)
    }

    #[test]
    fn a_link_is_named_and_never_followed() {
        let (dir, folder) = folder();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let error = folder.open("link").unwrap_err().to_string();
        assert!(error.contains("symbolic link") && error.contains("/link"), "{error}");
        assert!(folder.open_file("link").unwrap().is_none());
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_set_aside_and_a_link_is_named() {
        let (dir, folder) = folder();
        std::fs::write(dir.path().join("staging"), "kept").unwrap();
        assert!(folder.open_or_rebuild("staging").unwrap().1, "it is made");
        assert!(!folder.open_or_rebuild("staging").unwrap().1, "and stays");
        let names = folder.names().unwrap();
        let kept = names.iter().find(|name| name.starts_with("staging.damaged-")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(kept)).unwrap(), "kept");
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        let error = folder.open_or_rebuild("link").unwrap_err();
        assert!(matches!(error, MirrorError::InTheWay { .. }), "{error}");
    }

    #[test]
    fn a_planted_pipe_is_not_waited_for() {
        let (dir, folder) = folder();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(folder.open_file("pipe").unwrap().is_none());
    }

    #[test]
    fn a_file_is_read_to_its_end_however_long_it_is_and_whatever_it_says() {
        let (dir, folder) = folder();
        for length in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 1] {
            std::fs::write(dir.path().join("f"), vec![b'x'; length]).unwrap();
            assert_eq!(folder.read_file("f").unwrap().unwrap().len(), length);
        }
        assert!(folder.read_file("none").unwrap().is_none());
        // Files that the kernel makes up claim a length of 0.
        let kernel = Folder::open_path(Path::new("/proc/self")).unwrap();
        assert!(kernel.read_file("status").unwrap().unwrap().ends_with(b"\n"));
        let mut names: Vec<_> = folder.entries().unwrap();
        names.extend(folder.entries().unwrap());
        let file = ("f".to_owned(), Some(FileType::RegularFile));
        assert_eq!(names, [file.clone(), file], "a folder is listed again from its beginning");
    }

    #[test]
    fn both_parts_are_written_whole() {
        let (dir, folder) = folder();
        let mut file = folder.create_file("f").unwrap();
        write_all(&mut file, [b"body", b"\n"]).unwrap();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"body\n");
    }
}

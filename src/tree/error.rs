//! What can be wrong with a mirror on disk, in words that name the path and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::holder::Holder;

/// A mirror that cannot be used, or not with these options.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The file system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "create", "rename", …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The limit of open files is reached, in this process or on this machine.
    #[error(
        "cannot {action} {}: {source}: raise the limit of open files (`ulimit -n`, or \
         `LimitNOFILE=` of the service)",
        path.display()
    )]
    OpenFiles {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder of one collection cannot be used.
    #[error("the collection folder {} {reason}", path.display())]
    CollectionFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A file or folder that only one collection needs cannot be used.
    #[error(transparent)]
    OneCollection(Box<MirrorError>),
    /// Less space is free than must stay free.
    #[error(
        "{} has {free} bytes free, but {reserve} bytes must stay free: free some space, or lower \
         `--reserve`",
        path.display()
    )]
    Reserve {
        /// The mirror.
        path: PathBuf,
        /// Bytes that are free, less those that were about to be written.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// Another process works on this mirror.
    #[error("{} is in use by {holder}{}", path.display(), holder.remedy())]
    Locked {
        /// The mirror.
        path: PathBuf,
        /// Who holds it.
        holder: Holder,
    },
    /// Another process took the mirror over while this one worked on it.
    #[error(
        "another process has taken over {}: {holder}. This process changes nothing there any more, and \
         ends",
        path.display()
    )]
    TakenOver {
        /// The mirror.
        path: PathBuf,
        /// Who works on it now.
        holder: Holder,
    },
    /// The mirror was written by a newer Plainfold.
    #[error(
        "{} has on-disk format {found}, but this version of Plainfold supports formats up to {known}: \
         use a newer version, or another directory",
        path.display()
    )]
    NewerFormat {
        /// The mirror.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest that we know.
        known: u64,
    },
    /// `format.json` is damaged.
    #[error("{} is damaged: {reason}; restore it from a copy, or mirror into another directory", path.display())]
    BadFormat {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// `options.json` is damaged.
    #[error(
        "{} is damaged: {reason}; restore it from a copy, or remove it and give every option of \
         the mirror again",
        path.display()
    )]
    BadOptions {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An option would discard what the mirror holds.
    #[error(
        "in {}, {option} would discard {what}: leave the option out to keep it (in a config, write it as \
         the mirror has it), or add `--discard`",
        path.display()
    )]
    Discards {
        /// The mirror.
        path: PathBuf,
        /// Which option, as it was given.
        option: String,
        /// What would be lost.
        what: String,
    },
    /// The directory holds files that do not belong to a mirror.
    #[error(
        "{} is neither empty nor a mirror (it holds `{example}`): choose an empty or a new directory",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the names in it.
        example: String,
    },
    /// The directory holds a mirror's collections, but no format file.
    #[error(
        "{} holds collections of documents, but no .plainfold/format.json: if it is a copy of a \
         mirror, add `--adopt`, which makes a full scan",
        path.display()
    )]
    NotAdopted {
        /// The directory.
        path: PathBuf,
    },
    /// There is nothing that could be adopted as a mirror.
    #[error(
        "{} holds no collections of documents that could be adopted: leave `--adopt` out to \
         create a new mirror, or give the directory that holds the collections' folders",
        path.display()
    )]
    NothingToAdopt {
        /// The directory.
        path: PathBuf,
    },
    /// The directory lies inside another mirror.
    #[error(
        "{} lies inside another mirror, {}, which would treat it as one of its own folders: choose \
         a directory outside it",
        path.display(),
        outer.display()
    )]
    InsideAnother {
        /// The directory.
        path: PathBuf,
        /// The other mirror.
        outer: PathBuf,
    },
    /// There is no mirror where one was named.
    #[error("{} is not a mirror: it has no .plainfold/format.json", path.display())]
    NoMirror {
        /// The directory.
        path: PathBuf,
    },
    /// `--existing` was given, and there is no mirror.
    #[error(
        "{} is not a mirror (it has no .plainfold/format.json), and `--existing` forbids creating one: \
         check that its file system is mounted, or leave `--existing` out to create a new mirror",
        path.display()
    )]
    NotExisting {
        /// The directory.
        path: PathBuf,
    },
    /// There is nothing that could be restored or verified.
    #[error(
        "{} is not a mirror (it has no .plainfold/format.json), nor a copy of one (it holds no folders \
         of documents), nor what RxDB's backup plugin wrote (it has no backup_meta.json)",
        path.display()
    )]
    NothingToRead {
        /// The directory.
        path: PathBuf,
    },
    /// The directory that was named is something else.
    #[error("{} is a file, not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A link or a file is in the place of a folder of the mirror.
    #[error(
        "{} must be a folder, but it is {what} (Plainfold follows no links): move it away and run again",
        path.display()
    )]
    InTheWay {
        /// Where.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Names that differ only in case would share a folder here.
    #[error(
        "{} is on a file system that ignores case, so two ids could share a folder: create the mirror \
         with `--names portable`",
        path.display()
    )]
    FoldsCase {
        /// The mirror.
        path: PathBuf,
    },
    /// Names on this file system are too short for a mirror.
    #[error(
        "{} is on a file system that allows names of at most {most} bytes, but a mirror needs 96 or more: \
         choose a directory on another file system",
        path.display()
    )]
    ShortNames {
        /// The mirror.
        path: PathBuf,
        /// The longest name in bytes.
        most: u64,
    },
    /// The mirror exists with another codec than the one asked for.
    #[error(
        "{} was created with `--names {found}`, which cannot change: leave `--names` out",
        path.display()
    )]
    OtherNames {
        /// The mirror.
        path: PathBuf,
        /// Its codec, by name.
        found: &'static str,
    },
    /// A collection of this mirror follows another source.
    #[error(
        "`{collection}` in this mirror follows {recorded}, not {given}: mirror {given} into another \
         directory, or, if the database has moved there, run `plainfold mirror` with --source-moved"
    )]
    OtherSource {
        /// The collection.
        collection: String,
        /// The source that it follows.
        recorded: String,
        /// The source that was given now.
        given: String,
    },
}

/// A file type in words.
pub fn described(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something else",
    }
}

impl MirrorError {
    /// Wraps what the file system said, with what was tried on which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.as_ref().to_owned(), source.into());
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => Self::OpenFiles { action, path, source },
            _ => Self::Io { action, path, source },
        }
    }

    /// The error of the file system, if that is the cause.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } | Self::OpenFiles { source, .. } => {
                source.raw_os_error().map(Errno::from_raw_os_error)
            }
            _ => None,
        }
    }

    /// Whether the disk (full, read-only, failing) or the limit of open files is the cause, so that
    /// waiting may help.
    pub fn is_disk(&self) -> bool {
        let read_only = self.errno() == Some(Errno::ROFS);
        let failing = self.errno() == Some(Errno::IO);
        self.is_full() || read_only || failing || matches!(self, Self::OpenFiles { .. })
    }

    /// Whether the disk is full, so that removing files may help.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Reserve { .. } => true,
            _ => false,
        }
    }

    /// Whether it concerns one collection alone.
    pub fn is_of_collection(&self) -> bool {
        matches!(
            self,
            Self::CollectionFolder { .. } | Self::InTheWay { .. } | Self::OneCollection(_)
        )
    }

    /// Whether it may concern one document alone: the file system refused an operation, and the disk
    /// is not the cause. [`Collection::blame`](super::Collection::blame) finds out.
    pub(crate) fn may_be_of_document(&self) -> bool {
        match self {
            Self::Io { .. } => !self.is_disk(),
            Self::InTheWay { .. } => true,
            _ => false,
        }
    }
}

/// The result, or `None` in place of an error that the disk did not cause.
pub(crate) fn unless_disk<T: Default>(result: Result<T, MirrorError>) -> Result<T, MirrorError> {
    match result {
        Err(error) if !error.is_disk() => Ok(T::default()),
        result => result,
    }
}

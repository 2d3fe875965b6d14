//! A feed file: how it is opened, and what its errors mean.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::begun::{Begun, Supply, begin};
use super::content::Folder;
use super::follow::{FileWatch, Growth};
use super::loaded::{Check, Stop};
use super::other::Given;
use super::packed::Packing;
use super::place::FeedPlace;
use super::routes::{Routes, broken_off};
use super::spool::Spool;
use crate::document::{CollectionName, Position};
use crate::source::{Behind, Mode, SourceError};

/// A file that holds a recorded feed.
#[derive(Debug)]
pub(super) struct FeedFile {
    path: PathBuf,
    name: String,
    collection: CollectionName,
    folder: Folder,
    watch: Mutex<Weak<FileWatch>>,
    /// The text of a compressed file, for all who read it.
    spool: Mutex<Option<Spool>>,
    /// The reading of all its collections.
    together: Mutex<Option<Arc<Routes>>>,
    /// Only one read of its length runs at a time: the disk may hang.
    looks: Arc<Semaphore>,
}

/// A feed file that has been opened.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    /// Its text.
    pub text: Arc<File>,
    /// How the compressed data broke off that the text came from: the text ends there, and nothing
    /// vouches for it.
    pub damage: Option<Arc<str>>,
}

impl FeedFile {
    /// The feed at this path, whose rows belong to `collection` where they do not say otherwise;
    /// without one, to a collection named as the file is, up to its extension.
    pub fn new(path: &Path, collection: Option<CollectionName>) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let text = |part: Option<&OsStr>| {
            part.map_or_else(|| "feed".to_owned(), |part| part.to_string_lossy().into_owned())
        };
        Self {
            name: text(path.file_name()),
            collection: collection.unwrap_or_else(|| text(stem(&path)).into()),
            folder: Folder::new(path.parent().unwrap_or(Path::new("/"))),
            watch: Mutex::default(),
            spool: Mutex::default(),
            together: Mutex::default(),
            looks: Arc::new(Semaphore::new(1)),
            path,
        }
    }

    /// Where it is, from the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The collection of the rows that name none.
    pub fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// The folder beneath which its attachment files are.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where a row is, for people.
    pub fn place(&self, offset: u64) -> String {
        let is_packed = self.spool.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let text = if is_packed { "the text in " } else { "" };
        format!("row at byte {offset} of {text}{}", self.name)
    }

    /// Refuses the file if it is not a feed, or cannot be read in this mode, before anything else is
    /// done. Other errors come when it is read.
    pub fn refuse(&self, mode: Mode) -> Result<(), SourceError> {
        match self.open_packed().and_then(|file| self.judge(&file, mode)) {
            Err(error @ SourceError::NotAFeed { .. }) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Opens it to be read from a place on. It is not judged again: what a followed file begins with
    /// may be half written, or the end of a row that went away with a rotated log.
    pub fn open(&self, mode: Mode, check: Check<'_>) -> Result<Opened, Stop<SourceError>> {
        let file = self.open_packed().map_err(Stop::Failed)?;
        let begun = Begun::unjudged(self.start_of(&file).map_err(Stop::Failed)?);
        self.refuse_packing(begun.packing, mode).map_err(Stop::Failed)?;
        match begun.packing {
            None => Ok(Opened { text: Arc::new(file), damage: None }),
            Some(_) => self.unpack(&file, begun, check),
        }
    }

    /// Opens it again to read something that was found in it.
    pub fn open_again(&self) -> Result<Opened, SourceError> {
        // The caller waits for the document.
        match self.open(Mode::CatchUp, &|| Ok(())) {
            Ok(opened) => Ok(opened),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Abandoned) => Err(broken_off()),
        }
    }

    /// Opens the file as it is on disk. A pipe is refused here, because it cannot be read twice.
    fn open_packed(&self) -> Result<File, SourceError> {
        // Its kind is asked of what was opened. A named pipe must not hold us up before that.
        let mut options = File::options();
        options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let opened = options.open(&self.path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| self.unreadable(&error))?;
        if metadata.is_file() {
            return Ok(file);
        }
        let (what, remedy) = match metadata.is_dir() {
            true => ("a directory", "give a feed file in it"),
            false => ("not a regular file", "pipe it in with `feed:-`"),
        };
        let what =
            format!("{} is {what}, and cannot be read as a feed: {remedy}", self.path.display());
        Err(SourceError::NotAFeed { what })
    }

    /// Reads the beginning, and refuses what is not a feed.
    fn judge(&self, file: &File, mode: Mode) -> Result<(), SourceError> {
        let given = Given { path: Some(&self.path), packing: None };
        // The present end of a file that grows is not its end.
        let supply = if mode == Mode::Follow { Supply::Growing } else { Supply::Whole };
        let begun = begin(self.start_of(file)?, &given, supply, &AtomicBool::default())?;
        self.refuse_packing(begun.packing, mode)
    }

    fn start_of(&self, file: &File) -> Result<FromStart, SourceError> {
        let file = file.try_clone().map_err(|error| self.unreadable(&error))?;
        Ok(FromStart { file, offset: 0 })
    }

    fn refuse_packing(&self, packing: Option<Packing>, mode: Mode) -> Result<(), SourceError> {
        match packing {
            Some(packing) if mode == Mode::Follow => {
                let (path, name) = (self.path.display(), packing.name());
                let what = format!(
                    "{path} holds {name} data, which is not followed as it grows: leave out --live, \
                     or give the plain feed"
                );
                Err(SourceError::NotAFeed { what })
            }
            _ => Ok(()),
        }
    }

    /// The text of a compressed file; decompressed once, unless the file changes.
    fn unpack(
        &self,
        file: &File,
        begun: Begun,
        check: Check<'_>,
    ) -> Result<Opened, Stop<SourceError>> {
        let failed = |error: io::Error| Stop::Failed(self.unreadable(&error));
        let mut held = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        let spool = match held.take() {
            Some(spool) if spool.is_of(file).map_err(failed)? => spool,
            // Its room is given back before the next one takes any.
            outdated => {
                drop(outdated);
                let unreadable = |error: &io::Error| self.unreadable(error);
                Spool::fill(file, begun, &self.path, &unreadable, check)?
            }
        };
        let Spool { text, damage, .. } = spool.clone();
        *held = Some(spool);
        let path = self.path.display();
        let damage = match damage {
            None => None,
            Some(damage) if damage.is_cut() => {
                let rows = format!(
                    "the rows before that were read, but cannot be checked; give the complete feed, and \
                     compare the mirror with `plainfold verify DIR --against feed:{path} --bytes`"
                );
                let advice = damage.advice(Some(&rows));
                Some(format!("the feed file {path} cannot be read to its end: {advice}").into())
            }
            // Any of its rows may be wrong, and would look like the right ones.
            Some(damage) => {
                let advice = damage.advice(None);
                let what = format!("the feed file {path} cannot be read: {advice}");
                return Err(Stop::Failed(SourceError::permanent(what)));
            }
        };
        Ok(Opened { text, damage })
    }

    /// How many bytes come after a position of a collection, or without one; `None` if the file is another
    /// one now, or compressed. Rows of other collections count only while they have not been read.
    pub fn behind(
        &self,
        collection: &CollectionName,
        position: Option<&Position>,
    ) -> Result<Option<Behind>, SourceError> {
        let file = self.open_packed()?;
        let failed = |error| self.unreadable(&error);
        let from = match position {
            None if Begun::unjudged(self.start_of(&file)?).packing.is_some() => return Ok(None),
            None => 0,
            Some(position) => match FeedPlace::of(position) {
                Some(place) if place.stands_in(&file).map_err(failed)? => place.offset,
                _ => return Ok(None),
            },
        };
        let end = self.together().and_then(|routes| routes.end_for(collection, from));
        let from = match end {
            Some(end) if !end.stands_in(&file).map_err(failed)? => return Ok(None),
            end => end.map_or(from, |end| end.offset.max(from)),
        };
        let length = file.metadata().map_err(failed)?.len();
        Ok(Some(Behind::Bytes(length.saturating_sub(from))))
    }

    /// What a failure to read it means.
    pub fn unreadable(&self, error: &io::Error) -> SourceError {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::NotFound => {
                SourceError::missing(format!("feed file {path} does not exist"))
            }
            io::ErrorKind::UnexpectedEof => {
                SourceError::Expired { reason: "the feed file was truncated".to_owned() }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
                SourceError::permanent(format!("feed file {path} cannot be read: {error}"))
            }
            _ => SourceError::transient(format!("feed file {path} cannot be read: {error}")),
        }
    }

    /// The permit to read its length.
    pub fn looks(&self) -> Arc<Semaphore> {
        Arc::clone(&self.looks)
    }

    /// The reading of all its collections, if there is one.
    pub fn together(&self) -> Option<Arc<Routes>> {
        self.together.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on, all its collections are read together by this reading.
    pub fn read_together(&self, routes: &Arc<Routes>) {
        let mut together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        *together = Some(Arc::clone(routes));
    }

    /// Reports when the file grows, from now on.
    pub fn growth(&self) -> Growth {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let running = watch.upgrade().unwrap_or_else(|| FileWatch::start(&self.path));
        *watch = Arc::downgrade(&running);
        running.subscribe()
    }
}

/// A file name up to its extension, and up to that of its compression.
fn stem(path: &Path) -> Option<&OsStr> {
    let stem = path.file_stem();
    let packed = ["gz", "zst", "zstd"];
    let is_packed = |found: &OsStr| packed.iter().any(|one| found.eq_ignore_ascii_case(one));
    match path.extension().is_some_and(is_packed) {
        true => stem.and_then(|stem| Path::new(stem).file_stem()),
        false => stem,
    }
}

/// A file read from its beginning, without moving a cursor that others share.
struct FromStart {
    file: File,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_is_named_without_the_extensions_of_its_file() {
        for (file, name) in [
            ("books.ndjson", "books"),
            ("books.ndjson.gz", "books"),
            ("books.NDJSON.GZ", "books"),
            ("books.gz", "books"),
            ("books.json.zst", "books"),
            ("books.2026.ndjson.zstd", "books.2026"),
            ("books.xz.ndjson", "books.xz"),
            (".gz", ".gz"),
            ("books", "books"),
        ] {
            let feed = FeedFile::new(&Path::new("/feeds").join(file), None);
            assert_eq!(feed.collection().as_str(), name, "{file}");
        }
    }
}

//! A feed file and the source of one of its collections.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::task::JoinHandle;

use super::attachment::{self, blocking};
use super::begun::{Begun, Supply, begin};
use super::content::Folder;
use super::follow::{FileWatch, Growth};
use super::loaded::{Check, Stop};
use super::lookup::look_up;
use super::other::Given;
use super::packed::Packing;
use super::queue::{Budget, Inlet, Outlet, queue};
use super::reader::FileReader;
use super::spool::Spool;
use crate::document::{Attachment, CollectionName, DocumentId, Position, Revision};
use crate::source::{
    Answers, Attachments, ByteStream, Feed, FeedEvent, Mode, Reading, Reads, Since, SourceError,
    Wanted,
};

/// The bytes of events that wait in the queue of a feed's stream.
const FEED_BUDGET: usize = 2 * 1024 * 1024;

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
            Err(Stop::Abandoned) => Err(SourceError::permanent("reading the feed broke off")),
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

/// One collection of a feed file.
#[derive(Debug)]
pub(super) struct FileCollection {
    feed: Arc<FeedFile>,
    collection: CollectionName,
}

impl FileCollection {
    /// The source of a collection. Does no I/O.
    pub fn new(feed: Arc<FeedFile>, collection: CollectionName) -> Self {
        Self { feed, collection }
    }
}

impl Feed for FileCollection {
    fn changes(
        &self,
        since: Since,
        mode: Mode,
    ) -> BoxStream<'static, Result<FeedEvent, SourceError>> {
        let (feed, collection) = (self.feed.clone(), self.collection.clone());
        let follower =
            Follower { stage: Stage::Opening(feed, collection, since), mode, growth: None };
        stream::unfold(follower, Follower::step).flat_map(stream::iter).boxed()
    }

    fn reads(&self) -> Option<&dyn Reads> {
        Some(self)
    }

    fn attachments(&self) -> Option<&dyn Attachments> {
        Some(self)
    }
}

impl Reads for FileCollection {
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>> {
        let Some(position) = position.cloned() else {
            return async { Ok(Reading::Unknown) }.boxed();
        };
        let (feed, collection, id) = (self.feed.clone(), self.collection.clone(), id.clone());
        blocking(move || look_up(&feed, &collection, &id, &position)).boxed()
    }
}

impl Attachments for FileCollection {
    fn stream<'a>(
        &'a self,
        id: &'a DocumentId,
        _revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>> {
        let feed = self.feed.clone();
        let folder = feed.folder().clone();
        attachment::open(id, attachment, folder, move || Ok(feed.open_again()?.text)).boxed()
    }

    fn many<'a>(&'a self, wanted: &'a [Wanted]) -> Answers<'a, Bytes> {
        attachment::collect_all(self, wanted).boxed()
    }
}

/// A feed's stream: bursts of reading on a thread of their own, and waiting between them.
struct Follower {
    stage: Stage,
    mode: Mode,
    growth: Option<Growth>,
}

enum Stage {
    Opening(Arc<FeedFile>, CollectionName, Since),
    Reading(Inlet<Vec<FeedEvent>>, JoinHandle<Result<FileReader, Stop<SourceError>>>),
    Waiting(FileReader),
    Over,
}

impl Stage {
    fn reading(
        job: impl FnOnce(&Outlet<Vec<FeedEvent>>) -> Result<FileReader, Stop<SourceError>>
        + Send
        + 'static,
    ) -> Self {
        let (outlet, inlet) = queue(&Budget::new(FEED_BUDGET));
        Self::Reading(inlet, tokio::task::spawn_blocking(move || job(&outlet)))
    }
}

impl Follower {
    async fn step(mut self) -> Option<(Vec<Result<FeedEvent, SourceError>>, Self)> {
        loop {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Opening(feed, collection, since) => {
                    let mode = self.mode;
                    self.growth = (mode == Mode::Follow).then(|| feed.growth());
                    Stage::reading(move |outlet| {
                        let check = || outlet.check();
                        let mut reader = FileReader::open(feed, collection, since, mode, &check)?;
                        reader.drain(outlet).map(|()| reader)
                    })
                }
                Stage::Reading(mut inlet, task) => match inlet.next().await {
                    Some(events) => {
                        self.stage = Stage::Reading(inlet, task);
                        return Some((events.into_iter().map(Ok).collect(), self));
                    }
                    None => match task.await {
                        Ok(Ok(reader)) if self.mode == Mode::Follow => Stage::Waiting(reader),
                        Ok(Ok(_) | Err(Stop::Abandoned)) => Stage::Over,
                        Ok(Err(Stop::Failed(error))) => return Some(self.end_with(error)),
                        Err(error) => {
                            let what = format!("reading the feed broke off: {error}");
                            return Some(self.end_with(SourceError::permanent(what)));
                        }
                    },
                },
                Stage::Waiting(mut reader) => {
                    if let Some(growth) = &mut self.growth {
                        growth.wait().await;
                    }
                    Stage::reading(move |outlet| reader.drain(outlet).map(|()| reader))
                }
                Stage::Over => return None,
            };
        }
    }

    /// The stage has been taken out and is over.
    fn end_with(self, error: SourceError) -> (Vec<Result<FeedEvent, SourceError>>, Self) {
        (vec![Err(error)], self)
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

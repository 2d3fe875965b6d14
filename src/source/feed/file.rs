//! A feed file and the source of one of its collections.
//!
//! It must not know how a row is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::task::JoinHandle;

use super::attachment::{self, blocking};
use super::content::Folder;
use super::follow::{FileWatch, Growth};
use super::loaded::Stop;
use super::lookup::look_up;
use super::queue::{Budget, Inlet, Outlet, queue};
use super::reader::FileReader;
use crate::document::{Attachment, CollectionName, DocumentId, Position, Revision};
use crate::source::{ByteStream, FeedEvent, Mode, Reading, Since, Source, SourceError, Wanted};

/// The bytes of events that wait for whoever receives a feed.
const FEED_BUDGET: usize = 2 * 1024 * 1024;

/// A file that holds a recorded feed.
#[derive(Debug)]
pub(super) struct FeedFile {
    path: PathBuf,
    name: String,
    collection: CollectionName,
    folder: Folder,
    watch: Mutex<Weak<FileWatch>>,
}

impl FeedFile {
    /// The feed at this path, whose rows belong to `collection` where they do not say otherwise;
    /// without one, to a collection named as the file is, up to its extension.
    pub fn new(path: &Path, collection: Option<CollectionName>) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map_or_else(|| "feed".to_owned(), |part| part.to_string_lossy().into_owned())
        };
        Self {
            name: text(path.file_name()),
            collection: collection.unwrap_or_else(|| text(path.file_stem()).into()),
            folder: Folder::new(path.parent().unwrap_or(Path::new("/"))),
            watch: Mutex::default(),
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

    /// A row's place in words.
    pub fn place(&self, offset: u64) -> String {
        format!("row at byte {offset} of {}", self.name)
    }

    /// Opens it. A pipe is refused here, because it cannot be read twice.
    pub fn open(&self) -> Result<Arc<File>, SourceError> {
        // Its kind is asked of what was opened. A named pipe must not hold us up before that.
        let mut options = File::options();
        options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let opened = options.open(&self.path).and_then(|file| Ok((file.metadata()?, file)));
        match opened.map_err(|error| self.unreadable(&error))? {
            (metadata, file) if metadata.is_file() => Ok(Arc::new(file)),
            _ => {
                let path = self.path.display();
                Err(SourceError::permanent(format!(
                    "{path} is not a file; a feed can be piped in as `feed:-`"
                )))
            }
        }
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

    /// Tells of the file's growth from now on.
    pub fn growth(&self) -> Growth {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let running = watch.upgrade().unwrap_or_else(|| FileWatch::start(&self.path));
        *watch = Arc::downgrade(&running);
        running.subscribe()
    }
}

/// One collection of a feed file.
#[derive(Debug)]
pub(super) struct FileSource {
    feed: Arc<FeedFile>,
    collection: CollectionName,
}

impl FileSource {
    /// The source of a collection. Does no I/O.
    pub fn new(feed: Arc<FeedFile>, collection: CollectionName) -> Self {
        Self { feed, collection }
    }
}

impl Source for FileSource {
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

    fn attachment<'a>(
        &'a self,
        id: &'a DocumentId,
        _revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>> {
        let feed = self.feed.clone();
        let folder = feed.folder().clone();
        attachment::open(id, attachment, folder, move || feed.open()).boxed()
    }

    fn attachments<'a>(
        &'a self,
        wanted: &'a [Wanted],
    ) -> BoxFuture<'a, Result<Vec<Result<Bytes, SourceError>>, SourceError>> {
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

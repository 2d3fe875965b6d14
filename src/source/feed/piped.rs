//! The source of one collection of a piped feed, and the naming of its collections.

use std::future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::attachment;
use super::pipe::{IDLE, Pipe, Piped, Seen};
use super::queue::Inlet;
use crate::document::{Attachment, CollectionName, DocumentId, Position, Revision};
use crate::source::{
    Answers, Attachments, ByteStream, Feed, FeedEvent, Mode, Since, SourceError, StoreEvent, Wanted,
};

/// One collection of a piped feed.
pub(super) struct PipeCollection {
    pipe: Arc<Pipe>,
    collection: CollectionName,
}

impl PipeCollection {
    /// The source of a collection. Does no I/O.
    pub fn new(pipe: Arc<Pipe>, collection: CollectionName) -> Self {
        Self { pipe, collection }
    }
}

impl Feed for PipeCollection {
    fn changes(
        &self,
        since: Since,
        mode: Mode,
    ) -> BoxStream<'static, Result<FeedEvent, SourceError>> {
        let stage = Stage::Opening(self.collection.clone(), since);
        let receiver =
            Receiver { pipe: self.pipe.clone(), mode, stage, scanning: false, news: true };
        stream::unfold(receiver, Receiver::step).flat_map(stream::iter).boxed()
    }

    fn attachments(&self) -> Option<&dyn Attachments> {
        Some(self)
    }
}

impl Attachments for PipeCollection {
    fn stream<'a>(
        &'a self,
        id: &'a DocumentId,
        _revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>> {
        let again = || Err(SourceError::permanent("standard input cannot be read twice"));
        attachment::open(id, attachment, self.pipe.folder().clone(), again).boxed()
    }

    fn many<'a>(&'a self, wanted: &'a [Wanted]) -> Answers<'a, Bytes> {
        attachment::collect_all(self, wanted).boxed()
    }
}

/// A collection's stream.
struct Receiver {
    pipe: Arc<Pipe>,
    mode: Mode,
    stage: Stage,
    /// Whether the end of a scan has yet to be reported.
    scanning: bool,
    /// Whether anything came since the reader last caught up.
    news: bool,
}

enum Stage {
    Opening(CollectionName, Since),
    Reading(Inlet<Piped>),
    /// The pipe has ended, but the stream of a followed feed must not.
    Resting,
    Over,
}

type Step = Option<(Vec<Result<FeedEvent, SourceError>>, Receiver)>;

impl Receiver {
    async fn step(mut self) -> Step {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Opening(collection, since) => {
                    let inlet = self.pipe.take(&collection);
                    match inlet.and_then(|inlet| self.pipe.start().map(|()| inlet)) {
                        Ok(inlet) => self.stage = Stage::Reading(inlet),
                        Err(error) => return Some((vec![Err(error)], self)),
                    }
                    if let Since::Scan(reason) = since {
                        self.scanning = true;
                        return Some((vec![Ok(FeedEvent::ScanStarted { reason })], self));
                    }
                }
                Stage::Reading(inlet) => {
                    if let Some(events) = self.read(inlet).await {
                        return Some((events, self));
                    }
                }
                Stage::Resting => future::pending().await,
                Stage::Over => return None,
            }
        }
    }

    /// The next events, or `None` when nothing has happened but time.
    async fn read(
        &mut self,
        mut inlet: Inlet<Piped>,
    ) -> Option<Vec<Result<FeedEvent, SourceError>>> {
        let piped = if self.news && self.mode == Mode::Follow {
            match timeout(IDLE, inlet.next()).await {
                Ok(piped) => piped,
                Err(_) => {
                    self.stage = Stage::Reading(inlet);
                    // Asked in this order: the place is that of the time when the pipe fell idle.
                    let position = self.pipe.position();
                    return (self.pipe.idle() >= IDLE).then(|| self.caught_up(position));
                }
            }
        } else {
            inlet.next().await
        };
        Some(match piped {
            Some(Piped::Events(events)) => {
                self.news = true;
                self.stage = Stage::Reading(inlet);
                events.into_iter().map(Ok).collect()
            }
            Some(Piped::End(Ok(position))) => {
                if self.mode == Mode::Follow {
                    self.stage = Stage::Resting;
                }
                self.caught_up(position)
            }
            Some(Piped::End(Err(error))) => vec![Err(error)],
            None => vec![Err(SourceError::permanent("reading standard input broke off"))],
        })
    }

    fn caught_up(&mut self, position: Position) -> Vec<Result<FeedEvent, SourceError>> {
        self.news = false;
        let end = if std::mem::take(&mut self.scanning) {
            FeedEvent::ScanFinished { position, exhaustive: false }
        } else {
            FeedEvent::Position(position)
        };
        vec![Ok(end), Ok(FeedEvent::CaughtUp)]
    }
}

/// Names the collections of a piped feed, each when its first row comes. Its source must be opened
/// and read then: the pipe waits for it.
pub(super) fn collections(
    pipe: Arc<Pipe>,
    mode: Mode,
) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
    let seen = pipe.seen();
    let naming = Naming { pipe, mode, seen, named: 0, listed: false, over: false };
    stream::unfold(naming, Naming::step).flat_map(stream::iter).boxed()
}

struct Naming {
    pipe: Arc<Pipe>,
    mode: Mode,
    seen: watch::Receiver<Seen>,
    named: usize,
    listed: bool,
    over: bool,
}

impl Naming {
    async fn step(mut self) -> Option<(Vec<Result<StoreEvent, SourceError>>, Self)> {
        if self.over {
            return None;
        }
        if let Err(error) = self.pipe.start() {
            self.over = true;
            return Some((vec![Err(error)], self));
        }
        loop {
            let (names, ended, failed) = {
                let seen = self.seen.borrow_and_update();
                // Where there are collections, each says so itself.
                let failed = seen.failed.clone().filter(|_| seen.names.is_empty());
                (seen.names[self.named..].to_vec(), seen.ended, failed)
            };
            if let Some(error) = failed {
                self.over = true;
                return Some((vec![Err(error)], self));
            }
            self.named += names.len();
            let mut events: Vec<_> =
                names.into_iter().map(|name| Ok(StoreEvent::Collection(name))).collect();
            let idle = self.mode == Mode::Follow && self.pipe.idle() >= IDLE;
            if !self.listed && events.is_empty() && (ended || idle) {
                self.listed = true;
                events.extend(self.pipe.unmatched().into_iter().map(StoreEvent::Unmatched).map(Ok));
                events.push(Ok(StoreEvent::Listed(None)));
            }
            if !events.is_empty() {
                return Some((events, self));
            }
            if ended && self.mode == Mode::CatchUp {
                return None;
            }
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        // The sender lives as long as the pipe, which we hold.
        if self.listed || self.mode == Mode::CatchUp {
            let _ = self.seen.changed().await;
        } else {
            let _ = timeout(IDLE, self.seen.changed()).await;
        }
    }
}

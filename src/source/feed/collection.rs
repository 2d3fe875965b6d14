//! One collection of a recorded feed: its stream, and the requests that are answered beside it.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};

use super::attachment::{self, blocking};
use super::file::FeedFile;
use super::lookup::look_up;
use super::pipe::{Pipe, read_twice};
use super::place::FeedPlace;
use super::reader::{self, From};
use super::routes::{Attached, Routed, broken_off};
use crate::document::{Attachment, CollectionName, DocumentId, Position, Revision};
use crate::source::{
    Answers, Attachments, Behind, ByteStream, Feed, FeedEvent, Mode, Reading, Reads, Since,
    SourceError, Wanted,
};

/// The shortest time between two reads of a file's length.
const LOOK: Duration = Duration::from_secs(1);

/// Where a feed comes from.
#[derive(Clone)]
pub(super) enum Origin {
    File(Arc<FeedFile>),
    Pipe(Arc<Pipe>),
}

/// One collection of a recorded feed.
pub(super) struct FeedCollection {
    origin: Origin,
    name: CollectionName,
}

impl FeedCollection {
    /// The feed of a collection. Does no I/O.
    pub fn new(origin: Origin, name: CollectionName) -> Self {
        Self { origin, name }
    }
}

impl Feed for FeedCollection {
    fn changes(
        &self,
        since: Since,
        mode: Mode,
    ) -> BoxStream<'static, Result<FeedEvent, SourceError>> {
        let (origin, name) = (self.origin.clone(), self.name.clone());
        let stage = Stage::Opening(From::Since(since.clone()));
        let receiver = Receiver { origin, name, since, mode, stage, scans: false, reached: None };
        stream::unfold(receiver, Receiver::step).flat_map(stream::iter).boxed()
    }

    fn measured_every(&self) -> Option<Duration> {
        matches!(self.origin, Origin::File(_)).then_some(LOOK)
    }

    fn behind<'a>(
        &'a self,
        position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Option<Behind>, SourceError>> {
        let Origin::File(feed) = &self.origin else { return async { Ok(None) }.boxed() };
        let (feed, name, position) = (Arc::clone(feed), self.name.clone(), position.cloned());
        async move {
            // It is never closed.
            let permit = feed.looks().acquire_owned().await.ok();
            let look = move || {
                let _permit = permit;
                feed.behind(&name, position.as_ref())
            };
            blocking(look).await
        }
        .boxed()
    }

    fn reads(&self) -> Option<&dyn Reads> {
        matches!(self.origin, Origin::File(_)).then_some(self)
    }

    fn attachments(&self) -> Option<&dyn Attachments> {
        Some(self)
    }
}

impl Reads for FeedCollection {
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        position: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>> {
        let (Origin::File(feed), Some(position)) = (&self.origin, position.cloned()) else {
            return async { Ok(Reading::Unknown) }.boxed();
        };
        let (feed, name, id) = (Arc::clone(feed), self.name.clone(), id.clone());
        blocking(move || look_up(&feed, &name, &id, &position)).boxed()
    }
}

impl Attachments for FeedCollection {
    fn stream<'a>(
        &'a self,
        id: &'a DocumentId,
        _revision: &'a Revision,
        attachment: &'a Attachment,
    ) -> BoxFuture<'a, Result<ByteStream, SourceError>> {
        let (origin, folder) = match &self.origin {
            Origin::File(feed) => (self.origin.clone(), feed.folder().clone()),
            Origin::Pipe(pipe) => (self.origin.clone(), pipe.folder().clone()),
        };
        let again = move || match origin {
            Origin::File(feed) => Ok(feed.open_again()?.text),
            Origin::Pipe(_) => Err(read_twice()),
        };
        attachment::open(id, attachment, folder, again).boxed()
    }

    fn many<'a>(&'a self, wanted: &'a [Wanted]) -> Answers<'a, Bytes> {
        attachment::collect_all(self, wanted).boxed()
    }
}

/// A collection's stream.
struct Receiver {
    origin: Origin,
    name: CollectionName,
    /// From where it was opened.
    since: Since,
    mode: Mode,
    stage: Stage,
    /// Whether the end of a scan has yet to be reported.
    scans: bool,
    /// The place after all that has been received.
    reached: Option<Position>,
}

enum Stage {
    Opening(From),
    Reading(Attached),
    /// The pipe has ended, but the stream of a followed feed must not.
    Resting,
    Over,
}

type Events = Vec<Result<FeedEvent, SourceError>>;

impl Receiver {
    async fn step(mut self) -> Option<(Events, Self)> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Opening(from) => match self.open(from).await {
                    Ok(attached) => self.stage = Stage::Reading(attached),
                    Err(error) => return Some((vec![Err(error)], self)),
                },
                Stage::Reading(mut attached) => {
                    let Some(items) = attached.inlet.next().await else {
                        return Some((vec![Err(broken_off())], self));
                    };
                    let from = attached.from;
                    self.stage = Stage::Reading(attached);
                    let mut events = Events::new();
                    for item in items {
                        self.take(item, from, &mut events);
                    }
                    if !events.is_empty() {
                        return Some((events, self));
                    }
                }
                Stage::Resting => future::pending().await,
                Stage::Over => return None,
            }
        }
    }

    async fn open(&self, from: From) -> Result<Attached, SourceError> {
        let (origin, name, mode) = (self.origin.clone(), self.name.clone(), self.mode);
        let open = move || match (origin, from) {
            (Origin::File(feed), from) => reader::attach(&feed, &name, from, mode),
            (Origin::Pipe(pipe), From::Since(since)) => pipe.attach(&name, &since, mode),
            (Origin::Pipe(_), From::Again(..)) => Err(read_twice()),
        };
        blocking(open).await
    }

    fn take(&mut self, item: Routed, from: u64, events: &mut Events) {
        // A place that the collection is already past would take it back.
        let is_new =
            |position: &Position| FeedPlace::of(position).is_some_and(|place| place.offset >= from);
        match item {
            Routed::Scan(reason) => {
                self.scans = true;
                events.push(Ok(FeedEvent::ScanStarted { reason }));
            }
            // The collection has it.
            Routed::Row(end, _) if end <= from => {}
            Routed::Row(_, event) => {
                let position = match &event {
                    FeedEvent::Change(change) => change.position.as_ref(),
                    FeedEvent::Unreadable(row) => row.position.as_ref(),
                    _ => None,
                };
                self.reached = position.cloned().or(self.reached.take());
                events.push(Ok(event));
            }
            Routed::Passed(position, progress) => {
                if let Some(position) = position.filter(|one| !self.scans && is_new(one)) {
                    self.reached = Some(position.clone());
                    events.push(Ok(FeedEvent::Position(position)));
                }
                events.push(Ok(FeedEvent::Progress(progress)));
            }
            Routed::End(position, progress) => {
                events.extend(progress.map(FeedEvent::Progress).map(Ok));
                if std::mem::take(&mut self.scans) {
                    self.reached = Some(position.clone());
                    events.push(Ok(FeedEvent::ScanFinished { position, exhaustive: false }));
                } else if is_new(&position) {
                    self.reached = Some(position.clone());
                    events.push(Ok(FeedEvent::Position(position)));
                }
                events.push(Ok(FeedEvent::CaughtUp));
            }
            Routed::Over(Ok(())) if self.mode == Mode::Follow => self.stage = Stage::Resting,
            Routed::Over(Ok(())) => self.stage = Stage::Over,
            Routed::Over(Err(error)) => {
                self.stage = Stage::Over;
                events.push(Err(error));
            }
            Routed::Detached => {
                self.stage = Stage::Opening(match self.reached.clone() {
                    Some(reached) => From::Again(reached, self.scans),
                    None => From::Since(self.since.clone()),
                });
            }
        }
    }
}

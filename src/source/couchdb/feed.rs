//! The change feed of one database as a state machine: read to the end, then followed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::CouchFeed;
use super::bound::Bound;
use super::origin::{Origin, RECREATED, Recent, is_number};
use super::reader::{Heard, Reader};
use super::row::{self, Apart, Row};
use crate::client::couchdb::rows::{Frame, Oversized, Shape};
use crate::client::couchdb::{DatabaseInfo, FeedShape, bounded};
use crate::document::{Anchor, Position, Surface};
use crate::source::{FeedEvent, Holds, Mode, Progress, Since, SourceError, Unreadable};

/// In a catch-up only one row in this many has a position, which makes CouchDB 1.5 times as fast. The rows
/// since the last position are read again if the connection breaks.
const MOST_UNPLACED_ROWS: u64 = 1000;

/// After this many rows of a followed feed, its positions note the last changes again.
const NOTED_FOLLOWING: u64 = 32;

/// The same in a catch-up, where few rows have a position.
const NOTED_CATCHING_UP: u64 = 1000;

/// How many rows are read between two reports of progress.
const PROGRESS_INTERVAL: u64 = 1000;

mod apart;
mod broken;
mod live;
mod opening;

pub(super) use apart::Trust;
pub(super) use broken::Stuck;
pub(super) use live::Live;

/// Opens the feed of a database.
pub(super) fn events(
    source: CouchFeed,
    since: Since,
    mode: Mode,
) -> BoxStream<'static, Result<FeedEvent, SourceError>> {
    let feed = Feed {
        source,
        mode,
        origin: Origin::counting(),
        scan: false,
        token: None,
        last: None,
        recent: Recent::default(),
        noted: 0,
        progress: None,
        fresh: false,
        interval: MOST_UNPLACED_ROWS,
        checked: Instant::now(),
        told: None,
        check_again: false,
        bound: Bound::default(),
        hurried: false,
        opened_at: None,
        heard: live::Heard::default(),
        bare: None,
        ready: VecDeque::new(),
        state: State::Opening(since),
    };
    stream::unfold(feed, |mut feed| async { feed.next().await.map(|event| (event, feed)) }).boxed()
}

/// How far the reading of a feed has come.
enum State {
    /// Nothing has been requested yet.
    Opening(Since),
    /// A normal feed is open and is read to its end.
    CatchingUp(Box<CatchUp>),
    /// Everything up to `Feed::token` has been read, and no feed is open.
    AtEnd,
    /// A continuous feed is open.
    Following(Box<Reader>),
    /// The stream has ended.
    Over,
}

/// A normal feed that is being read.
struct CatchUp {
    reader: Reader,
    /// The position whose own row must come first, if the feed was opened just before it.
    recognise: Option<Position>,
    /// `Some` if it is read because a proxy would hold back a continuous feed: whether it brought a row.
    poll: Option<bool>,
}

struct Feed {
    source: CouchFeed,
    mode: Mode,
    origin: Origin,
    /// Whether the feed is read as a full listing.
    scan: bool,
    /// The last position that the feed gave.
    token: Option<Arc<str>>,
    /// The last change that the feed brought.
    last: Option<Anchor>,
    /// The last changes.
    recent: Recent,
    /// The number of changes when they were last noted within the feed.
    noted: u64,
    /// How far a feed from the beginning is.
    progress: Option<Progress>,
    /// Whether rows have come since we were last caught up.
    fresh: bool,
    /// How many rows of a catch-up stand between two that tell their place.
    interval: u64,
    /// When the database was last asked whether it is still the same.
    checked: Instant,
    /// The database's `update_seq` in its last answer.
    told: Option<Box<str>>,
    /// Whether the counts are to be read again, because something was written meanwhile.
    check_again: bool,
    /// How much a catch-up may bring.
    bound: Bound,
    /// Whether the last document that was read apart took too long.
    hurried: bool,
    /// The position from which the feed was last opened.
    opened_at: Option<Arc<str>>,
    /// What a continuous feed has brought.
    heard: live::Heard,
    /// Of a feed without bodies: how many rows of it are still read.
    bare: Option<u32>,
    /// Events that are yielded before anything else is done.
    ready: VecDeque<FeedEvent>,
    state: State,
}

impl Feed {
    async fn next(&mut self) -> Option<Result<FeedEvent, SourceError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            // An error leaves the state as it is now: over.
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return None,
                state => match self.step(state).await {
                    Ok(state) => self.state = state,
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }

    async fn step(&mut self, state: State) -> Result<State, SourceError> {
        match state {
            State::Opening(Since::Start) => self.read_all().await,
            State::Opening(Since::Scan(reason)) => {
                self.scan = true;
                self.ready.push_back(FeedEvent::ScanStarted { reason });
                self.read_all().await
            }
            State::Opening(Since::Position(position)) => {
                self.token = Some(position.token().into());
                self.last = position.anchor().cloned();
                self.recent = Recent::at(&position);
                if is_number(position.token()) {
                    self.resume_counting(position).await
                } else {
                    self.resume(position).await
                }
            }
            State::CatchingUp(open) => match self.catch_up(open).await {
                Err(error) if self.may_continue(&error) => self.continue_scan(error).await,
                caught_up => caught_up,
            },
            State::AtEnd if self.source.live.is_held_back() => self.poll().await,
            State::AtEnd => {
                let followed = self.follow().await;
                self.learn(followed)
            }
            State::Following(reader) => {
                let followed = self.go_on(reader).await;
                self.learn(followed)
            }
            State::Over => Ok(State::Over),
        }
    }

    /// Lets positions within the feed note the last changes, if that many have come since they last did.
    fn note(&mut self, rows: u64) {
        if self.recent.newest() >= self.noted.saturating_add(rows) {
            self.noted = self.recent.newest();
            self.origin.remember(&self.recent);
        }
    }

    async fn catch_up(&mut self, mut open: Box<CatchUp>) -> Result<State, SourceError> {
        match open.reader.hear(None).await? {
            Heard::Frame(Frame::Row(bytes)) => {
                let row = self.read(&open.reader, &bytes)?;
                self.take(open, row).await
            }
            Heard::Frame(Frame::Oversized(row)) => {
                let row = self.large(&open.reader, row);
                self.take(open, row).await
            }
            Heard::Frame(Frame::Tail(tail)) if open.poll.is_some() => {
                self.polled(&open, &tail).await
            }
            Heard::Frame(Frame::Tail(tail)) => {
                if open.recognise.is_some() {
                    let reason = format!("the feed ends before the position: {RECREATED}");
                    return Err(SourceError::Expired { reason });
                }
                self.finish(&open.reader, &tail)?;
                // The feed is complete. Reading its end lets the connection be used again; anything
                // after it does not matter.
                let _ = open.reader.hear(Some(self.source.timings.quiet)).await;
                self.count().await;
                self.ready.push_back(FeedEvent::CaughtUp);
                Ok(self.caught_up())
            }
            Heard::Frame(Frame::Blank) | Heard::Quiet => Ok(State::CatchingUp(open)),
            Heard::End => Err(open.reader.failed("the feed ended without `last_seq`")),
        }
    }

    /// Takes a row of a normal feed.
    async fn take(&mut self, mut open: Box<CatchUp>, row: Row) -> Result<State, SourceError> {
        if let Some(reason) = self.bound.passed_by(&row, self.origin.counts()) {
            let what = format!("{}: {reason}", self.source.database.url());
            return Err(SourceError::permanent(what));
        }
        if let Some(position) = open.recognise.take()
            && self.recognises(&row, &position).await?
        {
            return Ok(State::CatchingUp(open));
        }
        if let Some(brought) = &mut open.poll {
            *brought = true;
        }
        let row = self.completed(row);
        self.deliver(&open.reader, row).await?;
        self.note(NOTED_CATCHING_UP);
        if self.is_past_bare() {
            return self.clothe().await;
        }
        Ok(State::CatchingUp(open))
    }

    /// The end of a normal feed.
    fn finish(&mut self, reader: &Reader, tail: &Bytes) -> Result<(), SourceError> {
        #[derive(serde::Deserialize)]
        struct Tail<'a> {
            #[serde(borrow)]
            last_seq: Option<&'a RawValue>,
        }
        let tail: Tail<'_> = serde_json::from_slice(tail)
            .map_err(|error| reader.failed(format!("the feed's end is not JSON: {error}")))?;
        let Some(last_seq) = tail.last_seq else {
            return Err(reader.failed("the feed ended without `last_seq`"));
        };
        if last_seq.get().len() > row::LONGEST_PLACE {
            return Err(reader.failed("the feed's `last_seq` is longer than any URL"));
        }
        // If positions are numbers, this must be that of a row, which is looked for later.
        let own = self.token.take().filter(|_| self.origin.counts());
        let token = own.unwrap_or_else(|| last_seq.get().into());
        let position = self.origin.at_end(token.clone(), self.last.clone(), &self.recent);
        self.token = Some(token);
        self.source.trust.renew();
        self.source.stuck.clear();
        self.bare = None;
        if let Some(Progress { done, .. }) = self.progress.take() {
            self.ready.push_back(FeedEvent::Progress(Progress { done, total: done }));
        }
        self.ready.push_back(if std::mem::take(&mut self.scan) {
            FeedEvent::ScanFinished { position, exhaustive: true }
        } else {
            FeedEvent::Position(position)
        });
        Ok(())
    }

    /// Requests the number of documents, at the end of the feed. If that fails, nothing is compared.
    async fn count(&mut self) {
        if self.origin.counts() {
            return;
        }
        match self.source.database.info().await {
            Ok(info) => _ = self.compare_end(&info),
            Err(error) => tracing::debug!(%error, "the database could not be asked for its counts"),
        }
    }

    /// Reports what the database holds, if its `update_seq` is still the one of its last answer: then nothing
    /// was written in between. Returns whether it is.
    fn compare_end(&mut self, info: &DatabaseInfo) -> bool {
        let now = info.update_seq.get();
        let same = self.told.as_deref() == Some(now);
        // pouchdb-server's counts are not reliable.
        if same && !self.origin.counts() && !is_number(now) {
            let (documents, tombstones) = (info.doc_count, info.doc_del_count);
            self.ready.push_back(FeedEvent::Holds(Holds { documents, tombstones }));
        }
        self.told = Some(now.into());
        same
    }

    fn caught_up(&self) -> State {
        match self.mode {
            Mode::CatchUp => State::Over,
            Mode::Follow => State::AtEnd,
        }
    }

    /// Opens a continuous feed from the last position.
    async fn follow(&mut self) -> Result<State, SourceError> {
        let heartbeat = self.source.live.heartbeat(self.source.timings.heartbeat);
        self.heard = live::Heard::default();
        let feed = FeedShape::Continuous { heartbeat };
        let body = self.ask_for(self.token.as_deref(), feed).await?;
        self.checked = Instant::now();
        Ok(State::Following(Box::new(Reader::new(&self.source.database, body, Shape::Continuous))))
    }

    async fn go_on(&mut self, mut reader: Box<Reader>) -> Result<State, SourceError> {
        let quiet = self.fresh.then_some(self.source.timings.quiet);
        match reader.hear(quiet).await? {
            Heard::Quiet => self.be_current(),
            Heard::Frame(Frame::Blank) => {
                self.heard.beat();
                self.check().await?;
                self.be_current();
            }
            Heard::Frame(Frame::Row(bytes)) => match self.read(&reader, &bytes)? {
                Row::End(last_seq) => return self.closed(last_seq).await,
                row => self.follow_up(&reader, row).await?,
            },
            Heard::Frame(Frame::Oversized(row)) => {
                let row = self.large(&reader, row);
                self.follow_up(&reader, row).await?;
            }
            Heard::Frame(Frame::Tail(_)) | Heard::End => {
                return Err(reader.failed("the connection ended without the feed's closing row"));
            }
        }
        Ok(State::Following(reader))
    }

    /// Takes a row of a followed feed.
    async fn follow_up(&mut self, reader: &Reader, row: Row) -> Result<(), SourceError> {
        self.fresh = true;
        self.heard.row();
        self.deliver(reader, row).await?;
        self.note(NOTED_FOLLOWING);
        Ok(())
    }

    fn be_current(&mut self) {
        self.fresh = false;
        self.ready.push_back(FeedEvent::CaughtUp);
    }

    /// The server ended a continuous feed normally. It may be about to stop, or the database was deleted.
    /// The database that answers now may be another one.
    async fn closed(&mut self, last_seq: Option<Arc<str>>) -> Result<State, SourceError> {
        let info = self.source.database.info().await?;
        if let Some(reason) = self.origin.has_changed(&info, self.token.as_deref()) {
            return Err(SourceError::Expired { reason });
        }
        self.verify().await?;
        self.token = last_seq.or_else(|| self.token.take());
        tokio::time::sleep(self.source.timings.reopen).await;
        Ok(State::AtEnd)
    }

    /// Checks now and then that the database is still the same: pouchdb-server keeps the feed of a deleted
    /// database open in silence, and a purge leaves no row.
    async fn check(&mut self) -> Result<(), SourceError> {
        let again = std::mem::take(&mut self.check_again);
        if !again && self.checked.elapsed() < self.source.timings.check {
            return Ok(());
        }
        self.checked = Instant::now();
        let info = match self.source.database.info().await {
            Ok(info) => info,
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "the database could not be asked; the feed still lives");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(reason) = self.origin.has_changed(&info, self.token.as_deref()) {
            return Err(SourceError::Expired { reason });
        }
        match self.verify().await {
            Err(error @ SourceError::Transient { .. }) => {
                tracing::debug!(%error, "the last change could not be verified; the feed still lives");
                return Ok(());
            }
            verified => verified?,
        }
        // In a database that is written all the time, two requests in quick succession may still
        // find no write between them.
        self.check_again = !self.compare_end(&info) && !again;
        Ok(())
    }

    fn read(&self, reader: &Reader, bytes: &Bytes) -> Result<Row, SourceError> {
        let error = match row::read(bytes, &self.origin, || reader.place()) {
            Ok(row) => return Ok(row),
            Err(error) => error.to_string(),
        };
        let surface = Surface::of(bytes);
        if surface.id.is_none() && self.source.trust.doubts() {
            return Err(reader.failed(format!("{} is not JSON: {error}", reader.place())));
        }
        Ok(row::skimmed(surface, Apart::NotJson(error), &self.origin, reader.place()))
    }

    /// Reads what is known of a row that was too large to be held.
    fn large(&self, reader: &Reader, row: Oversized) -> Row {
        let Oversized { surface, length } = row;
        row::skimmed(surface, Apart::TooLarge(length), &self.origin, reader.place())
    }

    /// Whether ids that begin with `_local/` are local to the server, so that no replication copies them. In
    /// an exposed RxDB they are ordinary documents.
    fn keeps_local_documents(&self) -> bool {
        let end = self.told.as_deref().unwrap_or_default().trim_matches('"');
        let number = end.split_once('-').map(|(number, _)| number);
        self.origin.counts() || number.is_some_and(|number| number.parse::<u64>().is_ok())
    }

    /// Makes a row ready to be yielded.
    async fn deliver(&mut self, reader: &Reader, row: Row) -> Result<(), SourceError> {
        if let Some(position) = row.position() {
            self.token = Some(position.token().into());
        }
        if let Some(anchor) = row.anchor() {
            self.recent.push(anchor.clone());
            self.last = Some(anchor);
        }
        let local = row.is_local() && self.keeps_local_documents();
        let event = match row {
            _ if local => match row.position().filter(|_| !self.scan) {
                Some(position) => FeedEvent::Position(position.clone()),
                None => return Ok(()),
            },
            Row::Change(change) => FeedEvent::Change(change),
            Row::Bodiless(bodiless) => self.fetch(reader, bodiless).await?,
            Row::Unreadable(row) => {
                let reason = bounded(&self.source.database.scrub(&row.reason));
                // A row with neither an id nor a position would be forgotten once the feed is past it.
                let before = self.token.clone().filter(|_| row.id.is_none());
                let before = || before.map(|token| self.origin.within(token, self.last.clone()));
                let position = row.position.or_else(before);
                FeedEvent::Unreadable(Unreadable { reason, position, ..row })
            }
            Row::End(_) => return Err(reader.failed("the feed ended in its middle")),
            Row::Failure { error, reason } => return Err(self.failure(reader, &error, &reason)),
        };
        self.ready.push_back(event);
        if let Some(progress) = &mut self.progress {
            progress.done += 1;
            progress.total = progress.total.max(progress.done);
            if progress.done % PROGRESS_INTERVAL == 0 {
                self.ready.push_back(FeedEvent::Progress(*progress));
            }
        }
        Ok(())
    }

    /// The error for a server that gave up within a feed.
    fn failure(&self, reader: &Reader, error: &str, reason: &str) -> SourceError {
        let said = self.source.database.scrub(&format!("{error}: {reason}"));
        let said = format!("the server says {}", bounded(&said));
        let words = format!("{error} {reason}").to_lowercase();
        if words.contains("no_db_file") || words.contains("database does not exist") {
            let what = format!("database `{}` is gone: {said}", self.source.database.name());
            SourceError::Missing { what }
        } else if words.contains("malformed sequence") {
            SourceError::Expired { reason: said }
        } else if matches!(error, "unauthorized" | "forbidden") {
            SourceError::Refused { what: format!("{}: {said}", self.source.database.url()) }
        } else {
            reader.failed(said)
        }
    }
}

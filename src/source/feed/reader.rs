//! Reads a feed file, from a place to the file's present end, again and again as the file grows: for
//! all its collections at once, for one of them, or for their names.
//!
//! Blocking: each reading has a thread.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::begun::no_thread;
use super::file::{FeedFile, Opened};
use super::follow::Growth;
use super::lines::Lines;
use super::loaded::{SHORT_LINE, Stop, fill};
use super::names::{Announced, Names};
use super::place::FeedPlace;
use super::queue::{Budget, Inlet, queue};
use super::router::{LineReading, Purpose, Router};
use super::routes::{Attached, BrokenOff, REPLACED, Routed, Routes, broken_off};
use super::rows::Rows;
use crate::document::{CollectionName, Position};
use crate::source::{Mode, Progress, Selection, Since, SourceError};

/// After this number of bytes, a long reading reports its progress.
const PROGRESS: u64 = 1024 * 1024;

/// The same for each collection: each of them commits its place.
const PROGRESS_OF_EACH: u64 = 64 * 1024;

/// How long a followed file may be away while somebody replaces it.
const GONE: Duration = Duration::from_secs(5);

/// The bytes of events that wait for one collection.
const EACH: usize = 2 * 1024 * 1024;

/// The bytes of events that wait for all collections of a file together.
const TOGETHER: usize = 16 * 1024 * 1024;

/// The bytes of names that wait in the queue of their stream.
const NAMES: usize = 64 * 1024;

/// From where a collection is read.
#[derive(Clone, Debug)]
pub(super) enum From {
    /// From where the caller says.
    Since(Since),
    /// It was detached: from the last row that it has. A scan continues.
    Again(Position, bool),
}

/// The rows of a collection: of the reading of all collections if it brings them, else apart.
pub(super) fn attach(
    feed: &Arc<FeedFile>,
    collection: &CollectionName,
    from: From,
    mode: Mode,
) -> Result<Attached, SourceError> {
    if let (From::Since(since), Some(routes)) = (&from, feed.together()) {
        let attached = routes.attach(collection, since, mode);
        if let Some(attached) = attached.map_err(|error| feed.unreadable(&error))? {
            return Ok(attached);
        }
    }
    let (routes, inlet) = Routes::apart(mode, EACH, collection);
    let (feed, collection) = (Arc::clone(feed), collection.clone());
    start(move || Reader::new(feed, Purpose::Apart, routes, None).read_apart(&collection, &from))?;
    Ok(Attached { inlet, from: 0 })
}

/// Names the collections of a file, and reads them together if `reads`.
pub(super) fn list(
    feed: Arc<FeedFile>,
    selection: Selection,
    mode: Mode,
    since: Option<Position>,
    reads: bool,
) -> Result<Inlet<Announced>, SourceError> {
    let (out, inlet) = queue(&Budget::new(NAMES));
    let names = Names::new(feed.collection().clone(), selection, true, out);
    let routes = Routes::new(mode, true, Budget::growing(EACH, TOGETHER));
    let purpose = if reads { Purpose::Together } else { Purpose::Names };
    let reader = Reader::new(feed, purpose, routes, Some(names));
    if reads {
        reader.feed.read_together(&reader.router.routes);
    }
    let broken_off = BrokenOff(Arc::clone(&reader.router.routes));
    start(move || {
        let _broken_off = broken_off;
        reader.read_all(since);
    })?;
    Ok(inlet)
}

/// Nothing that a reading waits for may hold up the runtime's own threads.
fn start(work: impl FnOnce() + Send + 'static) -> Result<(), SourceError> {
    let thread = std::thread::Builder::new().name("feed file".to_owned());
    thread.spawn(work).map(drop).map_err(|error| no_thread(&error))
}

/// A thread's own side.
struct Reader {
    feed: Arc<FeedFile>,
    mode: Mode,
    router: Router,
    growth: Option<Growth>,
    /// Whether the file has been opened, and what was known announced.
    is_open: bool,
}

type Failing = Stop<SourceError>;

impl Reader {
    fn new(feed: Arc<FeedFile>, purpose: Purpose, routes: Routes, names: Option<Names>) -> Self {
        let mode = routes.mode();
        let growth = (mode == Mode::Follow).then(|| feed.growth());
        let router = Router::new(purpose, Arc::new(routes), names);
        Self { feed, mode, router, growth, is_open: false }
    }

    fn failed(&self, stop: Stop<io::Error>) -> Failing {
        match stop {
            Stop::Abandoned => Stop::Abandoned,
            Stop::Failed(error) => Stop::Failed(self.feed.unreadable(&error)),
        }
    }

    fn open(&self) -> Result<Opened, Failing> {
        self.feed.open(self.mode, &|| self.router.check())
    }

    fn rows(&self, opened: &Opened) -> Rows {
        let (feed, file) = (Arc::clone(&self.feed), Arc::clone(&opened.text));
        let (unnamed, folder) = (feed.collection().clone(), feed.folder().clone());
        let place = move |offset| feed.place(offset);
        Rows::new(Some(file), unnamed, folder, place, opened.damage.is_none())
    }

    fn wait(&mut self) {
        if let Some(growth) = &mut self.growth {
            growth.wait();
        }
    }

    /// Reads one collection.
    fn read_apart(mut self, collection: &CollectionName, from: &From) {
        let result = match self.read_one(collection, from) {
            Ok(()) => Ok(()),
            Err(Stop::Abandoned) => return,
            Err(Stop::Failed(error)) => Err(error),
        };
        // In a followed file, the reading of all collections has taken over.
        if result.is_err() || self.mode == Mode::CatchUp {
            self.router.routes.close(&result);
        }
    }

    fn read_one(&mut self, collection: &CollectionName, from: &From) -> Result<(), Failing> {
        let opened = self.open()?;
        let stands = |position: &Position| match FeedPlace::of(position) {
            Some(place) => Ok(place.stands_in(&opened.text)?.then_some(place.offset)),
            None => Ok(None),
        };
        let stands = |position| stands(position).map_err(|stop| self.failed(Stop::Failed(stop)));
        let (offset, scans, reason) = match from {
            From::Since(Since::Start) => (0, false, None),
            From::Since(Since::Scan(reason)) => (0, true, Some(reason.clone())),
            From::Since(Since::Position(position)) => match stands(position)? {
                Some(offset) => (offset, false, None),
                None => (0, true, Some(REPLACED.to_owned())),
            },
            From::Again(position, scans) => match stands(position)? {
                Some(offset) => (offset, *scans, None),
                None => return Err(expired("was replaced while it was followed")),
            },
        };
        let mut rows = self.rows(&opened);
        if scans {
            let ours = |name: &str| name == collection.as_str();
            let found = rows.find_graves(&ours, self.mode, &|| self.router.check());
            found.map_err(|stop| self.failed(stop))?;
        }
        if let Some(reason) = reason {
            let (routes, check) = (&self.router.routes, || self.router.check());
            routes.send(collection, vec![Routed::Scan(reason)], 0, false, &check)?;
        }
        self.router.routes.begin(offset);
        self.follow(Text::new(rows, opened, offset), Some(collection))
    }

    /// Names all collections, and reads those that are wanted. While following, it continues after a
    /// failure, which the collections receive.
    fn read_all(mut self, mut since: Option<Position>) {
        let mut why = None;
        loop {
            let error = match self.read_together(since.take(), why.take()) {
                Ok(()) => return self.router.routes.close(&Ok(())),
                Err(Stop::Abandoned) => return self.router.routes.fail(&broken_off()),
                Err(Stop::Failed(error)) => error,
            };
            let Some(names) = &mut self.router.names else { return };
            let is_known = names.listed || !names.wanted().is_empty();
            let ends = !is_known && !matches!(error, SourceError::Expired { .. });
            if self.mode == Mode::CatchUp || ends {
                self.router.routes.close(&Err(error.clone()));
                // Where there are collections, each says so itself.
                return match is_known && self.mode == Mode::CatchUp {
                    true => _ = names.list(0, None),
                    false => names.fail(error),
                };
            }
            match error {
                SourceError::Expired { .. } => why = Some(error),
                error => {
                    self.router.routes.fail(&error);
                    self.wait();
                    if self.router.check().is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn read_together(
        &mut self,
        since: Option<Position>,
        why: Option<SourceError>,
    ) -> Result<(), Failing> {
        self.router.forget();
        let opened = self.open()?;
        let mut offset = 0;
        if let Some(names) = &mut self.router.names {
            let known = names.resume(since, &opened.text);
            offset = known.map_err(|error| Stop::Failed(self.feed.unreadable(&error)))?;
        }
        if self.router.names.as_ref().is_some_and(Names::wait) {
            offset = self.choose(&opened, offset).map_err(|stop| self.failed(stop))?;
        }
        let routes = Arc::clone(&self.router.routes);
        let reads = self.router.purpose == Purpose::Together;
        let wanted = self.router.names.as_ref().map(Names::wanted).unwrap_or_default();
        routes.open(&opened.text, if reads { &wanted } else { &[] }, why.as_ref());
        if !std::mem::replace(&mut self.is_open, true)
            && let Some(names) = &self.router.names
        {
            for name in &wanted {
                names.announce(name)?;
            }
        }
        let (first, scans) = routes.gather(&|| self.router.check())?;
        let mut rows = self.rows(&opened);
        if !scans.is_empty() {
            let scans = |name: &str| scans.contains(name);
            let found = rows.find_graves(&scans, self.mode, &|| self.router.check());
            found.map_err(|stop| self.failed(stop))?;
        }
        offset = first.map_or(offset, |first| first.min(offset));
        routes.begin(offset);
        self.follow(Text::new(rows, opened, offset), None)
    }

    /// Reads the names to the present end, where a selection cannot decide without all of them.
    /// Returns that end.
    fn choose(&mut self, opened: &Opened, offset: u64) -> Result<u64, Stop<io::Error>> {
        let (rows, lines) = (self.rows(opened), Lines::new(offset, SHORT_LINE));
        let mut reading = LineReading { rows, lines };
        loop {
            reading.take_lines(&mut self.router)?;
            if fill(&opened.text, &mut reading.lines)? == 0 {
                break;
            }
        }
        if self.mode == Mode::CatchUp {
            reading.take_rest(&mut self.router)?;
        }
        if let Some(names) = &mut self.router.names {
            names.choose();
        }
        Ok(reading.lines.position())
    }

    /// Reads to the present end, and while following again and again. It ends while following if
    /// another reading has taken over the collection that is read `apart`.
    fn follow(&mut self, mut text: Text, apart: Option<&CollectionName>) -> Result<(), Failing> {
        loop {
            self.drain(&mut text)?;
            if self.mode == Mode::CatchUp {
                return Ok(());
            }
            if let (Some(name), Some(place), Some(routes)) =
                (apart, &text.reported, self.feed.together())
                && let Some(outlet) = self.router.routes.outlet(name)
                && routes.adopt(name, place, &outlet)
            {
                return Ok(());
            }
            self.wait();
            self.router.check()?;
        }
    }

    fn drain(&mut self, text: &mut Text) -> Result<(), Failing> {
        self.check_contents(text)?;
        self.read(text).map_err(|stop| self.failed(stop))?;
        if let Some(damage) = &text.opened.damage {
            return Err(Stop::Failed(SourceError::permanent(damage.to_string())));
        }
        self.check_identity(text)
    }

    fn read(&mut self, text: &mut Text) -> Result<(), Stop<io::Error>> {
        loop {
            text.reading.take_lines(&mut self.router)?;
            if text.reading.lines.position() >= text.progress_due {
                self.report_progress(text)?;
            }
            if fill(&text.opened.text, &mut text.reading.lines)? == 0 {
                break;
            }
        }
        if text.opened.damage.is_some() {
            // What is missing may be the rest of a row, or many rows: this is not the feed's end.
            self.router.routes.passed(None, text.progress()?);
            return Ok(());
        }
        if self.mode == Mode::CatchUp {
            text.reading.take_rest(&mut self.router)?;
        }
        self.finish(text)
    }

    /// Reports how far the file has been read. The next run may resume here, because the rows of
    /// other collections need nothing to be written.
    fn report_progress(&mut self, text: &mut Text) -> Result<(), Stop<io::Error>> {
        let done = text.reading.lines.position();
        let each = (self.router.routes.count() as u64).saturating_mul(PROGRESS_OF_EACH);
        text.progress_due = done + each.max(PROGRESS);
        let position = match text.opened.damage {
            None => Some(text.reading.rows.position_at(done)?),
            Some(_) => None,
        };
        self.router.routes.passed(position.as_ref(), text.progress()?);
        Ok(())
    }

    fn finish(&mut self, text: &mut Text) -> Result<(), Stop<io::Error>> {
        let offset = text.reading.lines.position();
        if text.reported.as_ref().is_some_and(|place| place.offset == offset) {
            return Ok(());
        }
        let position = text.reading.rows.position_at(offset)?;
        text.reported = FeedPlace::of(&position);
        text.reading.rows.forget_graves();
        self.router.routes.end(&position, Some(text.progress()?));
        if let Some(names) = &mut self.router.names {
            names.list(offset, Some(&text.opened.text))?;
        }
        Ok(())
    }

    /// Whether the file still holds what was read earlier.
    fn check_contents(&self, text: &Text) -> Result<(), Failing> {
        let Some(place) = &text.reported else { return Ok(()) };
        match place.stands_in(&text.opened.text) {
            Ok(true) => Ok(()),
            Ok(false) => Err(expired("was truncated or overwritten while it was followed")),
            Err(error) => Err(self.failed(Stop::Failed(error))),
        }
    }

    /// Whether the path still leads to the file that was read, now that all of it has been read.
    fn check_identity(&self, text: &mut Text) -> Result<(), Failing> {
        if self.mode == Mode::CatchUp {
            return Ok(());
        }
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match std::fs::metadata(self.feed.path()).map(inode) {
            Err(_) if text.gone_since.get_or_insert_with(Instant::now).elapsed() < GONE => Ok(()),
            Err(error) => Err(Stop::Failed(self.feed.unreadable(&error))),
            Ok(found) => {
                text.gone_since = None;
                match text.opened.text.metadata().map(inode) {
                    Ok(ours) if ours == found => Ok(()),
                    Ok(_) => Err(expired("was replaced while it was followed")),
                    Err(error) => Err(self.failed(Stop::Failed(error))),
                }
            }
        }
    }
}

/// A file that is being read.
struct Text {
    opened: Opened,
    reading: LineReading,
    /// The place that was last reported; nothing has been before the first reading.
    reported: Option<FeedPlace>,
    progress_due: u64,
    gone_since: Option<Instant>,
}

impl Text {
    fn new(rows: Rows, opened: Opened, offset: u64) -> Self {
        let reading = LineReading { rows, lines: Lines::new(offset, SHORT_LINE) };
        let progress_due = offset + PROGRESS;
        Self { opened, reading, reported: None, progress_due, gone_since: None }
    }

    fn progress(&self) -> io::Result<Progress> {
        let done = self.reading.lines.position();
        let total = self.opened.text.metadata()?.len().max(done);
        Ok(Progress { done, total })
    }
}

fn expired(what: &str) -> Failing {
    Stop::Failed(SourceError::Expired { reason: format!("the feed file {what}") })
}

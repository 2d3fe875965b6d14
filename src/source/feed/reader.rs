//! Reads one collection out of a feed file, from a place to the file's present end, again and
//! again as the file grows.
//!
//! Blocking.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::file::{FeedFile, Opened};
use super::lines::Lines;
use super::loaded::{Check, Loaded, SHORT_LINE, Stop, fill};
use super::place::Place;
use super::queue::Outlet;
use super::rows::{Batch, Rows};
use crate::document::CollectionName;
use crate::source::{FeedEvent, Mode, Progress, Since, SourceError, Unreadable};

/// After this number of bytes, a long reading reports its progress.
const PROGRESS: u64 = 1024 * 1024;

/// How long a followed file may be away while somebody replaces it.
const GONE: Duration = Duration::from_secs(5);

/// One collection's reading of a feed file.
pub(super) struct FileReader {
    rows: Rows,
    mode: Mode,
    lines: Lines,
    /// Why this is a scan, until that has been reported.
    announce: Option<String>,
    /// Whether a scan is under way.
    scanning: bool,
    /// The place that was last reported; nothing has been before the first reading.
    reported: Option<Place>,
    progress_due: u64,
    gone_since: Option<Instant>,
    /// Why the feed ends before its time.
    damage: Option<Arc<str>>,
}

impl FileReader {
    /// Opens the file where `since` says; at its beginning if it is not the file it was.
    pub fn open(
        feed: Arc<FeedFile>,
        collection: CollectionName,
        since: Since,
        mode: Mode,
        check: Check<'_>,
    ) -> Result<Self, Stop<SourceError>> {
        let failed = |error| Stop::Failed(feed.unreadable(&error));
        let Opened { text: file, damage } = feed.open(mode, check)?;
        let (offset, announce) = match since {
            Since::Start => (0, None),
            Since::Scan(reason) => (0, Some(reason)),
            Since::Position(position) => match Place::of(&position) {
                Some(place) if place.stands_in(&file).map_err(failed)? => (place.offset, None),
                _ => (0, Some("the feed file was replaced since the last run".to_owned())),
            },
        };
        let mut reader = Self {
            rows: Rows::new(feed, file, collection, damage.is_none()),
            mode,
            lines: Lines::new(offset, SHORT_LINE),
            scanning: announce.is_some(),
            announce,
            reported: None,
            progress_due: offset + PROGRESS,
            gone_since: None,
            damage,
        };
        if reader.scanning {
            let found = reader.rows.find_graves(mode, check);
            found.map_err(|stop| reader.failed(stop))?;
        }
        Ok(reader)
    }

    /// Reads to the file's present end and sends what it finds.
    pub fn drain(&mut self, outlet: &Outlet<Vec<FeedEvent>>) -> Result<(), Stop<SourceError>> {
        let mut batch = Batch::new(outlet);
        self.check_contents()?;
        if let Some(reason) = self.announce.take() {
            batch.push(FeedEvent::ScanStarted { reason })?;
        }
        self.read(&mut batch).map_err(|stop| self.failed(stop))?;
        batch.flush()?;
        if let Some(damage) = &self.damage {
            return Err(Stop::Failed(SourceError::permanent(damage.to_string())));
        }
        self.check_identity()
    }

    fn read(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop<io::Error>> {
        loop {
            while let Some(line) = self.lines.take() {
                self.rows.line(line, batch)?;
            }
            batch.outlet().check()?;
            if self.lines.position() >= self.progress_due {
                self.report_progress(batch)?;
            }
            if fill(self.rows.file(), &mut self.lines)? == 0 {
                break;
            }
        }
        if self.damage.is_some() {
            // What is missing may be the rest of a row, or many rows: this is not the feed's end.
            return batch.push(self.progress()?);
        }
        if self.mode == Mode::CatchUp {
            self.read_rest(batch)?;
        }
        self.finish(batch)
    }

    /// The last line of a file that does not grow may lack its newline.
    fn read_rest(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop<io::Error>> {
        let Some(line) = self.lines.rest() else { return Ok(()) };
        let outlet = batch.outlet();
        let check = || outlet.check();
        let loaded = Loaded::load(self.rows.file(), line, &check)?;
        if loaded.row().is_none() {
            return Ok(());
        }
        if loaded.is_whole() {
            self.rows.line(line, batch)?;
            self.lines.take_rest();
        } else if self.rows.are_of(None) {
            batch.push(FeedEvent::Unreadable(Unreadable {
                id: None,
                revision: None,
                place: self.rows.feed().place(line.start),
                position: None,
                reason: line.is_cut(),
            }))?;
        }
        Ok(())
    }

    /// Reports how far the file has been read. The next run may resume here, because the rows of
    /// other collections need nothing to be written.
    fn report_progress(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop<io::Error>> {
        let done = self.lines.position();
        self.progress_due = done + PROGRESS;
        if !self.scanning && self.damage.is_none() {
            batch.push(FeedEvent::Position(self.rows.position_at(done)?))?;
        }
        batch.push(self.progress()?)
    }

    fn finish(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop<io::Error>> {
        let offset = self.lines.position();
        if self.reported.as_ref().is_some_and(|place| place.offset == offset) {
            return Ok(());
        }
        let position = self.rows.position_at(offset)?;
        self.reported = Place::of(&position);
        batch.push(self.progress()?)?;
        batch.push(if std::mem::take(&mut self.scanning) {
            self.rows.forget_graves();
            FeedEvent::ScanFinished { position, exhaustive: false }
        } else {
            FeedEvent::Position(position)
        })?;
        batch.push(FeedEvent::CaughtUp)
    }

    fn progress(&self) -> io::Result<FeedEvent> {
        let done = self.lines.position();
        let total = self.rows.file().metadata()?.len().max(done);
        Ok(FeedEvent::Progress(Progress { done, total }))
    }

    /// Whether the file still holds what was read earlier.
    fn check_contents(&self) -> Result<(), Stop<SourceError>> {
        let Some(place) = &self.reported else { return Ok(()) };
        match place.stands_in(self.rows.file()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(expired("was truncated or overwritten while it was followed")),
            Err(error) => Err(self.failed(Stop::Failed(error))),
        }
    }

    /// Whether the path still leads to the file that was read, now that all of it has been read.
    fn check_identity(&mut self) -> Result<(), Stop<SourceError>> {
        if self.mode == Mode::CatchUp {
            return Ok(());
        }
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match std::fs::metadata(self.rows.feed().path()).map(inode) {
            Err(_) if self.gone_since.get_or_insert_with(Instant::now).elapsed() < GONE => Ok(()),
            Err(error) => Err(Stop::Failed(self.rows.feed().unreadable(&error))),
            Ok(found) => {
                self.gone_since = None;
                match self.rows.file().metadata().map(inode) {
                    Ok(ours) if ours == found => Ok(()),
                    Ok(_) => Err(expired("was replaced while it was followed")),
                    Err(error) => Err(self.failed(Stop::Failed(error))),
                }
            }
        }
    }

    fn failed(&self, stop: Stop<io::Error>) -> Stop<SourceError> {
        match stop {
            Stop::Abandoned => Stop::Abandoned,
            Stop::Failed(error) => Stop::Failed(self.rows.feed().unreadable(&error)),
        }
    }
}

fn expired(what: &str) -> Stop<SourceError> {
    Stop::Failed(SourceError::Expired { reason: format!("the feed file {what}") })
}

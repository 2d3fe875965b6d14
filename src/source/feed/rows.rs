//! The lines of a feed file made into the events of one collection.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::file::FeedFile;
use super::lines::{self, Line, Lines};
use super::loaded::{Check, Loaded, SHORT_LINE, Stop, each_line};
use super::place::Positions;
use super::queue::{Abandoned, Outlet};
use super::row::{Broken, Glance, Row, glance};
use crate::document::{CollectionName, DocumentId, Position};
use crate::source::{FeedEvent, Mode, Unreadable};

/// The most events, and about the most bytes, that go to the stream at once.
const BATCH_EVENTS: usize = 64;
const BATCH_BYTES: usize = 256 * 1024;

/// The weight of an event that is not a change, in the bounds of queues.
const SMALL_EVENT: usize = 256;

/// Makes lines into the events of one collection.
pub(super) struct Rows {
    feed: Arc<FeedFile>,
    file: Arc<File>,
    collection: CollectionName,
    positions: Positions,
    /// Whether a later run may resume after a row: not in a text that nothing vouches for.
    is_checked: bool,
    /// In a scan, the place of the last row of each deleted document.
    graves: Graves,
}

impl Rows {
    /// The rows of a collection in an open feed file.
    pub fn new(
        feed: Arc<FeedFile>,
        file: Arc<File>,
        collection: CollectionName,
        is_checked: bool,
    ) -> Self {
        let (positions, graves) = (Positions::new(), Graves::default());
        Self { feed, file, collection, positions, is_checked, graves }
    }

    /// The feed that the rows are in.
    pub fn feed(&self) -> &FeedFile {
        &self.feed
    }

    /// The file as it was opened.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The position at this offset, where a line ends.
    pub fn position_at(&self, offset: u64) -> io::Result<Position> {
        self.positions.at(offset, &self.file)
    }

    /// Whether rows that name this collection, or none, are ours.
    pub fn are_of(&self, named: Option<&str>) -> bool {
        named.unwrap_or(self.feed.collection().as_str()) == self.collection.as_str()
    }

    /// Loads a line unless it is quickly seen to be another collection's.
    fn load<'l>(
        &self,
        line: Line<'l>,
        check: Check<'_>,
    ) -> Result<Option<Loaded<'l>>, Stop<io::Error>> {
        let row = line.text.and_then(|text| lines::row(text, line.start == 0));
        let ours = row.is_none_or(|row| match glance(row) {
            Glance::Unnamed => self.are_of(None),
            Glance::Named(name) => self.are_of(Some(name)),
            Glance::Unclear => true,
        });
        if !ours {
            return Ok(None);
        }
        Loaded::load(&self.file, line, check).map(Some)
    }

    /// Adds what this line says to a batch, if it is ours.
    pub fn line(&self, line: Line<'_>, batch: &mut Batch<'_>) -> Result<(), Stop<io::Error>> {
        let outlet = batch.outlet();
        let check = || outlet.check();
        let Some(loaded) = self.load(line, &check)? else { return Ok(()) };
        let position = || match line.text {
            _ if !self.is_checked => Ok(None),
            Some(text) => Ok(Some(self.positions.after_row(line.end, text))),
            None => self.position_at(line.end).map(Some),
        };
        let made = match loaded.parse() {
            Ok(None) => return Ok(()),
            Ok(Some(row)) => {
                if row.id.is_local()
                    || !self.are_of(row.collection.as_deref())
                    || self.graves.outdate(&row.id, line.start)
                {
                    return Ok(());
                }
                loaded.change(row, position()?, &self.file, self.feed.folder(), &check)
            }
            Err(broken) => Err(broken),
        };
        outlet.check()?;
        match made {
            Ok(change) => batch.push(FeedEvent::Change(change)),
            Err(broken) if !self.are_of(broken.collection.as_deref()) => Ok(()),
            Err(Broken { id, revision, fault, .. }) => {
                batch.push(FeedEvent::Unreadable(Unreadable {
                    id,
                    revision,
                    place: self.feed.place(line.start),
                    position: position()?,
                    reason: fault.reason(),
                }))
            }
        }
    }

    /// Looks through the whole file for documents whose last row is a deletion. A scan goes over a
    /// mirror that may hold the end already: an old row would bring a deleted document back for a
    /// moment.
    pub fn find_graves(&mut self, mode: Mode, check: Check<'_>) -> Result<(), Stop<io::Error>> {
        let mut graves = Graves::default();
        let mut see = |line: Line<'_>| {
            if let Some(loaded) = self.load(line, check)?
                && let Ok(Some(row)) = loaded.parse()
                && self.are_of(row.collection.as_deref())
            {
                graves.see(&row, line.start);
            }
            Ok(())
        };
        let mut lines = Lines::new(0, SHORT_LINE);
        each_line(&self.file, &mut lines, check, &mut see)?;
        match lines.rest() {
            Some(rest) if mode == Mode::CatchUp => see(rest)?,
            _ => {}
        }
        self.graves = graves;
        Ok(())
    }

    /// The scan is over: every row counts again.
    pub fn forget_graves(&mut self) {
        self.graves = Graves::default();
    }
}

/// The place of the last row of each deleted document, by a hash of its id.
#[derive(Clone, Debug, Default)]
struct Graves(HashMap<[u8; 16], u64>);

impl Graves {
    fn see(&mut self, row: &Row<'_>, start: u64) {
        if row.deleted {
            self.0.insert(Self::key(&row.id), start);
        } else if !self.0.is_empty() {
            self.0.remove(&Self::key(&row.id));
        }
    }

    /// Whether this row of a document comes before its last row, which is a deletion.
    fn outdate(&self, id: &DocumentId, start: u64) -> bool {
        !self.0.is_empty() && self.0.get(&Self::key(id)).is_some_and(|last| start < *last)
    }

    fn key(id: &DocumentId) -> [u8; 16] {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(id.as_str().as_bytes()).as_bytes()[..16]);
        key
    }
}

/// Events on their way to the stream.
pub(super) struct Batch<'a> {
    outlet: &'a Outlet<Vec<FeedEvent>>,
    events: Vec<FeedEvent>,
    weight: usize,
}

impl<'a> Batch<'a> {
    /// An empty one, to be sent into this queue.
    pub fn new(outlet: &'a Outlet<Vec<FeedEvent>>) -> Self {
        Self { outlet, events: Vec::new(), weight: 0 }
    }

    /// The queue that it goes into.
    pub fn outlet(&self) -> &'a Outlet<Vec<FeedEvent>> {
        self.outlet
    }

    /// Adds an event, and sends all when they are many.
    pub fn push<E>(&mut self, event: FeedEvent) -> Result<(), Stop<E>> {
        self.weight += match &event {
            FeedEvent::Change(change) => change.weight(),
            _ => SMALL_EVENT,
        };
        self.events.push(event);
        if self.events.len() >= BATCH_EVENTS || self.weight >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what has been added.
    pub fn flush(&mut self) -> Result<(), Abandoned> {
        let weight = std::mem::take(&mut self.weight);
        match std::mem::take(&mut self.events) {
            events if events.is_empty() => Ok(()),
            events => self.outlet.send(events, weight),
        }
    }
}

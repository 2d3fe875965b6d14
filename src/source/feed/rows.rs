//! The lines of a feed made into the events of its collections.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::content::Folder;
use super::lines::{self, Line, Lines};
use super::loaded::{Check, Loaded, SHORT_LINE, Stop, each_line};
use super::place::Positions;
use super::row::{Broken, Glance, Row, glance};
use crate::document::{CollectionName, DocumentId, Position};
use crate::source::{FeedEvent, Mode, Unreadable};

/// The longest row that is taken from a pipe, where it cannot be read a second time.
pub(super) const ROW_LIMIT: usize = 16 * 1024 * 1024;

/// Makes lines into events.
pub(super) struct Rows {
    /// What is read, if it can be read again.
    file: Option<Arc<File>>,
    /// The collection of the rows that name none.
    unnamed: CollectionName,
    folder: Folder,
    /// What names the place of a row.
    place: Box<dyn Fn(u64) -> String + Send>,
    positions: Positions,
    /// Whether a later run may resume after a row: not in a text that nothing vouches for.
    is_checked: bool,
    /// In a scan, the place of the last row of each deleted document.
    graves: Graves,
}

/// What a line says.
pub(super) struct FoundRow {
    pub collection: CollectionName,
    /// `None` if it is wanted for its collection's name alone.
    pub event: Option<FeedEvent>,
}

/// What is wanted of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Nothing,
    /// The name of its collection.
    Name,
    Row,
}

impl Rows {
    /// The rows of a text. `place` names where a row is, for people.
    pub fn new(
        file: Option<Arc<File>>,
        unnamed: CollectionName,
        folder: Folder,
        place: impl Fn(u64) -> String + Send + 'static,
        is_checked: bool,
    ) -> Self {
        let (positions, graves, place) = (Positions::new(), Graves::default(), Box::new(place));
        Self { file, unnamed, folder, place, positions, is_checked, graves }
    }

    /// The position at this offset, where a line ends.
    pub fn position_at(&self, offset: u64) -> io::Result<Position> {
        match &self.file {
            Some(file) => self.positions.at(offset, file),
            None => Ok(self.positions.in_pipe(offset)),
        }
    }

    /// Brings a line into memory, if it can be.
    fn load<'l>(
        &self,
        line: Line<'l>,
        check: Check<'_>,
    ) -> Result<Result<Loaded<'l>, Broken>, Stop<io::Error>> {
        match (&self.file, line.text) {
            (Some(file), _) => Loaded::load(file, line, check).map(Ok),
            (None, Some(text)) => Ok(Ok(Loaded::held(text, line.start == 0))),
            (None, None) => {
                let limit = ROW_LIMIT >> 20;
                let reason = format!(
                    "the row is longer than {limit} MiB: save the feed to a file, and mirror that"
                );
                Ok(Err(Broken::unknown(reason).named_by(line.surface)))
            }
        }
    }

    /// What this line says, if that is wanted: the answer is asked for again when the collection is
    /// known for sure.
    pub fn line(
        &self,
        line: Line<'_>,
        want: &dyn Fn(&str, u64) -> Want,
        check: Check<'_>,
    ) -> Result<Option<FoundRow>, Stop<io::Error>> {
        let want = |named: Option<&str>| want(named.unwrap_or(self.unnamed.as_str()), line.end);
        let row = line.text.and_then(|text| lines::row(text, line.start == 0));
        let glanced = row.map_or(Want::Row, |row| match glance(row) {
            Glance::Unnamed => want(None),
            Glance::Named(name) => want(Some(name)),
            Glance::Unclear => Want::Row,
        });
        if glanced == Want::Nothing {
            return Ok(None);
        }
        let loaded = match self.load(line, check)? {
            Ok(loaded) => loaded,
            Err(broken) => return self.broken(line, broken).map(Some),
        };
        let broken = match loaded.parse() {
            Ok(None) => return Ok(None),
            Ok(Some(row)) => {
                let named = row.collection.as_deref();
                let collection = named.map_or_else(|| self.unnamed.clone(), CollectionName::from);
                let is_row = want(named) == Want::Row
                    && !row.id.is_local()
                    && !self.graves.outdate(&collection, &row.id, line.start);
                if !is_row {
                    return Ok(Some(FoundRow { collection, event: None }));
                }
                let position = self.position(line)?;
                match loaded.change(row, position, self.file.as_ref(), &self.folder, check) {
                    Ok(change) => {
                        let event = Some(FeedEvent::Change(change));
                        return Ok(Some(FoundRow { collection, event }));
                    }
                    Err(broken) => broken,
                }
            }
            Err(broken) => broken,
        };
        check()?;
        if want(broken.collection.as_deref()) == Want::Nothing {
            return Ok(None);
        }
        self.broken(line, broken).map(Some)
    }

    /// What the rest of a feed says that ends without a newline. `None` in its place if the row is not
    /// whole.
    pub fn is_whole(
        &self,
        rest: Line<'_>,
        check: Check<'_>,
    ) -> Result<Option<bool>, Stop<io::Error>> {
        let loaded = self.load(rest, check)?;
        let loaded = loaded.ok().filter(|loaded| loaded.row().is_some());
        Ok(loaded.map(|loaded| loaded.is_whole()))
    }

    /// A row that breaks off at the end of the feed. Nobody knows whose it is.
    pub fn cut(&self, rest: Line<'_>) -> FoundRow {
        let Line { start, .. } = rest;
        self.unreadable(start, None, Broken::unknown(rest.is_cut()))
    }

    fn broken(&self, line: Line<'_>, broken: Broken) -> Result<FoundRow, Stop<io::Error>> {
        Ok(self.unreadable(line.start, self.position(line)?, broken))
    }

    fn unreadable(&self, start: u64, position: Option<Position>, broken: Broken) -> FoundRow {
        let Broken { id, revision, collection, fault } = broken;
        let (place, reason) = ((self.place)(start), fault.reason());
        let collection = collection.map_or_else(|| self.unnamed.clone(), CollectionName::from);
        let row = Unreadable { id, revision, place, position, reason };
        FoundRow { collection, event: Some(FeedEvent::Unreadable(row)) }
    }

    fn position(&self, line: Line<'_>) -> io::Result<Option<Position>> {
        match (line.text, &self.file) {
            _ if !self.is_checked => Ok(None),
            (Some(text), Some(_)) => Ok(Some(self.positions.after_row(line.end, text))),
            _ => self.position_at(line.end).map(Some),
        }
    }

    /// Looks through a whole file for documents of these collections whose last row is a deletion. A
    /// scan goes over a mirror that may hold the end already: an old row would bring a deleted
    /// document back for a moment.
    pub fn find_graves(
        &mut self,
        scans: &dyn Fn(&str) -> bool,
        mode: Mode,
        check: Check<'_>,
    ) -> Result<(), Stop<io::Error>> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let mut graves = Graves::default();
        let scans = |named: Option<&str>| scans(named.unwrap_or(self.unnamed.as_str()));
        let mut see = |line: Line<'_>| {
            let row = line.text.and_then(|text| lines::row(text, line.start == 0));
            let is_others = row.is_some_and(|row| match glance(row) {
                Glance::Unnamed => !scans(None),
                Glance::Named(name) => !scans(Some(name)),
                Glance::Unclear => false,
            });
            if !is_others
                && let Ok(Some(row)) = Loaded::load(&file, line, check)?.parse()
                && scans(row.collection.as_deref())
            {
                graves.see(
                    row.collection.as_deref().unwrap_or(self.unnamed.as_str()),
                    &row,
                    line.start,
                );
            }
            Ok(())
        };
        let mut lines = Lines::new(0, SHORT_LINE);
        each_line(&file, &mut lines, check, &mut see)?;
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

/// The place of the last row of each deleted document, by a hash of its collection and id.
#[derive(Clone, Debug, Default)]
struct Graves(HashMap<[u8; 16], u64>);

impl Graves {
    fn see(&mut self, collection: &str, row: &Row<'_>, start: u64) {
        if row.deleted {
            self.0.insert(Self::key(collection, &row.id), start);
        } else if !self.0.is_empty() {
            self.0.remove(&Self::key(collection, &row.id));
        }
    }

    /// Whether this row of a document comes before its last row, which is a deletion.
    fn outdate(&self, collection: &CollectionName, id: &DocumentId, start: u64) -> bool {
        let last = || self.0.get(&Self::key(collection.as_str(), id));
        !self.0.is_empty() && last().is_some_and(|last| start < *last)
    }

    fn key(collection: &str, id: &DocumentId) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        // A name may hold any character: its length separates it from the id.
        hasher.update(&(collection.len() as u64).to_le_bytes());
        hasher.update(collection.as_bytes()).update(id.as_str().as_bytes());
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        key
    }
}

//! The names of a feed's collections, each announced when it is first seen.
//!
//! What has been named, and up to where the feed was read for it, is a position too, so that a later
//! listing reads only what is new.

use std::collections::HashSet;
use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

use super::place::{FeedPlace, Positions};
use super::queue::{Abandoned, Outlet};
use crate::document::{CollectionName, Position};
use crate::source::{Selection, SourceError, StoreEvent};

/// More names are not remembered.
const MAX_KNOWN: usize = 10_000;

/// Where the names go.
pub(super) type Announced = Result<StoreEvent, SourceError>;

/// What has been named.
pub(super) struct Names {
    /// The collection of rows that name none.
    unnamed: CollectionName,
    selection: Selection,
    /// A name's own text: it is looked up without being copied.
    seen: HashSet<Box<str>>,
    /// Names that wait for the end of the first listing: only then it is known whether a pattern is
    /// one of them, and therefore not a glob.
    waiting: Option<Vec<CollectionName>>,
    /// Whether all present names have been announced.
    pub listed: bool,
    out: Outlet<Announced>,
}

/// What is stored with the place where a listing ended.
#[derive(Serialize, Deserialize)]
struct Known {
    /// The collection of rows that name none.
    unnamed: CollectionName,
    /// All collections up to there, selected or not.
    names: Vec<CollectionName>,
}

impl Names {
    /// Nothing has been named. With `waits`, names that a selection cannot decide alone wait for
    /// [`choose`](Self::choose).
    pub fn new(
        unnamed: CollectionName,
        selection: Selection,
        waits: bool,
        out: Outlet<Announced>,
    ) -> Self {
        let waiting = (waits && !selection.is_simple()).then(Vec::new);
        Self { unnamed, selection, seen: HashSet::new(), waiting, listed: false, out }
    }

    /// Whether nobody receives names any more.
    pub fn check(&self) -> Result<(), Abandoned> {
        self.out.check()
    }

    /// Whether names wait for the end of the feed.
    pub fn wait(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether this name has been seen.
    pub fn contains(&self, name: &str) -> bool {
        self.seen.contains(name)
    }

    /// Whether a collection is to be read.
    pub fn wants(&self, name: &CollectionName) -> bool {
        self.waiting.is_none() && self.selection.wants(name)
    }

    /// The collections that were seen and are to be read.
    pub fn wanted(&self) -> Vec<CollectionName> {
        let all = self.seen.iter().map(|name| CollectionName::from(&**name));
        all.filter(|name| self.wants(name)).collect()
    }

    /// Takes what an earlier listing has named, if the file is still the same up to where that ended.
    /// Returns how much of the file need not be read again.
    pub fn resume(&mut self, since: Option<Position>, file: &File) -> io::Result<u64> {
        let Some(since) = since else { return Ok(0) };
        let Some(place) = FeedPlace::of(&since) else { return Ok(0) };
        let Ok(known) = serde_json::from_str::<Known>(since.context()) else { return Ok(0) };
        if known.unnamed != self.unnamed || !place.stands_in(file)? {
            return Ok(0);
        }
        for name in known.names {
            self.see(&name);
        }
        Ok(place.offset)
    }

    /// Notes a name; says whether it is a new one that is to be read.
    pub fn see(&mut self, name: &CollectionName) -> bool {
        if !self.seen.insert(name.as_str().into()) {
            return false;
        }
        match &mut self.waiting {
            Some(waiting) => {
                waiting.push(name.clone());
                false
            }
            None => self.selection.wants(name),
        }
    }

    /// Announces a collection.
    pub fn announce(&self, name: &CollectionName) -> Result<(), Abandoned> {
        self.out.send(Ok(StoreEvent::Collection(name.clone())), 0)
    }

    /// Chooses among all present names. Returns those that have waited and are to be read.
    pub fn choose(&mut self) -> Vec<CollectionName> {
        self.selection = self.selection.among(&self.all());
        let waited = self.waiting.take().unwrap_or_default();
        waited.into_iter().filter(|name| self.selection.wants(name)).collect()
    }

    /// All present names have been seen: says so once, and which patterns match none.
    pub fn list(&mut self, offset: u64, file: Option<&File>) -> io::Result<()> {
        if std::mem::replace(&mut self.listed, true) {
            return Ok(());
        }
        let position = match file {
            Some(file) => self.position(offset, file)?,
            None => None,
        };
        // If nobody receives it, the caller notices that by itself.
        for pattern in self.selection.unmatched(&self.all()) {
            let _ = self.out.send(Ok(StoreEvent::Unmatched(pattern)), 0);
        }
        let _ = self.out.send(Ok(StoreEvent::Listed(position)), 0);
        Ok(())
    }

    /// The feed cannot be listed.
    pub fn fail(&self, error: SourceError) {
        let _ = self.out.send(Err(error), 0);
    }

    fn all(&self) -> Vec<CollectionName> {
        self.seen.iter().map(|name| (&**name).into()).collect()
    }

    /// The place up to which the file was read, with all that was named; not with very many names.
    fn position(&self, offset: u64, file: &File) -> io::Result<Option<Position>> {
        if self.seen.len() > MAX_KNOWN {
            return Ok(None);
        }
        let mut names = self.all();
        names.sort();
        let known = Known { unnamed: self.unnamed.clone(), names };
        let context = serde_json::to_string(&known)?;
        Positions::within(&context).at(offset, file).map(Some)
    }
}

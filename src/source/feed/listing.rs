//! Names the collections of a feed file, each when it is first seen.
//!
//! What has been named, and up to where the file was read for it, is a position too, so that a
//! later listing reads only what is new.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::file::{FeedFile, Opened};
use super::follow::Growth;
use super::lines::{self, Line, Lines};
use super::loaded::{Check, Loaded, SHORT_LINE, Stop, each_line};
use super::place::{Place, Positions};
use super::queue::{Abandoned, Budget, Inlet, Outlet, queue};
use super::row::{Broken, Glance, glance};
use crate::document::{CollectionName, Position};
use crate::source::{Mode, Selection, SourceError, StoreEvent};

/// The bytes of names that wait in the queue of their stream.
const NAMES_BUDGET: usize = 64 * 1024;

/// More names are not remembered.
const MAX_KNOWN: usize = 10_000;

type Named = Result<Lister, Stop<SourceError>>;

/// Names the collections that are wanted, then reports `Listed`, then follows the file as it grows.
pub(super) fn collections(
    feed: Arc<FeedFile>,
    selection: Selection,
    mode: Mode,
    since: Option<Position>,
) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
    let (seen, waiting, read) = (HashSet::new(), Vec::new(), None);
    let (listed, named) = (false, false);
    let lister = Lister { feed, selection, mode, since, seen, waiting, listed, named, read };
    stream::unfold(Naming { stage: Stage::Waiting(lister), growth: None }, Naming::step).boxed()
}

/// The stream's state: bursts of reading, and waiting between them.
struct Naming {
    stage: Stage,
    growth: Option<Growth>,
}

enum Stage {
    Reading(Inlet<StoreEvent>, JoinHandle<Named>),
    Waiting(Lister),
    Over,
}

impl Naming {
    async fn step(mut self) -> Option<(Result<StoreEvent, SourceError>, Self)> {
        loop {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Waiting(mut lister) => {
                    match &mut self.growth {
                        Some(growth) => growth.wait().await,
                        None if lister.mode == Mode::Follow => {
                            self.growth = Some(lister.feed.growth());
                        }
                        None => {}
                    }
                    let (outlet, inlet) = queue(&Budget::new(NAMES_BUDGET));
                    let job = move || lister.list(&outlet).map(|()| lister);
                    Stage::Reading(inlet, tokio::task::spawn_blocking(job))
                }
                Stage::Reading(mut inlet, task) => match inlet.next().await {
                    Some(event) => {
                        self.stage = Stage::Reading(inlet, task);
                        return Some((Ok(event), self));
                    }
                    None => match task.await {
                        Ok(Ok(lister)) if lister.mode == Mode::Follow => Stage::Waiting(lister),
                        Ok(Ok(_) | Err(Stop::Abandoned)) => Stage::Over,
                        Ok(Err(Stop::Failed(error))) => return Some((Err(error), self)),
                        Err(error) => {
                            let what = format!("reading the feed broke off: {error}");
                            return Some((Err(SourceError::permanent(what)), self));
                        }
                    },
                },
                Stage::Over => return None,
            };
        }
    }
}

/// What has been named, and how far the file has been read for it.
struct Lister {
    feed: Arc<FeedFile>,
    selection: Selection,
    mode: Mode,
    /// Where an earlier listing ended.
    since: Option<Position>,
    /// A name's own text: it is looked up without being copied.
    seen: HashSet<Box<str>>,
    /// Names that wait for the end of the first listing: only then it is known whether a pattern is
    /// one of them, and therefore not a glob.
    waiting: Vec<CollectionName>,
    listed: bool,
    /// Whether a collection was sent to the stream.
    named: bool,
    read: Option<Place>,
}

/// What is stored with the place where a listing ended.
#[derive(Serialize, Deserialize)]
struct Known {
    /// The collection of rows that name none.
    unnamed: CollectionName,
    /// All collections up to there, selected or not.
    names: Vec<CollectionName>,
}

impl Lister {
    /// Reads what is new in the file. A file that is not the one it was is read from its
    /// beginning: what has been named stays named.
    fn list(&mut self, outlet: &Outlet<StoreEvent>) -> Result<(), Stop<SourceError>> {
        let feed = self.feed.clone();
        let Opened { text: file, damage } = match feed.open(self.mode, &|| outlet.check()) {
            // It is away while somebody replaces it.
            Err(Stop::Failed(SourceError::Missing { .. })) if self.listed => return Ok(()),
            opened => opened?,
        };
        let mut names = || -> Result<Option<Position>, Stop<io::Error>> {
            let offset = match &self.read {
                Some(place) if place.stands_in(&file)? => place.offset,
                Some(_) => 0,
                None => self.resume(&file, outlet)?,
            };
            let mut lines = Lines::new(offset, SHORT_LINE);
            let check = || outlet.check();
            each_line(&file, &mut lines, &check, &mut |line| {
                self.see(&file, line, outlet, &check)
            })?;
            match lines.rest() {
                Some(rest) if self.mode == Mode::CatchUp => {
                    self.see(&file, rest, outlet, &check)?
                }
                _ => {}
            }
            self.read = Some(Place::at(lines.position(), &file)?);
            // Sent once, at the end of the first listing.
            match self.listed || damage.is_some() {
                true => Ok(None),
                false => Ok(self.position(lines.position(), &file)?),
            }
        };
        let position = names().map_err(|stop| match stop {
            Stop::Abandoned => Stop::Abandoned,
            Stop::Failed(error) => Stop::Failed(feed.unreadable(&error)),
        })?;
        if !std::mem::replace(&mut self.listed, true) {
            self.choose(outlet)?;
            // Each collection that is read says so itself.
            if let Some(damage) = damage.filter(|_| !self.named) {
                return Err(Stop::Failed(SourceError::permanent(damage.to_string())));
            }
            outlet.send(StoreEvent::Listed(position), 1)?;
        }
        Ok(())
    }

    /// Names what an earlier listing has named, if the file is still the same up to where that ended.
    /// Returns how much of the file need not be read again.
    fn resume(&mut self, file: &File, outlet: &Outlet<StoreEvent>) -> Result<u64, Stop<io::Error>> {
        let Some(since) = self.since.take() else { return Ok(0) };
        let Some(place) = Place::of(&since) else { return Ok(0) };
        let Ok(known) = serde_json::from_str::<Known>(since.context()) else { return Ok(0) };
        if known.unnamed != *self.feed.collection() || !place.stands_in(file)? {
            return Ok(0);
        }
        for name in known.names {
            self.name(name, outlet)?;
        }
        Ok(place.offset)
    }

    /// The place up to which the file was read, with all that was named; not with very many names.
    fn position(&self, offset: u64, file: &File) -> io::Result<Option<Position>> {
        if self.seen.len() > MAX_KNOWN {
            return Ok(None);
        }
        let mut names: Vec<CollectionName> =
            self.seen.iter().map(|name| (&**name).into()).collect();
        names.sort();
        let known = Known { unnamed: self.feed.collection().clone(), names };
        let context = serde_json::to_string(&known)?;
        Positions::within(&context).at(offset, file).map(Some)
    }

    fn see(
        &mut self,
        file: &File,
        line: Line<'_>,
        outlet: &Outlet<StoreEvent>,
        check: Check<'_>,
    ) -> Result<(), Stop<io::Error>> {
        let row = line.text.and_then(|text| lines::row(text, line.start == 0));
        let known = row.is_some_and(|row| match glance(row) {
            Glance::Unnamed => self.seen.contains(self.feed.collection().as_str()),
            Glance::Named(name) => self.seen.contains(name),
            Glance::Unclear => false,
        });
        if known {
            return Ok(());
        }
        let loaded = Loaded::load(file, line, check)?;
        if loaded.row().is_none() {
            return Ok(());
        }
        // A broken row that names no collection is reported by the one that it would be in.
        let named = match loaded.parse() {
            Ok(None) => return Ok(()),
            Ok(Some(row)) => row.collection.map(|name| CollectionName::from(&*name)),
            Err(Broken { collection, .. }) => collection.map(CollectionName::from),
        };
        self.name(named.unwrap_or_else(|| self.feed.collection().clone()), outlet)
    }

    /// Names what has waited, now that all names are known, and the patterns that match none.
    fn choose(&mut self, outlet: &Outlet<StoreEvent>) -> Result<(), Stop<SourceError>> {
        let names: Vec<CollectionName> = self.seen.iter().map(|name| (&**name).into()).collect();
        let unmatched = self.selection.unmatched(&names);
        self.selection = self.selection.among(&names);
        for name in std::mem::take(&mut self.waiting) {
            if self.selection.wants(&name) {
                self.send(name, outlet)?;
            }
        }
        for pattern in unmatched {
            outlet.send(StoreEvent::Unmatched(pattern), 1)?;
        }
        Ok(())
    }

    fn name(
        &mut self,
        name: CollectionName,
        outlet: &Outlet<StoreEvent>,
    ) -> Result<(), Stop<io::Error>> {
        if !self.seen.insert(name.as_str().into()) {
            return Ok(());
        }
        if !self.listed && !self.selection.is_simple() {
            self.waiting.push(name);
        } else if self.selection.wants(&name) {
            self.send(name, outlet)?;
        }
        Ok(())
    }

    fn send(&mut self, name: CollectionName, outlet: &Outlet<StoreEvent>) -> Result<(), Abandoned> {
        self.named = true;
        let weight = name.as_str().len();
        outlet.send(StoreEvent::Collection(name), weight)
    }
}

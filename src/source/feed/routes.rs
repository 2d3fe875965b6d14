//! Where the rows of each collection go: a table that the thread which reads a feed shares with the
//! streams of its collections.
//!
//! One thread reads for all collections. A collection attaches with the place up to which it has
//! its rows, and those are kept back. It is detached if it takes nothing for long while the others
//! wait for room; then it is read apart, and comes back at the end of the feed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::place::FeedPlace;
use super::queue::{Abandoned, Budget, Inlet, Outlet, Unsent, queue};
use crate::document::{CollectionName, Position};
use crate::source::{FeedEvent, Mode, Progress, Since, SourceError};

/// How long a collection may take nothing while the others wait for room, and how long the
/// collections that are known are waited for before the feed is read.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5_000 });

/// How long there is no room until it counts as waiting.
const MOMENT: Duration = Duration::from_millis(200);

/// What a collection is told whose position is not in the file.
pub(super) const REPLACED: &str = "the feed file was replaced since the last run";

/// What a reader sends to a collection.
#[derive(Debug)]
pub(super) enum Routed {
    /// All rows of the collection follow, for this reason.
    Scan(String),
    /// A row that ends there.
    Row(u64, FeedEvent),
    /// The feed has been read so far.
    Passed(Option<Position>, Progress),
    /// The feed's present end.
    End(Position, Option<Progress>),
    /// There will be no more.
    Over(Result<(), SourceError>),
    /// The collection took too long: what follows has to be read apart.
    Detached,
}

/// Items for a collection, and the queue that carries them.
pub(super) type Items = Vec<Routed>;

/// What a collection that has attached reads.
#[derive(Debug)]
pub(super) struct Attached {
    pub inlet: Inlet<Items>,
    /// Rows that end up to here are kept back.
    pub from: u64,
}

/// More collections than this receive the present end only if they had rows.
const FEW: usize = 200;

/// The routes of one reading.
#[derive(Debug)]
pub(super) struct Routes {
    mode: Mode,
    /// Whether what it reads can be read again.
    is_file: bool,
    budget: Arc<Budget>,
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    stage: Stage,
    /// The file that is read, if it can be read again.
    file: Option<Arc<File>>,
    /// All lines before this place have been routed.
    cursor: u64,
    routes: HashMap<Arc<str>, Route>,
    /// The collections that were read, where nothing can be read twice.
    taken: HashSet<Arc<str>>,
    /// The present end that was reported last, if nothing came after it.
    end: Option<(Position, Option<Progress>)>,
}

/// Held by the thread of a reading: if it panics, no collection waits for it.
pub(super) struct BrokenOff(pub Arc<Routes>);

impl Drop for BrokenOff {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(&Err(broken_off()));
        }
    }
}

pub(super) fn broken_off() -> SourceError {
    SourceError::permanent("reading the feed broke off")
}

/// How far a reading is.
#[derive(Clone, Debug)]
enum Stage {
    /// It waits for the collections that it knows.
    Gathering,
    Reading,
    /// It has ended, or nobody may attach now.
    Over(Option<Result<(), SourceError>>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Over(None)
    }
}

#[derive(Debug)]
struct Route {
    outlet: Outlet<Items>,
    /// The other end, until the collection is read.
    inlet: Option<Inlet<Items>>,
    /// The queue lacks no row after this place.
    start: u64,
    /// Rows that end up to here are kept back.
    from: u64,
    /// Whether it receives all rows although it may have them.
    scans: bool,
    /// Whether nothing came since it received the present end.
    at_end: bool,
    /// Where the last row ends that it was sent.
    last: u64,
}

impl Route {
    fn new(outlet: Outlet<Items>, inlet: Option<Inlet<Items>>, start: u64) -> Self {
        Self { outlet, inlet, start, from: 0, scans: false, at_end: false, last: 0 }
    }

    fn is_open(&self) -> bool {
        self.outlet.check().is_ok()
    }

    /// Whether it may need what ends at this place: it is read from an earlier one.
    fn lacks(&self, place: Option<u64>) -> bool {
        place.is_none_or(|place| place >= self.from)
    }

    /// Says something that needs no room. If nobody receives it, the stream was dropped.
    fn tell(&self, routed: Routed) {
        let _ = self.outlet.send(vec![routed], 0);
    }
}

impl Routes {
    /// A reading that has not begun, with a budget for all its queues. `is_file` says that what it
    /// reads can be read again.
    pub fn new(mode: Mode, is_file: bool, budget: usize) -> Self {
        let (table, changed) = Default::default();
        Self { mode, is_file, budget: Budget::new(budget), table, changed }
    }

    /// The routes of a collection that is read apart, and its stream.
    pub fn apart(mode: Mode, budget: usize, name: &CollectionName) -> (Self, Inlet<Items>) {
        let routes = Self::new(mode, true, budget);
        let (outlet, inlet) = queue(&routes.budget);
        routes.table().routes.insert(name.as_str().into(), Route::new(outlet, None, 0));
        (routes, inlet)
    }

    /// Whether the feed is followed.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a collection read what this reading brings after `since`; `None` if it has to be read
    /// apart.
    pub fn attach(
        &self,
        name: &CollectionName,
        since: &Since,
        mode: Mode,
    ) -> io::Result<Option<Attached>> {
        let mut table = self.table();
        let attached = if mode == self.mode { self.find(&mut table, name, since)? } else { None };
        if attached.is_none()
            && self.is_file
            && table.routes.get(name.as_str()).is_some_and(|route| route.inlet.is_some())
        {
            // Nobody reads what waits there.
            table.routes.remove(name.as_str());
        }
        drop(table);
        self.changed.notify_all();
        Ok(attached)
    }

    fn find(
        &self,
        table: &mut Table,
        name: &CollectionName,
        since: &Since,
    ) -> io::Result<Option<Attached>> {
        let (from, scan) = match (since, &table.file) {
            (Since::Start, _) => (0, None),
            (Since::Scan(reason), _) => (0, Some(reason.clone())),
            (Since::Position(_), None) if self.is_file => return Ok(None),
            // What cannot be read twice has no places to go on from.
            (Since::Position(_), None) => (0, None),
            (Since::Position(position), Some(file)) => match FeedPlace::of(position) {
                Some(place) if place.stands_in(file)? => (place.offset, None),
                _ => (0, Some(REPLACED.to_owned())),
            },
        };
        let gathers = matches!(table.stage, Stage::Gathering);
        let cursor = table.cursor;
        let held = table.routes.get(name.as_str()).filter(|route| route.is_open());
        let fits = match held {
            _ if !self.is_file => table.taken.insert(name.as_str().into()),
            Some(Route { inlet: None, .. }) => false,
            // Where the file has been looked through for it, all rows of a scan are known.
            _ if scan.is_some() => gathers,
            Some(route) => gathers || route.start <= from,
            None => !matches!(table.stage, Stage::Over(_)) && (gathers || cursor <= from),
        };
        if !fits {
            return Ok(None);
        }
        let is_new = held.is_none();
        if is_new {
            let (outlet, inlet) = queue(&self.budget);
            table.routes.insert(name.as_str().into(), Route::new(outlet, Some(inlet), cursor));
        }
        let Some(route) = table.routes.get_mut(name.as_str()) else { return Ok(None) };
        let Some(mut inlet) = route.inlet.take() else { return Ok(None) };
        (route.from, route.scans) = (from, scan.is_some());
        if is_new && let Some((position, progress)) = &table.end {
            route.tell(Routed::End(position.clone(), *progress));
        }
        if is_new && let Stage::Over(Some(result)) = &table.stage {
            route.tell(Routed::Over(result.clone()));
        }
        if let Some(reason) = scan {
            // It comes before what waits in the queue.
            inlet = inlet.after(vec![Routed::Scan(reason)]);
        }
        Ok(Some(Attached { inlet, from }))
    }

    /// Takes over a collection that was read apart up to this place.
    pub fn adopt(&self, name: &CollectionName, place: &FeedPlace, outlet: &Outlet<Items>) -> bool {
        let mut table = self.table();
        let is_held = table.routes.get(name.as_str()).is_some_and(Route::is_open);
        let fits = matches!(table.stage, Stage::Reading) && table.cursor <= place.offset;
        let stands = |file: &Arc<File>| place.stands_in(file).unwrap_or(false);
        if is_held || !fits || !table.file.as_ref().is_some_and(stands) {
            return false;
        }
        let route = Route::new(outlet.clone(), None, table.cursor);
        let route = Route { from: place.offset, last: place.offset, at_end: true, ..route };
        table.routes.insert(name.as_str().into(), route);
        true
    }

    /// The rows of this collection go nowhere.
    pub fn let_go(&self, name: &CollectionName) {
        self.table().routes.remove(name.as_str());
        self.changed.notify_all();
    }

    /// Keeps the rows of a collection that is about to be read. None of them came before.
    pub fn expect(&self, name: &CollectionName) {
        self.expect_in(&mut self.table(), name);
    }

    fn expect_in(&self, table: &mut Table, name: &CollectionName) {
        if !table.taken.contains(name.as_str()) && !table.routes.contains_key(name.as_str()) {
            let (outlet, inlet) = queue(&self.budget);
            table.routes.insert(name.as_str().into(), Route::new(outlet, Some(inlet), 0));
        }
    }

    /// The collections may attach that are to be read from this file. Those that were read so far are
    /// told why they have to come back.
    pub fn open(&self, file: &Arc<File>, expected: &[CollectionName], why: Option<&SourceError>) {
        let mut table = self.table();
        let before = std::mem::take(&mut table.routes);
        (table.stage, table.cursor, table.end) = (Stage::Gathering, 0, None);
        table.file = Some(Arc::clone(file));
        expected.iter().for_each(|name| self.expect_in(&mut table, name));
        drop(table);
        for route in before.into_values() {
            if let Some(error) = why {
                route.tell(Routed::Over(Err(error.clone())));
            }
        }
    }

    /// Waits until the expected collections have attached. Those that do not come are read apart.
    /// Returns the smallest place that a collection is read from, and the collections that scan.
    pub fn gather(
        &self,
        check: &dyn Fn() -> Result<(), Abandoned>,
    ) -> Result<(Option<u64>, HashSet<Arc<str>>), Abandoned> {
        let mut table = self.table();
        let missing =
            |table: &Table| table.routes.values().filter(|one| one.inlet.is_some()).count();
        let (mut left, mut deadline) = (missing(&table), Instant::now() + PATIENCE);
        while left > 0 {
            let pause = deadline.saturating_duration_since(Instant::now());
            if pause.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(table, pause.min(PATIENCE / 10));
            drop(waited);
            check()?;
            table = self.table();
            let now = missing(&table);
            if now < left {
                (left, deadline) = (now, Instant::now() + PATIENCE);
            }
        }
        table.routes.retain(|_, route| route.inlet.is_none());
        // Nobody may attach any more who wants to begin earlier.
        table.stage = Stage::Over(None);
        let scans = table.routes.iter().filter(|(_, route)| route.scans);
        let scans = scans.map(|(name, _)| name.clone()).collect();
        Ok((table.routes.values().map(|route| route.from).min(), scans))
    }

    /// The feed is read from here on.
    pub fn begin(&self, offset: u64) {
        let mut table = self.table();
        (table.stage, table.cursor, table.end) = (Stage::Reading, offset, None);
    }

    /// From now on, no collection can say that it comes for what is before this place.
    pub fn pass(&self, offset: u64) {
        let mut table = self.table();
        (table.cursor, table.end) = (offset, None);
    }

    /// Whether the rows of this collection that end here are wanted.
    pub fn wants(&self, name: &str, end: u64) -> bool {
        let table = self.table();
        let route = table.routes.get(name);
        route.is_some_and(|route| end > route.from && route.is_open())
    }

    /// Where the items of a collection go.
    pub fn outlet(&self, name: &CollectionName) -> Option<Outlet<Items>> {
        Some(self.table().routes.get(name.as_str())?.outlet.clone())
    }

    /// Where these items of a collection go, without those that it has: it may have been read apart
    /// since they were read.
    fn outlet_of(&self, name: &CollectionName, items: &mut Items) -> Option<Outlet<Items>> {
        let mut table = self.table();
        let route = table.routes.get_mut(name.as_str())?;
        route.at_end = false;
        items.retain(|item| !matches!(item, Routed::Row(end, _) if *end <= route.from));
        let ends = items.iter().filter_map(|item| match item {
            Routed::Row(end, _) => Some(*end),
            _ => None,
        });
        route.last = ends.max().unwrap_or_default().max(route.last);
        Some(route.outlet.clone())
    }

    /// The present end has been reached: the collections are told so.
    pub fn end(&self, position: &Position, progress: Option<Progress>) {
        let mut table = self.table();
        table.end = Some((position.clone(), progress));
        let are_few = table.routes.len() <= FEW;
        let at = FeedPlace::of(position).map(|place| place.offset);
        for route in table.routes.values_mut() {
            if !route.lacks(at) || (!are_few && route.at_end) {
                continue;
            }
            (route.scans, route.at_end) = (false, true);
            route.tell(Routed::End(position.clone(), progress));
        }
        table.routes.retain(|_, route| route.is_open());
    }

    /// The present end, if everything before it has been sent, and a collection that has its rows up to
    /// `from` has all of them.
    pub fn end_for(&self, name: &CollectionName, from: u64) -> Option<FeedPlace> {
        let table = self.table();
        let route = table.routes.get(name.as_str())?;
        let (end, _) = table.end.as_ref().filter(|_| route.is_open() && route.last <= from)?;
        FeedPlace::of(end)
    }

    /// The feed has been read so far, and continues.
    pub fn passed(&self, position: Option<&Position>, progress: Progress) {
        let at = position.and_then(FeedPlace::of).map(|place| place.offset);
        for route in self.table().routes.values().filter(|route| route.lacks(at)) {
            route.tell(Routed::Passed(position.cloned(), progress));
        }
    }

    /// How many collections read it.
    pub fn count(&self) -> usize {
        self.table().routes.len()
    }

    /// Nothing more comes. Collections that attach later are told so too.
    pub fn close(&self, result: &Result<(), SourceError>) {
        let mut table = self.table();
        table.stage = Stage::Over(Some(result.clone()));
        table.routes.values().for_each(|route| route.tell(Routed::Over(result.clone())));
    }

    /// Reading has failed: the collections are told so, and come back by themselves.
    pub fn fail(&self, error: &SourceError) {
        let mut table = self.table();
        table.stage = Stage::Over(None);
        table.routes.drain().for_each(|(_, route)| route.tell(Routed::Over(Err(error.clone()))));
    }

    /// Whether nobody receives any more what is read.
    pub fn check(&self) -> Result<(), Abandoned> {
        let read = |route: &Route| route.inlet.is_none() && route.is_open();
        if self.table().routes.values().any(read) { Ok(()) } else { Err(Abandoned) }
    }

    /// Sends items to their collection. If there is no room for long, and `may_detach`, the
    /// collection that holds most of it and takes nothing is detached.
    pub fn send(
        &self,
        name: &CollectionName,
        mut items: Items,
        weight: usize,
        may_detach: bool,
        check: &dyn Fn() -> Result<(), Abandoned>,
    ) -> Result<(), Abandoned> {
        let mut before = None;
        loop {
            let Some(outlet) = self.outlet_of(name, &mut items) else { return Ok(()) };
            let patience = if before.is_none() { MOMENT } else { PATIENCE };
            match outlet.send_within(items, weight, patience) {
                Ok(()) => return Ok(()),
                Err(Unsent::Abandoned) => {
                    self.let_go(name);
                    return Ok(());
                }
                Err(Unsent::Late(late)) => items = late,
            }
            check()?;
            if may_detach {
                if let Some(before) = &before {
                    self.detach_one(before);
                }
                before = Some(self.loads());
            }
        }
    }

    fn loads(&self) -> HashMap<Arc<str>, u64> {
        let table = self.table();
        let full = table.routes.iter().filter(|(_, route)| route.outlet.held() > 0);
        full.map(|(name, route)| (name.clone(), route.outlet.taken())).collect()
    }

    /// Detaches the collection that holds most, of those that have taken nothing since `before`.
    fn detach_one(&self, before: &HashMap<Arc<str>, u64>) {
        let mut table = self.table();
        let idle = |name: &Arc<str>, route: &Route| {
            before.get(name).is_some_and(|taken| *taken == route.outlet.taken())
        };
        let idle = table.routes.iter().filter(|(name, route)| idle(name, route));
        let most = idle.max_by_key(|(_, route)| route.outlet.held()).map(|(name, _)| name.clone());
        if let Some(name) = most
            && let Some(route) = table.routes.remove(&name)
        {
            tracing::debug!(collection = %name, "it is read apart: it holds up the others");
            route.outlet.give_back();
            route.tell(Routed::Detached);
        }
    }
}

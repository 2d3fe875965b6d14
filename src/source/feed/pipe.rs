//! A feed that is piped in: one thread reads it and routes its rows to their collections.
//!
//! Nothing can be read twice, so a collection has one stream, and a collection that nobody reads
//! holds up all others once the queues are full.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::begun::{Input, no_thread, unreadable};
use super::content::Folder;
use super::lines::{self, Line, Lines};
use super::place::Positions;
use super::queue::{Budget, Inlet, Outlet, queue};
use super::row::{self, Broken};
use super::stubs::Surroundings;
use crate::document::{CollectionName, Position};
use crate::source::{FeedEvent, Pattern, Selection, SourceError, Unreadable};

/// The longest row that is taken from a pipe, where it cannot be read a second time.
const ROW_LIMIT: usize = 16 * 1024 * 1024;

/// The bytes of rows that wait for all their receivers together.
const PIPE_BUDGET: usize = 32 * 1024 * 1024;

/// What an event that is no change counts for in that.
const SMALL_EVENT: usize = 256;

/// How long a pipe must bring nothing before its readers have caught up.
pub(super) const IDLE: Duration = Duration::from_millis(200);

/// What a pipe's thread sends to a collection.
#[derive(Debug)]
pub(super) enum Piped {
    /// Some rows.
    Events(Vec<FeedEvent>),
    /// There will be no more.
    End(Result<Position, SourceError>),
}

/// What is known of the pipe's collections.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// In the order in which they were first seen.
    pub names: Vec<CollectionName>,
    /// Whether the pipe has ended.
    pub ended: bool,
    /// Why it ended before its time.
    pub failed: Option<SourceError>,
}

/// A feed that can be read once.
pub(super) struct Pipe {
    collection: CollectionName,
    selection: Selection,
    folder: Folder,
    positions: Positions,
    input: Mutex<Option<Input>>,
    /// Whether anything has come.
    came: Arc<AtomicBool>,
    /// Whether the beginning has been judged.
    begun: AtomicBool,
    routes: Mutex<Routes>,
    seen: watch::Sender<Seen>,
    budget: Arc<Budget>,
    /// Since when the thread has waited for the pipe to bring something.
    waiting: Mutex<Option<Instant>>,
    read: AtomicU64,
}

#[derive(Default)]
struct Routes {
    outlets: HashMap<CollectionName, Outlet<Piped>>,
    /// Queues that nobody has asked for yet.
    inlets: HashMap<CollectionName, Inlet<Piped>>,
    taken: HashSet<CollectionName>,
    named: HashSet<CollectionName>,
    end: Option<Result<Position, SourceError>>,
}

impl Pipe {
    /// A pipe whose rows belong to `collection` where they do not say otherwise. The files that
    /// they name are looked for beneath `folder`. Nothing is read yet.
    pub fn new(
        input: Input,
        collection: CollectionName,
        selection: Selection,
        folder: Folder,
    ) -> Self {
        Self {
            collection,
            selection,
            folder,
            positions: Positions::new(),
            came: input.came(),
            begun: AtomicBool::new(false),
            input: Mutex::new(Some(input)),
            routes: Mutex::default(),
            seen: watch::Sender::default(),
            budget: Budget::new(PIPE_BUDGET),
            waiting: Mutex::default(),
            read: AtomicU64::new(0),
        }
    }

    /// The patterns of the selection that match none of the collections seen so far.
    pub fn unmatched(&self) -> Vec<Pattern> {
        self.selection.unmatched(&self.seen.borrow().names)
    }

    /// Begins to read, if that has not begun. The thread ends with the pipe. Nothing can wake it from
    /// waiting there, and the runtime would wait for a thread of its own.
    pub fn start(self: &Arc<Self>) -> Result<(), SourceError> {
        let Some(input) = lock(&self.input).take() else { return Ok(()) };
        let pipe = self.clone();
        let thread = std::thread::Builder::new().name("feed pipe".to_owned());
        let spawned = thread.spawn(move || Reading::new(&pipe).run(input));
        spawned.map(drop).map_err(|error| no_thread(&error))
    }

    /// The rows of a collection; once.
    pub fn take(&self, collection: &CollectionName) -> Result<Inlet<Piped>, SourceError> {
        let mut routes = lock(&self.routes);
        if !routes.taken.insert(collection.clone()) {
            return Err(SourceError::permanent("standard input cannot be read twice"));
        }
        if let Some(inlet) = routes.inlets.remove(collection) {
            return Ok(inlet);
        }
        let (outlet, inlet) = queue(&self.budget);
        if let Some(end) = &routes.end {
            // It is the only one to hold this queue, so that nobody else can have given it up.
            let _ = outlet.send(Piped::End(end.clone()), 0);
        } else {
            routes.outlets.insert(collection.clone(), outlet);
        }
        Ok(inlet)
    }

    /// What has been seen so far, and whenever that changes.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// How long the pipe has brought nothing although we wait for it. A beginning that is not clear
    /// yet is something.
    pub fn idle(&self) -> Duration {
        if self.came.load(Ordering::Acquire) && !self.begun.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        lock(&self.waiting).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The place after all that has been routed.
    pub fn position(&self) -> Position {
        self.positions.in_pipe(self.read.load(Ordering::Acquire))
    }

    /// Where the files are that rows name.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }
}

/// The thread's own side.
struct Reading<'a> {
    pipe: &'a Pipe,
    lines: Lines,
    pending: HashMap<CollectionName, (Vec<FeedEvent>, usize)>,
}

impl<'a> Reading<'a> {
    fn new(pipe: &'a Pipe) -> Self {
        Self { pipe, lines: Lines::new(0, ROW_LIMIT), pending: HashMap::new() }
    }

    fn run(mut self, input: Input) {
        *lock(&self.pipe.waiting) = Some(Instant::now());
        let begun = input.begun();
        *lock(&self.pipe.waiting) = None;
        self.pipe.begun.store(true, Ordering::Release);
        let end =
            begun.and_then(|mut begun| self.read(&mut begun).map_err(|error| unreadable(&error)));
        let end = end.map(|()| self.pipe.positions.in_pipe(self.lines.position()));
        let outlets = {
            let mut routes = lock(&self.pipe.routes);
            routes.end = Some(end.clone());
            std::mem::take(&mut routes.outlets)
        };
        for outlet in outlets.values() {
            // If nobody receives it, the stream was dropped.
            let _ = outlet.send(Piped::End(end.clone()), 0);
        }
        let failed = end.err();
        self.pipe.seen.send_modify(|seen| {
            seen.ended = true;
            seen.failed = failed;
        });
    }

    fn read(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        loop {
            while let Some(line) = self.lines.take() {
                if let Some(found) = self.pipe.event(line, true) {
                    self.see(found);
                }
            }
            self.flush();
            self.pipe.read.store(self.lines.position(), Ordering::Release);
            *lock(&self.pipe.waiting) = Some(Instant::now());
            let read = self.lines.fill(|into, _| reader.read(into));
            *lock(&self.pipe.waiting) = None;
            match read {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(line) = self.lines.rest() {
            let found = self.pipe.event(line, false);
            self.lines.take_rest();
            found.into_iter().for_each(|found| self.see(found));
            self.flush();
        }
        Ok(())
    }

    /// Sends what has been read to where it belongs.
    fn flush(&mut self) {
        for (collection, (events, weight)) in self.pending.drain() {
            if let Some(outlet) = self.pipe.outlet(&collection) {
                // The rows of a collection whose stream was dropped have nowhere to go.
                let _ = outlet.send(Piped::Events(events), weight);
            }
        }
    }

    fn see(&mut self, found: Found) {
        let Found { collection, event } = found;
        if !self.pipe.routes_to(&collection) {
            return;
        }
        let (events, weight) = self.pending.entry(collection).or_default();
        *weight += match &event {
            FeedEvent::Change(change) => change.weight(),
            _ => SMALL_EVENT,
        };
        events.push(event);
    }
}

/// A row that has been made into an event.
struct Found {
    collection: CollectionName,
    event: FeedEvent,
}

impl Pipe {
    /// Where a collection's rows go, if they go anywhere.
    fn outlet(&self, collection: &CollectionName) -> Option<Outlet<Piped>> {
        lock(&self.routes).outlets.get(collection).cloned()
    }

    /// Whether anybody wants, or may come to want, the rows of this collection. One that is seen
    /// for the first time is announced.
    fn routes_to(&self, collection: &CollectionName) -> bool {
        let mut routes = lock(&self.routes);
        let known = match routes.outlets.get(collection) {
            Some(outlet) if outlet.check().is_err() => return false,
            Some(_) => true,
            None => false,
        };
        if !self.selection.wants(collection) {
            return known;
        }
        if !known {
            let (outlet, inlet) = queue(&self.budget);
            routes.outlets.insert(collection.clone(), outlet);
            routes.inlets.insert(collection.clone(), inlet);
        }
        if routes.named.insert(collection.clone()) {
            self.seen.send_modify(|seen| seen.names.push(collection.clone()));
        }
        true
    }

    /// The event that a line makes; `None` for a line that is not a row.
    fn event(&self, line: Line<'_>, finished: bool) -> Option<Found> {
        let (row, position) = match line.text.map(|text| lines::row(text, line.start == 0)) {
            Some(None) => return None,
            Some(Some(row)) if finished || row::is_whole(row) => {
                let position = self.positions.in_pipe(line.end);
                (row::parse(row), Some(position))
            }
            Some(Some(_)) => (Err(Broken::unknown(line.is_cut())), None),
            None => {
                let limit = ROW_LIMIT >> 20;
                let reason = format!(
                    "the row is longer than {limit} MiB: save the feed to a file, and mirror that"
                );
                let broken = Broken::unknown(reason).named_by(line.surface);
                (Err(broken), Some(self.positions.in_pipe(line.end)))
            }
        };
        let around =
            Surroundings { folder: &self.folder, feed: None, hidden: &[], check: &|| Ok(()) };
        let (collection, made) = match row.transpose()? {
            Ok(row) if row.id.is_local() => return None,
            Ok(row) => {
                let named = row.collection.as_deref().map(CollectionName::from);
                (named, row.into_change(position.clone(), None, &around))
            }
            Err(broken) => (broken.collection.as_deref().map(CollectionName::from), Err(broken)),
        };
        let event = match made {
            Ok(change) => FeedEvent::Change(change),
            Err(Broken { id, revision, fault, .. }) => FeedEvent::Unreadable(Unreadable {
                id,
                revision,
                place: format!("row at byte {} of standard input", line.start),
                position,
                reason: fault.reason(),
            }),
        };
        Some(Found { collection: collection.unwrap_or_else(|| self.collection.clone()), event })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

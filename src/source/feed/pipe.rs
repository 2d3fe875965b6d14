//! A feed that is piped in: it is read once, by all its collections together.
//!
//! Nothing can be read twice, so a collection has one stream, and a collection that nobody reads
//! holds up all others once the queues are full. One thread waits for the pipe, because nothing can
//! wake it there; another one reads what has come.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::begun::{Input, no_thread, unreadable};
use super::content::Folder;
use super::lines::Lines;
use super::loaded::Stop;
use super::names::{Announced, Names};
use super::queue::{Budget, Inlet, queue};
use super::router::{LineReading, Purpose, Router};
use super::routes::{Attached, BrokenOff, Routes};
use super::rows::{ROW_LIMIT, Rows};
use crate::document::CollectionName;
use crate::source::{Mode, Selection, Since, SourceError};

/// The bytes of rows that wait for all their receivers together.
const PIPE_BUDGET: usize = 32 * 1024 * 1024;

/// How many bytes are read from the pipe at a time. `Lines` takes as many at once.
const BLOCK: usize = 64 * 1024;

/// How many such blocks may wait.
const BLOCKS: usize = 2;

/// How long a pipe must bring nothing before its readers have caught up.
const IDLE: Duration = Duration::from_millis(200);

type Block = Result<Vec<u8>, SourceError>;

/// A feed that can be read once.
pub(super) struct Pipe {
    collection: CollectionName,
    folder: Folder,
    stage: Mutex<Stage>,
    /// The names of its collections, until somebody asks for them.
    named: Mutex<Option<Inlet<Announced>>>,
}

enum Stage {
    Unread(Box<(Input, Names)>),
    Read(Arc<Routes>),
    Over,
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
        // Its names weigh nothing, so that they never hold up the rows.
        let (out, named) = queue(&Budget::new(0));
        let names = Names::new(collection.clone(), selection, false, out);
        let (stage, named) =
            (Mutex::new(Stage::Unread(Box::new((input, names)))), Mutex::new(Some(named)));
        Self { collection, folder, stage, named }
    }

    /// The reading of all its collections, which begins now if it has not.
    fn routes(&self, mode: Mode) -> Result<Arc<Routes>, SourceError> {
        let mut stage = lock(&self.stage);
        let (input, names) = match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Unread(unread) => *unread,
            Stage::Read(routes) => {
                *stage = Stage::Read(Arc::clone(&routes));
                return Ok(routes);
            }
            Stage::Over => return Err(read_twice()),
        };
        let routes = Arc::new(Routes::new(mode, false, Budget::new(PIPE_BUDGET)));
        let (sender, blocks) = mpsc::sync_channel(BLOCKS);
        let (came, begun) = (input.came(), Arc::new(AtomicBool::new(false)));
        let (unnamed, folder) = (self.collection.clone(), self.folder.clone());
        let place = |offset| format!("row at byte {offset} of standard input");
        let rows = Rows::new(None, unnamed, folder, place, true);
        let reader = Reader {
            reading: LineReading { rows, lines: Lines::new(0, ROW_LIMIT) },
            router: Router::new(Purpose::Piped, Arc::clone(&routes), Some(names)),
            blocks,
            came,
            begun: Arc::clone(&begun),
            reported: None,
        };
        // The runtime would wait for threads of its own.
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(work).map(drop).map_err(|error| no_thread(&error))
        };
        spawn("pipe", Box::new(move || receive(input, &begun, &sender)))?;
        let broken_off = BrokenOff(Arc::clone(&reader.router.routes));
        spawn(
            "feed pipe",
            Box::new(move || {
                let _broken_off = broken_off;
                reader.run();
            }),
        )?;
        *stage = Stage::Read(Arc::clone(&routes));
        Ok(routes)
    }

    /// The rows of a collection; once.
    pub fn attach(
        &self,
        collection: &CollectionName,
        since: &Since,
        mode: Mode,
    ) -> Result<Attached, SourceError> {
        let routes = self.routes(mode)?;
        let attached = routes.attach(collection, since, mode);
        attached.map_err(|error| unreadable(&error))?.ok_or_else(read_twice)
    }

    /// The names of its collections, each when its first row comes; once.
    pub fn names(&self, mode: Mode) -> Result<Inlet<Announced>, SourceError> {
        self.routes(mode)?;
        lock(&self.named).take().ok_or_else(read_twice)
    }

    /// Nobody will read this collection.
    pub fn let_go(&self, collection: &CollectionName) {
        if let Stage::Read(routes) = &*lock(&self.stage) {
            routes.let_go(collection);
        }
    }

    /// Where the files are that rows name.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }
}

/// What anybody is told who asks for what has been read.
pub(super) fn read_twice() -> SourceError {
    SourceError::permanent("standard input cannot be read twice")
}

/// Passes on what the pipe brings, until its end or an error.
fn receive(input: Input, begun: &AtomicBool, blocks: &SyncSender<Block>) {
    let input = input.begun();
    begun.store(true, Ordering::Release);
    let receive = |input: &mut dyn Read| loop {
        let mut block = vec![0; BLOCK];
        match input.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(read) => block.truncate(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(&error)),
        }
        if blocks.send(Ok(block)).is_err() {
            return Ok(());
        }
    };
    if let Err(error) = input.and_then(|mut input| receive(&mut input)) {
        // If nobody receives it, the process ends.
        let _ = blocks.send(Err(error));
    }
}

/// The reading thread's own side.
struct Reader {
    reading: LineReading,
    router: Router,
    blocks: Receiver<Block>,
    /// Whether anything has come.
    came: Arc<AtomicBool>,
    /// Whether the beginning has been judged.
    begun: Arc<AtomicBool>,
    /// The place that was last reported.
    reported: Option<u64>,
}

impl Reader {
    fn run(mut self) {
        let result = self.read().map_err(|stop| match stop {
            Stop::Abandoned => SourceError::permanent("reading standard input broke off"),
            Stop::Failed(error) => error,
        });
        self.router.routes.close(&result);
        if let (Err(error), Some(names)) = (result, &mut self.router.names) {
            // Where there are collections, each says so itself.
            match names.wanted().is_empty() {
                true => names.fail(error),
                false => _ = names.list(0, None),
            }
        }
    }

    fn read(&mut self) -> Result<(), Stop<SourceError>> {
        while let Some(block) = self.next()? {
            let block = block.map_err(Stop::Failed)?;
            let filled = self.reading.lines.fill(|into, _| {
                into[..block.len()].copy_from_slice(&block);
                Ok(block.len())
            });
            filled.map_err(|error| Stop::Failed(unreadable(&error)))?;
            self.reading.take_lines(&mut self.router).map_err(failed)?;
        }
        self.reading.take_rest(&mut self.router).map_err(failed)?;
        self.reported = None;
        self.finish()
    }

    /// What comes next. A followed pipe that brings nothing for a moment has been caught up with.
    fn next(&mut self) -> Result<Option<Block>, Stop<SourceError>> {
        if self.router.routes.mode() == Mode::CatchUp {
            return Ok(self.blocks.recv().ok());
        }
        loop {
            match self.blocks.recv_timeout(IDLE) {
                Ok(block) => return Ok(Some(block)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                // A beginning that is not clear yet is something.
                Err(RecvTimeoutError::Timeout)
                    if self.came.load(Ordering::Acquire) && !self.begun.load(Ordering::Acquire) => {
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.finish()?;
                    return Ok(self.blocks.recv().ok());
                }
            }
        }
    }

    fn finish(&mut self) -> Result<(), Stop<SourceError>> {
        let failed = |error: io::Error| Stop::Failed(unreadable(&error));
        let offset = self.reading.lines.position();
        if self.reported.replace(offset) == Some(offset) {
            return Ok(());
        }
        let position = self.reading.rows.position_at(offset).map_err(failed)?;
        self.router.routes.end(&position, None);
        match &mut self.router.names {
            Some(names) => names.list(offset, None).map_err(failed),
            None => Ok(()),
        }
    }
}

fn failed(stop: Stop<io::Error>) -> Stop<SourceError> {
    match stop {
        Stop::Abandoned => Stop::Abandoned,
        Stop::Failed(error) => Stop::Failed(unreadable(&error)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

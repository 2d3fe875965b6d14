//! A feed as it is begun to be read: decompressed, and refused if its beginning is of another
//! format.
//!
//! Blocking, but for the wait for standard input.

use std::fmt;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::beginning::{LIMIT, LONGEST, Verdict, judge};
use super::other::Given;
use super::packed::{Damage, MAGIC, Packing};
use crate::source::SourceError;

/// How long a pipe is waited for before the mirror is opened.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long standard input brings nothing more until its beginning is judged by what has come.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A text of rows whose beginning has been read and judged.
pub struct Begun {
    /// How it was compressed.
    pub(super) packing: Option<Packing>,
    beginning: Cursor<Vec<u8>>,
    /// What reading the beginning ended with, if that was an error.
    failed: Option<io::Error>,
    rest: Box<dyn Read + Send>,
}

impl Read for Begun {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.beginning.read(into)? {
            0 => {
                // It is not needed again, and may be large.
                self.beginning = Cursor::default();
                match self.failed.take() {
                    Some(error) => Err(error),
                    None => self.rest.read(into),
                }
            }
            read => Ok(read),
        }
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("packing", &self.packing).finish_non_exhaustive()
    }
}

/// What the end of data says, or that nothing more comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// The end is the end.
    Whole,
    /// More may be written behind it.
    Growing,
    /// It is standard input, which may be silent for long.
    StandardInput,
}

impl Begun {
    /// Data that is read whatever it begins with.
    pub(super) fn unjudged(data: impl Read + Send + 'static) -> Self {
        let (packing, rest) = unpacked(data, &AtomicBool::default());
        Self { packing, beginning: Cursor::default(), failed: None, rest }
    }
}

/// Whether a text is lines of JSON, the last one complete: if none of them is a row by now, nobody
/// writes rows into it.
fn is_whole_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')) && text.ends_with(b"\n")
}

/// Begins to read `data`. What is another format is refused by a message about `given`. An error of
/// reading comes in its turn, after the text before it. `came` is set when anything has come.
pub(super) fn begin(
    data: impl Read + Send + 'static,
    given: &Given<'_>,
    supply: Supply,
    came: &AtomicBool,
) -> Result<Begun, SourceError> {
    let (packing, mut text) = unpacked(data, came);
    let mut beginning = Vec::new();
    let mut failed = None;
    // A long line is looked at again only if it has become much longer, or ends.
    let mut looked = 0;
    loop {
        let held = beginning.len();
        if supply == Supply::StandardInput
            && packing.is_none()
            && let Some(newline) = memchr::memrchr(b'\n', &beginning)
            && is_silent()
        {
            refuse(judge(&beginning[..=newline], true), packing, given)?;
            break;
        }
        match read_some(&mut text, &mut beginning, LIMIT) {
            Ok(read) => {
                let grows = supply == Supply::Growing && !is_whole_json(&beginning);
                let ended = read == 0 && !grows;
                let is_new = beginning.len() <= LIMIT
                    || beginning.len() / 2 >= looked
                    || memchr::memchr(b'\n', &beginning[held..]).is_some();
                if !is_new && read > 0 && beginning.len() < LONGEST {
                    continue;
                }
                looked = beginning.len();
                match refuse(judge(&beginning, ended), packing, given)? {
                    Verdict::Unsure if read > 0 => {}
                    _ => break,
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    Ok(Begun { packing, beginning: Cursor::new(beginning), failed, rest: text })
}

/// Makes a verdict that it is another format into an error.
fn refuse(
    verdict: Verdict,
    packing: Option<Packing>,
    given: &Given<'_>,
) -> Result<Verdict, SourceError> {
    match verdict {
        Verdict::Other(other) => {
            let what = other.message(&Given { packing, ..*given });
            Err(SourceError::NotAFeed { what })
        }
        verdict => Ok(verdict),
    }
}

/// Whether standard input brings nothing for a while. What asks for much at a time leaves nothing in
/// the library's buffer.
fn is_silent() -> bool {
    let input = io::stdin();
    let mut polled = [PollFd::new(&input, PollFlags::IN)];
    // If it cannot be asked, reading tells.
    poll(&mut polled, Some(&PAUSE)).is_ok_and(|ready| ready == 0)
}

/// The text that the data is or holds.
fn unpacked(
    mut data: impl Read + Send + 'static,
    came: &AtomicBool,
) -> (Option<Packing>, Box<dyn Read + Send>) {
    let mut first = Vec::new();
    let mut failed = None;
    // One byte tells most feeds; a live one may bring no more for long.
    while first.len() < MAGIC && first.first() != Some(&b'{') {
        match read_some(&mut data, &mut first, LIMIT) {
            Ok(0) => break,
            Ok(_) => came.store(true, Ordering::Release),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let packing = Packing::of(&first);
    let data = Begun { packing, beginning: Cursor::new(first), failed, rest: Box::new(data) };
    let Some(packing) = packing else { return (None, Box::new(data)) };
    match packing.unpack(data) {
        Ok(text) => (Some(packing), text),
        Err(error) => (Some(packing), Box::new(Failing(Some(error)))),
    }
}

/// Fails once.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Reads once, up to `most` bytes.
fn read_some(reader: &mut impl Read, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let held = into.len();
    into.resize(held + most, 0);
    let result = loop {
        match reader.read(&mut into[held..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    into.truncate(held + result.as_ref().copied().unwrap_or(0));
    result
}

/// Why a feed that is read once ended before its time.
pub(super) fn unreadable(error: &io::Error) -> SourceError {
    SourceError::permanent(match Damage::of(error) {
        Some(damage) => {
            let rows = "the rows before that were read, and may be wrong; give the complete feed, and \
                        compare the mirror with `plainfold verify DIR --against feed:FILE --bytes`";
            format!("standard input cannot be read to its end: {}", damage.advice(Some(rows)))
        }
        None => format!("standard input cannot be read: {error}"),
    })
}

/// A feed that is read once, and whose beginning may still be awaited.
pub struct Input {
    stage: Stage,
    /// Whether anything has come.
    came: Arc<AtomicBool>,
}

enum Stage {
    /// Nothing has been read yet.
    Raw(Box<dyn Read + Send>, Supply),
    /// Its beginning is read by a thread of its own.
    Awaited(oneshot::Receiver<Result<Begun, SourceError>>),
    /// Its beginning is a feed's.
    Begun(Begun),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("came", &self.came).finish_non_exhaustive()
    }
}

impl Input {
    /// Begins to read standard input, and waits for its beginning for a moment, longer if some of it
    /// has come. What comes later is judged when it comes.
    pub async fn stdin() -> Result<Self, SourceError> {
        let (sender, mut receiver) = oneshot::channel();
        let raw = Self::unread();
        let came = Arc::clone(&raw.came);
        let read = move || {
            // If nobody receives it, the process ends.
            let _ = sender.send(raw.begun());
        };
        // Nothing can wake it from waiting there. The runtime would wait for a thread of its own.
        let thread = std::thread::Builder::new().name("feed beginning".to_owned());
        thread.spawn(read).map_err(|error| no_thread(&error))?;
        let mut begun = tokio::time::timeout(PATIENCE, &mut receiver).await;
        if begun.is_err() && came.load(Ordering::Acquire) {
            begun = tokio::time::timeout(PATIENCE, &mut receiver).await;
        }
        let stage = match begun {
            Ok(Ok(begun)) => Stage::Begun(begun?),
            Ok(Err(_)) => return Err(broke_off()),
            Err(_) => Stage::Awaited(receiver),
        };
        Ok(Self { stage, came })
    }

    /// Standard input, of which nothing has been read.
    pub fn unread() -> Self {
        let stage = Stage::Raw(Box::new(io::stdin()), Supply::StandardInput);
        Self { stage, came: Arc::default() }
    }

    /// What this reader brings.
    pub(super) fn of(reader: impl Read + Send + 'static) -> Self {
        Self { stage: Stage::Raw(Box::new(reader), Supply::Whole), came: Arc::default() }
    }

    /// Says whether anything has come, from now on too.
    pub(super) fn came(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.came)
    }

    /// The feed whose beginning has been judged. Blocks until that has come.
    pub(super) fn begun(self) -> Result<Begun, SourceError> {
        match self.stage {
            Stage::Begun(begun) => Ok(begun),
            Stage::Raw(data, supply) => {
                begin(data, &Given { path: None, packing: None }, supply, &self.came)
            }
            Stage::Awaited(receiver) => {
                receiver.blocking_recv().unwrap_or_else(|_| Err(broke_off()))
            }
        }
    }
}

fn broke_off() -> SourceError {
    SourceError::permanent("reading standard input broke off")
}

/// Why a feed cannot be read beside other work.
pub(super) fn no_thread(error: &io::Error) -> SourceError {
    SourceError::permanent(format!("no thread can be started to read the feed: {error}"))
}

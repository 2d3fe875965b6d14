//! A feed as it is begun to be read: decompressed, and refused if its beginning is of another
//! format.
//!
//! Blocking, but for the wait for standard input. It must not know what a row says.

use std::fmt;
use std::io::{self, Cursor, Read};
use std::time::Duration;

use tokio::sync::oneshot;

use super::beginning::{LIMIT, Verdict, judge};
use super::other::Given;
use super::packed::{Damage, MAGIC, Packing};
use crate::source::SourceError;

/// How long a pipe is waited for before the mirror is opened.
const PATIENCE: Duration = Duration::from_secs(1);

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
            0 => match self.failed.take() {
                Some(error) => Err(error),
                None => self.rest.read(into),
            },
            read => Ok(read),
        }
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("packing", &self.packing).finish_non_exhaustive()
    }
}

/// Begins to read `data`. What is another format is refused by a message about `given`. An error of
/// reading comes in its turn, after the text before it.
pub(super) fn begin(
    data: impl Read + Send + 'static,
    given: &Given<'_>,
) -> Result<Begun, SourceError> {
    let (packing, mut text) = unpacked(data);
    let mut beginning = Vec::new();
    let mut failed = None;
    loop {
        match read_some(&mut text, &mut beginning, LIMIT) {
            Ok(read) => match judge(&beginning, read == 0) {
                Verdict::Other(other) => {
                    let what = other.message(&Given { packing, ..*given });
                    return Err(SourceError::NotAFeed { what });
                }
                Verdict::Unsure if read > 0 => continue,
                Verdict::Unsure | Verdict::Feed => break,
            },
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    Ok(Begun { packing, beginning: Cursor::new(beginning), failed, rest: text })
}

/// The text that the data is or holds.
fn unpacked(mut data: impl Read + Send + 'static) -> (Option<Packing>, Box<dyn Read + Send>) {
    let mut first = Vec::new();
    let mut failed = None;
    // One byte tells most feeds; a live one may bring no more for long.
    while first.len() < MAGIC && first.first() != Some(&b'{') {
        match read_some(&mut data, &mut first, LIMIT) {
            Ok(0) => break,
            Ok(_) => {}
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
        Some(damage) => format!("standard input cannot be read to its end: {damage}"),
        None => format!("standard input cannot be read: {error}"),
    })
}

/// A feed on standard input whose beginning is awaited.
pub enum Input {
    /// Nothing has been read yet.
    Raw(Box<dyn Read + Send>),
    /// Its beginning is read by a thread of its own.
    Awaited(oneshot::Receiver<Result<Begun, SourceError>>),
    /// Its beginning is a feed's.
    Begun(Begun),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw(_) => "Raw",
            Self::Awaited(_) => "Awaited",
            Self::Begun(_) => "Begun",
        })
    }
}

impl Input {
    /// Begins to read standard input, and waits for its beginning for a moment. What comes later is
    /// judged when it comes.
    pub async fn stdin() -> Result<Self, SourceError> {
        let (sender, mut receiver) = oneshot::channel();
        let read = move || {
            // If nobody receives it, the process ends.
            let _ = sender.send(Self::unread().begun());
        };
        // Nothing can wake it from waiting there. The runtime would wait for a thread of its own.
        let thread = std::thread::Builder::new().name("feed beginning".to_owned());
        thread.spawn(read).map_err(|error| no_thread(&error))?;
        match tokio::time::timeout(PATIENCE, &mut receiver).await {
            Ok(Ok(begun)) => begun.map(Self::Begun),
            Ok(Err(_)) => Err(SourceError::permanent("reading standard input broke off")),
            Err(_) => Ok(Self::Awaited(receiver)),
        }
    }

    /// Standard input, of which nothing has been read.
    pub fn unread() -> Self {
        Self::Raw(Box::new(io::stdin()))
    }

    /// The feed whose beginning has been judged. Blocks until that has come.
    pub(super) fn begun(self) -> Result<Begun, SourceError> {
        match self {
            Self::Begun(begun) => Ok(begun),
            Self::Raw(data) => begin(data, &Given { path: None, packing: None }),
            Self::Awaited(receiver) => receiver.blocking_recv().unwrap_or_else(|_| {
                Err(SourceError::permanent("reading standard input broke off"))
            }),
        }
    }
}

/// Why a feed cannot be read beside other work.
pub(super) fn no_thread(error: &io::Error) -> SourceError {
    SourceError::permanent(format!("no thread can be started to read the feed: {error}"))
}

//! From the bytes of a change feed to its rows, as they come in.
//!
//! A state machine over bytes that knows JSON's brackets and strings and nothing else: a row's
//! meaning is known to the reader. Rows that lie within one chunk of input are slices of it.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

use crate::document::{Skim, Surface};

/// The largest row that is held, in bytes. CouchDB's own limit for a document is 8 MB by default.
pub const MAX_ROW: usize = 64 << 20;

/// The largest row that is passed by, in bytes: no version of CouchDB accepts larger documents unless
/// configured to.
const MAX_PASSED: u64 = 4 << 30;

/// How a normal feed begins; whitespace may stand between.
const HEAD: &[u8] = b"{\"results\":[";

/// How much of garbage an error repeats, in bytes.
const EXCERPT: usize = 200;

/// Which of the two shapes a feed has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"results":[row,row],"last_seq":…}`, on one line or on many.
    Normal,
    /// One row a line, blank lines between them.
    Continuous,
}

/// A piece of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A JSON object in its own bytes.
    Row(Bytes),
    /// A row that is too large to be held. It has been passed by.
    Oversized(Oversized),
    /// A blank line of a continuous feed: the server lives and has nothing to say.
    Blank,
    /// What follows the rows of a normal feed, as a JSON object: `{"last_seq":…,"pending":0}`.
    Tail(Bytes),
}

/// What is known about a row that is too large to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oversized {
    /// What it says about itself.
    pub surface: Surface,
    /// How large it is, in bytes.
    pub length: u64,
}

/// Cuts a feed into [`Frame`]s.
#[derive(Debug)]
pub struct Rows {
    place: Place,
    scanner: Scanner,
    /// The beginning of an object whose end has not come yet.
    partial: BytesMut,
    /// The reading of a row that is too large to be held, and how much of it has come.
    skim: Option<(Box<Skim>, u64)>,
    /// How many bytes that say nothing have come since the last frame.
    idle: usize,
    limit: usize,
}

/// Where in the feed the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// This many bytes of [`HEAD`] have been seen.
    Head(usize),
    /// Between the rows of a normal feed.
    Between,
    /// In a row of a normal feed.
    Row,
    /// After the rows of a normal feed, before the comma.
    AfterRows,
    /// In the tail of a normal feed.
    Tail,
    /// After a normal feed.
    End,
    /// Between the rows of a continuous feed; whether a row stands on this line already.
    Line(bool),
    /// In a row of a continuous feed.
    LineRow,
}

/// Why a feed cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenFeed {
    /// The body ended before the feed did.
    #[error("the answer was cut short")]
    CutShort,
    /// Something stands where a row should.
    #[error("the answer is not a change feed here: {0:?}")]
    Garbage(String),
    /// A row is too large to be held, and has no end.
    #[error("a row is larger than the {} MiB that are held, and does not end", .0 >> 20)]
    Endless(usize),
    /// What follows the rows is too large.
    #[error("the end of the feed is larger than {} MiB", .0 >> 20)]
    Oversized(usize),
    /// Where a row should begin stands nothing but white space and commas.
    #[error("no row begins within {} MiB", .0 >> 20)]
    Empty(usize),
}

impl Rows {
    /// Expects a feed of this shape.
    pub fn new(shape: Shape) -> Self {
        Self::with_limit(shape, MAX_ROW)
    }

    fn with_limit(shape: Shape, limit: usize) -> Self {
        let place = match shape {
            Shape::Normal => Place::Head(0),
            Shape::Continuous => Place::Line(false),
        };
        let (scanner, partial) = (Scanner::default(), BytesMut::new());
        Self { place, scanner, partial, skim: None, idle: 0, limit }
    }

    /// Takes the next frame off the input. `None` when all of the input is taken.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Frame>, BrokenFeed> {
        while let Some(&byte) = input.first() {
            match (self.place, byte) {
                (Place::Row | Place::Tail | Place::LineRow, _) => {
                    let frame = match (self.skim.is_some(), self.place) {
                        (false, Place::Tail) => self.object(input)?.map(Frame::Tail),
                        (false, _) => self.row(input)?,
                        (true, _) => self.pass_by(input)?,
                    };
                    let Some(frame) = frame else { continue };
                    self.place = match self.place {
                        Place::Tail => Place::End,
                        Place::LineRow => Place::Line(true),
                        _ => Place::Between,
                    };
                    self.idle = 0;
                    return Ok(Some(frame));
                }
                (Place::Line(false), b'\n') => {
                    self.idle = 0;
                    input.advance(1);
                    return Ok(Some(Frame::Blank));
                }
                (Place::Line(true), b'\n') => self.place = Place::Line(false),
                (_, b' ' | b'\t' | b'\r' | b'\n') => {}
                (Place::Head(seen), _) if HEAD.get(seen) == Some(&byte) => {
                    self.place =
                        if seen + 1 == HEAD.len() { Place::Between } else { Place::Head(seen + 1) };
                }
                (Place::Between, b',') => {}
                (Place::Between, b']') => self.place = Place::AfterRows,
                (Place::Between, b'{') => {
                    self.enter(Place::Row, 0);
                    continue;
                }
                (Place::Line(_), b'{') => {
                    self.enter(Place::LineRow, 0);
                    continue;
                }
                (Place::AfterRows, b',') => {
                    self.enter(Place::Tail, 1);
                    self.partial.extend_from_slice(b"{");
                }
                (Place::AfterRows, b'}') => {
                    self.place = Place::End;
                    input.advance(1);
                    return Ok(Some(Frame::Tail(Bytes::from_static(b"{}"))));
                }
                _ => return Err(garbage(input)),
            }
            self.idle += 1;
            if self.idle > self.limit {
                return Err(BrokenFeed::Empty(self.limit));
            }
            input.advance(1);
        }
        Ok(None)
    }

    /// The body has ended: whether it may. A continuous feed may end after any row, and only its
    /// reader knows whether the last one said so.
    pub fn finish(&self) -> Result<(), BrokenFeed> {
        match self.place {
            Place::End | Place::Line(_) => Ok(()),
            _ => Err(BrokenFeed::CutShort),
        }
    }

    fn enter(&mut self, place: Place, depth: usize) {
        self.place = place;
        self.scanner = Scanner { depth, ..Scanner::default() };
    }

    /// The row that we are in, once its end has come.
    fn row(&mut self, input: &mut Bytes) -> Result<Option<Frame>, BrokenFeed> {
        match self.object(input) {
            Ok(object) => Ok(object.map(Frame::Row)),
            Err(_) => {
                let (mut skim, held) = (Box::<Skim>::default(), std::mem::take(&mut self.partial));
                skim.pass(&held);
                self.skim = Some((skim, held.len() as u64));
                self.pass_by(input)
            }
        }
    }

    /// The end of the row that is too large, once it has come.
    fn pass_by(&mut self, input: &mut Bytes) -> Result<Option<Frame>, BrokenFeed> {
        let Some((mut skim, before)) = self.skim.take() else { return Ok(None) };
        let end = skim.pass(input);
        let piece = input.split_to(end.unwrap_or(input.len()));
        let length = before + piece.len() as u64;
        if end.is_some() {
            return Ok(Some(Frame::Oversized(Oversized { surface: skim.surface(), length })));
        }
        if length > MAX_PASSED || skim.is_too_deep() {
            return Err(BrokenFeed::Endless(self.limit));
        }
        self.skim = Some((skim, length));
        Ok(None)
    }

    /// The object that we are in, once its end has come. Takes nothing off the input if the object is
    /// too large.
    fn object(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, BrokenFeed> {
        let end = self.scanner.scan(input);
        let length = end.unwrap_or(input.len());
        if self.partial.len() + length > self.limit {
            return Err(BrokenFeed::Oversized(self.limit));
        }
        let piece = input.split_to(length);
        if end.is_some() && self.partial.is_empty() {
            return Ok(Some(piece));
        }
        self.partial.extend_from_slice(&piece);
        // The whole buffer is given away, so that one large row does not hold its memory for long.
        Ok(end.map(|_| std::mem::take(&mut self.partial).freeze()))
    }
}

/// Finds the end of a JSON object, over any number of pieces.
#[derive(Debug, Default)]
struct Scanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// How many of these bytes belong to the object, if it ends in them.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.escaped {
                self.escaped = false;
                at += 1;
            } else if self.in_string {
                // Most of a document is text, so this is where the time goes.
                let found = memchr2(b'"', b'\\', &bytes[at..])?;
                at += found + 1;
                match bytes[at - 1] {
                    b'"' => self.in_string = false,
                    _ => self.escaped = true,
                }
            } else {
                at += 1;
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(at);
                        }
                    }
                    _ => {}
                }
            }
        }
        None
    }
}

fn garbage(input: &Bytes) -> BrokenFeed {
    let excerpt = &input[..input.len().min(EXCERPT)];
    BrokenFeed::Garbage(String::from_utf8_lossy(excerpt).into_owned())
}

#[cfg(test)]
mod tests;

//! Lines of a feed file brought into memory, long ones as their skeletons, and made into events.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::content::{Fault, Folder};
use super::large::{Hidden, NoSkeleton, SKELETON_LIMIT, skeleton};
use super::lines::{self, Line, Lines};
use super::queue::Abandoned;
use super::row::{self, Broken, Row};
use super::stubs::Surroundings;
use crate::document::{Change, Position, Surface};

/// The longest line that is held in memory as it is.
pub(super) const SHORT_LINE: usize = 4 * 1024 * 1024;

/// Why reading came to a stop.
#[derive(Debug)]
pub(super) enum Stop<E> {
    /// Nobody receives any more.
    Abandoned,
    /// It failed.
    Failed(E),
}

impl<E> From<Abandoned> for Stop<E> {
    fn from(Abandoned: Abandoned) -> Self {
        Self::Abandoned
    }
}

impl From<io::Error> for Stop<io::Error> {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Asks whether anybody still waits for what is being read.
pub(super) type Check<'a> = &'a dyn Fn() -> Result<(), Abandoned>;

/// A line in memory.
#[derive(Debug)]
pub(super) struct Loaded<'a> {
    text: Text<'a>,
    hidden: Vec<Hidden>,
    too_large: bool,
    /// What is known of a line that is not kept in memory as it is.
    surface: Option<&'a Surface>,
    first: bool,
}

#[derive(Debug)]
enum Text<'a> {
    Whole(&'a [u8]),
    Skeleton(Bytes),
}

impl<'a> Loaded<'a> {
    /// Brings a line of this file into memory.
    pub fn load(file: &File, line: Line<'a>, check: Check<'_>) -> Result<Self, Stop<io::Error>> {
        let first = line.start == 0;
        if let Some(text) = line.text {
            return Ok(Self {
                text: Text::Whole(text),
                hidden: Vec::new(),
                too_large: false,
                surface: None,
                first,
            });
        }
        let (skeleton, too_large) = match skeleton(file, line.start..line.end, check) {
            Ok(skeleton) => (skeleton, false),
            Err(NoSkeleton::TooLarge(beginning)) => (beginning, true),
            Err(NoSkeleton::Abandoned) => return Err(Stop::Abandoned),
            Err(NoSkeleton::Io(error)) => return Err(Stop::Failed(error)),
        };
        let text = Text::Skeleton(skeleton.text.into());
        Ok(Self { text, hidden: skeleton.hidden, too_large, surface: line.surface, first })
    }

    /// The bytes that may be a row.
    pub fn row(&self) -> Option<&[u8]> {
        lines::row(self.bytes(), self.first)
    }

    /// Whether this is a whole row and not the beginning of one.
    pub fn is_whole(&self) -> bool {
        self.row().is_some_and(row::is_whole)
    }

    /// Reads the row; `None` for a line that is not a row.
    pub fn parse(&self) -> Result<Option<Row<'_>>, Broken> {
        let Some(row) = self.row() else { return Ok(None) };
        let parsed = row::parse(row);
        if !self.too_large {
            return parsed;
        }
        let limit = SKELETON_LIMIT >> 20;
        let reason = format!("the row is larger than {limit} MiB without its attachments");
        Err(match (self.surface, parsed) {
            (None, Err(broken)) => Broken { fault: Fault::Wrong(reason), ..broken },
            (surface, _) => Broken::unknown(reason).named_by(surface),
        })
    }

    /// Makes a row of this line into a change.
    pub fn change(
        &self,
        row: Row<'_>,
        position: Option<Position>,
        file: &Arc<File>,
        folder: &Folder,
        check: Check<'_>,
    ) -> Result<Change, Broken> {
        let (owner, hidden) = match &self.text {
            Text::Whole(_) => (None, Vec::new()),
            Text::Skeleton(text) => (Some(text), self.hidden_in_row()),
        };
        let around = Surroundings { folder, feed: Some(file), hidden: &hidden, check };
        row.into_change(position, owner, &around)
    }

    /// What was left out, by its place in the row instead of the line.
    fn hidden_in_row(&self) -> Vec<Hidden> {
        let line = self.bytes().as_ptr().addr();
        let lead = self.row().map_or(0, |row| row.as_ptr().addr() - line);
        let moved = |hidden: &Hidden| Hidden { at: hidden.at - lead, range: hidden.range.clone() };
        self.hidden.iter().map(moved).collect()
    }

    fn bytes(&self) -> &[u8] {
        match &self.text {
            Text::Whole(text) => text,
            Text::Skeleton(text) => text,
        }
    }
}

/// Calls `each` with every line from here to the file's present end. A last line without its
/// newline is left in `lines`.
pub(super) fn each_line(
    file: &File,
    lines: &mut Lines,
    check: Check<'_>,
    each: &mut dyn FnMut(Line<'_>) -> Result<(), Stop<io::Error>>,
) -> Result<(), Stop<io::Error>> {
    loop {
        while let Some(line) = lines.take() {
            each(line)?;
        }
        check()?;
        if fill(file, lines)? == 0 {
            return Ok(());
        }
    }
}

/// Reads once more from a file.
pub(super) fn fill(file: &File, lines: &mut Lines) -> io::Result<usize> {
    loop {
        match lines.fill(|into, offset| file.read_at(into, offset)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

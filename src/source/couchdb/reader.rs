//! An open feed: frames from a body, and silence as an item of its own.

use std::time::Duration;

use bytes::Bytes;

use crate::client::couchdb::rows::{BrokenFeed, Frame, Rows, Shape};
use crate::client::couchdb::{Body, Database};
use crate::source::SourceError;

/// An open feed.
#[derive(Debug)]
pub(super) struct Reader {
    database: Database,
    body: Body,
    rows: Rows,
    input: Bytes,
    /// Rows read, for naming the place of one.
    count: u64,
}

/// What an open feed brings.
#[derive(Debug)]
pub(super) enum Heard {
    /// A frame.
    Frame(Frame),
    /// Silence, for the given time.
    Quiet,
    /// The end of the body, at a place where a feed of its shape may end.
    End,
}

impl Reader {
    /// Reads a body that holds a feed of this shape, of this database.
    pub fn new(database: &Database, body: Body, shape: Shape) -> Self {
        let database = database.clone();
        Self { database, body, rows: Rows::new(shape), input: Bytes::new(), count: 0 }
    }

    /// The next item. With `quiet`, silence of that length is one.
    pub async fn hear(&mut self, quiet: Option<Duration>) -> Result<Heard, SourceError> {
        loop {
            if let Some(frame) = self.rows.next(&mut self.input).map_err(|e| self.broken(&e))? {
                self.count += u64::from(matches!(frame, Frame::Row(_) | Frame::Oversized(_)));
                return Ok(Heard::Frame(frame));
            }
            let chunk = match quiet {
                None => self.body.chunk().await,
                Some(quiet) => match tokio::time::timeout(quiet, self.body.chunk()).await {
                    Ok(chunk) => chunk,
                    Err(_) => return Ok(Heard::Quiet),
                },
            };
            match chunk? {
                Some(chunk) => self.input = chunk,
                None => {
                    self.rows.finish().map_err(|error| self.broken(&error))?;
                    return Ok(Heard::End);
                }
            }
        }
    }

    /// Where the last row stands, for people.
    pub fn place(&self) -> String {
        format!("row {} of the answer to {}", self.count, self.body.label())
    }

    /// The error for a feed that cannot be read further.
    pub fn broken(&self, error: &BrokenFeed) -> SourceError {
        let said = match error {
            BrokenFeed::Garbage(text) => BrokenFeed::Garbage(self.database.scrub(text)).to_string(),
            _ => error.to_string(),
        };
        let what = format!("{}: {said}", self.body.label());
        match error {
            BrokenFeed::Endless(_) => SourceError::permanent(what),
            _ => SourceError::transient(what),
        }
    }

    /// The error of a feed that does not continue as it should.
    pub fn failed(&self, why: impl std::fmt::Display) -> SourceError {
        SourceError::transient(format!("{}: {why}", self.body.label()))
    }
}

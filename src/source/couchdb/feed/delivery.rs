//! Rows made into events.

use bytes::Bytes;

use super::state::Feed;
use crate::client::couchdb::bounded;
use crate::client::couchdb::rows::Oversized;
use crate::document::Surface;
use crate::source::couchdb::reader::Reader;
use crate::source::couchdb::row::{self, Apart, Row};
use crate::source::{FeedEvent, SourceError, Unreadable};

/// How many rows are read between two reports of progress.
const PROGRESS_INTERVAL: u64 = 1000;

impl Feed {
    /// Reads a row.
    pub(super) fn read(&self, reader: &Reader, bytes: &Bytes) -> Result<Row, SourceError> {
        let error = match row::read(bytes, &self.origin, || reader.place()) {
            Ok(row) => return Ok(row),
            Err(error) => error.to_string(),
        };
        let surface = Surface::of(bytes);
        if surface.id.is_none() && self.source.trust.doubts() {
            return Err(reader.failed(format!("{} is not JSON: {error}", reader.place())));
        }
        Ok(row::skimmed(surface, Apart::NotJson(error), &self.origin, reader.place()))
    }

    /// Reads what is known of a row that was too large to be held.
    pub(super) fn large(&self, reader: &Reader, row: Oversized) -> Row {
        let Oversized { surface, length } = row;
        row::skimmed(surface, Apart::TooLarge(length), &self.origin, reader.place())
    }

    /// Whether ids that begin with `_local/` are local to the server, so that no replication copies them. In
    /// an exposed RxDB they are ordinary documents.
    fn keeps_local_documents(&self) -> bool {
        let end = self.told.as_deref().unwrap_or_default().trim_matches('"');
        let number = end.split_once('-').map(|(number, _)| number);
        self.origin.counts() || number.is_some_and(|number| number.parse::<u64>().is_ok())
    }

    /// Makes a row ready to be yielded.
    pub(super) async fn deliver(&mut self, reader: &Reader, row: Row) -> Result<(), SourceError> {
        if let Some(position) = row.position() {
            self.token = Some(position.token().into());
        }
        if let Some(anchor) = row.anchor() {
            self.recent.push(anchor.clone());
            self.last = Some(anchor);
        }
        let local = row.is_local() && self.keeps_local_documents();
        let event = match row {
            _ if local => match row.position().filter(|_| !self.scan) {
                Some(position) => FeedEvent::Position(position.clone()),
                None => return Ok(()),
            },
            Row::Change(change) => FeedEvent::Change(change),
            Row::Bodiless(bodiless) => self.fetch(reader, bodiless).await?,
            Row::Unreadable(row) => {
                let reason = bounded(&self.source.database.scrub(&row.reason));
                // A row with neither an id nor a position would be forgotten once the feed is past it.
                let before = self.token.clone().filter(|_| row.id.is_none());
                let before = || before.map(|token| self.origin.within(token, self.last.clone()));
                let position = row.position.or_else(before);
                FeedEvent::Unreadable(Unreadable { reason, position, ..row })
            }
            Row::End(_) => return Err(reader.failed("the feed ended in its middle")),
            Row::Failure { error, reason } => return Err(self.failure(reader, &error, &reason)),
        };
        self.ready.push_back(event);
        if let Some(progress) = &mut self.progress {
            progress.done += 1;
            progress.total = progress.total.max(progress.done);
            if progress.done % PROGRESS_INTERVAL == 0 {
                self.ready.push_back(FeedEvent::Progress(*progress));
            }
        }
        Ok(())
    }

    /// The error for a server that gave up within a feed.
    fn failure(&self, reader: &Reader, error: &str, reason: &str) -> SourceError {
        let said = self.source.database.scrub(&format!("{error}: {reason}"));
        let said = format!("the server says {}", bounded(&said));
        let words = format!("{error} {reason}").to_lowercase();
        if words.contains("no_db_file") || words.contains("database does not exist") {
            let what = format!("database `{}` is gone: {said}", self.source.database.name());
            SourceError::Missing { what }
        } else if words.contains("malformed sequence") {
            SourceError::Expired { reason: said }
        } else if matches!(error, "unauthorized" | "forbidden") {
            SourceError::Refused { what: format!("{}: {said}", self.source.database.url()) }
        } else {
            reader.failed(said)
        }
    }
}

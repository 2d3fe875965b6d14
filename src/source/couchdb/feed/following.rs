//! Following a database by a continuous feed.

use std::sync::Arc;

use tokio::time::Instant;

use super::live;
use super::state::{Feed, State};
use crate::client::couchdb::FeedShape;
use crate::client::couchdb::rows::{Frame, Shape};
use crate::source::couchdb::reader::{Heard, Reader};
use crate::source::couchdb::row::Row;
use crate::source::{FeedEvent, SourceError};

/// After this many rows of a followed feed, its positions note the last changes again.
const NOTED: u64 = 32;

impl Feed {
    /// Opens a continuous feed from the last position.
    pub(super) async fn follow(&mut self) -> Result<State, SourceError> {
        let heartbeat = self.source.live.heartbeat(self.source.timings.heartbeat);
        self.heard = live::Heard::default();
        let feed = FeedShape::Continuous { heartbeat };
        let body = self.ask_for(self.token.as_deref(), feed).await?;
        self.checked = Instant::now();
        Ok(State::Following(Box::new(Reader::new(&self.source.database, body, Shape::Continuous))))
    }

    /// The next frame of a continuous feed.
    pub(super) async fn go_on(&mut self, mut reader: Box<Reader>) -> Result<State, SourceError> {
        let quiet = self.fresh.then_some(self.source.timings.quiet);
        match reader.hear(quiet).await? {
            Heard::Quiet => self.be_current(),
            Heard::Frame(Frame::Blank) => {
                self.heard.beat();
                self.check().await?;
                self.be_current();
            }
            Heard::Frame(Frame::Row(bytes)) => match self.read(&reader, &bytes)? {
                Row::End(last_seq) => return self.closed(last_seq).await,
                row => self.follow_up(&reader, row).await?,
            },
            Heard::Frame(Frame::Oversized(row)) => {
                let row = self.large(&reader, row);
                self.follow_up(&reader, row).await?;
            }
            Heard::Frame(Frame::Tail(_)) | Heard::End => {
                return Err(reader.failed("the connection ended without the feed's closing row"));
            }
        }
        Ok(State::Following(reader))
    }

    /// Takes a row of a followed feed.
    async fn follow_up(&mut self, reader: &Reader, row: Row) -> Result<(), SourceError> {
        self.fresh = true;
        self.heard.row();
        self.deliver(reader, row).await?;
        self.note(NOTED);
        Ok(())
    }

    /// There is nothing newer.
    pub(super) fn be_current(&mut self) {
        self.fresh = false;
        self.ready.push_back(FeedEvent::CaughtUp);
    }

    /// The server ended a continuous feed normally. It may be about to stop, or the database was deleted.
    /// The database that answers now may be another one.
    async fn closed(&mut self, last_seq: Option<Arc<str>>) -> Result<State, SourceError> {
        let info = self.source.database.info().await?;
        if let Some(reason) = self.origin.has_changed(&info, self.token.as_deref()) {
            return Err(SourceError::Expired { reason });
        }
        self.verify().await?;
        self.token = last_seq.or_else(|| self.token.take());
        tokio::time::sleep(self.source.timings.reopen).await;
        Ok(State::AtEnd)
    }

    /// Checks now and then that the database is still the same: pouchdb-server keeps the feed of a deleted
    /// database open in silence, and a purge leaves no row.
    pub(super) async fn check(&mut self) -> Result<(), SourceError> {
        let again = std::mem::take(&mut self.check_again);
        if !again && self.checked.elapsed() < self.source.timings.check {
            return Ok(());
        }
        self.checked = Instant::now();
        let info = match self.source.database.info().await {
            Ok(info) => info,
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "the database could not be asked; the feed still lives");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(reason) = self.origin.has_changed(&info, self.token.as_deref()) {
            return Err(SourceError::Expired { reason });
        }
        match self.verify().await {
            Err(error @ SourceError::Transient { .. }) => {
                tracing::debug!(%error, "the last change could not be verified; the feed still lives");
                return Ok(());
            }
            verified => verified?,
        }
        // In a database that is written all the time, two requests in quick succession may still
        // find no write between them.
        self.check_again = !self.compare_end(&info) && !again;
        Ok(())
    }

    /// Learns from the way in which a continuous feed broke off.
    pub(super) fn learn(&self, followed: Result<State, SourceError>) -> Result<State, SourceError> {
        let is_break = matches!(followed, Err(SourceError::Transient { retry_after: None, .. }));
        if is_break && !self.heard.beat {
            self.source.live.learn(self.heard.last.elapsed(), self.source.timings.heartbeat);
        }
        followed
    }
}

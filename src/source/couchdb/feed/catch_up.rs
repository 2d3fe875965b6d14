//! Reading a normal feed to its end.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::state::{CatchUp, Feed, State};
use crate::client::couchdb::DatabaseInfo;
use crate::client::couchdb::rows::Frame;
use crate::source::couchdb::origin::{RECREATED, is_number};
use crate::source::couchdb::reader::{Heard, Reader};
use crate::source::couchdb::row::{self, Row};
use crate::source::{FeedEvent, Holds, Mode, Progress, SourceError};

/// After this many rows of a catch-up, where few rows have a position, positions note the last changes
/// again.
const NOTED: u64 = 1000;

impl Feed {
    /// The next frame of a normal feed.
    pub(super) async fn catch_up(&mut self, mut open: Box<CatchUp>) -> Result<State, SourceError> {
        match open.reader.hear(None).await? {
            Heard::Frame(Frame::Row(bytes)) => {
                let row = self.read(&open.reader, &bytes)?;
                self.take(open, row).await
            }
            Heard::Frame(Frame::Oversized(row)) => {
                let row = self.large(&open.reader, row);
                self.take(open, row).await
            }
            Heard::Frame(Frame::Tail(tail)) if open.poll.is_some() => {
                self.polled(&open, &tail).await
            }
            Heard::Frame(Frame::Tail(tail)) => {
                if open.recognise.is_some() {
                    let reason = format!("the feed ends before the position: {RECREATED}");
                    return Err(SourceError::Expired { reason });
                }
                self.finish(&open.reader, &tail)?;
                // The feed is complete. Reading its end lets the connection be used again; anything
                // after it does not matter.
                let _ = open.reader.hear(Some(self.source.timings.quiet)).await;
                self.count().await;
                self.ready.push_back(FeedEvent::CaughtUp);
                Ok(self.caught_up())
            }
            Heard::Frame(Frame::Blank) | Heard::Quiet => Ok(State::CatchingUp(open)),
            Heard::End => Err(open.reader.failed("the feed ended without `last_seq`")),
        }
    }

    /// Takes a row of a normal feed.
    async fn take(&mut self, mut open: Box<CatchUp>, row: Row) -> Result<State, SourceError> {
        if let Some(reason) = self.bound.passed_by(&row, self.origin.counts()) {
            let what = format!("{}: {reason}", self.source.database.url());
            return Err(SourceError::permanent(what));
        }
        if let Some(position) = open.recognise.take()
            && self.recognises(&row, &position).await?
        {
            return Ok(State::CatchingUp(open));
        }
        if let Some(brought) = &mut open.poll {
            *brought = true;
        }
        let row = self.completed(row);
        self.deliver(&open.reader, row).await?;
        self.note(NOTED);
        if self.is_past_bare() {
            // A run has one feed at a time.
            drop(open);
            return self.clothe().await;
        }
        Ok(State::CatchingUp(open))
    }

    /// The end of a normal feed.
    pub(super) fn finish(&mut self, reader: &Reader, tail: &Bytes) -> Result<(), SourceError> {
        #[derive(serde::Deserialize)]
        struct Tail<'a> {
            #[serde(borrow)]
            last_seq: Option<&'a RawValue>,
        }
        let tail: Tail<'_> = serde_json::from_slice(tail)
            .map_err(|error| reader.failed(format!("the feed's end is not JSON: {error}")))?;
        let Some(last_seq) = tail.last_seq else {
            return Err(reader.failed("the feed ended without `last_seq`"));
        };
        if last_seq.get().len() > row::LONGEST_PLACE {
            return Err(reader.failed("the feed's `last_seq` is longer than any URL"));
        }
        // If positions are numbers, this must be that of a row, which is looked for later.
        let own = self.token.take().filter(|_| self.origin.counts());
        let token = own.unwrap_or_else(|| last_seq.get().into());
        let position = self.origin.at_end(token.clone(), self.last.clone(), &self.recent);
        self.token = Some(token);
        self.source.trust.renew();
        self.source.stuck.clear();
        self.bare = None;
        if let Some(Progress { done, .. }) = self.progress.take() {
            self.ready.push_back(FeedEvent::Progress(Progress { done, total: done }));
        }
        self.ready.push_back(if std::mem::take(&mut self.scan) {
            FeedEvent::ScanFinished { position, exhaustive: true }
        } else {
            FeedEvent::Position(position)
        });
        Ok(())
    }

    /// Requests the number of documents, at the end of the feed. If that fails, nothing is compared.
    async fn count(&mut self) {
        if self.origin.counts() {
            return;
        }
        match self.source.database.info().await {
            Ok(info) => _ = self.compare_end(&info),
            Err(error) => tracing::debug!(%error, "the database could not be asked for its counts"),
        }
    }

    /// Reports what the database holds, if its `update_seq` is still the one of its last answer: then nothing
    /// was written in between. Returns whether it is.
    pub(super) fn compare_end(&mut self, info: &DatabaseInfo) -> bool {
        let now = info.update_seq.get();
        let same = self.told.as_deref() == Some(now);
        // pouchdb-server's counts are not reliable.
        if same && !self.origin.counts() && !is_number(now) {
            let (documents, tombstones) = (info.doc_count, info.doc_del_count);
            self.ready.push_back(FeedEvent::Holds(Holds { documents, tombstones }));
        }
        self.told = Some(now.into());
        same
    }

    /// The state after the end of a normal feed.
    pub(super) fn caught_up(&self) -> State {
        match self.mode {
            Mode::CatchUp => State::Over,
            Mode::Follow => State::AtEnd,
        }
    }
}

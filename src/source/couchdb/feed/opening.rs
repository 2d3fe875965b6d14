//! Opening a feed: from its beginning, or after a position if the database is still the one it was.

use std::sync::Arc;

use super::broken;
use super::state::{CatchUp, Feed, MOST_UNPLACED_ROWS, State};
use crate::client::couchdb::rows::Shape;
use crate::client::couchdb::{Body, Changes, DatabaseInfo, FeedShape};
use crate::document::Position;
use crate::source::couchdb::bound::Bound;
use crate::source::couchdb::lookup;
use crate::source::couchdb::origin::{Origin, RECREATED, is_number};
use crate::source::couchdb::reader::Reader;
use crate::source::couchdb::row::Row;
use crate::source::{FeedEvent, Progress, SourceError};

/// About the most bytes between two rows with positions, so that a connection that breaks now and then
/// still makes progress among large documents.
const MOST_UNPLACED_BYTES: u64 = 8 << 20;

impl Feed {
    /// Opens the feed from its beginning.
    pub(super) async fn read_all(&mut self) -> Result<State, SourceError> {
        let info = self.ask().await?;
        let progress = Progress { done: 0, total: info.changes() };
        self.progress = Some(progress);
        self.ready.push_back(FeedEvent::Progress(progress));
        self.open(None, None).await
    }

    /// Requests the properties of the database.
    pub(super) async fn ask(&mut self) -> Result<DatabaseInfo, SourceError> {
        let info = self.source.database.info().await?;
        self.origin = Origin::of(&info);
        self.note(1);
        let mean = info.sizes.external / info.doc_count.unwrap_or_default().max(1);
        self.bound = Bound::of(&info, &self.origin);
        self.told = Some(info.update_seq.get().into());
        if let Some(count) = info.doc_count {
            self.source.note_count(count);
        }
        self.interval = (MOST_UNPLACED_BYTES / mean.max(1)).clamp(1, MOST_UNPLACED_ROWS);
        Ok(info)
    }

    /// Opens the feed after a position of CouchDB, if the database is still the one it was.
    pub(super) async fn resume(&mut self, position: Position) -> Result<State, SourceError> {
        let info = self.ask().await?;
        if let Some(reason) = self.origin.contradicts(&position) {
            return Err(SourceError::Expired { reason });
        }
        // Always, and first: a server that was restored from its own backup may have reached the very
        // same end with other documents.
        self.verify().await?;
        if self.origin.is_end(&position) {
            self.ready.push_back(FeedEvent::Position(position));
            self.compare_end(&info);
            self.ready.push_back(FeedEvent::CaughtUp);
            return Ok(self.caught_up());
        }
        self.open(Some(position.token()), None).await
    }

    /// Opens the feed at a position of pouchdb-server. Nothing that it says shows whether the database is
    /// still the same, and it accepts any number as a position. So the row of the position itself is read
    /// once more: it must be the first.
    pub(super) async fn resume_counting(
        &mut self,
        position: Position,
    ) -> Result<State, SourceError> {
        self.origin = Origin::counting();
        self.note(1);
        let number = position.token().parse::<u64>().ok().filter(|number| *number > 0);
        match number.zip(position.anchor()) {
            Some((number, _)) => {
                let before = (number - 1).to_string();
                self.open(Some(&before), Some(position)).await
            }
            None => self.open(Some(position.token()), None).await,
        }
    }

    pub(super) async fn open(
        &mut self,
        since: Option<&str>,
        recognise: Option<Position>,
    ) -> Result<State, SourceError> {
        let tried = self.source.stuck.tried(since);
        let most = if tried > 0 { 1 } else { self.interval };
        let interval = self.source.stuck.interval(most);
        let seq_interval = (!self.origin.counts()).then_some(interval);
        let feed = FeedShape::Normal { seq_interval };
        self.opened_at = since.map(Arc::from);
        self.bare = (tried >= broken::BARE_AT).then_some(broken::BARE_ROWS);
        let body = self.ask_for(since, feed).await?;
        self.source.stuck.note(since, tried);
        let reader = Reader::new(&self.source.database, body, Shape::Normal);
        Ok(State::CatchingUp(Box::new(CatchUp { reader, recognise, poll: None })))
    }

    pub(super) async fn ask_for(
        &self,
        since: Option<&str>,
        feed: FeedShape,
    ) -> Result<Body, SourceError> {
        let (leaves, bodies) = (self.source.kept.revisions, self.bare.is_none());
        Ok(self.source.database.changes(Changes { since, feed, bodies, leaves }).await?)
    }

    /// Fails if the database does not know one of the changes that its feed brought last.
    pub(super) async fn verify(&self) -> Result<(), SourceError> {
        let anchors = self.recent.anchors();
        if anchors.is_empty() {
            return Ok(());
        }
        match lookup::disowned(&self.source.database, &anchors).await? {
            Some(reason) => Err(SourceError::Expired { reason }),
            None => Ok(()),
        }
    }

    /// Whether the first row is the position's own, which was delivered long ago. Fails if the
    /// database is not the one it was.
    pub(super) async fn recognises(
        &self,
        row: &Row,
        position: &Position,
    ) -> Result<bool, SourceError> {
        let Some(found) = row.position() else { return Ok(false) };
        if !is_number(found.token()) {
            let reason = "it is another server: it does not number its changes".to_owned();
            return Err(SourceError::Expired { reason });
        }
        let same = found.token() == position.token() && found.anchor() == position.anchor();
        // A database created again may have the same last document in the same place.
        if !same || self.recent.anchors().len() > 1 {
            self.verify().await?;
        }
        if same {
            return Ok(true);
        }
        if let Some(anchor) = position.anchor()
            && lookup::is_current(&self.source.database, anchor).await?
        {
            // An unchanged document keeps its place, and its row would have been the first. The
            // same content written again into a new database even has the same revision.
            let reason = format!(
                "`{}` is unchanged and has another place in the feed: {RECREATED}",
                anchor.id
            );
            return Err(SourceError::Expired { reason });
        }
        Ok(false)
    }
}

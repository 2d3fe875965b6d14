//! A feed that breaks off again and again, as behind a proxy that ends every answer after a while: it is
//! read in small steps.

use std::time::Duration;

use super::state::{Feed, State};
use crate::document::DocumentState;
use crate::source::SourceError;
use crate::source::couchdb::row::{Apart, Bodiless, Row};

/// After this many openings at the same position the feed is read without bodies, which are read apart: a
/// document may be larger than what comes before the break.
pub(super) const BARE_AT: u32 = 2;

/// How many rows of a feed are read without bodies.
pub(super) const BARE_ROWS: u32 = 20;

/// How often a scan that broke off is continued from where it broke before it begins from the start.
const TRIES: u32 = 4;

/// The longest wait for that.
const LONGEST: Duration = Duration::from_secs(30);

impl Feed {
    /// Whether a scan continues after this error: it got ahead, and would else begin from the start.
    pub(super) fn may_continue(&self, error: &SourceError) -> bool {
        let SourceError::Transient { retry_after, .. } = error else { return false };
        let soon = retry_after.is_none_or(|wait| wait <= LONGEST);
        soon && self.scan && self.token.is_some() && self.token != self.opened_at
    }

    /// Opens a scan again where it broke off, if the database is still the same.
    pub(super) async fn continue_scan(
        &mut self,
        mut error: SourceError,
    ) -> Result<State, SourceError> {
        let mut pause = self.source.timings.reopen;
        for _ in 0..TRIES {
            let SourceError::Transient { what, retry_after, .. } = error else { return Err(error) };
            tracing::warn!("{what}; the full scan continues where it broke off");
            tokio::time::sleep(pause.max(retry_after.unwrap_or_default()).min(LONGEST)).await;
            pause *= 2;
            match self.reopen().await {
                Ok(state) => return Ok(state),
                Err(other) => error = other,
            }
        }
        Err(error)
    }

    /// Opens the feed after its last position.
    async fn reopen(&mut self) -> Result<State, SourceError> {
        let token = self.token.clone().unwrap_or_else(|| "0".into());
        let position = self.origin.within(token, self.last.clone());
        match self.origin.counts() {
            true => self.resume_counting(position).await,
            false => self.resume(position).await,
        }
    }

    /// Counts a row that came without its body. Whether the feed is to come with bodies again.
    pub(super) fn is_past_bare(&mut self) -> bool {
        let Some(left) = &mut self.bare else { return false };
        *left = left.saturating_sub(1);
        // Only after a row with a position can the feed continue from there.
        *left == 0 && self.token != self.opened_at
    }

    /// Opens the feed with bodies again.
    pub(super) async fn clothe(&mut self) -> Result<State, SourceError> {
        self.bare = None;
        self.reopen().await
    }

    /// A row that came without a body which is to be kept.
    pub(super) fn completed(&self, row: Row) -> Row {
        match row {
            Row::Change(change)
                if self.bare.is_some()
                    && self.source.kept.deleted
                    && matches!(change.state, DocumentState::Deleted(None)) =>
            {
                Row::Bodiless(Bodiless {
                    id: change.id,
                    revision: Some(change.revision),
                    position: change.position,
                    why: Apart::NotSent,
                })
            }
            row => row,
        }
    }
}

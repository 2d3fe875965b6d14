//! Documents that have to be read apart from their rows: one row is never an error of the feed.

use std::time::Duration;

use super::state::Feed;
use crate::client::couchdb::bounded;
use crate::document::Change;
use crate::source::couchdb::lookup::{self, FoundChange};
use crate::source::couchdb::reader::Reader;
use crate::source::couchdb::row::{Apart, Bodiless};
use crate::source::{FeedEvent, SourceError, Unreadable};

/// How long the feed waits for a document that is read apart. A document that takes longer is left to a
/// later look at the documents that failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same after a document that took longer.
const HURRIED: Duration = Duration::from_secs(1);

/// The same of a document that is too large for the feed, and for each MiB of it.
const PATIENCE_LARGE: Duration = Duration::from_secs(30);
const PATIENCE_MIB: Duration = Duration::from_secs(1);

impl Feed {
    /// Whether the feed is to be read again because of this row.
    fn is_doubted(&self, why: &Apart) -> bool {
        !matches!(why, Apart::TooLarge(_)) && self.bare.is_none() && self.source.trust.doubts()
    }

    /// Reads the document of a row that came without it, or could not be read.
    pub(super) async fn fetch(
        &mut self,
        reader: &Reader,
        row: Bodiless,
    ) -> Result<FeedEvent, SourceError> {
        let Bodiless { id, revision, position, why } = row;
        let patience = match why {
            Apart::TooLarge(bytes) => {
                let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
                PATIENCE_LARGE.saturating_add(PATIENCE_MIB.saturating_mul(mib))
            }
            _ if self.hurried => HURRIED,
            _ => PATIENCE,
        };
        // Only a document that was not sent may be there a moment later.
        let lag = if why == Apart::NotSent { &self.source.timings.lag[..] } else { &[] };
        let reading = async {
            let mut pauses = lag.iter();
            loop {
                let (database, kept) = (&self.source.database, self.source.kept);
                let reason = match lookup::find(database, &id, kept, &self.source.large).await {
                    Ok(FoundChange::Change(change)) => return Ok(Ok(change)),
                    Ok(FoundChange::TooLarge(reason)) => return Ok(Err(reason)),
                    Ok(FoundChange::Nothing) => "the server says that it does not exist".to_owned(),
                    Ok(FoundChange::Unreadable(reason)) => reason,
                    Err(SourceError::Transient { what, retry_after, cause }) => {
                        let soon = retry_after.is_none_or(|wait| wait <= PATIENCE);
                        if soon && self.is_doubted(&why) {
                            return Err(SourceError::Transient { what, retry_after, cause });
                        }
                        bounded(&what)
                    }
                    Err(SourceError::Permanent { what }) => bounded(&what),
                    Err(error) => return Err(error),
                };
                match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Ok(Err(reason)),
                }
            }
        };
        let found = match tokio::time::timeout(patience, reading).await {
            Ok(found) => {
                self.hurried = false;
                found?
            }
            Err(_) => {
                self.hurried = true;
                Err(format!("the server does not send it within {patience:?}"))
            }
        };
        match found {
            // The document is JSON, so its row was damaged in transit.
            Ok(_) if matches!(why, Apart::NotJson(_)) && self.is_doubted(&why) => {
                Err(reader.failed(format!("{}: {why}", reader.place())))
            }
            Ok(change) => Ok(FeedEvent::Change(Change { position, ..change })),
            Err(reason) => Ok(FeedEvent::Unreadable(Unreadable {
                id: Some(id),
                revision,
                place: reader.place(),
                position,
                reason: format!("{why}, and {reason}"),
            })),
        }
    }
}

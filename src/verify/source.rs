//! Reads the present content of a source's collection: lists it, and compares it byte by byte if
//! requested.

use std::sync::Arc;

use futures_util::StreamExt;

use super::VerifyError;
use super::bytes::{Comparer, Verdict};
use super::listing::{ListedRevisions, Listing, OTHER, UNREAD};
use super::progress::VerifyProgress;
use crate::document::{Change, DocumentId, DocumentState, Head, Position, Revision};
use crate::source::outage::Said;
use crate::source::retry::{Fed, RetryPolicy, log_wait, resilient};
use crate::source::{Feed, FeedEvent, Mode, Since};

/// The number of documents that are compared byte by byte at the same time.
const AT_ONCE: usize = 4;

/// A listed collection of a source.
#[derive(Debug)]
pub struct SourceListing {
    pub listed: ListedRevisions,
    pub position: Option<Position>,
    pub unreadable: Vec<String>,
    /// Tombstones that the mirror holds with other bytes.
    pub tombstones: Vec<(DocumentId, Revision)>,
}

impl Default for SourceListing {
    fn default() -> Self {
        Taking::default().finish()
    }
}

/// Lists the present content of a source. If a document is listed more than once, the last entry
/// counts.
pub async fn list(
    source: Arc<dyn Feed>,
    beside: Option<Comparer<'_>>,
    step: Option<(&VerifyProgress, usize)>,
) -> Result<SourceListing, VerifyError> {
    let feed = resilient(source, Since::Start, Mode::CatchUp, RetryPolicy::CATCH_UP);
    let beside = beside.as_ref();
    let feed = feed.map(|fed| async move {
        let fed = fed?;
        let verdict = match (&fed, beside) {
            (Fed::Event(FeedEvent::Change(change)), Some(beside)) => beside.compare(change).await?,
            _ => Verdict::Same,
        };
        Ok::<_, VerifyError>((fed, verdict))
    });
    let mut feed = std::pin::pin!(feed.buffered(AT_ONCE));
    let (mut taking, mut said) = (Taking::default(), Said::default());
    while let Some(fed) = feed.next().await {
        match fed? {
            (Fed::Event(event), verdict) => {
                said = Said::default();
                if let (Some((progress, step)), FeedEvent::Change(change)) = (step, &event)
                    && !change.is_deletion()
                {
                    progress.add(step, 1, 0);
                }
                taking.take(event, verdict)?;
            }
            (Fed::Waiting { error, pause }, _) => {
                log_wait(&error, pause, RetryPolicy::CATCH_UP, &mut said);
            }
        }
    }
    Ok(taking.finish())
}

/// Whether the source holds anything but tombstones.
pub async fn has_documents(source: Arc<dyn Feed>) -> Result<bool, VerifyError> {
    let feed = resilient(source, Since::Start, Mode::CatchUp, RetryPolicy::CATCH_UP);
    let mut feed = std::pin::pin!(feed);
    let mut said = Said::default();
    while let Some(fed) = feed.next().await {
        match fed? {
            Fed::Event(FeedEvent::Change(change)) if change.is_deletion() => {}
            Fed::Event(FeedEvent::Change(_) | FeedEvent::Unreadable(_)) => return Ok(true),
            Fed::Event(_) => said = Said::default(),
            Fed::Waiting { error, pause } => {
                log_wait(&error, pause, RetryPolicy::CATCH_UP, &mut said);
            }
        }
    }
    Ok(false)
}

#[derive(Default)]
struct Taking {
    listing: Listing,
    position: Option<Position>,
    unreadable: Vec<String>,
    tombstones: Vec<(DocumentId, Revision)>,
}

impl Taking {
    fn take(&mut self, event: FeedEvent, verdict: Verdict) -> Result<(), VerifyError> {
        match event {
            FeedEvent::Change(change) => self.take_change(change, verdict)?,
            FeedEvent::Unreadable(row) => {
                self.position = row.position.or(self.position.take());
                self.unreadable.push(format!("{}: {}", row.place, row.reason));
            }
            FeedEvent::ScanStarted { .. } => {
                self.listing.clear();
                self.unreadable.clear();
                self.tombstones.clear();
            }
            FeedEvent::Position(at) | FeedEvent::ScanFinished { position: at, .. } => {
                self.position = Some(at);
            }
            FeedEvent::Holds(_) | FeedEvent::CaughtUp | FeedEvent::Progress(_) => {}
        }
        Ok(())
    }

    fn take_change(&mut self, change: Change, verdict: Verdict) -> Result<(), VerifyError> {
        let pushed = match &change.state {
            DocumentState::Present(document) => {
                // Like the mirror: a row may name a revision that its body does not have.
                let head = Head::read(&document.body).unwrap_or_default();
                let revision = head.revision.as_deref().map(Revision::from);
                let content = if verdict == Verdict::Differs { &OTHER } else { &UNREAD };
                self.listing.push(&change.id, revision.as_ref(), content)
            }
            DocumentState::Deleted(_) => {
                if verdict == Verdict::Differs {
                    self.tombstones.push((change.id.clone(), change.revision.clone()));
                }
                self.listing.push_deleted(&change.id)
            }
        };
        pushed.map_err(VerifyError::Temporary)?;
        if let Verdict::Unread(reason) = verdict {
            let id = &change.id;
            self.unreadable.push(format!("`{id}` could not be compared byte by byte: {reason}"));
        }
        self.position = change.position.or(self.position.take());
        Ok(())
    }

    fn finish(self) -> SourceListing {
        let Self { listing, position, unreadable, tombstones } = self;
        SourceListing { listed: listing.finish(), position, unreadable, tombstones }
    }
}

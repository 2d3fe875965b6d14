//! Write events, which are emitted after a change is durable, and the bounded channel for them.
//!
//! Delivery is at least once and in the order of commits.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::broadcast;

use crate::document::{CollectionName, DocumentId, Revision};

/// One document was written to the mirror, or removed from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WriteEvent {
    /// Its number: higher than that of every event before it in this mirror, never used twice.
    pub event: u64,
    /// The collection.
    #[serde(rename = "collectionName")]
    pub collection: CollectionName,
    /// The document.
    #[serde(rename = "documentId")]
    pub document: DocumentId,
    /// The files written, relative to the mirror; none for a deletion.
    pub files: Vec<String>,
    /// Whether the document was removed.
    pub deleted: bool,
    /// The revision that is now in the mirror, or that deleted the document.
    pub revision: Revision,
    /// The source's position after the change, as the source writes it; `null` if it gave none.
    pub position: Option<Box<RawValue>>,
    /// When the change was written, in RFC 3339.
    pub at: Timestamp,
}

/// Sends events to subscribers. A slow subscriber lags and is informed; it never delays a mirror.
#[derive(Clone, Debug)]
pub struct Broadcast {
    sender: broadcast::Sender<Arc<WriteEvent>>,
}

impl Broadcast {
    /// The number of events that a subscriber may be behind before it has to read them from the
    /// journal.
    pub const CAPACITY: usize = 1024;

    /// A channel without subscribers.
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(Self::CAPACITY) }
    }

    /// Sends one event. A channel without subscribers is not an error.
    pub fn send(&self, event: Arc<WriteEvent>) {
        let _nobody_listens = self.sender.send(event);
    }

    /// Subscribes to later events.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<WriteEvent>> {
        self.sender.subscribe()
    }
}

impl Default for Broadcast {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> WriteEvent {
        WriteEvent {
            event: 7,
            collection: "books".into(),
            document: "b:1".into(),
            files: vec!["books/b%3A1/document.json".into()],
            deleted: false,
            revision: "1-a".into(),
            position: Some(RawValue::from_string("\"12-g1A\"".into()).unwrap()),
            at: "2026-11-20T10:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn an_event_has_the_published_shape() {
        insta::assert_snapshot!(
            serde_json::to_string(&event()).unwrap(),
            @r#"{"event":7,"collectionName":"books","documentId":"b:1","files":["books/b%3A1/document.json"],"deleted":false,"revision":"1-a","position":"12-g1A","at":"2026-11-20T10:00:00Z"}"#
        );
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_much_it_missed_and_holds_nobody_up() {
        let channel = Broadcast::new();
        let mut listener = channel.subscribe();
        for _ in 0..Broadcast::CAPACITY + 5 {
            channel.send(Arc::new(event()));
        }
        let missed = listener.recv().await.unwrap_err();
        assert_eq!(missed, broadcast::error::RecvError::Lagged(5));
    }
}

//! Write events, which are emitted after a change is durable, and the bounded channel for them.
//!
//! Delivery is at least once and in the order of commits.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::document::{CollectionName, DocumentId, Revision, plain};

/// One document was written to the mirror, or removed from it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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
    #[schema(value_type = Option<serde_json::Value>)]
    pub position: Option<Box<RawValue>>,
    /// When the change was written, in RFC 3339.
    pub at: Timestamp,
}

/// An event and its line, which is encoded once for the journal and all subscribers.
#[derive(Clone, Debug)]
pub struct Emitted {
    event: WriteEvent,
    line: Bytes,
}

impl Emitted {
    /// Encodes an event.
    pub fn new(event: WriteEvent) -> Self {
        // An event consists of strings, numbers and raw JSON, which can always be written.
        let text = serde_json::to_string(&event).unwrap_or_default();
        Self { event, line: line(&text) }
    }

    /// The event that a line of the journal holds.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        let text = str::from_utf8(text).map_err(serde::de::Error::custom)?;
        Ok(Self { event: serde_json::from_str(text)?, line: line(text) })
    }

    /// The event as one line of JSON, with its newline, and without characters that control a
    /// terminal.
    pub fn line(&self) -> &Bytes {
        &self.line
    }

    /// The line without its newline.
    pub fn text(&self) -> Bytes {
        self.line.slice(..self.line.len() - 1)
    }
}

impl Deref for Emitted {
    type Target = WriteEvent;

    fn deref(&self) -> &WriteEvent {
        &self.event
    }
}

/// JSON as a line, in which all white space between tokens is spaces.
fn line(json: &str) -> Bytes {
    let mut line = plain::json_line(json).into_owned();
    line.push('\n');
    line.into()
}

/// Sends events to subscribers. A slow subscriber lags and is informed; it never delays a mirror.
#[derive(Clone, Debug)]
pub struct Broadcast {
    sender: broadcast::Sender<Arc<Emitted>>,
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
    pub fn send(&self, event: Arc<Emitted>) {
        let _nobody_listens = self.sender.send(event);
    }

    /// Subscribes to later events.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Emitted>> {
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
            str::from_utf8(&Emitted::new(event()).text()).unwrap(),
            @r#"{"event":7,"collectionName":"books","documentId":"b:1","files":["books/b%3A1/document.json"],"deleted":false,"revision":"1-a","position":"12-g1A","at":"2026-11-20T10:00:00Z"}"#
        );
    }

    #[test]
    fn a_line_holds_no_line_feed_and_is_read_as_the_same_event() {
        let raw = "[1,\n\"\u{202e}\"\r\n]".to_owned();
        let event = WriteEvent { position: RawValue::from_string(raw).ok(), ..event() };
        let emitted = Emitted::new(event);
        let line = str::from_utf8(emitted.line()).unwrap();
        assert!(line.contains(r#""position":[1, "\u202e"  ],"#), "{line}");
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let read = Emitted::read(&emitted.text()).unwrap();
        assert_eq!((read.line(), read.event.event), (emitted.line(), 7));
        // An earlier version stored the position as it came.
        let stored = serde_json::to_vec(&emitted.event).unwrap();
        assert_eq!(Emitted::read(&stored).unwrap().line(), emitted.line());
        assert!(Emitted::read(b"{}").is_err() && Emitted::read(b"\xff").is_err());
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_much_it_missed_and_holds_nobody_up() {
        let channel = Broadcast::new();
        let mut listener = channel.subscribe();
        for _ in 0..Broadcast::CAPACITY + 5 {
            channel.send(Arc::new(Emitted::new(event())));
        }
        let missed = listener.recv().await.unwrap_err();
        assert_eq!(missed, broadcast::error::RecvError::Lagged(5));
    }
}

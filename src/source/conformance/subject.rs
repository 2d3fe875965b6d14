//! What the suite knows of a source: what it is given, how it is opened, and what its feeds say.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use md5::{Digest as _, Md5};
use serde_json::json;

use super::document::{Change, CollectionName, Position};
use super::source::{FeedEvent, Mode, Since, SourceError, Store, Unreadable};

/// A state of a document that a source is given.
#[derive(Clone, Default)]
pub struct Row {
    pub id: &'static str,
    /// `1-a`, behind it `2-b`, then `3-c`.
    pub revision: &'static str,
    /// The members of its body behind `_id` and `_rev`, each with a comma before it.
    pub members: String,
    pub attachments: Vec<(&'static str, Vec<u8>)>,
    pub deleted: bool,
}

impl Row {
    pub fn live(id: &'static str, revision: &'static str, members: &str) -> Self {
        let members = members.to_owned();
        Self { id, revision, members, attachments: Vec::new(), deleted: false }
    }

    pub fn dead(id: &'static str, revision: &'static str) -> Self {
        Self { deleted: true, ..Self::live(id, revision, ",\"_deleted\":true") }
    }

    /// Its body, with the data of attachments inside or as stubs.
    pub fn body(&self, inline: bool) -> String {
        let (id, revision) = (json!(self.id), json!(self.revision));
        let mut body = format!("{{\"_id\":{id},\"_rev\":{revision}{}", self.members);
        for (n, (name, bytes)) in self.attachments.iter().enumerate() {
            let digest = format!("md5-{}", STANDARD.encode(Md5::digest(bytes)));
            let entry = match inline {
                true => json!({"content_type": "text/plain", "data": STANDARD.encode(bytes)}),
                false => json!({"content_type": "text/plain", "revpos": 1, "digest": digest,
                    "length": bytes.len(), "stub": true}),
            };
            body += if n == 0 { ",\"_attachments\":{" } else { "," };
            body += &format!("{}:{entry}", json!(name));
        }
        body + if self.attachments.is_empty() { "}" } else { "}}" }
    }
}

/// What a kind of source can do in these tests.
#[derive(Clone, Copy)]
pub struct Can {
    /// A feed can be opened at a position.
    pub resume: bool,
    /// It can be followed.
    pub follow: bool,
    /// It is replaced in one step, under a feed that is followed.
    pub swap: bool,
    /// Bodies keep their bytes.
    pub keep_bytes: bool,
    /// Feeds can be broken off, and rows spoilt.
    pub fail: bool,
    /// It can have another collection.
    pub create: bool,
    /// A document that its feed has brought can be read again.
    pub reread: bool,
}

impl Can {
    pub const EVERYTHING: Self = Self {
        resume: true,
        follow: true,
        swap: true,
        keep_bytes: true,
        fail: true,
        create: true,
        reread: true,
    };
}

/// One kind of source.
pub trait Subject: Sized {
    const CAN: Can;

    /// A source whose collection `shelf` was given these states, one after the other.
    async fn start(rows: &[Row]) -> Self;

    /// The source as a new run opens it, which reads it in this mode.
    fn store(&self, mode: Mode) -> Arc<dyn Store>;

    /// Gives it more states.
    async fn append(&self, rows: &[Row]);

    /// Puts another source in its place.
    async fn replace(&self, rows: &[Row]);

    /// Its feed breaks off within the last row.
    async fn cut(&self);

    /// Gives it a row of this document that cannot be a change.
    async fn spoil(&self, id: &'static str, revision: &'static str);

    /// Creates a collection in it.
    async fn create(&self, name: &str);

    /// A source of this kind without its collection, if it is a source at all.
    async fn missing() -> Option<Self>;
}

/// What a feed says that every source has to say.
#[derive(Debug)]
pub enum Event {
    Change(Box<Change>),
    Unreadable(Unreadable),
    Position(Position),
    Started,
    Finished { position: Position, exhaustive: bool },
    CaughtUp,
}

/// The newest states of documents, in the order in which they came: id, revision, deleted.
pub type Newest = Vec<(String, String, bool)>;

impl Event {
    /// The only place that knows how feeds say it.
    fn of(event: FeedEvent) -> Option<Self> {
        Some(match event {
            FeedEvent::Change(change) => Self::Change(change.into()),
            FeedEvent::Unreadable(row) => Self::Unreadable(row),
            FeedEvent::Position(position) => Self::Position(position),
            FeedEvent::ScanStarted { .. } => Self::Started,
            FeedEvent::ScanFinished { position, exhaustive } => {
                Self::Finished { position, exhaustive }
            }
            FeedEvent::CaughtUp => Self::CaughtUp,
            FeedEvent::Holds(_) | FeedEvent::Progress(_) => return None,
        })
    }

    pub fn position(&self) -> Option<&Position> {
        match self {
            Self::Change(change) => change.position.as_ref(),
            Self::Unreadable(row) => row.position.as_ref(),
            Self::Position(position) | Self::Finished { position, .. } => Some(position),
            Self::Started | Self::CaughtUp => None,
        }
    }
}

/// An open feed.
pub struct Heard(BoxStream<'static, Result<FeedEvent, SourceError>>);

impl Heard {
    /// The only place that knows how a feed is opened.
    pub fn open(store: &dyn Store, since: Since, mode: Mode) -> Self {
        Self(store.open(&shelf()).changes(since, mode))
    }

    pub async fn next(&mut self) -> Option<Result<Event, SourceError>> {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await;
            match event.expect("an event")? {
                Ok(event) => match Event::of(event) {
                    Some(event) => return Some(Ok(event)),
                    None => continue,
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Everything until this document is in it, and then until the source's end.
    pub async fn until(&mut self, id: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let is_it = |event: &Event| matches!(event, Event::Change(one) if one.id.as_str() == id);
        loop {
            let event = self.next().await.expect("a followed feed has no end").unwrap();
            let is_end = matches!(event, Event::CaughtUp);
            events.push(event);
            if is_end && events.iter().any(is_it) {
                return events;
            }
        }
    }
}

/// All that a catch-up says, and the error that ended it.
pub async fn heard<S: Subject>(subject: &S, since: Since) -> (Vec<Event>, Option<SourceError>) {
    let store = subject.store(Mode::CatchUp);
    let mut feed = Heard::open(&*store, since, Mode::CatchUp);
    let mut events = Vec::new();
    while let Some(event) = feed.next().await {
        match event {
            Ok(event) => events.push(event),
            Err(error) => {
                assert!(feed.next().await.is_none(), "an error is a feed's last word: {error}");
                return (events, Some(error));
            }
        }
    }
    (events, None)
}

/// All that a catch-up says, which ends at the source's end.
pub async fn read<S: Subject>(subject: &S, since: Since) -> Vec<Event> {
    let (events, error) = heard(subject, since).await;
    assert!(error.is_none(), "{error:?}");
    assert!(matches!(events.last(), Some(Event::CaughtUp)), "{events:?}");
    let ends = events.iter().filter(|event| matches!(event, Event::CaughtUp));
    assert_eq!(ends.count(), 1, "{events:?}");
    events
}

pub fn newest(events: &[Event]) -> Newest {
    let mut found = Newest::new();
    for event in events {
        if let Event::Change(change) = event {
            let (id, revision) = (change.id.to_string(), change.revision.to_string());
            found.retain(|one| one.0 != id);
            found.push((id, revision, change.is_deletion()));
        }
    }
    found
}

pub fn expected(rows: &[Row]) -> Newest {
    let mut found = Newest::new();
    for row in rows {
        found.retain(|one| one.0 != row.id);
        found.push((row.id.to_owned(), row.revision.to_owned(), row.deleted));
    }
    found
}

/// The last position that was said.
pub fn end(events: &[Event]) -> Position {
    events.iter().rev().find_map(Event::position).expect("a position").clone()
}

pub fn shelf() -> CollectionName {
    "shelf".into()
}

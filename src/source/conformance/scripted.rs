//! The scripted source in the suite: its script is what the rows come to from where it is opened.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};

use super::suite::{Can, Row, Subject};
use crate::document::{
    Anchor, Attachment, Change, CollectionName, Content, Document, DocumentId, DocumentState,
    Position,
};
use crate::source::scripted::{Said, Scripted};
use crate::source::{
    Capabilities, Feed, FeedEvent, Mode, Reading, Reads, Since, SourceError, Store, StoreEvent,
    Unreadable,
};

/// A source in memory.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: Vec<(Row, Kind)>,
    incarnation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Change,
    Spoilt,
    Cut,
}

impl State {
    fn position(&self, n: usize) -> Position {
        let anchor = n.checked_sub(1).map(|last| {
            let row = &self.rows[last].0;
            Anchor { id: row.id.into(), revision: row.revision.into() }
        });
        Position::new(n.to_string(), self.incarnation.to_string().into(), anchor)
    }

    fn change(&self, n: usize) -> Change {
        let row = &self.rows[n].0;
        let attachment = |(name, bytes): &(&str, Vec<u8>)| Attachment {
            name: (*name).into(),
            digest: None,
            length: Some(bytes.len() as u64),
            gzipped: false,
            content: Content::Inline(Bytes::copy_from_slice(bytes)),
        };
        let document = Document {
            body: row.body(row.attachments.is_empty()).into(),
            attachments: row.attachments.iter().map(attachment).collect(),
        };
        Change {
            id: row.id.into(),
            revision: row.revision.into(),
            position: Some(self.position(n + 1)),
            others: None,
            state: match row.deleted {
                true => DocumentState::Deleted(Some(document)),
                false => DocumentState::Present(document),
            },
        }
    }

    fn said(&self, n: usize) -> Said {
        let row = &self.rows[n].0;
        match self.rows[n].1 {
            Kind::Change => Ok(FeedEvent::Change(self.change(n))),
            Kind::Cut => Err(SourceError::transient("the script is cut")),
            Kind::Spoilt => Ok(FeedEvent::Unreadable(Unreadable {
                id: Some(row.id.into()),
                revision: Some(row.revision.into()),
                place: format!("line {n} of the script"),
                position: Some(self.position(n + 1)),
                reason: "it is spoilt".to_owned(),
            })),
        }
    }

    /// What a catch-up says from here.
    fn script(&self, since: Since) -> Vec<Said> {
        let (from, scan) = match since {
            Since::Start => (0, None),
            Since::Scan(reason) => (0, Some(reason)),
            Since::Position(position) if position.context() != self.incarnation.to_string() => {
                let reason = "the script is another one".to_owned();
                return vec![Err(SourceError::Expired { reason })];
            }
            Since::Position(position) => (position.token().parse().unwrap(), None),
        };
        let position = self.position(self.rows.len());
        let end = match scan.is_some() {
            true => FeedEvent::ScanFinished { position, exhaustive: true },
            false => FeedEvent::Position(position),
        };
        let mut script: Vec<_> =
            scan.map(|reason| Ok(FeedEvent::ScanStarted { reason })).into_iter().collect();
        script.extend((from..self.rows.len()).map(|n| self.said(n)));
        let cut = script.iter().position(Result::is_err);
        script.extend([Ok(end), Ok(FeedEvent::CaughtUp)]);
        script.truncate(cut.map_or(script.len(), |cut| cut + 1));
        script
    }
}

impl Subject for Told {
    const CAN: Can = Can { follow: false, swap: false, create: false, ..Can::EVERYTHING };

    async fn start(rows: &[Row]) -> Self {
        let told = Self::default();
        told.append(rows).await;
        told
    }

    fn store(&self, _: Mode) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }

    async fn append(&self, rows: &[Row]) {
        let rows = rows.iter().map(|row| (row.clone(), Kind::Change));
        self.0.lock().unwrap().rows.extend(rows);
    }

    async fn replace(&self, rows: &[Row]) {
        let state = &mut *self.0.lock().unwrap();
        state.incarnation += 1;
        state.rows = rows.iter().map(|row| (row.clone(), Kind::Change)).collect();
    }

    async fn cut(&self) {
        self.0.lock().unwrap().rows.last_mut().unwrap().1 = Kind::Cut;
    }

    async fn spoil(&self, id: &'static str, revision: &'static str) {
        let row = Row { id, revision, ..Row::default() };
        self.0.lock().unwrap().rows.push((row, Kind::Spoilt));
    }

    async fn create(&self, _: &str) {}

    async fn missing() -> Option<Self> {
        None
    }
}

impl Store for Told {
    fn identity(&self) -> String {
        "a script".to_owned()
    }

    fn origin(&self, _: &CollectionName) -> String {
        self.identity()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exhaustive_scan: true, single_reads: true, ..Capabilities::default() }
    }

    fn wants(&self, _: &CollectionName) -> bool {
        true
    }

    fn collections(
        &self,
        _: Mode,
        _: Option<Position>,
    ) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
        let shelf = StoreEvent::Collection("shelf".into());
        stream::iter([Ok(shelf), Ok(StoreEvent::Listed(None))]).boxed()
    }

    fn open(&self, _: &CollectionName) -> Arc<dyn Feed> {
        Arc::new(self.clone())
    }
}

impl Feed for Told {
    fn changes(&self, since: Since, mode: Mode) -> BoxStream<'static, Said> {
        let script = self.0.lock().unwrap().script(since.clone());
        Scripted::new(vec![script]).changes(since, mode)
    }

    fn reads(&self) -> Option<&dyn Reads> {
        Some(self)
    }
}

impl Reads for Told {
    fn document<'a>(
        &'a self,
        id: &'a DocumentId,
        _: Option<&'a Position>,
    ) -> BoxFuture<'a, Result<Reading, SourceError>> {
        let state = self.0.lock().unwrap();
        let last = state.rows.iter().rposition(|(row, _)| row.id == id.as_str());
        let reading = last.map_or(Reading::Unknown, |n| Reading::Found(state.change(n)));
        Box::pin(async { Ok(reading) })
    }
}

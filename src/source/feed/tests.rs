//! What a feed file's source and store promise, seen through their traits.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use md5::{Digest, Md5};
use tempfile::TempDir;

use super::*;
use crate::document::{Attachment, Change, Content, Document, DocumentState, Position};
use crate::source::{FeedEvent, Reading, Since, Unreadable, Wanted};

/// A feed file in a folder of its own.
struct Feed {
    folder: TempDir,
}

impl Feed {
    fn of(text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("library.ndjson"), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("library.ndjson")
    }

    fn append(&self, text: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path()).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn store(&self) -> FeedStore {
        FeedStore::file(self.path(), None, Selection::default())
    }

    fn source(&self) -> Arc<dyn Source> {
        self.store().open(&"library".into())
    }

    async fn events(&self, since: Since) -> Vec<FeedEvent> {
        let events = self.source().changes(since, Mode::CatchUp);
        events.map(Result::unwrap).collect().await
    }

    async fn changes(&self, since: Since) -> Vec<Change> {
        changes(self.events(since).await)
    }
}

fn changes(events: Vec<FeedEvent>) -> Vec<Change> {
    let change = |event| if let FeedEvent::Change(change) = event { Some(change) } else { None };
    events.into_iter().filter_map(change).collect()
}

fn unreadable(events: &[FeedEvent]) -> Vec<&Unreadable> {
    let mut rows = Vec::new();
    for event in events {
        if let FeedEvent::Unreadable(row) = event {
            rows.push(row);
        }
    }
    rows
}

fn row(id: &str, rev: &str, members: &str) -> String {
    format!(
        "{{\"seq\":1,\"id\":\"{id}\",\"changes\":[{{\"rev\":\"{rev}\"}}],\"doc\":{{\"_id\":\"{id}\",\
         \"_rev\":\"{rev}\"{members}}}}}\n"
    )
}

fn deletion(id: &str, rev: &str) -> String {
    format!("{{\"seq\":1,\"id\":\"{id}\",\"changes\":[{{\"rev\":\"{rev}\"}}],\"deleted\":true}}\n")
}

fn document(change: &Change) -> &Document {
    let DocumentState::Present(document) = &change.state else { panic!("{change:?} is deleted") };
    document
}

fn body(change: &Change) -> &str {
    std::str::from_utf8(&document(change).body).unwrap()
}

fn md5(bytes: &[u8]) -> String {
    format!("md5-{}", STANDARD.encode(Md5::digest(bytes)))
}

/// Bytes in which nothing repeats.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

async fn read(
    source: &Arc<dyn Source>,
    change: &Change,
    index: usize,
) -> Result<Bytes, SourceError> {
    let attachment = document(change).attachments[index].clone();
    let wanted = Wanted { id: change.id.clone(), revision: change.revision.clone(), attachment };
    source.attachments(&[wanted]).await?.remove(0)
}

type Events = BoxStream<'static, Result<FeedEvent, SourceError>>;

/// Everything up to and with the next `CaughtUp`.
async fn catch_up(stream: &mut Events) -> Vec<FeedEvent> {
    let mut events = Vec::new();
    loop {
        let event = next(stream).await.unwrap();
        let done = matches!(event, FeedEvent::CaughtUp);
        events.push(event);
        if done {
            return events;
        }
    }
}

async fn next(stream: &mut Events) -> Result<FeedEvent, SourceError> {
    let event = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
    event.expect("an event").expect("the stream goes on")
}

/// The rows of an HTTP answer with chunked lines between them, as recorded from a CouchDB.
fn recorded(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let mut body = body.as_bytes();
    let mut text = Vec::new();
    while let Some(end) = memchr::memmem::find(body, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        text.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn bodies_come_out_byte_for_byte() {
    let odd =
        r#","n":123456789012345678901234567890, "f":1.0,"e":1e400,"a":1,"a":2,"u":"\u0041\ud83d""#;
    let feed = Feed::of(row("a", "1-x", odd));
    let changes = feed.changes(Since::Start).await;
    assert_eq!(body(&changes[0]), format!("{{\"_id\":\"a\",\"_rev\":\"1-x\"{odd}}}"));
}

#[tokio::test]
async fn a_feed_ends_with_its_position_and_caught_up() {
    let feed = Feed::of(row("a", "1-x", "") + "\n" + &deletion("b", "2-y"));
    let events = feed.events(Since::Start).await;
    let [
        FeedEvent::Change(a),
        FeedEvent::Change(b),
        FeedEvent::Progress(progress),
        FeedEvent::Position(end),
        FeedEvent::CaughtUp,
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(!a.is_deletion() && b.is_deletion());
    assert_eq!(b.position.as_ref(), Some(end));
    assert_eq!(
        (progress.done, progress.total),
        (fs::metadata(feed.path()).unwrap().len(), progress.done)
    );
}

#[tokio::test]
async fn resuming_at_any_position_gives_exactly_the_rest() {
    let rows: Vec<_> =
        (0..20).map(|n| row(&format!("d{n}"), "1-x", "") + ["", "\n", "\r\n"][n % 3]).collect();
    let feed = Feed::of(rows.concat());
    let all = feed.changes(Since::Start).await;
    assert_eq!(all.len(), 20);
    for (n, change) in all.iter().enumerate() {
        let rest = feed.changes(Since::Position(change.position.clone().unwrap())).await;
        let ids = |changes: &[Change]| changes.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&rest), ids(&all[n + 1..]));
    }
}

#[tokio::test]
async fn inline_data_becomes_an_attachment_and_a_stub() {
    let data = STANDARD.encode(b"hello");
    let members = format!(
        r#", "z":1.0,"_attachments" : {{"a.txt": {{"data":"{data}","content_type":"text/x\u002dy"}} , "b":{{"stub":true,"length":7,"digest":"md5-x"}}}},"y":[ ]"#
    );
    let feed = Feed::of(row("a", "3-x", &members));
    let changes = feed.changes(Since::Start).await;
    let digest = md5(b"hello");
    let stub = format!(
        r#"{{"content_type":"text/x\u002dy","revpos":3,"digest":"{digest}","length":5,"stub":true}}"#
    );
    let expected = format!(
        r#"{{"_id":"a","_rev":"3-x", "z":1.0,"_attachments" : {{"a.txt": {stub} , "b":{{"stub":true,"length":7,"digest":"md5-x"}}}},"y":[ ]}}"#
    );
    assert_eq!(body(&changes[0]), expected);
    let attachments = &document(&changes[0]).attachments;
    assert_eq!(attachments[0].content, Content::Inline(Bytes::from_static(b"hello")));
    assert_eq!(attachments[0].digest.as_deref(), Some(&*digest));
    let error = read(&feed.source(), &changes[0], 1).await.unwrap_err();
    assert!(matches!(error, SourceError::Missing { .. }));
    assert!(error.to_string().contains("record it with attachments=true"), "{error}");
}

//! What the sources and stores of recorded feeds promise, seen through their traits.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use md5::{Digest, Md5};
use tempfile::TempDir;

use super::*;
use crate::document::{Change, Content, Document, DocumentState};
use crate::source::conformance::assert_has_what_it_says;
use crate::source::{FeedEvent, Since, Unreadable, Wanted};

macro_rules! recorded {
    ($name:literal) => {
        unchunked(include_str!(concat!("../../../../fixtures/couchdb-3.4.3/", $name, ".http")))
    };
}

mod attachments;
mod following;
mod pipe;
mod rows;

/// A feed file in a folder of its own.
struct Recording {
    folder: TempDir,
}

impl Recording {
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

    fn source(&self) -> Arc<dyn Feed> {
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

async fn read(source: &Arc<dyn Feed>, change: &Change, index: usize) -> Result<Bytes, SourceError> {
    let attachment = document(change).attachments[index].clone();
    let wanted = Wanted { id: change.id.clone(), revision: change.revision.clone(), attachment };
    source.many_attachments(&[wanted]).await?.remove(0)
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
    event.expect("an event").expect("the stream continues")
}

/// The body of an HTTP answer in chunks, as it came over the wire.
fn unchunked(answer: &str) -> String {
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

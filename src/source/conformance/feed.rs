//! A recorded feed in the suite, in a file and in a pipe.

use std::io::{Cursor, Read, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tempfile::TempDir;

use super::suite::{Can, Row, Subject};
use crate::source::feed::FeedStore;
use crate::source::{Mode, Selection, Store};

/// A feed in a file.
pub struct InFile {
    folder: TempDir,
}

/// A feed in a pipe, which each reader reads from its beginning.
pub struct InPipe {
    text: Mutex<Vec<u8>>,
    readers: Mutex<Vec<Sender<Vec<u8>>>>,
}

/// Brings what is sent, and waits for more.
struct Sent(Receiver<Vec<u8>>, Cursor<Vec<u8>>);

impl Read for Sent {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.1.read(into)? {
                0 => match self.0.recv() {
                    Ok(more) => self.1 = Cursor::new(more),
                    Err(_) => return Ok(0),
                },
                length => return Ok(length),
            }
        }
    }
}

fn lines(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let deleted = if row.deleted { "\"deleted\":true," } else { "" };
        let (id, revision, body) = (json!(row.id), json!(row.revision), row.body(true));
        format!("{{\"id\":{id},\"changes\":[{{\"rev\":{revision}}}],{deleted}\"doc\":{body}}}\n")
    };
    rows.iter().map(line).collect()
}

/// A row whose document is not an object.
fn spoilt(id: &str, revision: &str) -> String {
    format!("{}\n", json!({"id": id, "changes": [{"rev": revision}], "doc": []}))
}

/// Without the end of the last line.
fn cut(text: &mut Vec<u8>) {
    text.truncate(text.len() - 9);
}

impl InFile {
    fn path(&self) -> PathBuf {
        self.folder.path().join("shelf.ndjson")
    }

    fn write(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).open(self.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

impl Subject for InFile {
    const CAN: Can = Can::EVERYTHING;

    async fn start(rows: &[Row]) -> Self {
        let new = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(new.path(), lines(rows)).unwrap();
        new
    }

    fn store(&self, _: Mode) -> Arc<dyn Store> {
        Arc::new(FeedStore::file(self.path(), None, Selection::default()))
    }

    async fn append(&self, rows: &[Row]) {
        self.write(&lines(rows));
    }

    async fn replace(&self, rows: &[Row]) {
        let aside = self.folder.path().join("aside");
        std::fs::write(&aside, lines(rows)).unwrap();
        std::fs::rename(aside, self.path()).unwrap();
    }

    async fn cut(&self) {
        let mut text = std::fs::read(self.path()).unwrap();
        cut(&mut text);
        std::fs::write(self.path(), text).unwrap();
    }

    async fn spoil(&self, id: &'static str, revision: &'static str) {
        self.write(&spoilt(id, revision));
    }

    async fn create(&self, name: &str) {
        self.write(&format!("{}\n", json!({ "collection": name })));
    }

    async fn missing() -> Option<Self> {
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }
}

impl InPipe {
    fn write(&self, text: &str) {
        self.text.lock().unwrap().extend_from_slice(text.as_bytes());
        for reader in &*self.readers.lock().unwrap() {
            reader.send(text.into()).unwrap();
        }
    }
}

impl Subject for InPipe {
    const CAN: Can =
        Can { resume: false, swap: false, create: false, reread: false, ..InFile::CAN };

    async fn start(rows: &[Row]) -> Self {
        Self { text: Mutex::new(lines(rows).into()), readers: Mutex::default() }
    }

    fn store(&self, mode: Mode) -> Arc<dyn Store> {
        let (sender, receiver) = channel();
        let text = Cursor::new(self.text.lock().unwrap().clone());
        // In a catch-up, the pipe ends.
        if mode == Mode::Follow {
            self.readers.lock().unwrap().push(sender);
        }
        let reader = Sent(receiver, text);
        Arc::new(FeedStore::reader(reader, Some("shelf".into()), Selection::default(), "."))
    }

    async fn append(&self, rows: &[Row]) {
        self.write(&lines(rows));
    }

    async fn replace(&self, rows: &[Row]) {
        *self.text.lock().unwrap() = lines(rows).into();
    }

    async fn cut(&self) {
        cut(&mut self.text.lock().unwrap());
    }

    async fn spoil(&self, id: &'static str, revision: &'static str) {
        self.write(&spoilt(id, revision));
    }

    async fn create(&self, _: &str) {}

    async fn missing() -> Option<Self> {
        None
    }
}

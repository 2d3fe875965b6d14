//! A recorded feed in the suite, in a file and in a pipe.

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread::JoinHandle;

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};

use super::{Seen, Subject, document, seen, shelf, writing};
use crate::document::CollectionName;
use crate::restore::{Cause, FeedTarget, OnExisting, Target as _};

/// A feed in a new file.
pub struct InFile {
    target: FeedTarget,
    place: tempfile::TempDir,
}

/// A feed in a named pipe, which a thread reads to its end.
pub struct InPipe {
    target: FeedTarget,
    reader: Mutex<Option<JoinHandle<Vec<u8>>>>,
    _place: tempfile::TempDir,
}

fn target(path: PathBuf) -> FeedTarget {
    FeedTarget::new(Some(path), OnExisting::Refuse).unwrap()
}

/// The live documents of a feed's text. A line that is not a row is one that was broken off.
fn read(text: &[u8], collection: &CollectionName) -> Seen {
    let lines = text.split(|byte| *byte == b'\n');
    let rows = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut live = Seen::new();
    for mut row in rows.filter(|row| row["collection"] == collection.as_str()) {
        let id = row["id"].as_str().unwrap().to_owned();
        assert_eq!(row["changes"][0]["rev"], row["doc"]["_rev"]);
        match row["deleted"] == true {
            true => drop(live.remove(&id)),
            false => live.extend(seen(vec![row["doc"].take()])),
        }
    }
    live
}

impl Subject for InFile {
    type Target = FeedTarget;

    async fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        Self { target: target(place.path().join("feed.ndjson")), place }
    }

    fn target(&self) -> &FeedTarget {
        &self.target
    }

    fn refuses(&self) -> Option<&'static str> {
        None
    }

    async fn broken(&self) -> Vec<(FeedTarget, Cause)> {
        let missing = self.place.path().join("missing/feed.ndjson");
        vec![(target(missing), Cause::File), (target("/dev/full".into()), Cause::File)]
    }

    async fn look(&self, collection: &CollectionName) -> Seen {
        read(&std::fs::read(self.place.path().join("feed.ndjson")).unwrap(), collection)
    }
}

impl Subject for InPipe {
    type Target = FeedTarget;

    async fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pipe");
        mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        let opened = path.clone();
        let reader = std::thread::spawn(move || std::fs::read(opened).unwrap());
        Self { target: target(path), reader: Mutex::new(Some(reader)), _place: place }
    }

    fn target(&self) -> &FeedTarget {
        &self.target
    }

    fn refuses(&self) -> Option<&'static str> {
        None
    }

    async fn broken(&self) -> Vec<(FeedTarget, Cause)> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pipe");
        mkfifoat(CWD, &path, Mode::RWXU).unwrap();
        // Its reader goes away without reading.
        let opened = path.clone();
        let reader = std::thread::spawn(move || std::fs::File::open(opened).map(drop));
        let broken = target(path);
        let first = writing(document(&broken, "first", &["x"], json!(1)));
        broken.write(&shelf(), &[first]).await.unwrap();
        reader.join().unwrap().unwrap();
        vec![(broken, Cause::File)]
    }

    async fn look(&self, collection: &CollectionName) -> Seen {
        let reader = self.reader.lock().unwrap().take().unwrap();
        read(&reader.join().unwrap(), collection)
    }
}

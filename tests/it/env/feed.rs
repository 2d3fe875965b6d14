//! Recorded feeds that tests write row by row, as a recorder would.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// A feed file that grows.
pub struct FeedFile {
    path: PathBuf,
    file: File,
    seq: u64,
    generations: BTreeMap<String, u64>,
}

impl FeedFile {
    /// An empty feed of one collection, named by the file's stem.
    pub fn create(path: PathBuf) -> Self {
        let file = OpenOptions::new().create_new(true).append(true).open(&path).unwrap();
        Self { path, file, seq: 0, generations: BTreeMap::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `feed:<path>`, as the command line wants it.
    pub fn source(&self) -> String {
        source(&self.path)
    }

    /// Appends a document's next revision, with its attachments inline. Gives the revision.
    pub fn put(&mut self, id: &str, body: Value, attachments: &[(&str, &[u8])]) -> String {
        let entry =
            |data: &[u8]| json!({"content_type": "text/plain", "data": STANDARD.encode(data)});
        let entries = attachments.iter().map(|(name, data)| (name.to_string(), entry(data)));
        self.put_with(id, body, entries.collect())
    }

    /// Appends a document's next revision with entries of `_attachments` as they are given.
    pub fn put_with(&mut self, id: &str, body: Value, entries: Map<String, Value>) -> String {
        let rev = self.next_revision(id);
        let mut doc = json!({"_id": id, "_rev": rev});
        let members = doc.as_object_mut().unwrap();
        members.extend(body.as_object().unwrap().clone());
        if !entries.is_empty() {
            members.insert("_attachments".into(), entries.into());
        }
        self.row(&json!({"seq": self.seq, "id": id, "changes": [{"rev": rev}], "doc": doc}));
        rev
    }

    /// Appends a deletion. Gives the revision.
    pub fn delete(&mut self, id: &str) -> String {
        let rev = self.next_revision(id);
        let doc = json!({"_id": id, "_rev": rev, "_deleted": true});
        let changes = json!([{"rev": rev}]);
        self.row(
            &json!({"seq": self.seq, "id": id, "changes": changes, "deleted": true, "doc": doc}),
        );
        rev
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
    }

    fn row(&mut self, row: &Value) {
        let mut line = serde_json::to_vec(row).unwrap();
        line.push(b'\n');
        self.raw(&line);
    }

    fn next_revision(&mut self, id: &str) -> String {
        self.seq += 1;
        let generation = self.generations.entry(id.to_owned()).or_default();
        *generation += 1;
        format!("{generation}-{:032x}", u128::from(self.seq))
    }
}

/// `feed:<path>`, as the command line wants it.
pub fn source(path: &Path) -> String {
    format!("feed:{}", path.display())
}

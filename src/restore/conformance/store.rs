//! Databases of documents with their branches, in memory: what the fakes of the suite keep.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// An id that begins with this is refused.
pub const REFUSED: &str = "refused";

/// A database.
#[derive(Default)]
pub struct Database {
    pub documents: BTreeMap<String, Document>,
    pub security: Option<Value>,
}

/// The revisions of a document.
#[derive(Default)]
pub struct Document {
    /// The bodies of those that were written.
    written: BTreeMap<String, Value>,
    /// Their ancestors.
    ancestors: BTreeSet<String>,
}

/// The winner of a document, and the leaves beside it.
pub struct Winner {
    pub revision: String,
    pub deleted: bool,
    pub body: Value,
    pub live: Vec<String>,
    pub dead: Vec<String>,
}

impl Database {
    /// Stores a body under its revision, with its `_revisions` before it. Gives the reason where it is
    /// refused.
    pub fn write(&mut self, mut body: Value) -> Result<(), String> {
        let id = body["_id"].as_str().unwrap().to_owned();
        let revision = body["_rev"].as_str().unwrap().to_owned();
        if id.starts_with(REFUSED) {
            return Err("this fake refuses it".to_owned());
        }
        let document = self.documents.entry(id).or_default();
        if let Some(history) = body.as_object_mut().unwrap().remove("_revisions") {
            let start = history["start"].as_u64().unwrap();
            for (before, hash) in history["ids"].as_array().unwrap().iter().enumerate().skip(1) {
                let hash = hash.as_str().unwrap();
                document.ancestors.insert(format!("{}-{hash}", start - before as u64));
            }
        }
        document.written.insert(revision, body);
        Ok(())
    }
}

impl Document {
    /// Whether it has this revision, or had it.
    pub fn knows(&self, revision: &str) -> bool {
        self.written.contains_key(revision) || self.ancestors.contains(revision)
    }

    /// The highest live leaf; the highest deleted one if none lives.
    pub fn winner(&self) -> Winner {
        let is_deleted = |body: &Value| body["_deleted"] == json!(true);
        let order = |revision: &str| {
            let (generation, hash) = revision.split_once('-').unwrap();
            (generation.parse::<u64>().unwrap(), hash.to_owned())
        };
        let leaves = self.written.iter().filter(|(leaf, _)| !self.ancestors.contains(*leaf));
        let mut leaves: Vec<_> = leaves.collect();
        leaves.sort_by_key(|(leaf, body)| (!is_deleted(body), order(leaf)));
        let (revision, body) = leaves.pop().unwrap();
        let (dead, live): (Vec<_>, Vec<_>) =
            leaves.into_iter().partition(|(_, body)| is_deleted(body));
        let names = |leaves: Vec<(&String, &Value)>| -> Vec<String> {
            leaves.into_iter().map(|(leaf, _)| leaf.clone()).collect()
        };
        Winner {
            revision: revision.clone(),
            deleted: is_deleted(body),
            body: body.clone(),
            live: names(live),
            dead: names(dead),
        }
    }
}

//! A database of conflicts, histories and tombstones that grows by revisions of all kinds.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::pouchdb::{PouchServer, attach};
use super::random::Random;

/// How many documents there are.
const DOCUMENTS: u64 = 30;

/// The database, and the branches of each of its documents: revisions, newest first.
pub struct Leaves<'a> {
    server: &'a PouchServer,
    database: &'a str,
    branches: BTreeMap<String, Vec<Vec<String>>>,
}

impl<'a> Leaves<'a> {
    /// A new database.
    pub fn create(server: &'a PouchServer, database: &'a str) -> Self {
        server.create_db(database);
        Self { server, database, branches: BTreeMap::new() }
    }

    /// Writes `count` revisions: first ones, later ones, other branches, deletions, some with attachments.
    pub fn grow(&mut self, count: usize, chance: &mut Random) {
        let docs: Vec<Value> = (0..count).map(|_| self.revision(chance)).collect();
        let body = json!({"new_edits": false, "docs": docs}).to_string();
        let target = format!("/{}/_bulk_docs", self.database);
        self.server.request("POST", &target, body.as_bytes()).assert_ok();
    }

    fn revision(&mut self, chance: &mut Random) -> Value {
        let id = format!("book-{}", chance.below(DOCUMENTS));
        let branches = self.branches.entry(id.clone()).or_default();
        let hash = format!("{:016x}{:016x}", chance.next(), chance.next());
        let known = branches.len() as u64;
        let at = match known {
            0 => None,
            // Another branch, from the root of the first.
            1..4 if chance.below(3) == 0 => {
                let root = branches[0].last().cloned();
                branches.push(root.into_iter().collect());
                Some(branches.len() - 1)
            }
            _ => Some(chance.below(known) as usize),
        };
        let at = at.unwrap_or_else(|| {
            branches.push(Vec::new());
            0
        });
        branches[at].insert(0, hash);
        let ids = &branches[at];
        let mut doc = json!({
            "_id": id,
            "_rev": format!("{}-{}", ids.len(), ids[0]),
            "_revisions": {"start": ids.len(), "ids": ids},
            "n": chance.next(),
        });
        match chance.below(4) {
            0 if ids.len() > 1 => doc["_deleted"] = json!(true),
            1 => {
                let bytes = chance.bytes(900);
                attach(&mut doc, &[("scan 1.bin", "application/octet-stream", &bytes)]);
            }
            _ => {}
        }
        doc
    }
}

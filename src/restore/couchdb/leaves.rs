//! Requests all leaves of documents in a database, which the mirror's revision must win over.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::patience::{TRIES, patiently};
use crate::client::couchdb::{Database, Error, Kind, all_docs_rows, changes_rows};
use crate::document::{DocumentId, Revision};
use crate::json::{Key, Members};
use crate::restore::plan::Leaves;

/// The number of documents in one request: for more, CouchDB reads its whole feed.
const GROUP: usize = 100;

/// The leaves beside the winner of each of these documents, if there are any.
pub(super) async fn of(
    database: &Database,
    mut ids: Vec<&DocumentId>,
) -> Result<HashMap<DocumentId, Leaves>, Error> {
    ids.dedup();
    let mut branched: HashMap<DocumentId, Vec<Revision>> = HashMap::new();
    for group in ids.chunks(GROUP) {
        let answer = match patiently(TRIES, || database.leaves(group)).await {
            // RxDB's server has no branches, nor a way to request them.
            Err(error) if matches!(error.status(), Some(400 | 404 | 405 | 501)) => {
                tracing::debug!("{error}; only winners are known there");
                return Ok(HashMap::new());
            }
            answer => answer?,
        };
        for row in changes_rows(&answer)? {
            let row: Row<'_> = serde_json::from_str(row.get()).map_err(|_| unread(database))?;
            if row.changes.len() > 1 {
                let leaves = row.changes.into_iter().map(|change| change.rev).collect();
                branched.insert(row.id.as_ref().into(), leaves);
            }
        }
    }
    let ids: Vec<&DocumentId> = ids.into_iter().filter(|id| branched.contains_key(*id)).collect();
    let mut found = HashMap::new();
    // Their bodies are sent too, and may be large: those of fewer documents fit.
    let mut to_do: Vec<&[&DocumentId]> = ids.chunks(GROUP).collect();
    while let Some(group) = to_do.pop() {
        let answer = match patiently(TRIES, || database.conflicts(group)).await {
            Err(error) if error.kind() == Kind::TooLarge && group.len() > 1 => {
                let (left, right) = group.split_at(group.len() / 2);
                to_do.extend([left, right]);
                continue;
            }
            answer => answer?,
        };
        for row in all_docs_rows(&answer)? {
            let id = DocumentId::from(row.key.as_ref());
            let (Some(winner), Some(leaves)) = (row.value, branched.get(&id)) else { continue };
            let live = match row.doc {
                Some(body) => conflicts(body).ok_or_else(|| unread(database))?,
                None => Vec::new(),
            };
            let deleted = leaves.iter().filter(|leaf| **leaf != winner.rev && !live.contains(leaf));
            found.insert(id, Leaves { deleted: deleted.cloned().collect(), live });
        }
    }
    Ok(found)
}

/// The leaves of a document in a row of the feed.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    rev: Revision,
}

/// The `_conflicts` of a body; `None` if it cannot be read. Other keys need not be valid Unicode.
fn conflicts(body: &RawValue) -> Option<Vec<Revision>> {
    let members: Option<Members<Key<'_>, &RawValue>> = serde_json::from_str(body.get()).ok()?;
    let mut members = members.unwrap_or_default().0.into_iter();
    match members.find(|(Key(key), _)| key == "_conflicts") {
        Some((_, conflicts)) => serde_json::from_str(conflicts.get()).ok(),
        None => Some(Vec::new()),
    }
}

fn unread(database: &Database) -> Error {
    let what = format!(
        "{} sent an answer about branches of documents that cannot be read",
        database.url()
    );
    Error::new(Kind::Permanent, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_found_beside_keys_that_are_no_text() {
        let read = |text: &str| conflicts(serde_json::from_str(text).unwrap());
        let two = read(r#"{"\ud800":1,"_conflicts":["2-a","1-b"]}"#).unwrap();
        assert_eq!(two, [Revision::from("2-a"), Revision::from("1-b")]);
        assert_eq!(read("{}"), Some(Vec::new()));
        assert_eq!(read(r#"{"_conflicts":1}"#), None);
    }
}

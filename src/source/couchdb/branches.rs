//! Revisions with their histories, many at once: a feed of winners does not have them.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::row;
use crate::client::couchdb::{BulkItem, Database, Kind, With, bounded, bulk_get_results};
use crate::document::{Branch, DocumentId, Head, Revision};
use crate::source::SourceError;

/// How many revisions one request asks for.
const AT_ONCE: usize = 100;

/// Reads these revisions, in their order.
pub(super) async fn many(
    database: &Database,
    wanted: &[(DocumentId, Revision)],
) -> Result<Vec<Result<Branch, SourceError>>, SourceError> {
    let mut branches = Vec::with_capacity(wanted.len());
    let mut parts: Vec<&[(DocumentId, Revision)]> = wanted.chunks(AT_ONCE).rev().collect();
    while let Some(part) = parts.pop() {
        let asked: Vec<_> = part.iter().map(|(id, revision)| (id, revision)).collect();
        match database.bulk_get(&asked, With::History).await {
            Ok(answer) => branches.extend(read(database, part, &answer)?),
            Err(error) if error.kind() == Kind::TooLarge && part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) if error.kind() == Kind::TooLarge => branches.push(Err(error.into())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(branches)
}

fn read(
    database: &Database,
    wanted: &[(DocumentId, Revision)],
    answer: &Bytes,
) -> Result<Vec<Result<Branch, SourceError>>, SourceError> {
    // pouchdb-server regroups the results, so they are found by id and revision, not by order.
    let mut found: HashMap<(DocumentId, Revision), Result<Branch, String>> = HashMap::new();
    let mut refused: HashMap<&str, String> = HashMap::new();
    let results = bulk_get_results::<&RawValue>(answer)?;
    for result in &results {
        let id = DocumentId::from(&*result.id);
        for item in &result.docs {
            match item {
                BulkItem { ok: Some(body), .. } => match branch(answer, body, &id) {
                    Ok((revision, branch)) => _ = found.insert((id.clone(), revision), branch),
                    Err(reason) => _ = refused.insert(&result.id, reason),
                },
                BulkItem { error: Some(error), .. } => {
                    let said = bounded(&database.scrub(error.get()));
                    refused.insert(&result.id, format!("the server says {said}"));
                }
                _ => {}
            }
        }
    }
    let one = |one: &(DocumentId, Revision)| {
        let (id, revision) = one;
        let subject = || format!("revision {revision} of `{id}` in {}", database.url());
        match found.remove(one) {
            Some(Ok(branch)) => Ok(branch),
            Some(Err(reason)) => {
                Err(SourceError::permanent(format!("{} cannot be read: {reason}", subject())))
            }
            None => {
                let why = refused.get(id.as_str()).map(|why| format!(" ({why})"));
                let what = format!(
                    "{} does not exist on the server{}",
                    subject(),
                    why.unwrap_or_default()
                );
                Err(SourceError::missing(what))
            }
        }
    };
    Ok(wanted.iter().map(one).collect())
}

/// The revision of a body, and its branch.
fn branch(
    answer: &Bytes,
    body: &RawValue,
    id: &DocumentId,
) -> Result<(Revision, Result<Branch, String>), String> {
    let head = Head::read(body.get().as_bytes()).map_err(|error| error.to_string())?;
    let revision = head.revision.ok_or("a body names no revision")?;
    let branch = head
        .history
        .ok_or_else(|| "it comes without its history".to_owned())
        .and_then(|history| row::branch(answer, body, id, history));
    Ok((Revision::from(&*revision), branch))
}

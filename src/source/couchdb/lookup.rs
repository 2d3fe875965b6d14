//! Reads documents apart from the feed, and asks whether a revision is known.
//!
//! It must not know why a document is asked for.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::client::couchdb::{Database, all_docs_rows, bounded, changes_rows};
use crate::document::{Anchor, Change, DocumentId, DocumentState, Kept, Revision};
use crate::source::{Reading, SourceError};

use super::origin::Origin;
use super::row::{self, Row};

/// What the server has of a document.
pub(super) enum Found {
    /// Its newest state.
    Change(Change),
    /// Nothing: it does not know the document.
    Nothing,
    /// It knows the document and does not give it, or gives what cannot be read. Says why.
    Unreadable(String),
}

/// The newest state of a document, as a source's answer.
pub(super) async fn document(
    database: &Database,
    id: &DocumentId,
    kept: Kept,
) -> Result<Reading, SourceError> {
    match find(database, id, kept).await? {
        Found::Change(change) => Ok(Reading::Found(change)),
        Found::Nothing => Ok(Reading::Unknown),
        Found::Unreadable(reason) => Err(SourceError::transient(format!(
            "document `{id}` of {} cannot be read: {reason}",
            database.url()
        ))),
    }
}

/// The newest state of a document, with what is kept beside a live winner.
pub(super) async fn find(
    database: &Database,
    id: &DocumentId,
    kept: Kept,
) -> Result<Found, SourceError> {
    let found = match kept == Kept::default() {
        true => find_winner(database, id).await?,
        false => find_change(database, id).await?,
    };
    Ok(match found {
        Found::Unreadable(reason) => Found::Unreadable(bounded(&database.scrub(&reason))),
        found => found,
    })
}

/// The newest change of a document, as the feed tells it.
async fn find_change(database: &Database, id: &DocumentId) -> Result<Found, SourceError> {
    let answer = database.change_of(id).await?;
    let rows = changes_rows(&answer)?;
    let Some(text) = rows.last() else { return Ok(Found::Nothing) };
    let text: Bytes = answer.slice_ref(text.get().as_bytes());
    let place = || format!("the newest change of `{id}` in {}", database.url());
    let row = row::read(&text, &Origin::counting(), place)
        .map_err(|error| SourceError::transient(format!("{} is not JSON: {error}", place())))?;
    Ok(match row {
        Row::Change(change) if change.id == *id => {
            Found::Change(Change { position: None, ..change })
        }
        Row::Unreadable(row) => Found::Unreadable(row.reason),
        _ => Found::Unreadable("the server knows it and does not send it".to_owned()),
    })
}

/// The newest state of a document, without its other leaves.
async fn find_winner(database: &Database, id: &DocumentId) -> Result<Found, SourceError> {
    let answer = database.all_docs(&[id]).await?;
    let rows = all_docs_rows(&answer)?;
    let Some(row) = rows.into_iter().find(|row| row.key == id.as_str()) else {
        return Ok(Found::Nothing);
    };
    let Some(value) = row.value else {
        return Ok(match row.error {
            Some(error) if error.get() != "\"not_found\"" => {
                Found::Unreadable(format!("the server says {}", bounded(error.get())))
            }
            _ => Found::Nothing,
        });
    };
    let made = match row.doc {
        Some(doc) => row::state(&answer, doc, value.deleted, id),
        None if value.deleted => Ok((DocumentState::Deleted(None), None)),
        None => Err("the server knows it and does not send it".to_owned()),
    };
    Ok(match made {
        Ok((state, own)) => {
            let revision = own.unwrap_or(value.rev);
            Found::Change(Change { id: id.clone(), revision, position: None, others: None, state })
        }
        Err(reason) => Found::Unreadable(reason),
    })
}

/// Why the database cannot be the one in which these changes stood, if it cannot.
///
/// A server that does not answer the question says nothing against it.
pub(super) async fn disowned(
    database: &Database,
    anchors: &VecDeque<Anchor>,
) -> Result<Option<String>, SourceError> {
    let mut asked: HashMap<DocumentId, Vec<Revision>> = HashMap::new();
    for Anchor { id, revision } in anchors {
        asked.entry(id.clone()).or_default().push(revision.clone());
    }
    let answer = match database.revs_diff(&asked).await {
        Ok(answer) => answer,
        Err(error) if error.is_transient() => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let is_missing = |anchor: &&Anchor| {
        answer.get(&anchor.id).is_some_and(|missing| missing.missing.contains(&anchor.revision))
    };
    for anchor in anchors.iter().filter(is_missing) {
        if !is_forgotten(database, anchor).await? {
            return Ok(Some(format!(
                "the database no longer knows `{}` at {}: it was created again, restored, or purged",
                anchor.id, anchor.revision
            )));
        }
    }
    Ok(None)
}

/// Whether the change is still the newest of its document.
pub(super) async fn is_current(database: &Database, anchor: &Anchor) -> Result<bool, SourceError> {
    let found = find_winner(database, &anchor.id).await?;
    Ok(matches!(found, Found::Change(change) if change.revision == anchor.revision))
}

/// Whether the revision may be unknown only because the database remembers no more than so many
/// revisions of a document, and there have been that many since.
async fn is_forgotten(database: &Database, anchor: &Anchor) -> Result<bool, SourceError> {
    let limit = match database.revs_limit().await {
        Ok(limit) => limit,
        Err(error) if error.is_transient() => return Err(error.into()),
        Err(_) => return Ok(false),
    };
    let Found::Change(change) = find_winner(database, &anchor.id).await? else { return Ok(false) };
    let generations = change.revision.generation().zip(anchor.revision.generation());
    Ok(generations.is_some_and(|(now, then)| now >= then.saturating_add(limit)))
}

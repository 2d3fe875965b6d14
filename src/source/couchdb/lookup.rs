//! Reads documents apart from the feed, and asks whether a revision is known.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::client::couchdb::{
    Database, Error, Kind, MAX_ALONE, With, all_docs_rows, bounded, bulk_get_results, changes_rows,
};
use crate::document::{Anchor, Change, DocumentId, DocumentState, Head, Kept, Revision};
use crate::source::{Reading, SourceError};

use super::origin::Origin;
use super::row::{self, Row};

/// What the server has of a document.
pub(super) enum FoundChange {
    /// Its newest state.
    Change(Change),
    /// Nothing: it does not know the document.
    Nothing,
    /// It knows the document, but does not send it, or sends something unreadable. Says why.
    Unreadable(String),
    /// The document is larger than what is held. Says what to do.
    TooLarge(String),
}

/// The documents that are too large to be read, with their revisions: they need not be downloaded
/// again to know that.
#[derive(Debug, Default)]
pub(super) struct TooLarge(Mutex<HashMap<DocumentId, Revision>>);

impl TooLarge {
    /// The most documents that are remembered.
    const MOST: usize = 10_000;

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<DocumentId, Revision>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, id: &DocumentId, revision: Revision) {
        let mut known = self.known();
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(id.clone(), revision);
    }

    /// Whether the document still is the one that was too large.
    async fn is_still(&self, database: &Database, id: &DocumentId) -> Result<bool, SourceError> {
        let Some(revision) = self.known().get(id).cloned() else { return Ok(false) };
        if newest(database, id).await? == Some(revision) {
            return Ok(true);
        }
        self.known().remove(id);
        Ok(false)
    }
}

/// The newest state of a document, as a source's answer.
pub(super) async fn document(
    database: &Database,
    id: &DocumentId,
    kept: Kept,
    large: &TooLarge,
) -> Result<Reading, SourceError> {
    match find(database, id, kept, large).await? {
        FoundChange::Change(change) => Ok(Reading::Found(change)),
        FoundChange::Nothing => Ok(Reading::Unknown),
        FoundChange::Unreadable(reason) => Err(SourceError::transient(format!(
            "document `{id}` of {} cannot be read: {reason}",
            database.url()
        ))),
        FoundChange::TooLarge(reason) => Err(SourceError::permanent(format!(
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
    large: &TooLarge,
) -> Result<FoundChange, SourceError> {
    if large.is_still(database, id).await? {
        return Ok(too_large());
    }
    let found = match kept == Kept::default() {
        true => find_winner(database, id).await,
        false => find_change(database, id).await,
    };
    Ok(match found {
        Ok(FoundChange::Unreadable(reason)) => {
            FoundChange::Unreadable(bounded(&database.scrub(&reason)))
        }
        Ok(found) => found,
        Err(error) if error.kind() == Kind::TooLarge => {
            if let Some(revision) = newest(database, id).await? {
                large.insert(id, revision);
            }
            too_large()
        }
        Err(error) => return Err(error.into()),
    })
}

fn too_large() -> FoundChange {
    FoundChange::TooLarge(format!(
        "it is larger than the {} MiB that are read of one document; make it smaller at the source, \
         for example by moving data into attachments",
        MAX_ALONE >> 20
    ))
}

/// The newest change of a document, as it is in the feed.
async fn find_change(database: &Database, id: &DocumentId) -> Result<FoundChange, Error> {
    let answer = database.change_of(id).await?;
    let rows = changes_rows(&answer)?;
    let Some(text) = rows.last() else { return Ok(FoundChange::Nothing) };
    let text: Bytes = answer.slice_ref(text.get().as_bytes());
    let place = || format!("the newest change of `{id}` in {}", database.url());
    let row = row::read(&text, &Origin::counting(), place)
        .map_err(|error| Error::transient(format!("{} is not JSON: {error}", place())))?;
    Ok(match row {
        Row::Change(change) if change.id == *id => {
            FoundChange::Change(Change { position: None, ..change })
        }
        Row::Unreadable(row) => FoundChange::Unreadable(row.reason),
        _ => FoundChange::Unreadable("the server knows it and does not send it".to_owned()),
    })
}

/// The newest state of a document, without its other leaves.
async fn find_winner(database: &Database, id: &DocumentId) -> Result<FoundChange, Error> {
    let answer = database.document(id).await?;
    let rows = all_docs_rows(&answer)?;
    let Some(row) = rows.into_iter().find(|row| row.key == id.as_str()) else {
        return Ok(FoundChange::Nothing);
    };
    let Some(value) = row.value else {
        return Ok(match row.error {
            Some(error) if error.get() != "\"not_found\"" => {
                FoundChange::Unreadable(format!("the server says {}", bounded(error.get())))
            }
            _ => FoundChange::Nothing,
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
            FoundChange::Change(Change {
                id: id.clone(),
                revision,
                position: None,
                others: None,
                state,
            })
        }
        Err(reason) => FoundChange::Unreadable(reason),
    })
}

/// How many of the newest changes are looked up where `_revs_diff` is refused.
const LOOKED_UP: usize = 4;

/// Why the database cannot be the one in which these changes stood, the newest first, if it cannot.
pub(super) async fn disowned(
    database: &Database,
    anchors: &[Anchor],
) -> Result<Option<String>, SourceError> {
    let mut asked: HashMap<DocumentId, Vec<Revision>> = HashMap::new();
    for Anchor { id, revision } in anchors {
        asked.entry(id.clone()).or_default().push(revision.clone());
    }
    let answer = match database.revs_diff(&asked).await {
        Ok(answer) => answer,
        Err(error) if is_refusal(&error) => return disowned_without(database, anchors).await,
        Err(error) => return Err(error.into()),
    };
    let is_missing = |anchor: &&Anchor| {
        answer.get(&anchor.id).is_some_and(|missing| missing.missing.contains(&anchor.revision))
    };
    let mut limit = None;
    for anchor in anchors.iter().filter(is_missing) {
        if !is_forgotten(database, anchor, &mut limit).await? {
            return Ok(Some(unknown(anchor)));
        }
    }
    Ok(None)
}

fn unknown(anchor: &Anchor) -> String {
    format!(
        "the database no longer knows `{}` at {}: it was created again, restored, or purged",
        anchor.id, anchor.revision
    )
}

/// Whether the server, or a proxy before it, always refuses this kind of request. Refused credentials
/// (401) are an error as anywhere else.
fn is_refusal(error: &Error) -> bool {
    match error.status() {
        Some(401) => false,
        Some(501) => true,
        _ => !error.is_transient(),
    }
}

/// What some documents say about the changes that were noted.
enum Verdict {
    /// The database knows at least one of them, and contradicts none.
    Known,
    /// The database does not know this one.
    Unknown(Anchor),
    /// Nothing can be said.
    Unclear,
}

/// The same as [`disowned`] without `_revs_diff`, for the newest changes only.
async fn disowned_without(
    database: &Database,
    anchors: &[Anchor],
) -> Result<Option<String>, SourceError> {
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let newest = anchors.get(..LOOKED_UP).unwrap_or(anchors);
    let mut verdict = by_history(database, newest).await;
    if verdict.as_ref().is_err_and(is_refusal) {
        verdict = by_winner(database, newest).await;
    }
    match verdict {
        Ok(Verdict::Known) => return Ok(None),
        Ok(Verdict::Unknown(anchor)) => return Ok(Some(unknown(&anchor))),
        Err(error) if !is_refusal(&error) => return Err(error.into()),
        Ok(Verdict::Unclear) | Err(_) => {}
    }
    let url = database.url();
    if WARNED.lock().unwrap_or_else(PoisonError::into_inner).insert(url.clone()) {
        tracing::warn!(
            "{url} refuses POST _revs_diff, so Plainfold cannot detect that the server was restored \
             from its own backup; allow POST {url}/_revs_diff"
        );
    }
    Ok(None)
}

/// Looks for the changes in the histories of all leaves. A request for the old revision itself would not
/// do: the answer for a compacted revision is that for an unknown one.
async fn by_history(database: &Database, anchors: &[Anchor]) -> Result<Verdict, Error> {
    #[derive(serde::Deserialize)]
    struct Row {
        id: DocumentId,
        changes: Vec<Leaf>,
    }
    #[derive(serde::Deserialize)]
    struct Leaf {
        rev: Revision,
    }
    let ids: Vec<&DocumentId> = anchors.iter().map(|anchor| &anchor.id).collect();
    let answer = database.leaves(&ids).await?;
    let mut leaves: HashMap<DocumentId, Vec<Revision>> = HashMap::new();
    for row in changes_rows(&answer)? {
        let Ok(row) = serde_json::from_str::<Row>(row.get()) else { return Ok(Verdict::Unclear) };
        leaves.insert(row.id, row.changes.into_iter().map(|leaf| leaf.rev).collect());
    }
    let mut changed = Vec::new();
    for anchor in anchors {
        match leaves.get(&anchor.id) {
            // Even a deleted document has a row.
            None => return Ok(Verdict::Unknown(anchor.clone())),
            Some(leaves) if leaves.contains(&anchor.revision) => {}
            Some(leaves) => changed.push((anchor, leaves)),
        }
    }
    let mut known = changed.len() < anchors.len();
    for (anchor, leaves) in changed {
        let wanted: Vec<_> = leaves.iter().map(|revision| (&anchor.id, revision)).collect();
        let answer = database.bulk_get(&wanted, With::History).await?;
        match is_in_histories(&answer, anchor, leaves.len())? {
            Some(true) => known = true,
            Some(false) => return Ok(Verdict::Unknown(anchor.clone())),
            None => {}
        }
    }
    Ok(if known { Verdict::Known } else { Verdict::Unclear })
}

/// Whether a change is in one of the histories of its document's leaves. `None` if some of them were
/// not given, or do not reach back far enough.
fn is_in_histories(answer: &[u8], anchor: &Anchor, leaves: usize) -> Result<Option<bool>, Error> {
    #[derive(serde::Deserialize)]
    struct History {
        start: u64,
        ids: Vec<String>,
    }
    let Some((then, hash)) = anchor.revision.as_str().split_once('-') else { return Ok(None) };
    let Ok(then) = then.parse::<u64>() else { return Ok(None) };
    let results = bulk_get_results::<&RawValue>(answer)?;
    let bodies = results.iter().flat_map(|result| &result.docs).filter_map(|item| item.ok);
    let histories: Vec<History> = bodies
        .filter_map(|body| Head::read(body.get().as_bytes()).ok()?.history)
        .filter_map(|history| serde_json::from_str(history.get()).ok())
        .collect();
    let mut complete = histories.len() >= leaves;
    for History { start, ids } in histories {
        let Some(back) = start.checked_sub(then) else { continue };
        match usize::try_from(back).ok().and_then(|back| ids.get(back)) {
            Some(id) if id == hash => return Ok(Some(true)),
            Some(_) => {}
            // The database remembers no revision that old.
            None => complete = false,
        }
    }
    Ok(complete.then_some(false))
}

/// Compares the changes with the winners of their documents, for which a GET suffices. A document that is
/// not listed may have been deleted, and a document that was changed proves nothing.
async fn by_winner(database: &Database, anchors: &[Anchor]) -> Result<Verdict, Error> {
    let mut known = false;
    for anchor in anchors {
        let answer = database.list(Some(&anchor.id), 1).await?;
        let rows = all_docs_rows(&answer)?;
        let found = rows.into_iter().find(|row| row.key == anchor.id.as_str());
        let Some(winner) = found.and_then(|row| row.value) else { continue };
        let generations = winner.rev.generation().zip(anchor.revision.generation());
        if winner.rev == anchor.revision {
            known = true;
        } else if generations.is_some_and(|(now, then)| now <= then) {
            return Ok(Verdict::Unknown(anchor.clone()));
        }
    }
    Ok(if known { Verdict::Known } else { Verdict::Unclear })
}

/// Whether the change is still the newest of its document.
pub(super) async fn is_current(database: &Database, anchor: &Anchor) -> Result<bool, SourceError> {
    Ok(newest(database, &anchor.id).await?.as_ref() == Some(&anchor.revision))
}

/// The newest revision of a document, if the database knows it.
async fn newest(database: &Database, id: &DocumentId) -> Result<Option<Revision>, SourceError> {
    let answer = database.newest(&[id]).await?;
    let row = all_docs_rows(&answer)?.into_iter().find(|row| row.key == id.as_str());
    Ok(row.and_then(|row| row.value).map(|value| value.rev))
}

/// Whether the revision may be unknown only because the database remembers a limited number of revisions
/// of a document, and that many have come since.
///
/// `limit` is this number, once it has been requested.
async fn is_forgotten(
    database: &Database,
    anchor: &Anchor,
    limit: &mut Option<u64>,
) -> Result<bool, SourceError> {
    let limit = match *limit {
        Some(limit) => limit,
        None => match database.revs_limit().await {
            Ok(asked) => *limit.insert(asked),
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(_) => return Ok(false),
        },
    };
    let Some(newest) = newest(database, &anchor.id).await? else { return Ok(false) };
    let generations = newest.generation().zip(anchor.revision.generation());
    Ok(generations.is_some_and(|(now, then)| now >= then.saturating_add(limit)))
}

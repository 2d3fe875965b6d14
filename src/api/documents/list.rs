//! `GET /archive`: the collections that a mirror holds on disk. `GET
//! /collections/{collection}/documents`: the documents of one of them, in pages.
//!
//! A page is made by one pass over the names in the collection's folder, which keeps only the names of the
//! page, so that there may be any number of documents.

use std::collections::BinaryHeap;
use std::time::Duration;

use axum::extract::{Path, Query};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::{Files, settled};
use crate::api::json;
use crate::api::page::{InCollection, PageQuery};
use crate::api::problem::ApiProblem;
use crate::archive::{Entry, StoredCollection};
use crate::document::{CollectionName, DocumentId};
use crate::tree::MirrorError;

/// The most documents that are read for a page because the names of their folders do not show their ids.
const READS: usize = 5_000;

/// The time after which a page ends with what it has, if it has read the ids of documents.
const READS_FOR: Duration = Duration::from_secs(5);

/// The number of names that are looked for when the page needs more than it has.
const AGAIN: usize = 1_000;

/// What a mirror holds on disk.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArchiveEntry {
    /// The collections, by name.
    collections: Vec<ArchivedCollection>,
}

/// A collection on disk.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArchivedCollection {
    /// The name.
    collection: CollectionName,
}

/// Which documents are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DocumentsQuery {
    /// Only documents whose ids begin with this text.
    prefix: Option<String>,
    /// Only documents whose ids contain this text.
    contains: Option<String>,
}

/// A page of documents.
#[derive(Debug, Serialize, ToSchema)]
pub struct DocumentsPage {
    /// The documents, by the names of their folders. With `prefix` or `contains` there may be fewer than
    /// `limit` of them, although a next page follows.
    documents: Vec<ListedDocument>,
    /// The `after` of the next page; `null` after the last one.
    next: Option<DocumentId>,
    /// The number of folders that hold no document with a readable id, and are left out of this page.
    /// `plainfold verify` names them.
    unreadable: usize,
    /// `false` if more documents may follow although there is no `next`, because too many unreadable folders
    /// come first.
    complete: bool,
}

/// A document in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListedDocument {
    /// The id.
    id: DocumentId,
    /// The path of its folder, relative to the mirror.
    path: String,
}

/// Lists the collections that the mirror holds on disk
///
/// Also of a mirror that is not at work.
#[utoipa::path(
    get, path = "/archive", operation_id = "archive",
    responses((status = 200, description = "The collections", body = ArchiveEntry))
)]
pub async fn archive(files: Files) -> Result<Response, ApiProblem> {
    let names =
        files.read(|reader| reader.archive.names().map_err(|error| ApiProblem::internal(&error)));
    let collections = names.await?.into_iter().map(|collection| ArchivedCollection { collection });
    Ok(json(&ArchiveEntry { collections: collections.collect() }))
}

/// Lists the documents of a collection
///
/// Documents that are deleted at the source are among them, if the mirror keeps their tombstones.
#[utoipa::path(
    get, path = "/collections/{collection}/documents", operation_id = "documents",
    params(InCollection, PageQuery, DocumentsQuery),
    responses((status = 200, description = "A page of documents", body = DocumentsPage))
)]
pub async fn list(
    files: Files,
    Path(named): Path<InCollection>,
    Query(page): Query<PageQuery>,
    Query(query): Query<DocumentsQuery>,
) -> Result<Response, ApiProblem> {
    let limit = page.limit()?;
    let after = page.after().map(DocumentId::from);
    let listed = files.read(move |reader| {
        let collection = reader.collection(&named.collection)?;
        page_of(&*collection, after.as_ref(), limit, &query, READS_FOR)
            .map_err(|error| ApiProblem::internal(&error))
    });
    Ok(json(&listed.await?))
}

impl DocumentsQuery {
    fn admits(&self, id: &DocumentId) -> bool {
        let id = id.as_str();
        self.prefix.as_ref().is_none_or(|prefix| id.starts_with(prefix))
            && self.contains.as_ref().is_none_or(|part| id.contains(part))
    }

    fn admits_all(&self) -> bool {
        self.prefix.is_none() && self.contains.is_none()
    }
}

/// The first documents whose folders come after that of `after`.
fn page_of(
    collection: &dyn StoredCollection,
    after: Option<&DocumentId>,
    limit: usize,
    query: &DocumentsQuery,
    reads_for: Duration,
) -> Result<DocumentsPage, MirrorError> {
    let begun = Instant::now();
    let mut page =
        DocumentsPage { documents: Vec::new(), next: None, unreadable: 0, complete: true };
    let mut from = after.map(|id| collection.name_of(id));
    // The last document that was looked at, and the unreadable folders after it.
    let (mut last, mut unreadable) = (None, 0);
    let (mut reads, mut most) = (READS, limit + 1);
    loop {
        let names = first_names(collection, from.as_deref(), most, query)?;
        let were_all = names.len() < most;
        for name in names {
            let id = match collection.id_of(&name) {
                // A slow disk: the client asks again from here.
                None if last.is_some() && begun.elapsed() >= reads_for => {
                    page.next = last;
                    return Ok(page);
                }
                None if reads == 0 => {
                    page.complete = last.is_some();
                    page.next = last;
                    return Ok(page);
                }
                None => {
                    reads -= 1;
                    read_id(collection, &name)?
                }
                known => known,
            };
            from = Some(name);
            let Some(id) = id else {
                unreadable += 1;
                continue;
            };
            let is_wanted = query.admits(&id);
            if is_wanted && page.documents.len() == limit {
                page.next = last;
                return Ok(page);
            }
            page.unreadable += std::mem::take(&mut unreadable);
            last = Some(id.clone());
            if is_wanted {
                let path = collection.path_of(from.as_deref().unwrap_or_default());
                page.documents.push(ListedDocument { id, path });
            }
        }
        if were_all {
            page.unreadable += unreadable;
            return Ok(page);
        }
        most = most.max(AGAIN);
    }
}

/// The smallest `most` names after `after`, in order, of documents that are wanted or whose name does not
/// show their id.
fn first_names(
    collection: &dyn StoredCollection,
    after: Option<&str>,
    most: usize,
    query: &DocumentsQuery,
) -> Result<Vec<String>, MirrorError> {
    let mut first: BinaryHeap<String> = BinaryHeap::with_capacity(most + 1);
    for name in collection.each_name()? {
        // A name that is not text is no document's.
        let Ok(name) = name? else { continue };
        let is_after = after.is_none_or(|after| name.as_str() > after);
        let is_first = first.len() < most || first.peek().is_some_and(|last| name < *last);
        if !is_after || !is_first {
            continue;
        }
        let may_be =
            query.admits_all() || collection.id_of(&name).is_none_or(|id| query.admits(&id));
        if may_be {
            first.push(name);
            if first.len() > most {
                first.pop();
            }
        }
    }
    Ok(first.into_sorted_vec())
}

/// The id that the document with this name has in its body.
fn read_id(
    collection: &dyn StoredCollection,
    name: &str,
) -> Result<Option<DocumentId>, MirrorError> {
    Ok(match settled(collection, name)? {
        Some(Entry::Document(document)) => Some(document.id),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::{AtWork, rows};
    use crate::archive::conformance::memory::MemoryCollection;

    fn query(prefix: Option<&str>, contains: Option<&str>) -> DocumentsQuery {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        DocumentsQuery { prefix: owned(prefix), contains: owned(contains) }
    }

    /// All pages of this size.
    fn all(collection: &MemoryCollection, limit: usize, query: &DocumentsQuery) -> Vec<String> {
        let (mut after, mut ids) = (None, Vec::new());
        loop {
            let page = page_of(collection, after.as_ref(), limit, query, READS_FOR).unwrap();
            assert!(page.documents.len() <= limit && page.complete);
            ids.extend(page.documents.iter().map(|one| one.id.as_str().to_owned()));
            let Some(next) = page.next else { return ids };
            after = Some(next);
        }
    }

    #[test]
    fn pages_of_any_size_have_each_document_once_in_one_order() {
        let collection = MemoryCollection::new("shelf");
        let ids: Vec<_> = (0..57).map(|number| format!("d{number:02}")).collect();
        for id in &ids {
            collection.put(id, &format!("{{\"_id\":\"{id}\"}}"), &[]);
        }
        for limit in [1, 7, 56, 57, 58, 1000] {
            assert_eq!(all(&collection, limit, &query(None, None)), ids, "{limit}");
            assert_eq!(all(&collection, limit, &query(Some("d1"), None)), ids[10..20], "{limit}");
            let nines = all(&collection, limit, &query(None, Some("9")));
            assert_eq!(nines, ["d09", "d19", "d29", "d39", "d49"], "{limit}");
            assert!(all(&collection, limit, &query(Some("d1"), Some("x"))).is_empty());
        }
        // A page begins after a document that has been removed meanwhile.
        let gone = DocumentId::from("d10x");
        let page = page_of(&collection, Some(&gone), 2, &query(None, None), READS_FOR).unwrap();
        assert_eq!(page.documents[0].id.as_str(), "d11");
    }

    #[tokio::test]
    async fn a_page_that_takes_too_long_ends_with_what_it_has_and_the_next_goes_on() {
        let mut ids: Vec<_> =
            (0..5).map(|number| format!("{}/{number}", "y".repeat(400))).collect();
        ids.push("short".to_owned());
        let documents: Vec<_> = ids.iter().map(|id| ("shelf", id.as_str())).collect();
        let mirror = AtWork::on(&rows(&documents)).await;
        let archive = crate::archive::open(&mirror.mirror()).unwrap();
        let collection = archive.collection(&"shelf".into()).unwrap().unwrap();
        let (mut after, mut read, mut pages) = (None, Vec::new(), 0);
        loop {
            let all = query(None, None);
            let page = page_of(&*collection, after.as_ref(), 10, &all, Duration::ZERO).unwrap();
            assert!(page.complete && !page.documents.is_empty());
            read.extend(page.documents.into_iter().map(|one| one.id.as_str().to_owned()));
            pages += 1;
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert!((5..=6).contains(&pages), "each id that is read ends a page: {pages}");
        read.sort();
        assert_eq!(read, {
            ids.sort();
            ids
        });
        let all = page_of(&*collection, None, 10, &query(None, None), READS_FOR).unwrap();
        assert_eq!((all.documents.len(), all.next), (6, None));
    }
}

//! `GET /collections`, and one collection with its failures and the deletions that are held back.

use axum::extract::{Path, Query};
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::chosen::Chosen;
use super::json;
use super::page::{FailurePlace, InCollection, PageQuery, page};
use super::problem::ApiProblem;
use crate::document::{CollectionName, DocumentId};
use crate::pipeline::PipelineReport;
use crate::runner::{CollectionStatus, FailureStatus, HeldDocument, Keeps, Lag};

/// A collection without the list of its failures.
#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionEntry {
    /// Its pipeline's report, or the state's record of it.
    #[serde(flatten)]
    report: PipelineReport,
    /// How old the copy is.
    #[serde(flatten)]
    lag: Lag,
    /// The time of its checkpoint's commit.
    checkpoint_at: Option<Timestamp>,
    /// Whether its attachments are mirrored, and which revisions are kept in addition to the
    /// winners, as of its checkpoint.
    keeps: Option<Keeps>,
}

impl From<CollectionStatus> for CollectionEntry {
    fn from(status: CollectionStatus) -> Self {
        let CollectionStatus { report, lag, checkpoint_at, keeps, failed: _ } = status;
        Self { report, lag, checkpoint_at, keeps }
    }
}

/// A page of collections.
#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionsPage {
    /// The collections, by name.
    collections: Vec<CollectionEntry>,
    /// The `after` of the next page; `null` after the last one.
    next: Option<String>,
}

/// A page of documents that failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailuresPage {
    /// The documents that could not be mirrored, by the time of their first failure.
    failures: Vec<FailureStatus>,
    /// The `after` of the next page; `null` after the last one.
    next: Option<String>,
}

/// A page of documents whose deletion is held back.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeldPage {
    /// The documents, by id.
    held: Vec<HeldDocument>,
    /// The `after` of the next page; `null` after the last one.
    next: Option<String>,
}

/// Lists the collections
///
/// Without the documents that failed, which each collection has in pages.
#[utoipa::path(
    get, path = "/collections", operation_id = "collections", params(PageQuery),
    responses((status = 200, description = "A page of collections", body = CollectionsPage))
)]
pub async fn list(chosen: Chosen, Query(query): Query<PageQuery>) -> Result<Response, ApiProblem> {
    let limit = query.limit()?;
    let after = query.after().map(CollectionName::from);
    let found = chosen.watcher().collections(after.as_ref(), limit + 1);
    let (found, next) = page(found, limit, |one| one.report.collection.as_str().to_owned());
    let collections = found.into_iter().map(CollectionEntry::from).collect();
    Ok(json(&CollectionsPage { collections, next }))
}

/// Describes a collection
#[utoipa::path(
    get, path = "/collections/{collection}", operation_id = "collection", params(InCollection),
    responses((status = 200, description = "The collection", body = CollectionEntry))
)]
pub async fn read(chosen: Chosen, Path(named): Path<InCollection>) -> Result<Response, ApiProblem> {
    Ok(json(&CollectionEntry::from(chosen.collection(&named.collection)?)))
}

/// Lists the documents of a collection that could not be mirrored
#[utoipa::path(
    get, path = "/collections/{collection}/failures", operation_id = "failures",
    params(InCollection, PageQuery),
    responses((status = 200, description = "A page of documents that failed", body = FailuresPage))
)]
pub async fn failures(
    chosen: Chosen,
    Path(named): Path<InCollection>,
    Query(query): Query<PageQuery>,
) -> Result<Response, ApiProblem> {
    let limit = query.limit()?;
    let after = query.after().map(FailurePlace::parse).transpose()?;
    let mut failed = chosen.collection(&named.collection)?.failed;
    failed.sort_by_cached_key(FailurePlace::of);
    if let Some(after) = after {
        failed.retain(|one| FailurePlace::of(one) > after);
    }
    let (failures, next) = page(failed, limit, |one| FailurePlace::of(one).token());
    Ok(json(&FailuresPage { failures, next }))
}

/// Lists the documents of a collection whose deletion is held back
#[utoipa::path(
    get, path = "/collections/{collection}/held", operation_id = "held_of_collection",
    params(InCollection, PageQuery),
    responses((status = 200, description = "A page of documents", body = HeldPage))
)]
pub async fn held(
    chosen: Chosen,
    Path(named): Path<InCollection>,
    Query(query): Query<PageQuery>,
) -> Result<Response, ApiProblem> {
    let limit = query.limit()?;
    let after = query.after().map(DocumentId::from);
    if !chosen.watcher().has(&named.collection) {
        return Err(ApiProblem::no_collection(&named.collection));
    }
    let held = chosen.watcher().held_of(&named.collection, after.as_ref(), limit + 1);
    let held = held.map_err(|error| ApiProblem::internal(&error))?;
    let (held, next) = page(held, limit, |one| one.document.as_str().to_owned());
    Ok(json(&HeldPage { held, next }))
}

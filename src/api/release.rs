//! `POST /release?collection=NAME`, `POST /collections/{collection}/release`: deletes what the brake
//! holds back.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::chosen::Chosen;
use super::json;
use super::page::InCollection;
use super::problem::{ApiProblem, ApiProblemKind};
use crate::document::CollectionName;
use crate::runner::Release;

/// The parameters of the query.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReleaseQuery {
    /// The name of the collection.
    #[param(value_type = String)]
    collection: CollectionName,
}

/// Applies the deletions of a collection that are held back
#[utoipa::path(
    post, path = "/release", operation_id = "release", params(ReleaseQuery),
    responses((status = 200, description = "How many deletions were held back", body = Release))
)]
pub async fn release(
    chosen: Chosen,
    wanted: Result<Query<ReleaseQuery>, QueryRejection>,
) -> Result<Response, ApiProblem> {
    let Query(wanted) = wanted.map_err(|_| {
        let detail = "`release` needs `?collection=NAME`, once: deletions are released collection by \
                      collection, and `GET …/held` lists those that are held back";
        ApiProblem::new(ApiProblemKind::BadRequest, detail)
    })?;
    carry_out(&chosen, &wanted.collection).await
}

/// Applies the deletions of this collection that are held back
#[utoipa::path(
    post, path = "/collections/{collection}/release", operation_id = "release_collection",
    params(InCollection),
    responses((status = 200, description = "How many deletions were held back", body = Release))
)]
pub async fn release_one(
    chosen: Chosen,
    Path(named): Path<InCollection>,
) -> Result<Response, ApiProblem> {
    carry_out(&chosen, &named.collection).await
}

async fn carry_out(chosen: &Chosen, name: &CollectionName) -> Result<Response, ApiProblem> {
    match chosen.watcher().release(name).await {
        Ok(Some(released)) => Ok(json(&released)),
        Ok(None) => Err(ApiProblem::no_collection(name)),
        Err(error) => Err(ApiProblem::internal(&error)),
    }
}

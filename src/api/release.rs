//! `POST /release?collection=NAME`: deletes what the brake holds back.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{failed, json};
use crate::document::CollectionName;
use crate::runner::Watcher;

/// The parameters of the query.
#[derive(Debug, Deserialize)]
pub struct ReleaseQuery {
    collection: CollectionName,
}

pub async fn release(
    State(watcher): State<Watcher>,
    Query(wanted): Query<ReleaseQuery>,
) -> Response {
    match watcher.release(&wanted.collection).await {
        Ok(Some(released)) => json(&released),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => failed(&error),
    }
}

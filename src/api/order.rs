//! `POST /pause`, `/resume`, `/catch-up` and `/rescan`, each for all collections or with
//! `?collection=NAME`: orders to the mirror. The answer has the effect for each collection, as JSON.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::json;
use crate::document::CollectionName;
use crate::runner::{Action, Watcher};

/// The parameters of the query.
#[derive(Debug, Deserialize)]
pub struct OrderQuery {
    collection: Option<CollectionName>,
}

pub async fn pause(watcher: State<Watcher>, wanted: Query<OrderQuery>) -> Response {
    order(Action::Pause, watcher, wanted).await
}

pub async fn resume(watcher: State<Watcher>, wanted: Query<OrderQuery>) -> Response {
    order(Action::Resume, watcher, wanted).await
}

pub async fn catch_up(watcher: State<Watcher>, wanted: Query<OrderQuery>) -> Response {
    order(Action::CatchUp, watcher, wanted).await
}

pub async fn rescan(watcher: State<Watcher>, wanted: Query<OrderQuery>) -> Response {
    order(Action::Rescan, watcher, wanted).await
}

async fn order(
    action: Action,
    State(watcher): State<Watcher>,
    Query(wanted): Query<OrderQuery>,
) -> Response {
    match watcher.order(action, wanted.collection).await {
        Ok(Some(ordered)) => json(&ordered),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

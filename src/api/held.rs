//! `GET /held`: the documents whose deletion the brake holds back, as JSON.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::agent::Watcher;

pub async fn read(State(watcher): State<Watcher>) -> Response {
    match watcher.held() {
        Ok(held) => Json(held).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

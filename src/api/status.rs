//! `GET /status`: the status of the mirror, as JSON.

use axum::extract::State;
use axum::response::Response;

use super::json;
use crate::runner::Watcher;

pub async fn read(State(watcher): State<Watcher>) -> Response {
    json(&watcher.status())
}

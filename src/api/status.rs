//! `GET /status`: how the mirror stands, as JSON.

use axum::Json;
use axum::extract::State;

use crate::agent::{Status, Watcher};

pub async fn read(State(watcher): State<Watcher>) -> Json<Status> {
    Json(watcher.status())
}

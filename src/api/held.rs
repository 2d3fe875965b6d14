//! `GET /held`: the documents whose deletion the brake holds back, as JSON.

use axum::extract::State;
use axum::response::Response;

use super::{failed, json};
use crate::runner::Watcher;

pub async fn read(State(watcher): State<Watcher>) -> Response {
    match watcher.held() {
        Ok(held) => json(&held),
        Err(error) => failed(&error),
    }
}

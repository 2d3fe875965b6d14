//! `GET /held`: the documents whose deletion the brake holds back, as JSON.

use axum::response::Response;

use super::chosen::Chosen;
use super::json;
use super::problem::ApiProblem;
use crate::runner::HeldDocument;

/// Lists all documents whose deletion is held back
#[utoipa::path(
    get, path = "/held", operation_id = "held",
    responses((status = 200, description = "The documents", body = Vec<HeldDocument>))
)]
pub async fn read(chosen: Chosen) -> Result<Response, ApiProblem> {
    let held = chosen.watcher().held().map_err(|error| ApiProblem::internal(&error))?;
    Ok(json(&held))
}

//! `GET /status`: the status of the mirror, as JSON.

use axum::response::Response;

use super::chosen::Chosen;
use super::json;
use crate::runner::Status;

/// Describes the mirror with all its collections
///
/// What `plainfold status --format json` prints.
#[utoipa::path(
    get, path = "/status", operation_id = "status",
    responses((status = 200, description = "The status", body = Status))
)]
pub async fn read(chosen: Chosen) -> Response {
    json(&chosen.watcher().status())
}

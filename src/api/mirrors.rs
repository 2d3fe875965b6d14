//! `GET /v1/mirrors`: what the agent is doing, as JSON. `POST /v1/mirrors/{name}/start`: starts a mirror
//! that waits or is parked.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as Part, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use super::json;
use super::process;
use crate::agent::{MirrorSummary, Roster};
use crate::document::MirrorName;

/// The answer to `GET /v1/mirrors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MirrorList {
    /// The process id of the agent.
    pub pid: u32,
    /// Why the config on disk is not in force, if it is not.
    pub config_trouble: Option<String>,
    /// The mirrors, in the order of the config.
    pub mirrors: Vec<MirrorSummary>,
}

/// How long an agent is given to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers on `listener` until `shutdown`.
pub async fn serve_agent(
    listener: UnixListener,
    roster: Roster,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let monitoring = super::monitoring(roster.clone());
    let routes = Router::new()
        .route("/v1/mirrors", get(list))
        .route("/v1/mirrors/{name}/start", post(start))
        .with_state(roster)
        .merge(monitoring);
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

async fn list(State(roster): State<Roster>) -> Response {
    let mirrors = roster.mirrors().iter().map(|mirror| mirror.summary()).collect();
    let config_trouble = roster.trouble();
    json(&MirrorList { pid: std::process::id(), config_trouble, mirrors })
}

async fn start(State(roster): State<Roster>, Part(name): Part<MirrorName>) -> Response {
    match roster.get(&name) {
        Some(mirror) => json(&mirror.start_now()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What the agent at a socket is doing; `None` if no agent answers there.
pub async fn ask_agent(socket: &Path) -> Option<MirrorList> {
    process::ask(socket, PATIENCE, "/v1/mirrors", false).await
}

/// Starts a mirror of the agent at a socket, if it waits or is parked. `None` if no agent answers there, or
/// it has no such mirror.
pub async fn ask_to_start(socket: &Path, name: &MirrorName) -> Option<bool> {
    process::ask(socket, PATIENCE, &format!("/v1/mirrors/{name}/start"), true).await
}

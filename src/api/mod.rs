//! HTTP on a Unix socket: a running mirror answers there, and [`client`] asks.
//!
//! One file per resource. A server takes a bound listener and a shutdown future.

use std::future::Future;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio::net::UnixListener;

use crate::agent::Roster;
use crate::document::plain;
use crate::runner::Watcher;

pub mod client;
mod events;
mod health;
mod held;
mod metrics;
pub mod mirrors;
mod order;
pub mod own;
mod process;
mod release;
pub mod socket;
mod status;
mod usage;

/// Answers on `listener` until `shutdown`.
pub async fn serve(
    listener: UnixListener,
    watcher: Watcher,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/status", get(status::read))
        .route("/events", get(events::follow))
        .route("/held", get(held::read))
        .route("/release", post(release::release))
        .route("/pause", post(order::pause))
        .route("/resume", post(order::resume))
        .route("/catch-up", post(order::catch_up))
        .route("/rescan", post(order::rescan))
        .route("/metrics", get(metrics::read))
        .route("/healthz", get(health::health))
        .route("/readyz", get(health::readiness))
        .with_state(watcher);
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

/// What monitoring asks of an agent: metrics, health and readiness.
pub fn monitoring(roster: Roster) -> Router {
    Router::new()
        .route("/metrics", get(metrics::of_agent))
        .route("/healthz", get(health::health_of_agent))
        .route("/readyz", get(health::readiness_of_agent))
        .with_state(roster)
}

/// An answer of JSON without characters that control a terminal.
fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => {
            let text = plain::json(&text).into_owned();
            ([(CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(error) => failed(&error),
    }
}

/// An answer that describes an error.
fn failed(error: &impl ToString) -> Response {
    let text = plain::text(&error.to_string()).into_owned();
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

//! HTTP on a Unix socket: where a mirror at work answers `status` and `tail`, or `curl`.
//!
//! One file per resource. A server takes a bound listener and a shutdown future. It must not know
//! sled or the names on disk.

use std::future::Future;

use axum::Router;
use axum::routing::{get, post};
use tokio::net::UnixListener;

use crate::agent::Watcher;

mod events;
mod held;
mod release;
pub mod socket;
mod status;

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
        .with_state(watcher);
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

//! HTTP on Unix sockets and addresses: a running mirror answers on its own, an agent for all its mirrors, and [`client`]
//! asks.
//!
//! One file per resource. A server takes a bound listener and a shutdown future.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::chosen::ApiState;
use self::guard::Door;
use self::listen::Listener;
use self::problem::{ApiProblem, ApiProblemKind};
use self::streams::Streams;
use crate::document::plain;
use crate::runner::Watcher;
use crate::web;

mod chosen;
pub mod client;
mod collections;
mod connections;
mod cursors;
mod documents;
mod events;
mod guard;
mod health;
mod held;
mod jobs;
pub mod listen;
mod metrics;
pub mod mirrors;
mod openapi;
mod order;
pub mod own;
mod page;
mod problem;
mod process;
mod release;
pub mod role;
pub mod socket;
mod status;
mod streams;
#[cfg(test)]
mod tests;
pub mod token_file;
pub mod tokens;
mod usage;

/// The largest body of a request, in bytes. No request needs one.
const LARGEST: usize = 64 * 1024;

/// The time within which a request is read and its answer begins.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers for one mirror on `listener` until `shutdown`.
pub async fn serve(
    listener: Listener,
    watcher: Watcher,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    connections::answer(listener, router(ApiState::One(watcher)), shutdown).await;
}

/// The routes of one mirror.
fn of_mirror() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(status::read))
        .routes(routes!(events::follow))
        .routes(routes!(held::read))
        .routes(routes!(release::release))
        .routes(routes!(release::release_one))
        .routes(routes!(collections::list))
        .routes(routes!(collections::read))
        .routes(routes!(collections::failures))
        .routes(routes!(collections::held))
        .merge(order::routes())
        .merge(jobs::routes())
        .merge(documents::bounded(documents::routes().merge(cursors::routes())))
}

/// All routes that are described.
fn described(state: &ApiState) -> OpenApiRouter<ApiState> {
    let routes = match state {
        ApiState::One(_) => of_mirror(),
        ApiState::All(roster) => {
            mirrors::routes(roster.clone()).nest("/v1/mirrors/{name}", of_mirror())
        }
    };
    let monitoring = OpenApiRouter::new()
        .routes(routes!(metrics::read))
        .routes(routes!(health::health))
        .routes(routes!(health::readiness));
    routes.merge(monitoring)
}

/// The description of all routes. It is made when it is asked for: it is large, and few ask.
fn description(state: &ApiState) -> OpenApi {
    let mut api = described(state).into_openapi();
    openapi::complete(&mut api);
    api
}

/// All routes, bounded in time and size, for those who may do everything.
fn router(state: ApiState) -> Router {
    router_behind(Door::Own, state)
}

/// All routes, bounded in time and size, for those who pass a door.
fn router_behind(door: Door, state: ApiState) -> Router {
    let describe = async |State(state): State<ApiState>| json(&description(&state));
    let (routes, _) = described(&state).split_for_parts();
    let page = match state {
        ApiState::One(_) => Router::new(),
        ApiState::All(_) => web::routes(),
    };
    routes
        .route("/openapi.json", get(describe))
        .with_state(state)
        .route_layer(middleware::from_fn_with_state(Streams::default(), streams::bound))
        // What is added below needs no token.
        .route_layer(middleware::from_fn_with_state(door, guard::admit))
        .merge(page)
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn(bounded))
        .layer(middleware::from_fn(problem::document))
}

/// Refuses a request whose body is too large before it is read, and one that takes too long.
async fn bounded(request: Request, next: Next) -> Response {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced = announced.and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > LARGEST as u64) {
        let detail = format!("the body is larger than {LARGEST} bytes: send a smaller one");
        return ApiProblem::new(ApiProblemKind::TooLarge, detail).into_response();
    }
    tokio::time::timeout(PATIENCE, next.run(request)).await.unwrap_or_else(|_| {
        let seconds = PATIENCE.as_secs();
        let detail = format!(
            "the request was not read and answered within {seconds} s: send it at once; if it was, \
             look at the mirror's log"
        );
        ApiProblem::new(ApiProblemKind::Late, detail).into_response()
    })
}

/// An answer of JSON without characters that control a terminal.
fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => {
            let text = plain::json(&text).into_owned();
            ([(CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(error) => ApiProblem::internal(&error).into_response(),
    }
}

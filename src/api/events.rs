//! `GET /events?since=N&collection=NAME`: write events as newline-delimited JSON, without end; or
//! 404 if the mirror holds no such collection.
//!
//! The stream also contains two kinds of notices: `{"lagged":N}`: the reader was so slow that it
//! missed N events, which follow from the journal; `{"expired":{"first":N,"last":N}}`: the journal
//! no longer holds these events.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use crate::document::CollectionName;
use crate::runner::{Notice, Subscription, Watcher};

/// The most lines that are sent at a time.
const LINES: usize = 100;

/// The parameters of the query.
#[derive(Debug, Deserialize)]
pub struct EventsQuery {
    /// Begin after the event with this number; without it, with the next event.
    since: Option<u64>,
    /// Only events of this collection.
    collection: Option<CollectionName>,
}

pub async fn follow(State(watcher): State<Watcher>, Query(wanted): Query<EventsQuery>) -> Response {
    if wanted.collection.as_ref().is_some_and(|name| watcher.lacks(name)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let subscription = watcher.subscribe(wanted.since);
    let start = Some((subscription, wanted.collection));
    let lines = stream::unfold(start, |state| async move {
        let (mut subscription, wanted) = state?;
        let line = next_line(&mut subscription, wanted.as_ref()).await?;
        Some((line, Some((subscription, wanted))))
    });
    // One write for all lines of a commit, instead of one for each.
    let lines = lines.ready_chunks(LINES).map(|lines| Ok::<_, Infallible>(lines.concat()));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn next_line(
    subscription: &mut Subscription,
    wanted: Option<&CollectionName>,
) -> Option<Bytes> {
    loop {
        let notice = match subscription.next().await {
            Ok(notice) => notice?,
            Err(error) => {
                tracing::error!("a subscriber is left without events: {error}");
                return None;
            }
        };
        if let Notice::Event(event) = &notice
            && wanted.is_some_and(|wanted| *wanted != event.collection)
        {
            continue;
        }
        return Some(notice.line());
    }
}

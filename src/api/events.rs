//! `GET /events?since=N&collection=NAME&id=GLOB`: write events as newline-delimited JSON or as
//! Server-Sent Events, without end.
//!
//! The stream also contains two kinds of notices: `{"lagged":N}`: the reader was so slow that it
//! missed N events, which follow from the journal; `{"expired":{"first":N,"last":N}}`: the journal
//! no longer holds these events.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::chosen::Chosen;
use super::problem::{ApiProblem, ApiProblemKind};
use crate::document::{CollectionName, Pattern};
use crate::event::WriteEvent;
use crate::runner::{Notice, Subscription};

/// The most lines that are sent at a time.
const LINES: usize = 100;

/// The time in which the last events of a session are read from an agent.
const FAREWELL: Duration = Duration::from_secs(1);

/// The header with the id of the last event that a reader of Server-Sent Events has received.
const LAST_EVENT_ID: &str = "last-event-id";

/// The media type of Server-Sent Events.
const EVENT_STREAM: &str = "text/event-stream";

/// The parameter that says where events begin.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SinceQuery {
    /// Begin after the event with this number; without it, with the next event. The header
    /// `Last-Event-ID` takes precedence.
    since: Option<u64>,
}

/// The parameters that say which events are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FilterQuery {
    /// Only events of this collection.
    #[param(value_type = Option<String>)]
    collection: Option<CollectionName>,
    /// Only events of documents whose ids match this glob, such as `order:*`.
    #[param(min_length = 1)]
    id: Option<String>,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    collection: Option<CollectionName>,
    id: Option<Pattern>,
}

impl Filter {
    fn new(FilterQuery { collection, id }: FilterQuery) -> Result<Self, ApiProblem> {
        let bad = |reason: String| {
            let detail = format!("`id` is not a glob: {reason}");
            ApiProblem::new(ApiProblemKind::BadRequest, detail)
        };
        let id = id.map(|glob| Pattern::new(&glob).map_err(|error| bad(error.to_string())));
        let id = id.transpose()?;
        match id.as_ref().and_then(Pattern::broken) {
            Some(reason) => Err(bad(reason.to_owned())),
            None => Ok(Self { collection, id }),
        }
    }

    /// Whether a notice is wanted. All that are not events are.
    fn admits(&self, notice: &Notice) -> bool {
        let Notice::Event(event) = notice else { return true };
        self.collection.as_ref().is_none_or(|wanted| *wanted == event.collection)
            && self.id.as_ref().is_none_or(|glob| glob.matches(event.document.as_str()))
    }
}

/// Streams write events
///
/// With `Accept: text/event-stream` as Server-Sent Events, whose `id` is the number of the event;
/// otherwise as one line of JSON for each event. The stream ends with the mirror's session.
#[utoipa::path(
    get, path = "/events", operation_id = "events",
    params(SinceQuery, FilterQuery, (
        "Last-Event-ID" = Option<u64>, Header, description = "The number of the last event that was received"
    )),
    responses((status = 200, description = "Events without end", content(
        (WriteEvent = "application/x-ndjson"), (String = "text/event-stream")
    )))
)]
pub async fn follow(
    chosen: Chosen,
    Query(SinceQuery { since }): Query<SinceQuery>,
    Query(filter): Query<FilterQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    let filter = Filter::new(filter)?;
    if let Some(name) = filter.collection.as_ref().filter(|name| chosen.watcher().lacks(name)) {
        return Err(ApiProblem::no_collection(name));
    }
    let since = last_event_id(&headers)?.or(since);
    let notices = notices(chosen.watcher().subscribe(since), filter);
    let notices = match chosen.outlives() {
        true => detached(notices, chosen.watcher().ended()).right_stream(),
        false => notices.left_stream(),
    };
    Ok(match accepts(&headers, EVENT_STREAM) {
        true => event_stream(notices.map(|notice| sse(&notice))),
        false => lines(notices.map(|notice| notice.line())),
    })
}

/// The number in the header `Last-Event-ID`. Browsers send an empty one before the first event.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiProblem> {
    let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(None) };
    let number = id.to_str().ok().and_then(|id| id.parse().ok());
    number.map(Some).ok_or_else(|| {
        let detail = "`Last-Event-ID` is not the number of an event: leave it out to begin with the \
                      next event";
        ApiProblem::new(ApiProblemKind::BadRequest, detail)
    })
}

/// Whether a request accepts this media type by name.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(','));
    types.any(|one| one.split(';').next().is_some_and(|name| name.trim() == media_type))
}

/// The notices of a subscription that are wanted, until its end.
fn notices(subscription: Subscription, filter: Filter) -> impl Stream<Item = Notice> + Send {
    stream::unfold((subscription, filter), |(mut subscription, filter)| async move {
        loop {
            match subscription.next().await {
                Ok(Some(notice)) if filter.admits(&notice) => {
                    return Some((notice, (subscription, filter)));
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => {
                    tracing::error!("a subscriber is left without events: {error}");
                    return None;
                }
            }
        }
    })
}

/// The items of a stream, which is dropped soon after `ended`, whether they have been read or not. What
/// a subscription holds keeps the mirror open.
fn detached<T: Send + 'static>(
    items: impl Stream<Item = T> + Send + 'static,
    ended: CancellationToken,
) -> impl Stream<Item = T> + Send {
    let (sender, receiver) = mpsc::channel(LINES);
    tokio::spawn(async move {
        let passed_on = async {
            let mut items = pin!(items);
            while let Some(item) = items.next().await {
                if sender.send(item).await.is_err() {
                    break;
                }
            }
        };
        let late = async {
            ended.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            () = passed_on => {}
            () = sender.closed() => {}
            () = late => {}
        }
    });
    ReceiverStream::new(receiver)
}

/// An answer of lines of JSON.
fn lines(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    // One write for all lines of a commit, instead of one for each.
    let lines = lines.ready_chunks(LINES).map(|lines| Ok::<_, Infallible>(lines.concat()));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// An answer of Server-Sent Events.
fn event_stream(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    /// Shorter than the time after which proxies usually end a connection without traffic.
    const EVERY: Duration = Duration::from_secs(15);
    let keep_alive = KeepAlive::new().interval(EVERY);
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response()
}

/// A notice as a Server-Sent Event.
fn sse(notice: &Notice) -> Event {
    let (name, id) = match notice {
        Notice::Event(event) if event.deleted => ("deleted", Some(event.event)),
        Notice::Event(event) => ("written", Some(event.event)),
        // What follows comes from the journal, and has ids again.
        Notice::Lagged(_) => ("lagged", None),
        Notice::Expired(_, last) => ("expired", Some(*last)),
    };
    let line = notice.line();
    let event = Event::default().event(name).data(String::from_utf8_lossy(&line).trim_end());
    match id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}

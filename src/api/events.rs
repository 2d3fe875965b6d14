//! `GET /events?since=N&collection=NAME&id=GLOB`: write events as newline-delimited JSON or as
//! Server-Sent Events, without end.
//!
//! The stream also contains two kinds of notices: `{"lagged":N}`: the reader was so slow that it
//! missed N events, which follow from the journal; `{"expired":{"first":N,"last":N}}`: the journal
//! no longer holds these events. The stream of a cursor with a filter has a third kind: `{"passed":N}`:
//! up to this number there are no more events that are wanted.

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
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::chosen::Chosen;
use super::problem::{ApiProblem, ApiProblemKind};
use crate::checkpoint::{CursorFilter, CursorStatus};
use crate::document::{CollectionName, Pattern};
use crate::event::WriteEvent;
use crate::runner::{Notice, Subscription};

pub mod all;

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

/// What a stream says.
#[derive(Clone, Debug)]
enum Said {
    Notice(Notice),
    /// Up to this number there are no more events that are wanted.
    Passed(u64),
}

/// When the reader of a stream is told that events were left out.
#[derive(Clone, Copy, Debug)]
struct Passing {
    /// How many may be left out before it is told.
    events: u64,
    /// How long it may take, also if no further event comes.
    every: Duration,
}

/// Rarely enough to cost nothing, and often enough that what is left out does not expire.
const PASSING: Passing = Passing { events: 1_000, every: Duration::from_secs(60) };

impl FilterQuery {
    /// The filter of a cursor.
    pub fn of(CursorFilter { collection, id }: CursorFilter) -> Self {
        Self { collection, id }
    }
}

/// The glob that a parameter has.
fn glob(parameter: &str, text: &str) -> Result<Pattern, ApiProblem> {
    let bad = |reason: String| {
        let detail = format!("`{parameter}` is not a glob: {reason}");
        ApiProblem::new(ApiProblemKind::BadRequest, detail)
    };
    let pattern = Pattern::new(text).map_err(|error| bad(error.to_string()))?;
    match pattern.broken() {
        Some(reason) => Err(bad(reason.to_owned())),
        None => Ok(pattern),
    }
}

impl Filter {
    /// What these parameters want.
    pub fn new(FilterQuery { collection, id }: FilterQuery) -> Result<Self, ApiProblem> {
        let id = id.map(|text| glob("id", &text)).transpose()?;
        Ok(Self { collection, id })
    }

    /// Refuses a collection that the mirror does not have.
    pub fn check(&self, chosen: &Chosen) -> Result<(), ApiProblem> {
        match self.collection.as_ref().filter(|name| chosen.watcher().lacks(name)) {
            Some(name) => Err(ApiProblem::no_collection(name)),
            None => Ok(()),
        }
    }

    /// Whether an event is wanted.
    fn admits(&self, event: &WriteEvent) -> bool {
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
    filter.check(&chosen)?;
    stream_from(&chosen, since, filter, None, &headers)
}

/// The stream of the events of a cursor.
pub fn of_cursor(
    chosen: &Chosen,
    cursor: CursorStatus,
    headers: &HeaderMap,
) -> Result<Response, ApiProblem> {
    let filter = Filter::new(FilterQuery::of(cursor.filter))?;
    stream_from(chosen, Some(cursor.acknowledged), filter, Some(PASSING), headers)
}

fn stream_from(
    chosen: &Chosen,
    since: Option<u64>,
    filter: Filter,
    passing: Option<Passing>,
    headers: &HeaderMap,
) -> Result<Response, ApiProblem> {
    let since = last_event_id(headers)?.or(since);
    let said = said(chosen.watcher().subscribe(since), filter, passing);
    let said = match chosen.outlives() {
        true => detached(said, chosen.watcher().ended()).right_stream(),
        false => said.left_stream(),
    };
    Ok(match accepts(headers, EVENT_STREAM) {
        true => event_stream(said.map(|said| said.sse())),
        false => lines(said.map(|said| said.line())),
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

/// What is wanted of a subscription, until its end.
fn said(
    subscription: Subscription,
    filter: Filter,
    passing: Option<Passing>,
) -> impl Stream<Item = Said> + Send {
    let (left_out, passed, told) = (0, 0, Instant::now());
    let wanted = Wanted { subscription, filter, passing, left_out, passed, told };
    stream::unfold(wanted, |mut wanted| async move {
        let said = wanted.next().await?;
        Some((said, wanted))
    })
}

/// What is wanted of a subscription.
struct Wanted {
    subscription: Subscription,
    filter: Filter,
    passing: Option<Passing>,
    /// How many events were left out since the reader was told.
    left_out: u64,
    /// The number of the last one.
    passed: u64,
    /// When the reader was told last.
    told: Instant,
}

impl Wanted {
    /// What is said next; `None` at the end.
    async fn next(&mut self) -> Option<Said> {
        loop {
            let passing = self.passing.filter(|_| self.left_out > 0);
            let due = self.told + passing.map_or(Duration::ZERO, |passing| passing.every);
            // A subscription loses nothing if it is not waited for.
            let next = tokio::select! {
                biased;
                next = self.subscription.next() => next,
                () = sleep_until(due), if passing.is_some() => return Some(self.tell()),
            };
            match next {
                Ok(Some(Notice::Event(event))) if !self.filter.admits(&event) => {
                    self.left_out += 1;
                    self.passed = event.event;
                    if self.is_due() {
                        return Some(self.tell());
                    }
                }
                // It has no number, and says nothing of what was left out.
                Ok(Some(notice @ Notice::Lagged(_))) => return Some(Said::Notice(notice)),
                Ok(Some(notice)) => {
                    (self.left_out, self.told) = (0, Instant::now());
                    return Some(Said::Notice(notice));
                }
                Ok(None) => return passing.is_some().then(|| self.tell()),
                Err(error) => {
                    tracing::error!("a subscriber is left without events: {error}");
                    return None;
                }
            }
        }
    }

    fn is_due(&self) -> bool {
        self.passing.is_some_and(|passing| {
            self.left_out >= passing.events || self.told.elapsed() >= passing.every
        })
    }

    /// Tells the reader what was left out.
    fn tell(&mut self) -> Said {
        (self.left_out, self.told) = (0, Instant::now());
        Said::Passed(self.passed)
    }
}

/// The items of a stream, which is dropped soon after `ended`, whether they have been read or not. What
/// a subscription holds keeps the mirror open.
fn detached<T: Send + 'static>(
    items: impl Stream<Item = T> + Send + 'static,
    ended: CancellationToken,
) -> impl Stream<Item = T> + Send {
    let (sender, receiver) = mpsc::channel(LINES);
    tokio::spawn(pass_on(items, ended, sender));
    ReceiverStream::new(receiver)
}

/// Passes the items of a stream on until its end, until nobody receives them, or until soon after `ended`.
async fn pass_on<T: Send + 'static>(
    items: impl Stream<Item = T> + Send + 'static,
    ended: CancellationToken,
    sender: mpsc::Sender<T>,
) {
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

impl Said {
    /// As a line of JSON.
    fn line(&self) -> Bytes {
        match self {
            Self::Notice(notice) => notice.line(),
            Self::Passed(number) => format!("{{\"passed\":{number}}}\n").into(),
        }
    }

    /// As a Server-Sent Event.
    fn sse(&self) -> Event {
        let id = match self {
            Self::Notice(Notice::Event(event)) => Some(event.event),
            // What follows comes from the journal, and has ids again.
            Self::Notice(Notice::Lagged(_)) => None,
            Self::Notice(Notice::Expired(_, last)) => Some(*last),
            Self::Passed(number) => Some(*number),
        };
        let name = match self {
            Self::Notice(notice) => name(notice),
            Self::Passed(_) => "passed",
        };
        let line = self.line();
        let event = Event::default().event(name).data(String::from_utf8_lossy(&line).trim_end());
        match id {
            Some(id) => event.id(id.to_string()),
            None => event,
        }
    }
}

/// The name of a notice as a Server-Sent Event.
fn name(notice: &Notice) -> &'static str {
    match notice {
        Notice::Event(event) if event.deleted => "deleted",
        Notice::Event(_) => "written",
        Notice::Lagged(_) => "lagged",
        Notice::Expired(..) => "expired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::{AtWork, rows};

    #[tokio::test]
    async fn a_reader_is_told_what_was_left_out_without_a_further_event_and_at_the_end() {
        let mirror = AtWork::on(&rows(&[("a", "1"), ("a", "2"), ("a", "3")])).await;
        let nothing = || Filter::new(FilterQuery { collection: None, id: Some("none*".into()) });
        let said = |every| {
            let passing = Some(Passing { events: 1_000, every });
            said(mirror.session.watcher().subscribe(Some(0)), nothing().unwrap(), passing)
        };
        let mut soon = pin!(said(Duration::from_millis(300)));
        while !matches!(soon.next().await.unwrap(), Said::Passed(3)) {}
        assert!(futures_util::poll!(soon.next()).is_pending(), "it is told once");
        let mut late = pin!(said(Duration::from_secs(3_600)));
        assert!(futures_util::poll!(late.next()).is_pending());
        mirror.session.cancel();
        assert!(matches!(late.next().await, Some(Said::Passed(3))));
        assert!(late.next().await.is_none() && soon.next().await.is_none());
    }
}

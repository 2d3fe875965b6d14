//! `/cursors` and below: subscribers with names, each with the number of the last event that it has
//! acknowledged.

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::chosen::{ApiState, Chosen, Named};
use super::documents::{Files, TURN};
use super::events::{self, Filter, FilterQuery};
use super::json;
use super::problem::{ApiProblem, ApiProblemKind};
use crate::agent::{MirrorHandle, MirrorState};
use crate::checkpoint::{CopiedFiles, CursorError, CursorFilter, CursorStart, CursorStatus};
use crate::document::{CollectionName, CursorName};
use crate::event::WriteEvent;
use crate::mirror;
use crate::runner::{CursorRefusal, Watcher};

/// The routes.
pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(read, create, remove))
        .routes(routes!(acknowledge))
        .routes(routes!(follow))
}

/// The cursors of a mirror.
#[derive(Debug, Serialize, ToSchema)]
pub struct CursorList {
    /// The cursors, by name.
    cursors: Vec<CursorStatus>,
}

/// The cursor that a path names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InCursor {
    /// The name of the cursor: 1 to 64 of the characters a-z, 0-9, `-`, `_` and `.`; the first one is a
    /// letter or a digit.
    #[param(value_type = String)]
    cursor: CursorName,
}

/// A cursor that is to be created.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCursor {
    /// Where it begins: after the event with this number, with the next event (`"now"`, the default), or with
    /// the oldest event in the journal (`"start"`).
    since: Option<CursorBeginning>,
    /// Only events of this collection.
    #[schema(value_type = Option<String>)]
    collection: Option<CollectionName>,
    /// Only events of documents whose ids match this glob.
    id: Option<String>,
}

/// Where a cursor begins.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum CursorBeginning {
    /// After this event.
    After(u64),
    /// At a place with a name.
    CursorPlace(CursorPlace),
}

/// A place among the events.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CursorPlace {
    /// The next event.
    Now,
    /// The oldest event in the journal.
    Start,
}

/// The events that a subscriber has handled.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// The number of the last one.
    event: u64,
}

/// The cursors of a mirror that is at work, or of one of an agent that is not.
enum Asked {
    AtWork(Watcher),
    AtRest(MirrorHandle, Files),
}

impl FromRequestParts<ApiState> for Asked {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiProblem> {
        let roster = match state {
            ApiState::One(watcher) => return Ok(Self::AtWork(watcher.clone())),
            ApiState::All(roster) => roster,
        };
        let Named(mirror) = Named::from_request_parts(parts, roster).await?;
        match mirror.watcher() {
            Some(watcher) => Ok(Self::AtWork(watcher)),
            None => Ok(Self::AtRest(mirror, Files::from_request_parts(parts, state).await?)),
        }
    }
}

impl Asked {
    async fn cursors(self) -> Result<Vec<CursorStatus>, ApiProblem> {
        let (mirror, files) = match self {
            Self::AtWork(watcher) => return Ok(watcher.cursors()),
            Self::AtRest(mirror, files) => (mirror, files),
        };
        if let Some(known) = mirror.cursors() {
            return Ok(known);
        }
        let no_session = || ApiProblem::no_session(&mirror);
        let turn = tokio::time::timeout(TURN, mirror.copying()).await.map_err(|_| no_session())?;
        // The request before this one has perhaps read them.
        if let Some(known) = mirror.cursors() {
            return Ok(known);
        }
        // A start must not find the mirror locked.
        if mirror.state() == MirrorState::Starting {
            return Err(no_session());
        }
        let directory = files.directory().to_path_buf();
        let read = files.in_turn(move || {
            let copied = copied(&directory);
            drop(turn);
            Ok(copied.and_then(at_rest))
        });
        // It is being opened, or there is nothing to open.
        let cursors = read.await?.ok_or_else(no_session)?;
        mirror.note_cursors(cursors.clone());
        Ok(cursors)
    }
}

/// A copy of the state of a mirror that nobody works on; `None` if it cannot be copied. The mirror is locked
/// only as long as it is copied.
fn copied(directory: &std::path::Path) -> Option<CopiedFiles> {
    let ours = mirror::Ours::find(directory).ok()?;
    let _lock = ours.share().ok()?.ok()?;
    CopiedFiles::of(&ours.state_path()).ok()
}

/// The cursors in a copied state; `None` if it cannot be read.
fn at_rest(files: CopiedFiles) -> Option<Vec<CursorStatus>> {
    let copied = files.open().ok()?;
    copied.damaged.is_none().then(|| copied.state.cursors())
}

/// Lists the cursors
///
/// Also of a mirror that is not at work.
#[utoipa::path(
    get, path = "/cursors", operation_id = "cursors",
    responses((status = 200, description = "The cursors", body = CursorList))
)]
async fn list(asked: Asked) -> Result<Response, ApiProblem> {
    Ok(json(&CursorList { cursors: asked.cursors().await? }))
}

/// Says how far a cursor is
///
/// Also of a mirror that is not at work.
#[utoipa::path(
    get, path = "/cursors/{cursor}", operation_id = "cursor", params(InCursor),
    responses((status = 200, description = "The cursor", body = CursorStatus))
)]
async fn read(asked: Asked, Path(named): Path<InCursor>) -> Result<Response, ApiProblem> {
    let cursors = asked.cursors().await?;
    let found = cursors.into_iter().find(|one| one.cursor == named.cursor);
    found.map(|found| json(&found)).ok_or_else(|| no_cursor(&named.cursor))
}

/// Creates a cursor
///
/// A cursor that exists with the same filter stays where it is.
#[utoipa::path(
    put, path = "/cursors/{cursor}", operation_id = "create_cursor", params(InCursor),
    request_body(content = NewCursor, description = "Where it begins, and which events are wanted; by default \
                 all from now on"),
    responses(
        (status = 200, description = "It exists", body = CursorStatus),
        (status = 201, description = "It was created", body = CursorStatus)
    )
)]
async fn create(
    chosen: Chosen,
    Path(named): Path<InCursor>,
    body: Bytes,
) -> Result<Response, ApiProblem> {
    let NewCursor { since, collection, id } = match body.iter().all(u8::is_ascii_whitespace) {
        true => NewCursor::default(),
        false => parse(&body)?,
    };
    let start = match since {
        Some(CursorBeginning::After(event)) => CursorStart::After(event),
        Some(CursorBeginning::CursorPlace(CursorPlace::Start)) => CursorStart::Oldest,
        Some(CursorBeginning::CursorPlace(CursorPlace::Now)) | None => CursorStart::Now,
    };
    let filter = CursorFilter { collection, id };
    Filter::new(FilterQuery::of(filter.clone()))?.check(&chosen)?;
    let created = chosen.watcher().create_cursor(named.cursor, start, filter).await;
    let (cursor, is_new) = created.map_err(refused)?;
    let mut answer = json(&cursor);
    if is_new {
        *answer.status_mut() = StatusCode::CREATED;
    }
    Ok(answer)
}

/// Removes a cursor
#[utoipa::path(
    delete, path = "/cursors/{cursor}", operation_id = "remove_cursor", params(InCursor),
    responses((status = 200, description = "What it was", body = CursorStatus))
)]
async fn remove(chosen: Chosen, Path(named): Path<InCursor>) -> Result<Response, ApiProblem> {
    Ok(json(&chosen.watcher().remove_cursor(named.cursor).await.map_err(refused)?))
}

/// Acknowledges all events up to a number
///
/// The answer comes when this is durable. A cursor never goes back: a smaller number changes nothing.
#[utoipa::path(
    post, path = "/cursors/{cursor}/ack", operation_id = "acknowledge", params(InCursor),
    request_body = Acknowledgement,
    responses((status = 200, description = "The cursor after that", body = CursorStatus))
)]
async fn acknowledge(
    chosen: Chosen,
    Path(named): Path<InCursor>,
    body: Bytes,
) -> Result<Response, ApiProblem> {
    let Acknowledgement { event } = parse(&body)?;
    Ok(json(&chosen.watcher().acknowledge(named.cursor, event).await.map_err(refused)?))
}

/// Streams the write events after a cursor
///
/// As `/events` does, with the filter of the cursor. If events were left out by the filter, `{"passed":N}` says
/// from time to time up to which number there are no more events that are wanted.
#[utoipa::path(
    get, path = "/cursors/{cursor}/events", operation_id = "cursor_events",
    params(InCursor, (
        "Last-Event-ID" = Option<u64>, Header, description = "The number of the last event that was received"
    )),
    responses((status = 200, description = "Events without end", content(
        (WriteEvent = "application/x-ndjson"), (String = "text/event-stream")
    )))
)]
async fn follow(
    chosen: Chosen,
    Path(named): Path<InCursor>,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    let cursor = chosen.watcher().cursor(&named.cursor);
    events::of_cursor(&chosen, cursor.ok_or_else(|| no_cursor(&named.cursor))?, &headers)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiProblem> {
    serde_json::from_slice(body).map_err(|error| {
        let detail =
            format!("the body is not what it should be: {error}; `GET /openapi.json` describes it");
        ApiProblem::new(ApiProblemKind::BadRequest, detail)
    })
}

fn no_cursor(name: &CursorName) -> ApiProblem {
    let detail = format!(
        "the mirror has no cursor {name}: `PUT …/cursors/{name}` creates it; if it existed before, the state \
         of the mirror was lost"
    );
    ApiProblem::new(ApiProblemKind::NoCursor, detail)
}

fn refused(refusal: CursorRefusal) -> ApiProblem {
    let kind = match &refusal {
        CursorRefusal::Cursor(CursorError::Unknown(name)) => return no_cursor(name),
        CursorRefusal::Cursor(CursorError::TooMany | CursorError::Differs(_)) => {
            ApiProblemKind::CursorConflict
        }
        CursorRefusal::Cursor(CursorError::Beyond { .. }) => ApiProblemKind::NoEvent,
        CursorRefusal::Cursor(CursorError::State(error)) if !error.is_disk() => {
            ApiProblemKind::Internal
        }
        CursorRefusal::Cursor(CursorError::State(_)) | CursorRefusal::Mirror(_) => {
            ApiProblemKind::Unavailable
        }
    };
    ApiProblem::new(kind, refusal.to_string())
}

#[cfg(test)]
mod tests;

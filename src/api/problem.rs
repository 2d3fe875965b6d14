//! Errors as problem documents (RFC 9457). Every answer with a status from 400 on is one: those of
//! handlers, and those of the framework, whose plain text becomes the detail.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::agent::{MirrorHandle, MirrorState};
use crate::document::{CollectionName, plain};

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What `type` begins with. The rest is one of [`ApiProblemKind::slug`].
const NAMESPACE: &str = "urn:plainfold:problem:";

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiProblemKind {
    /// A parameter, a header or a body that cannot be read, or that makes no sense.
    BadRequest,
    /// No token that is known came with the request.
    NoToken,
    /// The role of the token does not suffice.
    NoRole,
    /// A page of another site may have made the request.
    Foreign,
    /// The mirror has no such collection.
    NoCollection,
    /// The agent has no such mirror.
    NoMirror,
    /// The mirror has no session now.
    NoSession,
    /// There is no mirror in the directory.
    NoArchive,
    /// The mirror holds no such document.
    NoDocument,
    /// The document has no such attachment, or the mirror does not hold it.
    NoAttachment,
    /// The mirror has no such cursor.
    NoCursor,
    /// A cursor of this name has another filter, or there are too many.
    CursorConflict,
    /// The mirror has not emitted this event.
    NoEvent,
    /// A file of the mirror is not what was written.
    Damaged,
    /// The file does not have the bytes that are asked for.
    NoRange,
    /// There is no such job.
    NoJob,
    /// Another job is under way.
    Busy,
    /// There is no such path.
    NoPath,
    /// The path does not have this method.
    NoMethod,
    /// The request came too slowly, or took too long.
    Late,
    /// The body is too large.
    TooLarge,
    /// There are as many connections or event streams as there may be.
    TooMany,
    /// The mirror cannot do this now.
    Unavailable,
    /// Any other error of the mirror.
    Internal,
}

impl ApiProblemKind {
    /// The status, the end of `type`, and the title.
    pub fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => {
                (StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read")
            }
            Self::NoToken => (StatusCode::UNAUTHORIZED, "no-token", "The request needs a token"),
            Self::NoRole => {
                (StatusCode::FORBIDDEN, "no-role", "The role of the token does not suffice")
            }
            Self::Foreign => {
                (StatusCode::FORBIDDEN, "foreign", "The request may come from another site")
            }
            Self::NoCollection => {
                (StatusCode::NOT_FOUND, "no-collection", "There is no such collection")
            }
            Self::NoMirror => (StatusCode::NOT_FOUND, "no-mirror", "There is no such mirror"),
            Self::NoSession => {
                (StatusCode::CONFLICT, "no-session", "The mirror has no session now")
            }
            Self::NoArchive => (StatusCode::NOT_FOUND, "no-archive", "There is no mirror on disk"),
            Self::NoDocument => (StatusCode::NOT_FOUND, "no-document", "There is no such document"),
            Self::NoAttachment => {
                (StatusCode::NOT_FOUND, "no-attachment", "There is no such attachment")
            }
            Self::NoCursor => (StatusCode::NOT_FOUND, "no-cursor", "There is no such cursor"),
            Self::CursorConflict => {
                (StatusCode::CONFLICT, "cursor-conflict", "The cursor cannot be created")
            }
            Self::NoEvent => (StatusCode::CONFLICT, "no-event", "There is no such event"),
            Self::Damaged => {
                (StatusCode::INTERNAL_SERVER_ERROR, "damaged", "The mirror is damaged")
            }
            Self::NoRange => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "no-range", "The file has no such bytes")
            }
            Self::NoJob => (StatusCode::NOT_FOUND, "no-job", "There is no such job"),
            Self::Busy => (StatusCode::CONFLICT, "busy", "Another job is under way"),
            Self::NoPath => (StatusCode::NOT_FOUND, "no-path", "There is no such path"),
            Self::NoMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "no-method", "The path does not have this method")
            }
            Self::Late => (StatusCode::REQUEST_TIMEOUT, "late", "The request took too long"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Self::TooMany => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many",
                "There are too many connections or event streams",
            ),
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The mirror cannot do this now")
            }
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "The mirror has failed")
            }
        }
    }

    /// The kind of an answer of the framework.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NoPath,
            StatusCode::METHOD_NOT_ALLOWED => Self::NoMethod,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::REQUEST_TIMEOUT => Self::Late,
            _ if status.is_client_error() => Self::BadRequest,
            _ => Self::Internal,
        }
    }
}

/// A problem, as a handler returns it.
#[derive(Clone, Debug)]
pub struct ApiProblem {
    kind: ApiProblemKind,
    detail: String,
    mirror: Option<MirrorState>,
}

/// What a client receives of a problem.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProblemDocument {
    /// The kind of the problem: `urn:plainfold:problem:` and a name that does not change.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What happened, to what, and what to do.
    pub detail: String,
    /// The path that was requested.
    pub instance: String,
    /// What the mirror is doing, if the problem is that it has no session now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorState>,
}

impl ApiProblem {
    /// A problem with this detail, in which nothing foreign controls a terminal.
    pub fn new(kind: ApiProblemKind, detail: impl AsRef<str>) -> Self {
        Self { kind, detail: plain::text(detail.as_ref()).into_owned(), mirror: None }
    }

    /// An error of the mirror.
    pub fn internal(error: &impl ToString) -> Self {
        Self::new(ApiProblemKind::Internal, error.to_string())
    }

    /// The mirror has no such collection.
    pub fn no_collection(name: &CollectionName) -> Self {
        let detail = format!(
            "the mirror has no collection {}: `GET …/collections` lists its collections",
            plain::quoted(name.as_str())
        );
        Self::new(ApiProblemKind::NoCollection, detail)
    }

    /// The agent has no such mirror.
    pub fn no_mirror(name: &str) -> Self {
        let name = plain::quoted(name);
        let detail = format!("there is no mirror {name}: `GET /v1/mirrors` lists the mirrors");
        Self::new(ApiProblemKind::NoMirror, detail)
    }

    /// The mirror has no session now.
    pub fn no_session(mirror: &MirrorHandle) -> Self {
        let (name, state) = (mirror.name(), mirror.state());
        let start = format!("`POST /v1/mirrors/{name}/start` starts it now");
        let detail = match &state {
            MirrorState::Starting | MirrorState::Running { .. } => {
                "is being opened: ask again in a few seconds".to_owned()
            }
            MirrorState::Waiting { next: Some(next) } => {
                format!("waits for its next run at {next}: {start}")
            }
            MirrorState::Waiting { next: None } => format!("has no further run: {start}"),
            MirrorState::Failed { error, next } => {
                format!("has ended with an error, and starts again at {next}: {error}; {start}")
            }
            MirrorState::Parked { error, remedy } => {
                format!("is parked: {error}; {remedy}; after that, {start}")
            }
            MirrorState::Stopping => "ends: ask again after it has started again".to_owned(),
        };
        let problem = Self::new(ApiProblemKind::NoSession, format!("the mirror {name} {detail}"));
        Self { mirror: Some(state), ..problem }
    }

    /// The whole answer to a request that is not read.
    pub fn raw(&self) -> Vec<u8> {
        let (status, ..) = self.kind.parts();
        let document = self.document(status, &Uri::from_static("/"));
        // Strings and numbers can always be written.
        let document = serde_json::to_string(&document).unwrap_or_default();
        let length = document.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {length}\r\n\
             connection: close\r\nretry-after: 5\r\n\r\n{document}"
        )
        .into_bytes()
    }

    fn document(&self, status: StatusCode, instance: &Uri) -> ProblemDocument {
        let (_, slug, title) = self.kind.parts();
        ProblemDocument {
            kind: format!("{NAMESPACE}{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            instance: instance.path().to_owned(),
            mirror: self.mirror.clone(),
        }
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let (status, ..) = self.kind.parts();
        // `document` writes the body: it knows the path.
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes each error as a problem document. It is the outermost layer.
pub async fn document(request: Request, next: Next) -> Response {
    let instance = request.uri().clone();
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    // `/healthz` and `/readyz` answer 503 with JSON of their own.
    if response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let problem = match parts.extensions.remove::<ApiProblem>() {
        Some(problem) => problem,
        None => of_framework(status, body).await,
    };
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    let document = serde_json::to_string(&problem.document(status, &instance));
    // Strings and numbers can always be written.
    let document = plain::json(&document.unwrap_or_default()).into_owned();
    Response::from_parts(parts, Body::from(document))
}

/// The problem that an answer of the framework describes in plain text, with what to do.
async fn of_framework(status: StatusCode, body: Body) -> ApiProblem {
    /// These texts are short.
    const LONGEST: usize = 4096;
    let body = axum::body::to_bytes(body, LONGEST).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&body);
    let said = said.trim_end_matches(['.', '\n']);
    let kind = ApiProblemKind::of_status(status);
    let detail = match kind {
        ApiProblemKind::NoPath => {
            "there is no such path: `GET /openapi.json` lists all paths".to_owned()
        }
        ApiProblemKind::NoMethod => {
            "the path has other methods: the header `Allow` names them".to_owned()
        }
        _ if said.is_empty() => kind.parts().2.to_owned(),
        _ => format!("{said}: `GET /openapi.json` describes each request"),
    };
    ApiProblem::new(kind, detail)
}

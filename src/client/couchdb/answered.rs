//! The beginning of an answer. What is known of a failure is read at once, so that its connection is free.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response, StatusCode};

use super::body::Body;
use super::waited;

/// The most that is read of a failure's body, in bytes.
pub(super) const MAX_FAILURE: usize = 16 << 10;

/// How long to wait for a failure's body: its status has already said most.
const FAILURE_PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for a probe: one that hangs says nothing about a limit.
pub(super) const PROBING: Duration = Duration::from_secs(2);

/// The beginning of an answer.
pub(super) enum Answered {
    /// A success, whose body has not been read.
    Success(Response),
    /// Another status.
    Failure(Failed),
}

/// An answer that is not a success. Its connection is free for another request.
pub(super) struct Failed {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The beginning of its body.
    pub said: Vec<u8>,
}

impl Failed {
    /// Reads what is needed of an answer.
    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, said: beginning(response, FAILURE_PATIENCE).await }
    }
}

/// What comes of the beginning of a body in this time.
pub(super) async fn beginning(response: Response, patience: Duration) -> Vec<u8> {
    Body::new(response, String::new(), patience, false).beginning(MAX_FAILURE, patience).await
}

/// The status and the headers of the answer to a probe, if it comes in time.
pub(super) async fn probe(request: RequestBuilder) -> Option<(StatusCode, HeaderMap)> {
    let response = tokio::time::timeout(PROBING, waited::send(request)).await.ok()?.ok()?;
    let (status, headers) = (response.status(), response.headers().clone());
    beginning(response, PROBING).await;
    Some((status, headers))
}

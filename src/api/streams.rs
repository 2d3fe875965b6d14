//! Event streams: a bounded number of a mirror and in all, and none that outlives its token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use percent_encoding::percent_decode_str;

use super::guard::Admitted;
use super::problem::{ApiProblem, ApiProblemKind};

/// The most streams of a mirror at a listener.
const OF_ONE: usize = 128;

/// The most streams at a listener.
const IN_ALL: usize = 512;

/// What the path of a stream ends with.
const EVENTS: &str = "/events";

/// The number of streams that are open, by mirror.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<HashMap<String, usize>>>);

/// An open stream.
#[derive(Debug)]
struct Place {
    streams: Streams,
    mirror: String,
}

impl Streams {
    fn take(&self, mirror: &str) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_mirror = open.get(mirror).copied().unwrap_or(0);
        if of_mirror >= OF_ONE || open.values().sum::<usize>() >= IN_ALL {
            return None;
        }
        open.insert(mirror.to_owned(), of_mirror + 1);
        Some(Place { streams: self.clone(), mirror: mirror.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.mirror) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.mirror);
            }
        }
    }
}

/// Bounds the streams that the routes below answer.
pub(super) async fn bound(
    State(streams): State<Streams>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    if !path.is_some_and(|path| path.as_str().ends_with(EVENTS)) {
        return next.run(request).await;
    }
    let mirror = request.uri().path().strip_prefix("/v1/mirrors/");
    let mirror = mirror.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    // Each spelling is the same mirror.
    let mirror = percent_decode_str(mirror).decode_utf8_lossy();
    let Some(place) = streams.take(&mirror) else {
        let detail = format!(
            "there are {OF_ONE} event streams of the mirror, or {IN_ALL} in all: end one of them, or ask again \
             later"
        );
        return ApiProblem::new(ApiProblemKind::TooMany, detail).into_response();
    };
    let admitted = request.extensions().get::<Admitted>().cloned();
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let pieces = body.into_data_stream().map(move |piece| {
        let _until_the_end = &place;
        piece
    });
    let body = match admitted {
        Some(admitted) => Body::from_stream(pieces.take_until(admitted.until_refused())),
        None => Body::from_stream(pieces),
    };
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::super::mirrors::tests::Kept;
    use super::super::tests::{AtWork, rows};
    use super::*;

    #[tokio::test]
    async fn a_stream_too_many_is_told_what_to_do() {
        let mirror = AtWork::on(&rows(&[("a", "1")])).await;
        let request = || Request::builder().uri("/events?since=0").body(Body::empty()).unwrap();
        let mut open = Vec::new();
        for _ in 0..OF_ONE {
            let response = mirror.routes.clone().oneshot(request()).await.unwrap();
            assert!(response.status().is_success());
            open.push(response);
        }
        let problem = mirror.send(request()).await.problem(503);
        assert_eq!(problem["type"], "urn:plainfold:problem:too-many");
        assert!(mirror.get("/status").await.status.is_success(), "only streams are counted");
        mirror.get("/events?since=first").await.problem(503);
        open.pop();
        mirror.get("/events?since=first").await.problem(400);
        let response = mirror.routes.clone().oneshot(request()).await.unwrap();
        assert!(response.status().is_success(), "one that is refused takes no place");
        mirror.session.cancel();
    }

    #[tokio::test]
    async fn each_spelling_of_a_mirrors_name_is_counted_as_the_same_mirror() {
        let kept = Kept::with(&rows(&[("a", "1")])).await;
        let follow = async |name: &str| {
            let uri = format!("/v1/mirrors/{name}/events?since=0");
            let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
            kept.routes.clone().oneshot(request).await.unwrap()
        };
        let mut open = Vec::new();
        for number in 0..OF_ONE {
            let name = ["live", "l%69ve", "%6Cive", "%6c%69%76%65"][number % 4];
            open.push(follow(name).await);
        }
        assert!(open.iter().all(|one| one.status().is_success()));
        for name in ["live", "li%76e"] {
            assert_eq!(follow(name).await.status(), 503, "{name}");
        }
        drop(open);
        kept.agent.stop().await;
    }

    #[test]
    fn there_are_bounded_numbers_of_streams_and_one_that_ends_makes_room() {
        let streams = Streams::default();
        let take = |name: &str| streams.take(name);
        let mut open: Vec<_> = (0..OF_ONE).map(|_| take("a").unwrap()).collect();
        assert!(take("a").is_none());
        open.pop();
        open.push(take("a").unwrap());
        for name in ["b", "c", "d"] {
            open.extend((0..OF_ONE).map(|_| take(name).unwrap()));
        }
        assert_eq!(open.len(), IN_ALL);
        assert!(take("e").is_none());
        drop(open);
        assert!(streams.0.lock().unwrap().is_empty());
    }
}

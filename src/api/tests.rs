//! The routes of one mirror, asked without a socket.

use std::path::PathBuf;

use axum::Router;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{Method, Request, StatusCode};
use futures_util::StreamExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::chosen::ApiState;
use super::problem::PROBLEM_JSON;
use super::*;
use crate::config::MirrorConfig;
use crate::runner::Session;

/// A mirror that has caught up with a feed of these rows, and its routes.
pub struct AtWork {
    pub session: Session,
    pub routes: Router,
    api: OpenApi,
    dir: tempfile::TempDir,
}

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub kind: String,
    pub headers: axum::http::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }

    /// That it is a complete problem document of this status, and what it says.
    pub fn problem(&self, status: u16) -> Value {
        let problem = self.json();
        assert_eq!((self.status.as_u16(), self.kind.as_str()), (status, PROBLEM_JSON), "{problem}");
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail", "instance"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        problem
    }
}

impl AtWork {
    pub async fn on(rows: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let feed = dir.path().join("feed.ndjson");
        std::fs::write(&feed, rows).unwrap();
        let feed = format!("feed:{}", feed.display());
        // It follows, so that it takes orders.
        let config = MirrorConfig::new(&feed, dir.path().join("mirror")).unwrap().live(true);
        let session = config.collections(&["*"]).unwrap().start().await.unwrap();
        assert!(session.caught_up().await);
        let state = ApiState::One(session.watcher());
        let (api, routes) = (description(&state), router(state));
        Self { session, routes, api, dir }
    }

    /// The mirror's directory.
    pub fn mirror(&self) -> PathBuf {
        self.dir.path().join("mirror")
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.routes, request).await
    }

    pub async fn ask(&self, method: Method, path: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        self.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        self.ask(Method::POST, path).await
    }

    /// The first `count` lines of a stream.
    pub async fn lines(&self, request: Request<Body>, count: usize) -> Vec<String> {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut pieces = response.into_body().into_data_stream();
        let mut text = String::new();
        while text.matches('\n').count() < count {
            let piece = tokio::time::timeout(Duration::from_secs(60), pieces.next()).await;
            let piece = piece.unwrap_or_else(|_| panic!("only this comes: {text}"));
            text += str::from_utf8(&piece.unwrap().unwrap()).unwrap();
        }
        text.lines().take(count).map(str::to_owned).collect()
    }
}

/// What these routes answer.
pub async fn send(routes: &Router, request: Request<Body>) -> Answer {
    let response = routes.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    Answer { status, kind: kind.unwrap_or_default(), headers, text }
}

/// That these routes describe themselves as `api`, with all that they answer about the mirror `live`.
pub async fn assert_described(routes: &Router, api: &OpenApi, least: usize) {
    let get = Request::builder().uri("/openapi.json").body(Body::empty()).unwrap();
    let described = send(routes, get).await.json();
    assert_eq!(described, serde_json::to_value(api).unwrap());
    assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut names = Vec::new();
    for (path, item) in described["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            names.push(operation["operationId"].as_str().unwrap().to_owned());
            assert!(operation["summary"].is_string(), "{method} {path}");
            let not_found = &operation["responses"]["404"]["content"][PROBLEM_JSON];
            assert!(not_found.is_object(), "{method} {path}");
            let is_described = |code: &&str| operation["responses"][*code]["content"].is_object();
            assert!(["200", "202"].iter().any(is_described), "{method} {path}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let named =
                    |one: &Value| one["in"] == "path" && one["name"] == part[..part.len() - 1];
                assert_eq!(parameters.iter().filter(|one| named(one)).count(), 1, "{path}: {part}");
            }
            // The router has it: another answer than that there is no such path.
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            if path.contains("events") || path.contains("{job}") {
                continue;
            }
            let path = path.replace("{collection}", "a").replace("{name}", "live");
            let path = path.replace("{document}", "1").replace("{attachment}", "none");
            let path = path.replace("{job}", "1");
            let path = path.replace("{cursor}", "none");
            let request = Request::builder().method(method).uri(&path).body(Body::empty()).unwrap();
            let answer = send(routes, request).await;
            let is_routed = !answer.text.contains(":no-path") && answer.status != 405;
            assert!(is_routed, "{path}: {}", answer.text);
        }
    }
    assert!(names.len() >= least, "{names:?}");
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    // Each reference leads to a schema.
    let text = described.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(described["components"]["schemas"][name].is_object(), "{name}");
    }
}

/// Rows of a recorded feed, one document each.
pub fn rows(documents: &[(&str, &str)]) -> String {
    let row = |(collection, id): &(&str, &str)| {
        let doc = serde_json::json!({ "_id": id, "_rev": "1-a" });
        let row = serde_json::json!({
            "collection": collection, "seq": 1, "id": id, "changes": [{ "rev": "1-a" }], "doc": doc
        });
        format!("{row}\n")
    };
    documents.iter().map(row).collect()
}

fn fixture() -> String {
    std::fs::read_to_string(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/library.ndjson"),
    )
    .unwrap()
}

#[tokio::test]
async fn a_glob_that_would_exhaust_the_stack_is_refused() {
    let mirror = AtWork::on(&rows(&[("a", "1")])).await;
    for levels in [17, 3_000, 20_000] {
        let glob = format!("{}a{}", "{".repeat(levels), "}".repeat(levels));
        let problem = mirror.get(&format!("/events?id={glob}")).await.problem(400);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("`id` is not a glob: it ") && detail.len() < 200, "{detail}");
        let body = serde_json::json!({ "id": glob }).to_string().into();
        let create = Request::builder().method(Method::PUT).uri("/cursors/deep").body(body);
        mirror.send(create.unwrap()).await.problem(400);
    }
    mirror.session.cancel();
}

#[tokio::test]
async fn every_error_is_a_problem_document_that_says_what_to_do() {
    let mirror = AtWork::on(&fixture()).await;
    let get = async |path: &str, status| mirror.get(path).await.problem(status);
    let no_path = get("/nothing/here?x=1", 404).await;
    assert_eq!(no_path["instance"], "/nothing/here");
    assert_eq!(no_path["type"], "urn:plainfold:problem:no-path");
    let no_collection = get("/collections/no%2Fsuch/failures", 404).await;
    assert_eq!(no_collection["type"], "urn:plainfold:problem:no-collection");
    assert!(no_collection["detail"].as_str().unwrap().contains("no/such"));
    get("/events?collection=none", 404).await;
    get("/events?since=first", 400).await;
    get("/events?id=%5Ba", 400).await;
    get("/events?id=", 400).await;
    get("/collections?limit=0", 400).await;
    get("/collections?limit=many", 400).await;
    get("/collections/books/failures?after=x", 400).await;
    get("/collections/%ff", 400).await;
    let hidden = get("/collections/%1b%5B2J", 404).await;
    assert!(hidden["detail"].as_str().unwrap().contains("\\u{1b}"), "{hidden}");
    mirror.post("/pause?collection=none").await.problem(404);
    mirror.post("/release?collection=none").await.problem(404);
    mirror.post("/collections/none/release").await.problem(404);
    for path in ["/release", "/release?collection=a&collection=b", "/release?collections=a"] {
        let problem = mirror.post(path).await.problem(400);
        assert!(problem["detail"].as_str().unwrap().contains("`?collection=NAME`"), "{problem}");
    }
    let wrong = mirror.ask(Method::DELETE, "/status").await;
    wrong.problem(405);
    assert!(wrong.headers[ALLOW].to_str().unwrap().contains("GET"));
    let large =
        Request::builder().method("POST").uri("/pause").header("content-length", "10000000");
    mirror.send(large.body(Body::empty()).unwrap()).await.problem(413);
}

#[tokio::test]
async fn collections_with_any_name_are_listed_in_pages_and_ordered_by_their_paths() {
    let names = ["_users", "a", "books/2024", "größe", "z?#&"];
    let mirror = AtWork::on(&rows(&names.map(|name| (name, "one")))).await;
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = mirror.get(&format!("/collections?limit=2{after}")).await.json();
        let listed = page["collections"].as_array().unwrap();
        assert!(listed.len() <= 2 && listed.iter().all(|one| one.get("failed").is_none()));
        seen.extend(listed.iter().map(|one| one["collection"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        after = format!("&after={next}");
    }
    assert_eq!(seen, names);
    for name in names {
        let set = percent_encoding::NON_ALPHANUMERIC;
        let path = format!("/collections/{}", percent_encoding::utf8_percent_encode(name, set));
        assert_eq!(mirror.get(&path).await.json()["collection"], name);
        for order in ["pause", "resume", "catch-up", "rescan"] {
            let effect = mirror.post(&format!("{path}/{order}")).await.json();
            assert_eq!(effect[0]["collection"], name, "{order}");
        }
        assert_eq!(mirror.post(&format!("{path}/release")).await.json()["held_back"], 0);
        assert_eq!(mirror.get(&format!("{path}/held")).await.json()["next"], Value::Null);
    }
}

#[tokio::test]
async fn documents_that_failed_are_listed_in_pages_each_once() {
    let bad = |number| {
        let doc = serde_json::json!({
            "_id": format!("b{number}"), "_rev": "1-a",
            "_attachments": { "x": { "data": "!", "content_type": "a/b" } }
        });
        let row = serde_json::json!({
            "collection": "books", "seq": number, "id": format!("b{number}"),
            "changes": [{ "rev": "1-a" }], "doc": doc
        });
        format!("{row}\n")
    };
    let mirror = AtWork::on(&(0..7).map(bad).collect::<String>()).await;
    let (mut after, mut seen, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let page = mirror.get(&format!("/collections/books/failures?limit=3{after}")).await.json();
        pages += 1;
        for failure in page["failures"].as_array().unwrap() {
            seen.push(failure["place"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let status = mirror.get("/status").await.json();
    let all = status["collections"][0]["failed"].as_array().unwrap();
    let all: Vec<_> = all.iter().map(|one| one["place"].as_str().unwrap()).collect();
    assert_eq!((seen.len(), pages), (7, 3), "{seen:?}");
    assert_eq!(seen, all);
}

#[tokio::test]
async fn events_come_as_lines_and_as_server_sent_events_that_resume_by_their_id() {
    let mirror = AtWork::on(&fixture()).await;
    let request = |path: &str| Request::builder().uri(path);
    let sse = |path: &str| request(path).header("accept", "text/event-stream");
    let plain = request("/events?since=0").body(Body::empty()).unwrap();
    let lines = mirror.lines(plain, 3).await;
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(first["event"], 1);
    let stream = mirror.lines(sse("/events?since=0").body(Body::empty()).unwrap(), 4).await;
    let value = |line: &String| line.split_once(':').unwrap().1.trim().to_owned();
    assert!(stream.contains(&"event: written".to_owned()), "{stream:?}");
    let data = stream.iter().find(|line| line.starts_with("data:")).map(value).unwrap();
    assert_eq!(data, lines[0]);
    // The header comes from where the stream broke, and the query from where it began.
    let resumed = sse("/events?since=0").header("last-event-id", "2").body(Body::empty()).unwrap();
    let resumed = mirror.lines(resumed, 4).await;
    let id = resumed.iter().find(|line| line.starts_with("id:")).map(value).unwrap();
    assert_eq!(id, "3");
    let wrong = sse("/events").header("last-event-id", "x").body(Body::empty()).unwrap();
    mirror.send(wrong).await.problem(400);
    let designs = request("/events?since=0&id=_design%2F*").body(Body::empty()).unwrap();
    let only: Value = serde_json::from_str(&mirror.lines(designs, 1).await[0]).unwrap();
    assert!(only["documentId"].as_str().unwrap().starts_with("_design/"));
    mirror.session.cancel();
}

#[tokio::test]
async fn the_description_has_every_route_with_unique_names_and_its_problems() {
    let mirror = AtWork::on(&rows(&[("a", "1")])).await;
    assert_described(&mirror.routes, &mirror.api, 20).await;
}

#[tokio::test]
async fn a_session_is_closed_when_its_lanes_have_been_given_back() {
    let AtWork { session, routes, api: _, dir } = AtWork::on(&rows(&[("a", "1")])).await;
    let lanes = dir.path().join("mirror/.plainfold/staging");
    let open = || {
        let names = std::fs::read_dir(&lanes).unwrap();
        names
            .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().contains('-'))
            .count()
    };
    assert!(open() > 0);
    let closed = session.watcher().closed();
    drop(routes);
    session.cancel();
    session.join().await;
    closed.await;
    assert_eq!(open(), 0);
}

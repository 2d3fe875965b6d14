//! `GET /v1/mirrors` and `GET /v1/mirrors/{name}`: what the agent is doing, as JSON. `POST
//! /v1/mirrors/{name}/start`: starts a mirror that waits or is parked.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::chosen::{ApiState, Named};
use super::events;
use super::guard::Door;
use super::json;
use super::listen::Listener;
use super::process;
use super::token_file::TokenFile;
use crate::agent::{MirrorSummary, Roster};
use crate::document::MirrorName;

/// The answer to `GET /v1/mirrors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MirrorList {
    /// The process id of the agent.
    pub pid: u32,
    /// The path of its config; empty if an older version answers.
    #[serde(default)]
    pub config: String,
    /// Why the config on disk is not in force, if it is not.
    pub config_trouble: Option<String>,
    /// The mirrors, in the order of the config.
    pub mirrors: Vec<MirrorSummary>,
}

/// Answers on `listener` until `shutdown`. Requests to an address need a token; who may open a Unix socket
/// may do everything.
pub async fn serve_agent(
    listener: Listener,
    roster: Roster,
    tokens: Arc<TokenFile>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let door = Door::of(&listener, tokens);
    let routes = super::router_behind(door, ApiState::All(roster));
    super::connections::answer(listener, routes, shutdown).await;
}

/// The routes of an agent that are about its mirrors whether they are at work or not.
pub(super) fn routes(roster: Roster) -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(read))
        .routes(routes!(start))
        .routes(routes!(events::all::follow))
        .with_state(roster)
}

/// Lists the mirrors of the agent
///
/// What `plainfold mirrors --format json` prints.
#[utoipa::path(
    get, path = "/v1/mirrors", operation_id = "mirrors",
    responses((status = 200, description = "The mirrors", body = MirrorList))
)]
async fn list(State(roster): State<Roster>) -> Response {
    let mirrors = roster.mirrors().iter().map(|mirror| mirror.summary()).collect();
    let config_trouble = roster.trouble();
    let config = roster.config().display().to_string();
    json(&MirrorList { pid: std::process::id(), config, config_trouble, mirrors })
}

/// Describes a mirror of the agent, whether it is at work or not
#[utoipa::path(
    get, path = "/v1/mirrors/{name}", operation_id = "mirror",
    responses((status = 200, description = "The mirror", body = MirrorSummary))
)]
async fn read(Named(mirror): Named) -> Response {
    json(&mirror.summary())
}

/// Starts a mirror that waits, has failed or is parked
#[utoipa::path(
    post, path = "/v1/mirrors/{name}/start", operation_id = "start",
    responses((
        status = 200, description = "Whether it is started: not if it is at work already", body = bool,
        content_type = "application/json"
    ))
)]
async fn start(Named(mirror): Named) -> Response {
    json(&mirror.start_now())
}

/// What the agent at a socket is doing; `None` if no agent answers there.
pub async fn ask_agent(socket: &Path) -> Option<MirrorList> {
    process::ask(socket, "/v1/mirrors", false).await
}

/// Starts a mirror of the agent at a socket, if it waits or is parked. `None` if no agent answers there, or
/// it has no such mirror.
pub async fn ask_to_start(socket: &Path, name: &MirrorName) -> Option<bool> {
    process::ask(socket, &format!("/v1/mirrors/{name}/start"), true).await
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Method, Request};
    use serde_json::Value;
    use tempfile::TempDir;
    use tower::ServiceExt as _;

    use super::super::tests::{Answer, assert_described, rows, send};
    use super::*;
    use crate::agent::{Agent, Begin, MirrorState, SessionEnd, all_started};
    use crate::config::MirrorConfig;
    use crate::config::file::AgentConfig;

    /// An agent with the mirrors `live`, which is at work, `later`, which waits, and `foreign`, which is
    /// parked.
    pub struct Kept {
        pub agent: Agent,
        pub routes: Router,
        api: utoipa::openapi::OpenApi,
        pub dir: TempDir,
    }

    /// The entry of a mirror of the feed beside the config.
    pub fn entry(name: &str, more: &str) -> String {
        format!(
            "[[mirror]]\nname = '{name}'\nsource = 'feed:feed.ndjson'\ndirectory = '{name}'\n{more}\n"
        )
    }

    impl Kept {
        pub async fn with(rows: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("feed.ndjson"), rows).unwrap();
            std::fs::create_dir(dir.path().join("foreign")).unwrap();
            std::fs::write(dir.path().join("foreign/thesis.tex"), "precious").unwrap();
            Self::start(dir).await
        }

        /// A new agent with the same mirrors, after the end of this one.
        pub async fn again(self) -> Self {
            self.agent.stop().await;
            Self::start(self.dir).await
        }

        async fn start(dir: TempDir) -> Self {
            let yearly = "schedule = { cron = '0 0 1 1 *' }";
            let text = entry("live", "") + &entry("later", yearly) + &entry("foreign", "");
            let path = dir.path().join("plainfold.toml");
            let config = AgentConfig::parse(&text, &path).unwrap();
            let begin: Begin = Arc::new(|_, _| {
                Box::pin(async {
                    let end: SessionEnd = Box::new(|| Box::pin(async {}));
                    Ok(end)
                })
            });
            let agent = Agent::start(&path, config, begin);
            let roster = agent.roster();
            all_started(&roster).await;
            let mut changed = roster.changed();
            let state = |name: &str| roster.get(&name.parse().unwrap()).unwrap().state();
            while !matches!(state("later"), MirrorState::Waiting { .. }) {
                changed.changed().await.unwrap();
            }
            let live = roster.get(&"live".parse().unwrap()).unwrap();
            assert!(live.watcher().unwrap().caught_up().await);
            let state = ApiState::All(roster);
            let (api, routes) = (super::super::description(&state), super::super::router(state));
            Self { agent, routes, api, dir }
        }

        async fn ask(&self, method: Method, path: &str) -> Answer {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            send(&self.routes, request).await
        }

        pub async fn get(&self, path: &str) -> Answer {
            self.ask(Method::GET, path).await
        }

        pub async fn post(&self, path: &str) -> Answer {
            self.ask(Method::POST, path).await
        }
    }

    #[tokio::test]
    async fn a_mirror_of_an_agent_answers_below_its_name_and_one_at_rest_says_why_and_what_to_do() {
        let kept = Kept::with(&rows(&[("a", "1"), ("b", "1")])).await;
        let list = kept.get("/v1/mirrors").await.json();
        let names: Vec<_> =
            list["mirrors"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["live", "later", "foreign"]);
        assert_eq!(kept.get("/v1/mirrors/live").await.json()["state"], "running");
        assert_eq!(kept.get("/v1/mirrors/foreign").await.json()["state"], "parked");
        let of_live = |path: &str| format!("/v1/mirrors/live{path}");
        let status = kept.get(&of_live("/status")).await.json();
        assert_eq!(status["collections"].as_array().unwrap().len(), 2, "{status}");
        assert_eq!(kept.get(&of_live("/collections/b")).await.json()["collection"], "b");
        let paused = kept.post(&of_live("/collections/a/pause")).await.json();
        assert_eq!((paused.as_array().unwrap().len(), &paused[0]["collection"]), (1, &"a".into()));
        let problem = kept.get(&of_live("/collections/none")).await.problem(404);
        assert_eq!(problem["type"], "urn:plainfold:problem:no-collection");
        assert_eq!(problem["instance"], "/v1/mirrors/live/collections/none");
        assert_eq!(kept.post(&of_live("/start")).await.json(), Value::Bool(false));

        for path in ["/status", "/events", "/collections/a/held"] {
            let problem = kept.get(&format!("/v1/mirrors/later{path}")).await.problem(409);
            assert_eq!(problem["type"], "urn:plainfold:problem:no-session");
            assert_eq!(problem["mirror"]["state"], "waiting", "{problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(problem["mirror"]["next"].as_str().unwrap()), "{detail}");
            assert!(detail.contains("POST /v1/mirrors/later/start"), "{detail}");
        }
        // Its documents are read without a session.
        let archive = kept.get("/v1/mirrors/later/archive").await.json();
        assert_eq!(archive["collections"].as_array().unwrap().len(), 2, "{archive}");
        for mirror in ["later", "live"] {
            let of_a = format!("/v1/mirrors/{mirror}/collections/a/documents");
            assert_eq!(kept.get(&of_a).await.json()["documents"][0]["id"], "1");
            let body = kept.get(&format!("{of_a}/1/body")).await;
            assert_eq!(body.text, "{\"_id\":\"1\",\"_rev\":\"1-a\"}\n");
        }
        let cursors = kept.get("/v1/mirrors/later/cursors").await.json();
        assert_eq!(cursors, serde_json::json!({ "cursors": [] }));
        kept.ask(Method::PUT, "/v1/mirrors/later/cursors/c").await.problem(409);
        kept.get("/v1/mirrors/later/cursors/c").await.problem(404);
        kept.get("/v1/mirrors/foreign/cursors").await.problem(409);
        let problem = kept.get("/v1/mirrors/foreign/archive").await.problem(404);
        assert_eq!(problem["type"], "urn:plainfold:problem:no-archive");
        let problem = kept.post("/v1/mirrors/foreign/pause").await.problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("thesis.tex"), "{problem}");
        assert!(problem["mirror"]["remedy"].is_string(), "{problem}");
        assert_eq!(kept.post("/v1/mirrors/foreign/start").await.json(), Value::Bool(true));

        for name in ["none", "NONE", "%ff", "%1b%5B2J", "a%2Fb"] {
            for path in ["", "/status"] {
                let problem = kept.get(&format!("/v1/mirrors/{name}{path}")).await.problem(404);
                assert_eq!(problem["type"], "urn:plainfold:problem:no-mirror", "{name}");
            }
        }
        kept.post("/v1/mirrors/none/start").await.problem(404);
        kept.get("/v1/mirrors/live/nothing").await.problem(404);
        kept.get("/status").await.problem(404);
        kept.ask(Method::DELETE, "/v1/mirrors/live").await.problem(405);
        let large = Request::builder().method("POST").uri("/v1/mirrors/live/pause");
        let large = large.header("content-length", "10000000").body(Body::empty()).unwrap();
        send(&kept.routes, large).await.problem(413);
        assert_eq!(kept.get("/healthz").await.json()["status"], "ok");
        assert_eq!(kept.get("/readyz").await.json()["mirrors"][0]["mirror"], "foreign");
        assert!(kept.get("/metrics").await.text.contains("mirror=\"live\""));
        kept.agent.stop().await;
    }

    #[tokio::test]
    async fn the_description_of_an_agent_has_every_route() {
        let kept = Kept::with(&rows(&[("a", "1")])).await;
        assert_described(&kept.routes, &kept.api, 23).await;
        kept.agent.stop().await;
    }

    #[tokio::test]
    async fn an_event_stream_that_nobody_reads_does_not_keep_its_mirror_open() {
        let ids: Vec<_> = (0..500).map(|number| format!("d{number}")).collect();
        let documents: Vec<_> = ids.iter().map(|id| ("a", id.as_str())).collect();
        let kept = Kept::with(&rows(&documents)).await;
        let uri = "/v1/mirrors/live/events?since=0";
        let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        let unread = kept.routes.clone().oneshot(request).await.unwrap();
        kept.agent.stop().await;
        let feed = format!("feed:{}", kept.dir.path().join("feed.ndjson").display());
        let config = MirrorConfig::new(&feed, kept.dir.path().join("live")).unwrap();
        let again = config.collections(&["*"]).unwrap().start().await.unwrap();
        assert!(again.join().await.errors.is_empty());
        // What had been read for it is still there, and the stream ends.
        let body = axum::body::to_bytes(unread.into_body(), usize::MAX).await.unwrap();
        assert!((1..500).contains(&body.split(|byte| *byte == b'\n').count()));
    }
}

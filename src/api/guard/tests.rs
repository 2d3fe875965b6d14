//! Requests to an address, with and without tokens.

use axum::Router;
use axum::body::Body;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{Method, Request};
use secrecy::{ExposeSecret as _, SecretString};

use super::super::chosen::ApiState;
use super::super::router_behind;
use super::super::tests::{Answer, AtWork, rows, send};
use super::*;

/// A mirror behind the door of an address, and the file of its tokens.
struct Guarded {
    mirror: AtWork,
    dir: tempfile::TempDir,
}

impl Guarded {
    async fn new() -> Self {
        Self { mirror: AtWork::on(&rows(&[("a", "1")])).await, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("tokens.json")
    }

    fn routes(&self, is_local: bool) -> Router {
        let tokens = Arc::new(TokenFile::new(self.path()));
        let state = ApiState::One(self.mirror.session.watcher());
        router_behind(Door::Address { tokens, is_local }, state)
    }

    fn token(&self, role: Role) -> SecretString {
        tokens::add(&self.path(), role.to_string().parse().unwrap(), role).unwrap()
    }
}

async fn ask(routes: &Router, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(routes, request.body(Body::empty()).unwrap()).await
}

const HERE: (&str, &str) = ("host", "127.0.0.1:5990");

#[tokio::test]
async fn a_request_needs_a_token_whose_role_suffices() {
    let guarded = Guarded::new().await;
    let tokens = Role::ALL.map(|role| (role, guarded.token(role)));
    for is_local in [true, false] {
        let routes = guarded.routes(is_local);
        for (method, path, needed) in [
            (Method::GET, "/status", Role::Read),
            (Method::GET, "/metrics", Role::Read),
            (Method::GET, "/openapi.json", Role::Read),
            (Method::HEAD, "/collections", Role::Read),
            (Method::POST, "/pause", Role::Operate),
            (Method::POST, "/collections/release/resume", Role::Operate),
            (Method::POST, "/collections/a/release", Role::Admin),
        ] {
            let none = ask(&routes, method.clone(), path, &[HERE]).await;
            assert_eq!(none.status, 401, "{method} {path}");
            assert_eq!(none.headers[WWW_AUTHENTICATE], CHALLENGE);
            for (role, token) in &tokens {
                let token = format!("Bearer {}", token.expose_secret());
                let answer = ask(&routes, method.clone(), path, &[("authorization", &token)]).await;
                match *role >= needed {
                    true => assert!(![401, 403].contains(&answer.status.as_u16()), "{role} {path}"),
                    false => {
                        let problem = answer.problem(403);
                        assert_eq!(
                            problem["type"], "urn:plainfold:problem:no-role",
                            "{role} {path}"
                        );
                        assert!(problem["detail"].as_str().unwrap().contains(&needed.to_string()));
                    }
                }
            }
        }
        assert!(ask(&routes, Method::GET, "/healthz", &[]).await.status.is_success());
        assert!(ask(&routes, Method::GET, "/readyz", &[]).await.status.is_success());
    }
    guarded.mirror.session.cancel();
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_not_repeated() {
    let guarded = Guarded::new().await;
    let token = guarded.token(Role::Admin);
    let token = token.expose_secret();
    let routes = guarded.routes(true);
    let (short, query) = (&token[..52], format!("/status?access_token={token}&token={token}"));
    for wrong in [
        format!("Bearer {short}"),
        format!("Bearer {token}x"),
        format!("Bearer {token}, Bearer {token}"),
        format!("Basic {token}"),
        token.to_owned(),
        format!("Bearer{token}"),
        String::new(),
        "Bearer ".to_owned(),
        format!("Bearer {}", "x".repeat(10_000)),
    ] {
        let answer = ask(&routes, Method::GET, "/status", &[HERE, ("authorization", &wrong)]).await;
        assert_eq!(answer.problem(401)["type"], "urn:plainfold:problem:no-token", "{wrong}");
        assert!(!answer.text.contains(short) && !answer.text.contains("xxxx"), "{}", answer.text);
    }
    let in_query = ask(&routes, Method::GET, &query, &[HERE]).await;
    in_query.problem(401);
    assert!(!in_query.text.contains(short), "{}", in_query.text);
    let right = format!("bearer  {token}");
    let answer = ask(&routes, Method::GET, "/status", &[HERE, ("authorization", &right)]).await;
    assert!(answer.status.is_success());
    guarded.mirror.session.cancel();
}

#[tokio::test]
async fn without_a_file_of_tokens_only_this_machine_may_ask_and_no_page_of_another_site() {
    let guarded = Guarded::new().await;
    let (local, open) = (guarded.routes(true), guarded.routes(false));
    ask(&open, Method::GET, "/status", &[HERE]).await.problem(401);
    ask(&open, Method::POST, "/pause", &[("authorization", "Bearer x")]).await.problem(401);
    let own = ("origin", "http://127.0.0.1:5990");
    for headers in [
        &[HERE][..],
        &[("host", "localhost:5990"), ("origin", "http://localhost:5990")],
        &[("host", "[::1]:5990")],
        &[HERE, own, ("sec-fetch-site", "same-origin")],
        &[HERE, ("sec-fetch-site", "none")],
    ] {
        for (method, path) in [(Method::GET, "/status"), (Method::POST, "/pause")] {
            let answer = ask(&local, method, path, headers).await;
            assert!(answer.status.is_success(), "{headers:?}: {}", answer.text);
        }
    }
    for headers in [
        &[][..],
        &[("host", "evil.example:5990")],
        &[("host", "localhost.evil.example")],
        &[("host", "127.0.0.1.evil.example:5990")],
        &[HERE, HERE],
        &[HERE, ("x-forwarded-for", "192.0.2.1")],
        &[HERE, ("origin", "http://evil.example")],
        &[HERE, ("origin", "http://127.0.0.1:3000")],
        &[HERE, ("origin", "null")],
        &[HERE, own, ("origin", "http://evil.example")],
        &[HERE, ("sec-fetch-site", "cross-site")],
        &[HERE, ("sec-fetch-site", "same-site")],
    ] {
        for (method, path) in [(Method::GET, "/status"), (Method::POST, "/pause")] {
            let problem = ask(&local, method, path, headers).await.problem(403);
            assert_eq!(problem["type"], "urn:plainfold:problem:foreign", "{headers:?}");
        }
    }
    let other = "http://evil.example/status";
    ask(&local, Method::GET, other, &[HERE]).await.problem(403);
    // The first token closes the door, and the last one does not open it.
    let token = guarded.token(Role::Read);
    ask(&local, Method::GET, "/status", &[HERE]).await.problem(401);
    let right = format!("Bearer {}", token.expose_secret());
    let behind_a_proxy =
        [("host", "plainfold.example"), ("authorization", right.as_str()), ("origin", "https://x")];
    assert!(ask(&local, Method::GET, "/status", &behind_a_proxy).await.status.is_success());
    tokens::remove(&guarded.path(), &"read".parse().unwrap()).unwrap();
    ask(&local, Method::GET, "/status", &behind_a_proxy).await.problem(401);
    ask(&local, Method::GET, "/status", &[HERE]).await.problem(401);
    std::fs::write(guarded.path(), "{").unwrap();
    ask(&local, Method::GET, "/status", &behind_a_proxy).await.problem(503);
    guarded.mirror.session.cancel();
}

#[tokio::test]
async fn at_a_unix_socket_programs_may_ask_everything_and_pages_of_other_sites_nothing() {
    let guarded = Guarded::new().await;
    let state = ApiState::One(guarded.mirror.session.watcher());
    let routes = router_behind(Door::Own, state);
    for headers in [
        &[][..],
        &[("host", "agent")],
        &[("host", "mirror")],
        &[HERE, ("origin", "http://127.0.0.1:5990"), ("sec-fetch-site", "same-origin")],
    ] {
        for (method, path) in [(Method::GET, "/status"), (Method::POST, "/pause")] {
            let answer = ask(&routes, method, path, headers).await;
            assert!(answer.status.is_success(), "{headers:?}: {}", answer.text);
        }
    }
    for headers in [
        &[("host", "evil.example:5990")][..],
        &[HERE, ("origin", "http://evil.example")],
        &[HERE, ("sec-fetch-site", "cross-site")],
        &[("host", "agent"), ("origin", "http://agent")],
    ] {
        let answer = ask(&routes, Method::POST, "/pause", headers).await;
        assert_eq!(answer.problem(403)["type"], "urn:plainfold:problem:foreign", "{headers:?}");
    }
    guarded.mirror.session.cancel();
}

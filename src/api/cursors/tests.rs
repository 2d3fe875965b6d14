//! Cursors, asked for without a socket.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::agent::MirrorState;
use crate::api::mirrors::tests::Kept;
use crate::api::tests::{Answer, AtWork, rows};

async fn send(mirror: &AtWork, method: Method, path: &str, body: Value) -> Answer {
    let request = Request::builder().method(method).uri(path).body(body.to_string().into());
    mirror.send(request.unwrap()).await
}

/// A mirror with the documents `a/1` to `a/4` and `b/5`, in this order.
async fn mirror() -> AtWork {
    AtWork::on(&rows(&[("a", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("b", "5")])).await
}

async fn follow(mirror: &AtWork, path: &str, count: usize) -> Vec<Value> {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    let lines = mirror.lines(request, count).await;
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_cursor_is_created_once_moves_forward_only_and_is_removed() {
    let mirror = mirror().await;
    let put = async |name: &str, body: Value| {
        send(&mirror, Method::PUT, &format!("/cursors/{name}"), body).await
    };
    let ack = async |name: &str, event: u64| {
        send(&mirror, Method::POST, &format!("/cursors/{name}/ack"), json!({ "event": event }))
            .await
    };
    let first = put("indexer", json!({ "since": "start" })).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!((&first.json()["acknowledged"], &first.json()["behind"]), (&json!(0), &json!(5)));
    let again = put("indexer", json!({ "since": "now" })).await;
    assert_eq!((again.status.as_u16(), &again.json()["acknowledged"]), (200, &json!(0)));
    let other = put("indexer", json!({ "collection": "a" })).await.problem(409);
    assert_eq!(other["type"], "urn:plainfold:problem:cursor-conflict");
    let now = mirror.ask(Method::PUT, "/cursors/now").await;
    assert_eq!((now.status.as_u16(), &now.json()["behind"]), (201, &json!(0)));
    assert_eq!(put("third", json!({ "since": 3 })).await.json()["acknowledged"], 3);

    assert_eq!(ack("indexer", 4).await.json()["behind"], 1);
    let back = ack("indexer", 2).await;
    assert_eq!((back.status.as_u16(), &back.json()["acknowledged"]), (200, &json!(4)));
    let beyond = ack("indexer", 6).await.problem(409);
    assert_eq!(beyond["type"], "urn:plainfold:problem:no-event");
    assert!(beyond["detail"].as_str().unwrap().contains("the last one is 5"), "{beyond}");

    let list = mirror.get("/cursors").await.json();
    let names: Vec<_> =
        list["cursors"].as_array().unwrap().iter().map(|one| &one["cursor"]).collect();
    assert_eq!(names, ["indexer", "now", "third"]);
    assert_eq!(mirror.get("/status").await.json()["cursors"], list["cursors"]);
    let metrics = mirror.get("/metrics").await.text;
    let line = "plainfold_cursor_behind_events{mirror=\"mirror\",cursor=\"indexer\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(mirror.get("/cursors/third").await.json()["expired"], Value::Null);
    let removed = mirror.ask(Method::DELETE, "/cursors/third").await;
    assert_eq!(removed.json()["acknowledged"], 3);

    for method in [Method::GET, Method::DELETE] {
        let problem = mirror.ask(method, "/cursors/third").await.problem(404);
        assert_eq!(problem["type"], "urn:plainfold:problem:no-cursor");
    }
    mirror.get("/cursors/third/events").await.problem(404);
    ack("third", 1).await.problem(404);
}

#[tokio::test]
async fn what_is_not_a_cursor_is_refused() {
    let mirror = mirror().await;
    for name in ["A", "-a", "a%2Fb", "%00", "%1b", "..", &"x".repeat(65)] {
        assert!(
            mirror.ask(Method::PUT, &format!("/cursors/{name}")).await.status.is_client_error()
        );
    }
    let bodies = [
        json!({ "since": -1 }),
        json!({ "since": "soon" }),
        json!({ "sinze": 1 }),
        json!([1]),
        json!({ "id": "[" }),
    ];
    for body in bodies {
        send(&mirror, Method::PUT, "/cursors/c", body).await.problem(400);
    }
    send(&mirror, Method::PUT, "/cursors/c", json!({ "since": 6 })).await.problem(409);
    send(&mirror, Method::PUT, "/cursors/c", json!({ "collection": "none" })).await.problem(404);
    mirror.ask(Method::PUT, "/cursors/c").await;
    for body in [json!({}), json!({ "event": "1" }), json!(1), json!({ "event": -1 })] {
        send(&mirror, Method::POST, "/cursors/c/ack", body).await.problem(400);
    }
    for number in 1..100 {
        mirror.ask(Method::PUT, &format!("/cursors/c{number}")).await;
    }
    let problem = mirror.ask(Method::PUT, "/cursors/more").await.problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("100 cursors"), "{problem}");
}

#[tokio::test]
async fn the_events_of_a_cursor_follow_its_acknowledgement_and_are_those_of_its_filter() {
    let mirror = mirror().await;
    send(&mirror, Method::PUT, "/cursors/all", json!({ "since": "start" })).await;
    send(&mirror, Method::POST, "/cursors/all/ack", json!({ "event": 3 })).await;
    let events = follow(&mirror, "/cursors/all/events", 2).await;
    assert_eq!((&events[0]["event"], &events[1]["event"]), (&json!(4), &json!(5)));
    // What was not acknowledged comes again.
    assert_eq!(follow(&mirror, "/cursors/all/events", 1).await[0]["event"], 4);
    let filter = json!({ "since": "start", "collection": "a", "id": "[34]" });
    send(&mirror, Method::PUT, "/cursors/some", filter).await;
    let events = follow(&mirror, "/cursors/some/events", 2).await;
    assert_eq!((&events[0]["documentId"], &events[1]["documentId"]), (&json!("3"), &json!("4")));
    let sse = Request::builder().uri("/cursors/all/events").header("accept", "text/event-stream");
    let lines =
        mirror.lines(sse.header("last-event-id", "4").body(Body::empty()).unwrap(), 3).await;
    assert!(lines.contains(&"id: 5".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn a_cursor_with_a_filter_is_told_from_time_to_time_what_it_may_acknowledge() {
    let ids: Vec<_> = (0..1_500).map(|number| format!("d{number}")).collect();
    let mut documents: Vec<_> = ids.iter().map(|id| ("a", id.as_str())).collect();
    documents.push(("b", "last"));
    let mirror = AtWork::on(&rows(&documents)).await;
    send(&mirror, Method::PUT, "/cursors/b", json!({ "since": "start", "collection": "b" })).await;
    let lines = follow(&mirror, "/cursors/b/events", 2).await;
    // The collections are mirrored side by side, so the event may come anywhere.
    let passed = lines.iter().find_map(|line| line["passed"].as_u64());
    assert!(lines.iter().any(|line| line["documentId"] == "last"), "{lines:?}");
    assert!(passed.is_some_and(|passed| passed >= 1_000), "{lines:?}");
    let acknowledged = json!({ "event": passed });
    let cursor = send(&mirror, Method::POST, "/cursors/b/ack", acknowledged).await.json();
    assert_eq!(cursor["acknowledged"].as_u64(), passed);
}

#[tokio::test]
async fn the_cursors_of_a_mirror_at_rest_are_read_once_and_no_start_finds_it_locked_for_that() {
    let kept = Kept::with(&rows(&[("a", "1")])).await;
    let path = "/v1/mirrors/later/cursors";
    // What the session has left is remembered: the state is not needed.
    let state = kept.dir.path().join("later/.plainfold/state");
    let aside = kept.dir.path().join("aside");
    assert!(state.is_dir());
    std::fs::rename(&state, &aside).unwrap();
    assert_eq!(kept.get(path).await.json(), json!({ "cursors": [] }));
    std::fs::rename(&aside, &state).unwrap();

    let later = kept.agent.roster().get(&"later".parse().unwrap()).unwrap();
    let mut changed = kept.agent.roster().changed();
    let copying = later.copying().await.unwrap();
    let before = later.summary().starts;
    kept.post("/v1/mirrors/later/start").await;
    while later.state() != MirrorState::Starting {
        changed.changed().await.unwrap();
    }
    assert_eq!(later.summary().starts, before, "the start waits for the copy");
    drop(copying);
    while later.summary().starts == before || !matches!(later.state(), MirrorState::Waiting { .. })
    {
        changed.changed().await.unwrap();
    }
    assert!(later.last_run().unwrap().complete);

    // An agent that has had no session of the mirror copies its state, once.
    let kept = kept.again().await;
    let later = kept.agent.roster().get(&"later".parse().unwrap()).unwrap();
    assert!(later.cursors().is_none() && later.watcher().is_none());
    let answers = futures_util::future::join_all((0..8).map(|_| kept.get(path))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    std::fs::rename(&state, &aside).unwrap();
    assert_eq!(kept.get(path).await.status, 200, "it is not copied again");
    kept.agent.stop().await;
}

//! The server as a store, and its refusals.

use super::*;
use crate::document::CollectionName;
use crate::source::{ChangeMark, StoreEvent};

/// The names that a listing tells, and `.` for its end.
async fn listed(store: &CouchStore, mode: Mode, wanted: usize) -> Vec<String> {
    let events = store.collections(mode, None).take(wanted).map(|event| match event.unwrap() {
        StoreEvent::Collection(name) => name.to_string(),
        StoreEvent::Unmatched(pattern) => format!("no {}", pattern.text()),
        StoreEvent::Listed(_) => ".".to_owned(),
    });
    events.collect().await
}

async fn refusal(answer: Answer) -> SourceError {
    let replay = Replay::new(vec![answer]).await;
    failure(&source(&replay), Since::Start).await
}

#[tokio::test]
async fn a_database_in_the_url_is_the_only_collection_and_nothing_is_asked() {
    let replay = Replay::new(vec![]).await;
    let store = store(&replay, "/shelf", timings());
    assert_eq!(listed(&store, Mode::CatchUp, 9).await, ["shelf", "."]);
    assert_eq!(store.identity(), replay.url("", "/shelf"));
    let mut following = store.collections(Mode::Follow, None);
    assert!(following.next().await.is_some() && following.next().await.is_some());
    assert!(futures_util::poll!(following.next()).is_pending());
    assert!(replay.seen().is_empty());
}

#[tokio::test]
async fn all_databases_but_the_servers_own_are_listed() {
    let replay = Replay::new(vec![Answer::recorded("GET /_all_dbs", "all-dbs")]).await;
    let store = store(&replay, "", timings());
    assert_eq!(listed(&store, Mode::CatchUp, 9).await, ["shelf", "."]);
    assert_eq!(store.identity(), replay.url("", ""));
}

#[tokio::test]
async fn a_database_that_appears_later_is_named_once_and_a_failed_poll_is_passed_over() {
    let line = "GET /_all_dbs";
    let replay = Replay::new(vec![
        Answer::json(line, r#"["a"]"#),
        Answer::made(line, "503 Service Unavailable", ""),
        Answer::json(line, r#"["a","b"]"#),
        Answer::json(line, r#"["a","b","c"]"#),
    ])
    .await;
    let store = store(&replay, "", timings());
    assert_eq!(listed(&store, Mode::Follow, 4).await, ["a", ".", "b", "c"]);
}

#[tokio::test]
async fn a_first_listing_that_fails_is_an_error_and_a_refused_one_says_what_to_do() {
    let replay = Replay::new(vec![
        Answer::recorded("GET /_all_dbs", "unauthorized"),
        Answer::made("GET /_all_dbs", "503 Service Unavailable", ""),
    ])
    .await;
    let store = store(&replay, "", timings());
    let error = store.collections(Mode::Follow, None).next().await.unwrap().err().unwrap();
    assert!(matches!(error, SourceError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("needs an admin"), "{error}");
    let error = store.collections(Mode::Follow, None).next().await.unwrap().err().unwrap();
    assert!(matches!(error, SourceError::Transient { .. }), "{error:?}");
}

#[tokio::test]
async fn wrong_credentials_are_refused_in_the_servers_words() {
    for name in ["unauthorized", "wrong-password"] {
        let error = refusal(Answer::recorded("GET /shelf", name)).await;
        assert!(matches!(error, SourceError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains("401 unauthorized: "), "{error}");
    }
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back() {
    let answer = Answer::made("GET /shelf", "429 Too Many Requests\r\nRetry-After: 7", "");
    match refusal(answer).await {
        SourceError::Transient { retry_after, .. } => {
            assert_eq!(retry_after, Some(Duration::from_secs(7)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let location = "302 Found\r\nLocation: https://me:pw@elsewhere.example/shelf";
    let error = refusal(Answer::made("GET /shelf", location, "")).await;
    assert!(matches!(error, SourceError::Permanent { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("https://elsewhere.example; give that URL"), "{text}");
    assert!(!text.contains("pw"), "{text}");
}

#[tokio::test]
async fn no_error_and_no_value_shows_the_user_or_the_password() {
    let mut texts = Vec::new();
    let bodies = ["{\"error\":\"x\",\"reason\":\"hunter2 is wrong\"}", "hunter2"];
    for status in ["301 Moved", "400 No", "401 No", "403 No", "404 No", "500 No", "503 No"] {
        for body in bodies {
            let error = refusal(Answer::made("GET /shelf", status, body)).await;
            texts.push(format!("{error} {error:?}"));
        }
    }
    let closed = refusal(Answer::bytes("GET /shelf", "").close()).await;
    texts.push(format!("{closed} {closed:?}"));
    let cut = refusal(
        Answer::bytes("GET /shelf", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").close(),
    )
    .await;
    texts.push(format!("{cut} {cut:?}"));
    let json = refusal(Answer::json("GET /shelf", "hunter2")).await;
    texts.push(format!("{json} {json:?}"));
    let nobody = CouchOptions::of(Address::parse("http://me:hunter2@127.0.0.1:1/db").unwrap());
    texts.push(format!("{nobody:?}"));
    let store = CouchStore::new(nobody).unwrap();
    texts.push(format!("{store:?} {}", store.identity()));
    let error = failure(&store.open(&"db".into()), Since::Start).await;
    assert!(matches!(error, SourceError::Transient { .. }), "{error:?}");
    texts.push(format!("{error} {error:?}"));
    for text in texts {
        assert!(!text.contains("hunter2") && !text.contains("me:"), "{text}");
        assert!(!text.contains("bWU6aHVudGVyMg"), "{text}");
    }
}

#[tokio::test]
async fn a_server_without_security_objects_is_not_an_error() {
    let line = "GET /shelf/_security";
    let said = r#"{"admins":{}}"#;
    let none = Answer::made(line, "404 Not Found", r#"{"error":"not_found","reason":"none"}"#);
    let replay = Replay::new(vec![Answer::json(line, said), none]).await;
    let source = source(&replay);
    assert_eq!(source.security_object().await.unwrap().as_deref(), Some(said.as_bytes()));
    assert_eq!(source.security_object().await.unwrap(), None);
}

#[tokio::test]
async fn a_path_that_ends_in_a_slash_is_a_servers_if_a_server_answers_there() {
    for (answer, is_server) in [
        (Answer::json("GET /couch/", r#"{"couchdb":"Welcome","version":"3.5.0"}"#), true),
        (Answer::json("GET /couch/", r#"{"express-pouchdb":"Welcome!","version":"4.2.0"}"#), true),
        (Answer::json("GET /couch/", r#"{"db_name":"couch","update_seq":"0"}"#), false),
        (Answer::made("GET /couch/", "404 Object Not Found", "{}"), false),
    ] {
        let replay = Replay::new(vec![answer]).await;
        let url = replay.url("me:hunter2@", "/couch/");
        let mut options = CouchOptions::of(Address::parse(&url).unwrap());
        options.resolve().await;
        assert_eq!(matches!(options.databases, Databases::Selected(_)), is_server);
        let store = CouchStore::new(options).unwrap();
        let (name, below) = match is_server {
            true => ("shelf", "/couch/shelf"),
            false => ("couch", "/couch"),
        };
        assert_eq!(store.origin(&name.into()), replay.url("", below));
        assert_eq!(replay.lines(), ["GET /couch/"]);
    }
}

#[tokio::test]
async fn a_path_without_a_slash_at_its_end_is_never_asked_about() {
    let replay = Replay::new(vec![]).await;
    let url = replay.url("", "/couch/shelf");
    let mut options = CouchOptions::of(Address::parse(&url).unwrap());
    options.resolve().await;
    assert!(matches!(options.databases, Databases::One(ref name) if name.as_str() == "shelf"));
    assert!(replay.lines().is_empty());
}

/// The marks of databases of a server that does not report many at once, by the answer for each.
async fn marks_singly(answers: &[(&str, &str)]) -> Result<Vec<ChangeMark>, SourceError> {
    let each = answers.iter().map(|(name, status)| {
        let body = r#"{"db_name":"a","update_seq":"1-a","instance_start_time":"1"}"#;
        Answer::made(&format!("GET /{name}"), status, body)
    });
    let many = Answer::made("POST /_dbs_info", "405 Method Not Allowed", "{}");
    let replay = Replay::new([many].into_iter().chain(each).collect()).await;
    let names: Vec<CollectionName> = answers.iter().map(|(name, _)| (*name).into()).collect();
    store(&replay, "", timings()).marks(&names).await
}

#[tokio::test]
async fn a_database_that_is_refused_for_now_does_not_hide_the_marks_of_the_others() {
    let refused = ["401 Unauthorized", "503 Service Unavailable"];
    for status in refused {
        let answers = [("a", "200 OK"), ("b", status), ("c", "404 Not Found"), ("d", "200 OK")];
        let marks = marks_singly(&answers).await.unwrap();
        let at = ChangeMark::At(r#""1-a" "1""#.to_owned());
        assert_eq!(marks, [at.clone(), ChangeMark::Unknown, ChangeMark::Missing, at], "{status}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_every_database_is_not_asked_for_all_of_them() {
    let answers = ["a", "b", "c", "d"].map(|name| (name, "403 Forbidden"));
    assert_eq!(marks_singly(&answers).await.unwrap(), vec![ChangeMark::Unknown; 4]);
    let answers = ["a", "b", "c", "d"].map(|name| (name, "503 Service Unavailable"));
    marks_singly(&answers).await.unwrap_err();
}

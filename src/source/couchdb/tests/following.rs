//! Following a feed after its end.

use super::*;

const SEQ: &str = "11-g1AAAACbeJzLYWBgYMpgTmEQTM4vTc5ISXIwNDLXMwBCwxyQVCJDUv3___-zMpgT2XOBAuwGBqapycap2DTgMSaPBUgyNACp_1DTWMCmJZqYmxtbJGLTlwUAI7AoVQ";

fn continuous(since: &str) -> String {
    let options = "include_docs=true&att_encoding_info=true&feed=continuous&heartbeat=10000";
    format!("GET /shelf/_changes?{options}&since={since}")
}

/// What follows a catch-up of the recorded database, given these further answers.
async fn followed(
    answers: Vec<Answer>,
    timings: Timings,
    wanted: usize,
) -> (Replay, Vec<String>, Option<SourceError>) {
    let mut script = vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::recorded(CATCH_UP, "changes-normal"),
        Answer::recorded("GET /shelf", "database"),
    ];
    script.extend(answers);
    let replay = Replay::new(script).await;
    let source = store(&replay, "/shelf", timings).open(&"shelf".into());
    let mut feed = source.changes(Since::Start, Mode::Follow);
    let mut told = Vec::new();
    let mut error = None;
    while told.len() < 13 + wanted {
        match feed.next().await {
            Some(Ok(event)) => told.push(short(&event)),
            Some(Err(failed)) => {
                error = Some(failed);
                break;
            }
            None => break,
        }
    }
    assert_eq!(told[11..13], ["holds 6 and 2", "caught up"]);
    (replay, told.split_off(13), error)
}

#[tokio::test]
async fn every_heartbeat_says_that_there_is_nothing_newer_and_a_lost_connection_is_transient() {
    let feed = Answer::recorded(&continuous(SEQ), "changes-continuous-heartbeat").close();
    let (_replay, told, error) = followed(vec![feed], timings(), 99).await;
    let beat = "caught up";
    assert_eq!(told, [beat, beat, beat, beat, "late 1-bdd4 @12", beat]);
    assert!(matches!(error, Some(SourceError::Transient { .. })), "{error:?}");
}

#[tokio::test]
async fn a_continuous_feed_that_ends_without_its_closing_row_is_transient() {
    let row = r#"{"seq":"12-x","id":"a","changes":[{"rev":"1-a"}],"deleted":true}"#;
    let feed = Answer::json(&continuous(SEQ), format!("{row}\n"));
    let (_replay, told, error) = followed(vec![feed], timings(), 99).await;
    assert_eq!(told, ["a 1-a gone @12"]);
    assert!(matches!(error, Some(SourceError::Transient { .. })), "{error:?}");
}

#[tokio::test]
async fn after_a_row_silence_says_that_we_are_current() {
    let row = r#"{"seq":"12-x","id":"a","changes":[{"rev":"1-a"}],"deleted":true}"#;
    let feed = Answer::endless(&continuous(SEQ), &format!("{row}\n")).hold();
    let timings = Timings { quiet: Duration::from_millis(1), ..timings() };
    let (_replay, told, error) = followed(vec![feed], timings, 2).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(told, ["a 1-a gone @12", "caught up"]);
}

#[tokio::test]
async fn a_feed_that_the_server_ends_is_opened_again_from_its_last_place() {
    let row = r#"{"seq":"12-x","id":"a","changes":[{"rev":"1-a"}],"deleted":true}"#;
    let ended = format!("{row}\n{{\"last_seq\":\"13-y\",\"pending\":0}}\n");
    let answers = vec![
        Answer::json(&continuous(SEQ), ended),
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, "{}"),
        Answer::endless(&continuous("13-y"), "\n").hold(),
    ];
    let (replay, told, error) = followed(answers, timings(), 2).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(told, ["a 1-a gone @12", "caught up"]);
    assert_eq!(replay.lines().len(), 7);
}

#[tokio::test]
async fn a_recorded_feed_that_ends_after_its_timeout_is_opened_again() {
    let answers = vec![
        Answer::recorded(&continuous(SEQ), "changes-continuous-timeout"),
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, "{}"),
        Answer::endless(&continuous(SEQ), "\n").hold(),
    ];
    let (replay, told, error) = followed(answers, timings(), 9).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(told[0], "_design/by_year 1-f7a7 @1");
    assert_eq!(told[7..], ["tombstone-with-body 1-8815 gone @11", "caught up"]);
    assert_eq!(replay.lines().len(), 7);
}

#[tokio::test]
async fn a_database_deleted_under_its_feed_is_missing() {
    let answers = vec![
        Answer::recorded(&continuous(SEQ), "changes-database-deleted"),
        Answer::recorded("GET /shelf", "database-missing"),
    ];
    let (_replay, told, error) = followed(answers, timings(), 99).await;
    assert_eq!(told, ["caught up", "caught up"]);
    assert!(matches!(error, Some(SourceError::Missing { .. })), "{error:?}");
}

#[tokio::test]
async fn a_database_created_again_under_its_feed_is_expired() {
    let answers = vec![
        Answer::recorded(&continuous(SEQ), "changes-database-deleted"),
        database(&[("1795169079", "1795169999")]),
    ];
    let (_replay, _, error) = followed(answers, timings(), 99).await;
    assert!(matches!(error, Some(SourceError::Expired { .. })), "{error:?}");
}

#[tokio::test]
async fn an_idle_feed_finds_out_that_documents_were_purged() {
    let answers = vec![
        Answer::endless(&continuous(SEQ), "\n").hold(),
        database(&[("\"purge_seq\":\"0-", "\"purge_seq\":\"1-")]),
    ];
    let timings = Timings { check: Duration::ZERO, ..timings() };
    let (_replay, told, error) = followed(answers, timings, 99).await;
    assert!(told.is_empty(), "{told:?}");
    assert!(matches!(error, Some(SourceError::Expired { .. })), "{error:?}");
}

#[tokio::test]
async fn an_idle_feed_tells_what_its_database_holds_once_nothing_more_is_written() {
    let row = r#"{"seq":"12-x","id":"a","changes":[{"rev":"1-a"}],"deleted":true}"#;
    let written = [
        ("\"update_seq\":\"11-", "\"update_seq\":\"12-"),
        ("\"doc_del_count\":2", "\"doc_del_count\":3"),
    ];
    let answers = vec![
        Answer::endless(&continuous(SEQ), &format!("{row}\n\n\n\n")).hold(),
        database(&written),
        Answer::json(REVS_DIFF, "{}"),
        database(&written),
        Answer::json(REVS_DIFF, "{}"),
    ];
    let timings = Timings { check: Duration::ZERO, ..timings() };
    let (_replay, told, error) = followed(answers, timings, 4).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(told, ["a 1-a gone @12", "caught up", "holds 6 and 3", "caught up"]);
}

#[tokio::test]
async fn a_position_within_a_followed_feed_remembers_older_changes() {
    let rows: String = (1..=40)
        .map(|n| {
            let seq = n + 11;
            format!(r#"{{"seq":"{seq}-x","id":"d{n}","changes":[{{"rev":"1-a"}}],"deleted":true}}"#)
        })
        .map(|row| row + "\n")
        .collect();
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, "{}"),
        Answer::json(&format!("{CATCH_UP}&since=9-x"), r#"{"results":[],"last_seq":"9-x"}"#),
        Answer::recorded("GET /shelf", "database"),
        Answer::endless(&continuous("9-x"), &rows).hold(),
    ])
    .await;
    let anchor = Anchor { id: "first".into(), revision: "1-a".into() };
    let position = Position::new("\"9-x\"", "{}".into(), Some(anchor));
    let mut feed = source(&replay).changes(Since::Position(position), Mode::Follow);
    let last = loop {
        match feed.next().await {
            Some(Ok(FeedEvent::Change(change))) if change.id.as_str() == "d40" => break change,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    let context = last.position.unwrap().context().to_owned();
    for id in ["d1", "d31"] {
        assert!(context.contains(&format!("\"id\":\"{id}\"")), "{id}: {context}");
    }
}

/// What a server answers that does not know the change `a` at 1-a.
fn without_the_last_change() -> Vec<Answer> {
    vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, r#"{"a":{"missing":["1-a"]}}"#),
        Answer::json("GET /shelf/_revs_limit", "1000"),
        Answer::json(NEWEST, r#"{"rows":[{"key":"a","error":"not_found"}]}"#),
    ]
}

#[tokio::test]
async fn an_idle_feed_finds_out_that_its_last_change_is_gone() {
    let row = r#"{"seq":"12-x","id":"a","changes":[{"rev":"1-a"}],"deleted":true}"#;
    let mut answers = vec![Answer::endless(&continuous(SEQ), &format!("{row}\n\n")).hold()];
    answers.extend(without_the_last_change());
    let timings = Timings { check: Duration::ZERO, ..timings() };
    let (replay, _, error) = followed(answers, timings, 99).await;
    assert!(matches!(error, Some(SourceError::Expired { .. })), "{error:?}");
    replay.lines();
}

#[tokio::test]
async fn a_feed_that_the_server_ends_is_not_opened_again_without_its_last_change() {
    let row = r#"{"seq":"12-x","id":"a","changes":[{"rev":"1-a"}],"deleted":true}"#;
    let ended = format!("{row}\n{{\"last_seq\":\"13-y\",\"pending\":0}}\n");
    let mut answers = vec![Answer::json(&continuous(SEQ), ended)];
    answers.extend(without_the_last_change());
    let (replay, _, error) = followed(answers, timings(), 99).await;
    assert!(matches!(error, Some(SourceError::Expired { .. })), "{error:?}");
    replay.lines();
}

#[tokio::test]
async fn an_idle_feed_of_pouchdb_server_finds_out_that_its_database_is_another() {
    let row = r#"{"id":"a","changes":[{"rev":"1-a"}],"deleted":true,"seq":9}"#;
    let first = format!(r#"{{"results":[{row}],"last_seq":9}}"#);
    let replay = Replay::new(vec![
        Answer::json(&format!("{NUMBERED}&since=8"), first),
        Answer::endless(&continuous("9"), "\n").hold(),
        Answer::json("GET /shelf", r#"{"doc_count":1,"update_seq":1}"#),
    ])
    .await;
    let timings = Timings { check: Duration::ZERO, ..timings() };
    let source = store(&replay, "/shelf", timings).open(&"shelf".into());
    let since = Since::Position(numbered("9", "a", "1-a"));
    let (events, error) = all(&source, since, Mode::Follow).await;
    assert_eq!(events.len(), 2);
    assert!(matches!(error, Some(SourceError::Expired { .. })), "{error:?}");
}

#[tokio::test]
async fn a_feed_that_falls_silent_is_transient() {
    let heartbeat = Duration::from_millis(10);
    let line = continuous(SEQ).replace("10000", "10");
    let feed = Answer::endless(&line, "\n").hold();
    let (_replay, told, error) = followed(vec![feed], Timings { heartbeat, ..timings() }, 99).await;
    assert_eq!(told, ["caught up"]);
    let error = error.expect("the feed should fail");
    assert!(matches!(error, SourceError::Transient { .. }), "{error:?}");
    assert!(error.to_string().contains("silent for"), "{error}");
}

#[tokio::test]
async fn an_error_row_says_what_became_of_the_feed() {
    for (row, missing) in [
        (r#"{"error":"not_found","reason":"no_db_file"}"#, true),
        (r#"{"error":"internal_server_error","reason":"No DB shards could be opened."}"#, false),
    ] {
        let feed = Answer::json(&continuous(SEQ), format!("{row}\n"));
        let (_replay, _, error) = followed(vec![feed], timings(), 99).await;
        match error {
            Some(SourceError::Missing { .. }) => assert!(missing),
            Some(SourceError::Transient { .. }) => assert!(!missing),
            other => panic!("{other:?}"),
        }
    }
}

/// The events of a feed that is followed, across breaks of the connection.
async fn followed_on(source: &Arc<dyn Feed>, since: &str, wanted: usize) -> Vec<String> {
    let anchor = Some(Anchor { id: "a".into(), revision: "1-a".into() });
    let mut since = Since::Position(Position::new(format!("\"{since}\""), "{}".into(), anchor));
    let mut told = Vec::new();
    while told.len() < wanted {
        let mut feed = source.changes(since.clone(), Mode::Follow);
        while told.len() < wanted
            && let Some(Ok(event)) = feed.next().await
        {
            if let FeedEvent::Position(position) = &event {
                since = Since::Position(position.clone());
            }
            told.push(short(&event));
        }
    }
    told
}

fn opening(since: &str) -> [Answer; 3] {
    let nothing = format!(r#"{{"results":[],"last_seq":"{since}"}}"#);
    let line = format!("{CATCH_UP}&since={since}");
    let info = r#"{"update_seq":"9-x","instance_start_time":"1","doc_count":1,"doc_del_count":0}"#;
    [Answer::json("GET /shelf", info), Answer::json(REVS_DIFF, "{}"), Answer::json(&line, nothing)]
}

#[tokio::test]
async fn a_live_feed_that_a_proxy_holds_back_is_asked_for_by_long_polling() {
    let long = |since: &str| {
        format!(
            "GET /shelf/_changes?include_docs=true&att_encoding_info=true&feed=longpoll&timeout=20000&since={since}"
        )
    };
    let row = r#"{"seq":"2-x","id":"b","changes":[{"rev":"1-b"}],"deleted":true}"#;
    let heartbeat = Duration::from_millis(100);
    let line = continuous("1-x").replace("heartbeat=10000", "heartbeat=100");
    let mut answers = Vec::from(opening("1-x"));
    // Its head comes, and then nothing.
    answers.push(Answer::endless(&line, " ").hold());
    answers.extend(opening("1-x"));
    answers.push(Answer::json(&long("1-x"), format!(r#"{{"results":[{row}],"last_seq":"2-x"}}"#)));
    answers.push(Answer::json(&long("2-x"), r#"{"results":[],"last_seq":"2-x"}"#));
    answers.push(Answer::bytes(&long("2-x"), "").hold());
    // The counts are asked for at the end of each of the two catch-ups.
    let info = r#"{"update_seq":"9-x","instance_start_time":"1","doc_count":1,"doc_del_count":0}"#;
    answers.extend((0..2).map(|_| Answer::json("GET /shelf", info)));
    let replay = Replay::new(answers).await;
    let timings = Timings { heartbeat, ..timings() };
    let source = store(&replay, "/shelf", timings).open(&"shelf".into());
    let told = followed_on(&source, "1-x", 10).await;
    let quiet = ["position 1", "holds 1 and 0", "caught up"];
    assert_eq!(told[..3], quiet);
    assert_eq!(told[3..6], quiet);
    assert_eq!(told[6..], ["b 1-b gone @2", "position 2", "caught up", "caught up"]);
}

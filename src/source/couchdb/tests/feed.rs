//! Reading a feed from its beginning.

use super::*;

/// A catch-up of the recorded database whose feed is this answer.
async fn shelf(feed: Answer) -> (Replay, Arc<dyn Feed>) {
    let database = Answer::recorded("GET /shelf", "database");
    let replay = Replay::new(vec![database, feed]).await;
    let source = source(&replay);
    (replay, source)
}

/// The error that this body of a feed ends in, and whatever came before.
async fn broken(body: &str) -> (Vec<String>, SourceError) {
    let (_replay, source) = shelf(Answer::json(CATCH_UP, body)).await;
    let (events, error) = all(&source, Since::Start, Mode::CatchUp).await;
    (events.iter().map(short).collect(), error.expect("the feed should fail"))
}

#[tokio::test]
async fn a_catch_up_tells_every_row_and_ends_at_the_last_place() {
    let (replay, source) = shelf(Answer::recorded(CATCH_UP, "changes-normal")).await;
    let (events, error) = all(&source, Since::Start, Mode::CatchUp).await;
    assert!(error.is_none(), "{error:?}");
    let told: Vec<String> = events.iter().map(short).collect();
    let expected = [
        "0/8",
        "_design/by_year 1-f7a7 @1",
        ".. 1-8d67 @2",
        "a/b 1-b336 @3",
        "book:1 3-a605 @6",
        "book:2 1-448d @7",
        "gone 2-d0ae gone @9",
        "torn 2-cccc @10",
        "tombstone-with-body 1-8815 gone @11",
        "8/8",
        "position 11",
        "caught up",
    ];
    assert_eq!(told, expected);
    let token = end(&events).token().to_owned();
    assert!(token.starts_with("\"11-g1AAAACb") && token.ends_with("\""), "{token}");
    assert_eq!(replay.lines(), ["GET /shelf", CATCH_UP, "GET /shelf"]);
}

#[tokio::test]
async fn what_the_database_holds_is_told_where_nothing_was_written_while_its_feed_was_read() {
    let same = Answer::recorded("GET /shelf", "database");
    let written = database(&[("\"update_seq\":\"11-", "\"update_seq\":\"12-")]);
    let untold = Answer::json("GET /shelf", r#"{"update_seq":"11-g1"}"#);
    for (answer, told_so) in [(same, true), (written, false), (untold, false)] {
        let replay = Replay::new(vec![
            Answer::recorded("GET /shelf", "database"),
            Answer::recorded(CATCH_UP, "changes-normal"),
            answer,
        ])
        .await;
        let told = caught_up(&source(&replay), Since::Start).await;
        assert_eq!(told.contains(&"holds 6 and 2".to_owned()), told_so, "{told:?}");
        assert_eq!(told.last().unwrap(), "caught up");
        replay.lines();
    }
}

#[tokio::test]
async fn requests_ask_for_plain_json_and_carry_the_credentials() {
    let (replay, source) = shelf(Answer::recorded(CATCH_UP, "changes-normal")).await;
    caught_up(&source, Since::Start).await;
    for seen in replay.seen() {
        let head = seen.head.to_lowercase();
        assert!(head.contains("\r\naccept: application/json\r\n"), "{head}");
        assert!(!head.contains("accept-encoding"), "{head}");
        assert!(seen.head.contains("Basic bWU6aHVudGVyMg=="), "{head}");
    }
}

#[tokio::test]
async fn a_row_whose_seq_is_null_has_no_position() {
    let (_replay, source) = shelf(Answer::recorded(CATCH_UP, "changes-seq-interval")).await;
    let (events, _) = all(&source, Since::Start, Mode::CatchUp).await;
    assert!(change(&events, "book:1").position.is_none());
    assert!(change(&events, "book:2").position.is_some());
}

#[tokio::test]
async fn attachments_are_read_from_their_stubs() {
    let (_replay, source) = shelf(Answer::recorded(CATCH_UP, "changes-normal")).await;
    let (events, _) = all(&source, Since::Start, Mode::CatchUp).await;
    let DocumentState::Present(document) = &change(&events, "book:1").state else {
        panic!("deleted")
    };
    let [page, notes] = &document.attachments[..] else { panic!("{document:?}") };
    assert_eq!((&*page.name, page.length, page.gzipped), ("scans/päge 1.bin", Some(700), false));
    assert_eq!((&*notes.name, notes.length, notes.gzipped), ("notes.txt", Some(6000), true));
    assert_eq!(notes.digest.as_deref(), Some("md5-fsKYhpsUMC28kzTIrIwzMg=="));
}

#[tokio::test]
async fn a_feed_cut_anywhere_is_transient_and_never_the_end() {
    let whole = recording("changes-normal");
    let text = String::from_utf8_lossy(&whole).into_owned();
    let row = text.find("book:2").unwrap();
    let tail = text.find("\"last_seq\"").unwrap();
    for cut in [row, row + 200, tail, tail + 20] {
        let answer = Answer::bytes(CATCH_UP, &whole[..cut]).close();
        let (_replay, source) = shelf(answer).await;
        let (events, error) = all(&source, Since::Start, Mode::CatchUp).await;
        assert!(matches!(error, Some(SourceError::Transient { .. })), "{error:?}");
        assert!(!events.iter().any(|event| matches!(event, FeedEvent::CaughtUp)));
    }
}

#[tokio::test]
async fn a_feed_that_ends_in_good_order_without_its_last_place_is_broken() {
    let row = r#"{"seq":"1-x","id":"a","changes":[{"rev":"1-a"}],"deleted":true}"#;
    for body in [format!("{{\"results\":[{row}"), format!("{{\"results\":[{row}]}}")] {
        let (told, error) = broken(&body).await;
        assert_eq!(told, ["0/8", "a 1-a gone @1"]);
        assert!(matches!(error, SourceError::Transient { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn garbage_or_an_error_within_a_feed_is_transient() {
    for body in [
        "{\"results\":[\nHTTP/1.1 500 Internal Server Error\r\n",
        "{\"results\":[\n{\"seq\":1,\"id\":}\n],\"last_seq\":1}",
        "{\"results\":[\n{\"error\":\"timeout\",\"reason\":\"the shards are slow\"}\n",
        "<html>a proxy's login page</html>",
    ] {
        let (told, error) = broken(body).await;
        assert_eq!(told, ["0/8"]);
        assert!(matches!(error, SourceError::Transient { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_a_change_is_reported_and_the_feed_goes_on() {
    let body = r#"{"results":[
        {"seq":"1-x","changes":[{"rev":"1-a"}],"doc":{}},
        {"seq":"2-x","id":"b","changes":[],"doc":{"_id":"b"}},
        {"seq":"3-x","id":"c","changes":[{"rev":"1-c"}],"doc":{"_id":"other","_rev":"1-c"}},
        {"seq":"4-x","id":"d","changes":[{"rev":"1-d"}],"doc":{"_attachments":7}},
        {"seq":"5-x","id":"e","changes":[{"rev":"1-e"}],"doc":{"_id":"e","_rev":"1-e"}}
    ],"last_seq":"5-x"}"#;
    let (_replay, source) = shelf(Answer::json(CATCH_UP, body)).await;
    let (events, error) = all(&source, Since::Start, Mode::CatchUp).await;
    assert!(error.is_none(), "{error:?}");
    let told: Vec<String> = events.iter().map(short).collect();
    assert_eq!(told[1], "unreadable ?: the row names no document");
    assert_eq!(told[2], "unreadable b: the row names no revision");
    assert_eq!(told[3], "unreadable c: the body is another document's, `other`");
    assert!(told[4].starts_with("unreadable d: `_attachments` cannot be read"), "{}", told[4]);
    assert_eq!(told[5], "e 1-e @5");
    let FeedEvent::Unreadable(row) = &events[3] else { panic!("{:?}", events[3]) };
    assert_eq!(row.revision.as_ref().unwrap().as_str(), "1-c");
    assert!(row.place.starts_with("row 3 of the answer to GET http://127"), "{}", row.place);
    assert!(row.position.is_some());
}

#[tokio::test]
async fn a_document_that_the_feed_does_not_bring_is_fetched() {
    let feed = r#"{"results":[{"seq":"7-x","id":"a","changes":[{"rev":"1-a"}],"doc":null}],"last_seq":"7-x"}"#;
    let missing = r#"{"rows":[{"key":"a","error":"not_found"}]}"#;
    let found =
        r#"{"rows":[{"id":"a","key":"a","value":{"rev":"2-a"},"doc":{"_id":"a","_rev":"2-a"}}]}"#;
    let line = "POST /shelf/_all_docs?include_docs=true&att_encoding_info=true";
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::json(CATCH_UP, feed),
        Answer::json(line, missing),
        Answer::json(line, found),
    ])
    .await;
    let told = caught_up(&source(&replay), Since::Start).await;
    assert_eq!(told[1], "a 2-a @7");
    assert_eq!(replay.lines().len(), 5);
    assert_eq!(replay.seen()[2].body, r#"{"keys":["a"]}"#);
}

#[tokio::test]
async fn a_document_that_cannot_be_fetched_is_reported_and_not_skipped() {
    let feed = r#"{"results":[{"seq":"7-x","id":"a","changes":[{"rev":"1-a"}],"error":"not_found"}],"last_seq":"7-x"}"#;
    let missing = r#"{"rows":[{"key":"a","error":"not_found"}]}"#;
    let line = "POST /shelf/_all_docs?include_docs=true&att_encoding_info=true";
    let mut answers =
        vec![Answer::recorded("GET /shelf", "database"), Answer::json(CATCH_UP, feed)];
    answers.extend((0..4).map(|_| Answer::json(line, missing)));
    let replay = Replay::new(answers).await;
    let told = caught_up(&source(&replay), Since::Start).await;
    assert!(told[1].starts_with("unreadable a: the feed names it without its body"), "{told:?}");
    assert_eq!(replay.lines().len(), 7);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_missing() {
    let replay = Replay::new(vec![Answer::recorded("GET /shelf", "database-missing")]).await;
    let error = failure(&source(&replay), Since::Start).await;
    assert!(matches!(error, SourceError::Missing { .. }), "{error:?}");
    assert!(error.to_string().starts_with("database `shelf` does not exist on http://127."));
}

#[tokio::test]
async fn among_large_documents_places_are_told_more_often() {
    let info = r#"{"doc_count":2,"sizes":{"external":16777216},"update_seq":"9-x"}"#;
    let line = CATCH_UP.replace("seq_interval=1000", "seq_interval=1");
    let replay = Replay::new(vec![
        Answer::json("GET /shelf", info),
        Answer::recorded(&line, "changes-normal"),
    ])
    .await;
    caught_up(&source(&replay), Since::Start).await;
    assert_eq!(replay.lines(), ["GET /shelf", &line, "GET /shelf"]);
}

#[tokio::test]
async fn the_changes_behind_a_position_are_those_that_the_server_counts() {
    let pending =
        r#"{"results":[{"seq":"6-x","id":"a","changes":[]}],"last_seq":"6-x","pending":11}"#;
    let uncounted = r#"{"results":[{"seq":6,"id":"a","changes":[]}],"last_seq":6}"#;
    let replay = Replay::new(vec![
        Answer::json("GET /shelf/_changes?limit=1&since=5-x", pending),
        Answer::json("GET /shelf/_changes?limit=1", pending),
        // pouchdb-server numbers its changes.
        Answer::json("GET /shelf/_changes?limit=1&since=5", uncounted),
        Answer::json("GET /shelf", r#"{"update_seq":9}"#),
        // Texts are not compared.
        Answer::json("GET /shelf/_changes?limit=1&since=5-x", uncounted),
        Answer::json("GET /shelf", r#"{"update_seq":"9-x"}"#),
    ])
    .await;
    let source = source(&replay);
    let at = |token: &str| Position::new(token, "".into(), None);
    let (text, number) = (at("\"5-x\""), at("5"));
    let expected = [Some(12), Some(12), Some(4), None];
    for (position, changes) in [Some(&text), None, Some(&number), Some(&text)].iter().zip(expected)
    {
        let behind = source.behind(*position).await.unwrap();
        assert_eq!(behind, changes.map(Behind::Changes), "{position:?}");
    }
    assert_eq!(replay.lines().len(), 6);
}

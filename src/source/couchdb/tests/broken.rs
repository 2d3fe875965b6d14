//! Feeds that break off again and again.

use super::*;

const FIRST: &str =
    r#"{"seq":"1-x","id":"a","changes":[{"rev":"1-a"}],"doc":{"_id":"a","_rev":"1-a"}}"#;
const SECOND: &str =
    r#"{"seq":"2-x","id":"b","changes":[{"rev":"1-b"}],"doc":{"_id":"b","_rev":"1-b"}}"#;
const LOOKUP: &str = "POST /shelf/_all_docs?include_docs=true&att_encoding_info=true";
const STEPS: &str = "GET /shelf/_changes?include_docs=true&att_encoding_info=true&seq_interval=1";
const BARE: &str = "GET /shelf/_changes?seq_interval=1";

/// A feed that is cut after these rows, and before its end.
fn cut(line: &str, rows: &str) -> Answer {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    Answer::bytes(line, format!("{head}{{\"results\":[{rows}")).close()
}

fn whole(line: &str, rows: &str) -> Answer {
    Answer::json(line, format!(r#"{{"results":[{rows}],"last_seq":"2-x"}}"#))
}

fn info() -> Answer {
    Answer::json(
        "GET /shelf",
        r#"{"update_seq":"2-x","instance_start_time":"1","doc_count":2,"doc_del_count":0}"#,
    )
}

#[tokio::test]
async fn a_scan_that_breaks_off_continues_where_it_got_to() {
    let replay = Replay::new(vec![
        info(),
        cut(CATCH_UP, &format!("{FIRST},")),
        info(),
        Answer::json(REVS_DIFF, "{}"),
        // From now on the feed tells its place more often.
        whole(&format!("{}&since=1-x", CATCH_UP.replace("=1000", "=250")), SECOND),
        info(),
    ])
    .await;
    let told = caught_up(&source(&replay), Since::Scan("of a test".into())).await;
    let told: Vec<&str> =
        told.iter().map(String::as_str).filter(|told| !told.contains('/')).collect();
    let expected = [
        "scan started: of a test",
        "a 1-a @1",
        "b 1-b @2",
        "scan finished 2 true",
        "holds 2 and 0",
        "caught up",
    ];
    assert_eq!(told, expected);
    assert_eq!(replay.lines().len(), 6);
}

#[tokio::test]
async fn a_scan_does_not_continue_in_another_database() {
    let other = Answer::json("GET /shelf", r#"{"update_seq":"2-x","instance_start_time":"2"}"#);
    let replay = Replay::new(vec![info(), cut(CATCH_UP, &format!("{FIRST},")), other]).await;
    let error = failure(&source(&replay), Since::Scan("of a test".into())).await;
    assert!(matches!(error, SourceError::Expired { .. }), "{error:?}");
}

#[tokio::test]
async fn a_scan_that_gets_no_further_is_an_error() {
    let replay = Replay::new(vec![info(), cut(CATCH_UP, "")]).await;
    let error = failure(&source(&replay), Since::Scan("of a test".into())).await;
    assert!(matches!(error, SourceError::Transient { .. }), "{error:?}");
    assert_eq!(replay.lines().len(), 2);
}

#[tokio::test]
async fn a_feed_that_breaks_off_at_the_same_document_gets_past_it_without_bodies() {
    let bare = [FIRST, SECOND].map(|row| row.split_once(r#","doc""#).unwrap().0.to_owned() + "}");
    let large = r#"{"seq":"1-x","id":"a","changes":[{"rev":"1-a"}],"doc":{"_id":"a","#;
    let found =
        r#"{"rows":[{"id":"b","key":"b","value":{"rev":"1-b"},"doc":{"_id":"b","_rev":"1-b"}}]}"#;
    let mut answers = vec![info(), cut(CATCH_UP, large), info(), cut(STEPS, large), info()];
    answers.push(whole(BARE, &bare.join(",")));
    // The document is cut like its row, the other one is not.
    answers.extend((0..4).map(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"rows\":[";
        Answer::bytes(LOOKUP, head).close()
    }));
    answers.extend([Answer::json(LOOKUP, found), info()]);
    let replay = Replay::new(answers).await;
    let source = source(&replay);
    for _ in 0..2 {
        let error = failure(&source, Since::Start).await;
        assert!(matches!(error, SourceError::Transient { .. }), "{error:?}");
    }
    let told = caught_up(&source, Since::Start).await;
    assert!(told[1].starts_with("unreadable a: the feed names it without its body"), "{told:?}");
    assert_eq!(told[2], "b 1-b @2");
    assert_eq!(replay.lines().len(), 12);
}

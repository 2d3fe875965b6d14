//! Opening a feed at a position, and finding that it is of no use any more.

use super::*;

use crate::source::couchdb::origin::{Origin, Recent};

const RESUMED: &str = "GET /shelf/_changes?include_docs=true&att_encoding_info=true&seq_interval=1000&since=11-g1AAAACbeJzLYWBgYMpgTmEQTM4vTc5ISXIwNDLXMwBCwxyQVCJDUv3___-zMpgT2XOBAuwGBqapycap2DTgMSaPBUgyNACp_1DTWMCmJZqYmxtbJGLTlwUAI7AoVQ";

/// The position at the end of the recorded feed.
async fn position() -> Position {
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::recorded(CATCH_UP, "changes-normal"),
    ])
    .await;
    end(&all(&source(&replay), Since::Start, Mode::CatchUp).await.0)
}

/// `GET /shelf` when something has been written since.
fn written_since() -> Answer {
    database(&[("\"update_seq\":\"11-", "\"update_seq\":\"12-")])
}

#[tokio::test]
async fn with_nothing_new_couchdb_is_asked_for_itself_and_for_the_last_change() {
    let position = position().await;
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, "{}"),
    ])
    .await;
    let (events, error) =
        all(&source(&replay), Since::Position(position.clone()), Mode::CatchUp).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(
        events.iter().map(short).collect::<Vec<_>>(),
        ["position 11", "holds 6 and 2", "caught up"]
    );
    assert_eq!(end(&events), position);
    assert_eq!(replay.lines(), ["GET /shelf", REVS_DIFF]);
}

/// A server restored from a copy of its files that has received as many writes as it lost: its end
/// is the same text.
#[tokio::test]
async fn the_same_end_without_the_last_change_is_an_expired_position() {
    let position = position().await;
    let anchor = position.anchor().unwrap();
    let (id, revision) = (&anchor.id, &anchor.revision);
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, format!(r#"{{"{id}":{{"missing":["{revision}"]}}}}"#)),
        Answer::json("GET /shelf/_revs_limit", "1000"),
        Answer::json(NEWEST, format!(r#"{{"rows":[{{"key":"{id}","error":"not_found"}}]}}"#)),
    ])
    .await;
    let reason = expiry(&source(&replay), position.clone()).await;
    assert!(reason.starts_with("the database no longer knows"), "{reason}");
    replay.lines();
}

/// A shard may lose its last changes alone, and the very last change be of another one.
#[tokio::test]
async fn the_same_end_without_one_of_the_last_changes_is_an_expired_position() {
    let position = position().await;
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, r#"{"torn":{"missing":["2-cccc"]}}"#),
        Answer::json("GET /shelf/_revs_limit", "1000"),
        Answer::json(NEWEST, r#"{"rows":[{"key":"torn","error":"not_found"}]}"#),
    ])
    .await;
    let asked = |replay: &Replay| replay.seen()[1].body.clone();
    assert_ne!(position.anchor().unwrap().id.as_str(), "torn");
    let told = failure(&source(&replay), Since::Position(position)).await.to_string();
    assert!(asked(&replay).contains("\"torn\":[\"2-cccc"), "{}", asked(&replay));
    assert!(told.starts_with("the database no longer knows `torn`"), "{told}");
}

#[tokio::test]
async fn a_position_within_the_feed_is_never_taken_for_its_end() {
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::recorded(CATCH_UP, "changes-normal"),
    ])
    .await;
    let (events, _) = all(&source(&replay), Since::Start, Mode::CatchUp).await;
    let last = change(&events, "tombstone-with-body").position.clone().unwrap();
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, "{}"),
        Answer::json(RESUMED, r#"{"results":[],"last_seq":"11-y","pending":0}"#),
    ])
    .await;
    caught_up(&source(&replay), Since::Position(last)).await;
    let asked = replay.seen()[1].body.clone();
    assert_eq!(asked, r#"{"tombstone-with-body":["1-881502b97c632f87ebece528ab26ae95"]}"#);
    assert_eq!(replay.lines().len(), 4);
}

#[tokio::test]
async fn a_feed_without_news_keeps_the_anchor_of_its_position() {
    let position = position().await;
    let replay = Replay::new(vec![
        written_since(),
        Answer::json(REVS_DIFF, "{}"),
        Answer::json(RESUMED, r#"{"results":[],"last_seq":"12-y","pending":0}"#),
    ])
    .await;
    let since = Since::Position(position.clone());
    let (events, _) = all(&source(&replay), since, Mode::CatchUp).await;
    assert_eq!(end(&events).anchor(), position.anchor());
    assert_eq!(end(&events).token(), "\"12-y\"");
}

#[tokio::test]
async fn a_couchdb_database_created_again_is_expired() {
    let answer = database(&[("1795169079", "1795169999")]);
    let replay = Replay::new(vec![answer]).await;
    let reason = expiry(&source(&replay), position().await).await;
    assert_eq!(reason, "the database was deleted and created again");
}

#[tokio::test]
async fn purged_documents_are_an_expired_position() {
    let replay = Replay::new(vec![database(&[("\"purge_seq\":\"0-", "\"purge_seq\":\"1-")])]).await;
    let reason = expiry(&source(&replay), position().await).await;
    assert!(reason.starts_with("documents were purged"), "{reason}");
}

#[tokio::test]
async fn a_change_that_the_database_no_longer_knows_is_an_expired_position() {
    let anchor = Anchor { id: "torn".into(), revision: "2-dddd".into() };
    let position = Position::new("\"9-x\"", "{}".into(), Some(anchor));
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::recorded(REVS_DIFF, "revs-diff"),
        Answer::json("GET /shelf/_revs_limit", "1000"),
        Answer::json(
            NEWEST,
            r#"{"rows":[{"id":"torn","key":"torn","value":{"rev":"2-cccc"},"doc":{"_id":"torn"}}]}"#,
        ),
    ])
    .await;
    let reason = expiry(&source(&replay), position).await;
    assert!(reason.starts_with("the database no longer knows `torn` at 2-dddd"), "{reason}");
    replay.lines();
}

#[tokio::test]
async fn a_revision_forgotten_for_its_age_does_not_expire_a_position() {
    let anchor = Anchor { id: "torn".into(), revision: "2-dddd".into() };
    let position = Position::new("\"9-x\"", "{}".into(), Some(anchor));
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::recorded(REVS_DIFF, "revs-diff"),
        Answer::json("GET /shelf/_revs_limit", "1000"),
        Answer::json(
            NEWEST,
            r#"{"rows":[{"id":"torn","key":"torn","value":{"rev":"1002-c"},"doc":{"_id":"torn"}}]}"#,
        ),
        Answer::json(&format!("{CATCH_UP}&since=9-x"), r#"{"results":[],"last_seq":"9-x"}"#),
    ])
    .await;
    let told = caught_up(&source(&replay), Since::Position(position)).await;
    assert_eq!(told, ["position 9", "caught up"]);
}

#[tokio::test]
async fn a_server_that_does_not_compare_revisions_says_nothing_against_a_position() {
    let position = position().await;
    let replay = Replay::new(vec![
        written_since(),
        Answer::made(REVS_DIFF, "403 Forbidden", r#"{"error":"forbidden"}"#),
        Answer::json(RESUMED, r#"{"results":[],"last_seq":"12-y"}"#),
    ])
    .await;
    let told = caught_up(&source(&replay), Since::Position(position)).await;
    assert_eq!(told, ["position 12", "caught up"]);
}

const LEAVES: &str = "POST /shelf/_changes?filter=_doc_ids&style=all_docs";
const HISTORIES: &str = "POST /shelf/_bulk_get?revs=true&att_encoding_info=true";
const LIST: &str = "GET /shelf/_all_docs?limit=1&startkey=%22torn%22";

/// What comes of a position after `torn` at 2-dddd where `_revs_diff` is answered with this status, and
/// other requests like this: the reason for which the position is expired, or nothing.
async fn without_revs_diff(status: &str, answers: Vec<Answer>) -> Option<String> {
    let anchor = Anchor { id: "torn".into(), revision: "2-dddd".into() };
    let position = Position::new("\"9-x\"", "{}".into(), Some(anchor));
    let mut script = vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::made(REVS_DIFF, status, "<html>"),
        Answer::json(&format!("{CATCH_UP}&since=9-x"), r#"{"results":[],"last_seq":"9-x"}"#),
    ];
    script.extend(answers);
    let replay = Replay::new(script).await;
    match all(&source(&replay), Since::Position(position), Mode::CatchUp).await.1 {
        None => None,
        Some(SourceError::Expired { reason }) => Some(reason),
        Some(other) => panic!("{other:?}"),
    }
}

fn leaves(revision: &str) -> Answer {
    let row = format!(r#"{{"seq":"9-x","id":"torn","changes":[{{"rev":"{revision}"}}]}}"#);
    Answer::json(LEAVES, format!(r#"{{"results":[{row}],"last_seq":"9-x"}}"#))
}

fn history(start: u64, ids: &str) -> Answer {
    let body = format!(
        r#"{{"_id":"torn","_rev":"{start}-x","_revisions":{{"start":{start},"ids":{ids}}}}}"#
    );
    Answer::json(HISTORIES, format!(r#"{{"results":[{{"id":"torn","docs":[{{"ok":{body}}}]}}]}}"#))
}

#[tokio::test]
async fn where_revs_diff_is_refused_a_document_without_the_change_is_an_expired_position() {
    let nothing = || Answer::json(LEAVES, r#"{"results":[],"last_seq":"9-x"}"#);
    for status in ["403 Forbidden", "405 No", "400 Bad", "404 No", "302 Found", "501 No"] {
        let reason = without_revs_diff(status, vec![nothing()]).await;
        assert!(reason.is_some_and(|reason| reason.contains("`torn` at 2-dddd")), "{status}");
    }
    let other = vec![leaves("4-x"), history(4, r#"["x","c","b","a"]"#)];
    assert!(without_revs_diff("403 Forbidden", other).await.is_some());
    let shorter = vec![leaves("1-x"), history(1, r#"["x"]"#)];
    assert!(without_revs_diff("403 Forbidden", shorter).await.is_some());
}

#[tokio::test]
async fn where_revs_diff_is_refused_a_change_in_a_history_is_known() {
    for answers in [
        vec![leaves("2-dddd")],
        vec![leaves("4-x"), history(4, r#"["x","c","dddd","a"]"#)],
        // The database has forgotten what was before.
        vec![leaves("9-x"), history(9, r#"["x","c","b"]"#)],
    ] {
        assert_eq!(without_revs_diff("403 Forbidden", answers).await, None);
    }
}

#[tokio::test]
async fn where_every_post_is_refused_the_winner_of_the_last_change_is_compared() {
    for (revision, expired) in [("1-a", true), ("2-cccc", true), ("2-dddd", false), ("3-e", false)]
    {
        let row = format!(r#"{{"id":"torn","key":"torn","value":{{"rev":"{revision}"}}}}"#);
        let answer = Answer::json(LIST, format!(r#"{{"rows":[{row}]}}"#));
        let reason = without_revs_diff("405 No", vec![answer]).await;
        assert_eq!(reason.is_some(), expired, "{revision}: {reason:?}");
    }
}

#[tokio::test]
async fn refused_credentials_are_an_error_when_the_last_changes_are_verified() {
    let replay = Replay::new(vec![
        written_since(),
        Answer::made(REVS_DIFF, "401 Unauthorized", r#"{"error":"unauthorized"}"#),
    ])
    .await;
    let error = failure(&source(&replay), Since::Position(position().await)).await;
    assert!(matches!(error, SourceError::Refused { .. }), "{error:?}");
}

/// What is remembered after this many changes of as many documents.
fn remembered(changes: u64) -> Recent {
    let mut recent = Recent::default();
    for n in 1..=changes {
        recent.push(Anchor { id: format!("d{n}").into(), revision: "1-a".into() });
    }
    recent
}

#[test]
fn older_changes_are_remembered_ever_more_sparsely_and_across_runs() {
    let recent = remembered(100_000);
    let ages: Vec<u64> = recent
        .anchors()
        .iter()
        .map(|anchor| 100_000 - anchor.id.as_str()[1..].parse::<u64>().unwrap())
        .collect();
    assert_eq!(ages[..32], (0..32).collect::<Vec<_>>());
    assert!((140..=150).contains(&ages.len()), "{}", ages.len());
    assert!(ages.windows(2).all(|pair| pair[1] <= pair[0] + pair[0] / 8 + 2), "{ages:?}");
    assert!(ages.last().is_some_and(|age| (3800..4096).contains(age)));

    let last = recent.anchors().first().cloned();
    let position = Origin::counting().at_end("9".into(), last.clone(), &recent);
    assert!(position.context().len() < 16 << 10);
    let again = Recent::at(&position);
    assert_eq!(again.anchors(), recent.anchors());
    assert_eq!(Origin::counting().at_end("9".into(), last, &again), position);
}

#[test]
fn what_older_versions_remembered_is_read() {
    let context = r#"{"recent":[{"id":"b","revision":"1-b"},{"id":"c","revision":"1-c"}]}"#;
    let anchor = Anchor { id: "a".into(), revision: "1-a".into() };
    let recent = Recent::at(&Position::new("\"9-x\"", context.into(), Some(anchor)));
    let ids: Vec<String> = recent.anchors().iter().map(|one| one.id.to_string()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(recent.newest(), 3);
}

/// After a restored backup, a nightly import of 40 documents runs again and brings the same revisions.
#[tokio::test]
async fn a_lost_change_before_the_last_ones_is_an_expired_position() {
    let recent = remembered(100);
    let position = Origin::counting().at_end("\"9-x\"".into(), None, &recent);
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::json(REVS_DIFF, r#"{"d40":{"missing":["1-a"]}}"#),
        Answer::json("GET /shelf/_revs_limit", "1000"),
        Answer::json(NEWEST, r#"{"rows":[{"key":"d40","error":"not_found"}]}"#),
    ])
    .await;
    let reason = expiry(&source(&replay), position).await;
    assert!(reason.starts_with("the database no longer knows `d40`"), "{reason}");
    assert!(replay.seen()[1].body.contains(r#""d40":["1-a"]"#));
    replay.lines();
}

#[tokio::test]
async fn a_pouchdb_database_created_again_with_the_same_last_document_is_expired() {
    let line = format!("{NUMBERED}&since=8");
    let row = r#"{"id":"a","changes":[{"rev":"2-a"}],"deleted":true,"seq":9}"#;
    let context = r#"{"recent":[{"id":"b","revision":"1-b","n":1}]}"#;
    let anchor = numbered("9", "a", "2-a").anchor().cloned();
    let replay = Replay::new(vec![
        Answer::json(&line, format!(r#"{{"results":[{row}],"last_seq":9}}"#)),
        Answer::json(REVS_DIFF, r#"{"b":{"missing":["1-b"]}}"#),
        Answer::json("GET /shelf/_revs_limit", "1000"),
        Answer::json(NEWEST, r#"{"rows":[{"key":"b","error":"not_found"}]}"#),
    ])
    .await;
    let reason = expiry(&source(&replay), Position::new("9", context.into(), anchor)).await;
    assert!(reason.starts_with("the database no longer knows `b`"), "{reason}");
    replay.lines();
}

#[tokio::test]
async fn a_malformed_sequence_is_an_expired_position() {
    let position = Position::new("\"nonsense\"", "{}".into(), None);
    let replay = Replay::new(vec![
        Answer::recorded("GET /shelf", "database"),
        Answer::recorded(&format!("{CATCH_UP}&since=nonsense"), "changes-malformed-since"),
    ])
    .await;
    let reason = expiry(&source(&replay), position).await;
    assert!(reason.contains("Malformed sequence"), "{reason}");
}

/// pouchdb-server's feed, which is one line.
const LINE: &str = r#"{"results":[{"id":"b","changes":[{"rev":"1-b"}],"doc":{"n":1,"_id":"b","_rev":"1-b"},"seq":7},{"id":"a","changes":[{"rev":"2-a"}],"doc":{"_id":"a","_rev":"2-a","_deleted":true},"deleted":true,"seq":9}],"last_seq":9}"#;

#[tokio::test]
async fn pouchdb_servers_feed_on_one_line_is_read() {
    let info = r#"{"doc_count":1,"update_seq":9,"instance_start_time":"1795170940071"}"#;
    let replay =
        Replay::new(vec![Answer::json("GET /shelf", info), Answer::json(NUMBERED, LINE)]).await;
    let (events, error) = all(&source(&replay), Since::Start, Mode::CatchUp).await;
    assert!(error.is_none(), "{error:?}");
    let told: Vec<String> = events.iter().map(short).collect();
    assert_eq!(told, ["0/1", "b 1-b @7", "a 2-a gone @9", "2/2", "position 9", "caught up"]);
    let end = end(&events);
    assert_eq!((end.token(), end.anchor()), ("9", numbered("9", "a", "2-a").anchor()));
    assert_eq!(end.context(), r#"{"recent":[{"id":"b","revision":"1-b","n":1}]}"#);
}

#[tokio::test]
async fn with_nothing_new_and_one_change_pouchdb_server_is_asked_once() {
    let line = format!("{NUMBERED}&since=8");
    let row = r#"{"id":"a","changes":[{"rev":"2-a"}],"deleted":true,"seq":9}"#;
    let body = format!(r#"{{"results":[{row}],"last_seq":9}}"#);
    let replay = Replay::new(vec![Answer::json(&line, body)]).await;
    let position = numbered("9", "a", "2-a");
    let (events, error) =
        all(&source(&replay), Since::Position(position.clone()), Mode::CatchUp).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events.iter().map(short).collect::<Vec<_>>(), ["position 9", "caught up"]);
    assert_eq!(end(&events), position);
    assert_eq!(replay.lines(), [line]);
}

#[tokio::test]
async fn a_document_changed_since_is_no_sign_of_another_pouchdb_database() {
    let replay = Replay::new(vec![
        Answer::json(&format!("{NUMBERED}&since=7"), LINE.replace(r#""seq":7"#, r#""seq":8"#)),
        Answer::json(REVS_DIFF, "{}"),
        Answer::json(
            NEWEST,
            r#"{"rows":[{"id":"c","key":"c","value":{"rev":"2-c","deleted":true}}]}"#,
        ),
    ])
    .await;
    let told = caught_up(&source(&replay), Since::Position(numbered("8", "c", "1-c"))).await;
    assert_eq!(told, ["b 1-b @8", "a 2-a gone @9", "position 9", "caught up"]);
}

#[tokio::test]
async fn the_same_content_written_into_a_new_pouchdb_database_is_told_by_its_place() {
    let replay = Replay::new(vec![
        Answer::json(&format!("{NUMBERED}&since=7"), LINE.replace(r#""seq":7"#, r#""seq":8"#)),
        Answer::json(REVS_DIFF, "{}"),
        Answer::json(NEWEST, r#"{"rows":[{"id":"c","key":"c","value":{"rev":"1-c"},"doc":{"_id":"c","_rev":"1-c"}}]}"#),
    ])
    .await;
    let reason = expiry(&source(&replay), numbered("8", "c", "1-c")).await;
    assert!(reason.contains("created again"), "{reason}");
}

#[tokio::test]
async fn a_pouchdb_database_created_again_is_expired() {
    let replay = Replay::new(vec![
        Answer::json(&format!("{NUMBERED}&since=6"), LINE),
        Answer::json(REVS_DIFF, r#"{"c":{"missing":["1-c"]}}"#),
        Answer::json("GET /shelf/_revs_limit", "1000"),
        Answer::json(NEWEST, r#"{"rows":[{"key":"c","error":"not_found"}]}"#),
    ])
    .await;
    let reason = expiry(&source(&replay), numbered("7", "c", "1-c")).await;
    assert!(reason.contains("created again"), "{reason}");

    let shorter = Answer::json(&format!("{NUMBERED}&since=49"), r#"{"results":[],"last_seq":49}"#);
    let replay = Replay::new(vec![shorter]).await;
    let reason = expiry(&source(&replay), numbered("50", "c", "1-c")).await;
    assert!(reason.contains("created again"), "{reason}");
}

#[tokio::test]
async fn a_position_of_the_other_kind_of_server_is_expired() {
    let info = r#"{"doc_count":1,"update_seq":9}"#;
    let replay = Replay::new(vec![Answer::json("GET /shelf", info)]).await;
    let reason = expiry(&source(&replay), position().await).await;
    assert!(reason.contains("it is another server"), "{reason}");

    let feed = Answer::recorded(&format!("{NUMBERED}&since=6"), "changes-normal");
    let replay = Replay::new(vec![feed]).await;
    let reason = expiry(&source(&replay), numbered("7", "c", "1-c")).await;
    assert!(reason.contains("it is another server"), "{reason}");
}

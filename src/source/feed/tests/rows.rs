//! What comes out of the rows of a feed file.

use std::collections::BTreeMap;

use super::*;
use crate::source::Reading;

#[tokio::test]
async fn bodies_come_out_byte_for_byte() {
    let odd =
        r#","n":123456789012345678901234567890, "f":1.0,"e":1e400,"a":1,"a":2,"u":"\u0041\ud83d""#;
    let feed = Recording::of(row("a", "1-x", odd));
    let changes = feed.changes(Since::Start).await;
    assert_eq!(body(&changes[0]), format!("{{\"_id\":\"a\",\"_rev\":\"1-x\"{odd}}}"));
}

#[tokio::test]
async fn a_feed_ends_with_its_position_and_caught_up() {
    let feed = Recording::of(row("a", "1-x", "") + "\n" + &deletion("b", "2-y"));
    let events = feed.events(Since::Start).await;
    let [
        FeedEvent::Change(a),
        FeedEvent::Change(b),
        FeedEvent::Progress(progress),
        FeedEvent::Position(end),
        FeedEvent::CaughtUp,
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(!a.is_deletion() && b.is_deletion());
    assert_eq!(b.position.as_ref(), Some(end));
    assert_eq!(
        (progress.done, progress.total),
        (fs::metadata(feed.path()).unwrap().len(), progress.done)
    );
}

/// What a CouchDB 3.4.3 answered, without its head and its chunks' sizes.

#[tokio::test]
async fn what_couchdb_answers_is_taken_as_it_is() {
    let normal = recorded!("changes-normal");
    let continuous = recorded!("changes-continuous-timeout");
    let windows = normal.replace('\n', "\r\n");
    for text in [normal, continuous, windows] {
        let feed = Recording::of(format!("\u{feff}{text}"));
        let events = feed.events(Since::Start).await;
        assert!(unreadable(&events).is_empty(), "{events:?}");
        let changes = changes(events);
        assert_eq!(changes.len(), 8);
        let gone = changes.last().unwrap();
        let DocumentState::Deleted(Some(tombstone)) = &gone.state else { panic!("{gone:?}") };
        assert!(tombstone.body.ends_with(b"\"why\":\"kept\",\"_deleted\":true}"));
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_told_and_passed() {
    let deep = format!(",\"d\":{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bad: Vec<(&[u8], &str, Option<&str>)> = vec![
        (b"nonsense", "the row is not JSON: expected an object at byte 0", None),
        (b"{\"id\":\"x\",\"doc\":{\"a\":[}", "the row is not JSON: expected value at byte 22", Some("x")),
        (b"{\"id\":\"x\",\"doc\":\"\xff\"}", "the row is not UTF-8 text at its byte 17", Some("x")),
        (b"{\"id\":\"x\xff\",\"doc\":1}", "the row is not UTF-8 text at its byte 8", None),
        (b"{}", "the row has no id", None),
        (b"{\"id\":7}", "the row's id is not text but 7", None),
        (b"{\"id\":\"\"}", "the row's id is empty", None),
        (b"{\"id\":\"\\ud800\"}", "the row's id is not text: it holds half of a surrogate pair", None),
        (b"{\"id\":\"x\",\"doc\":{}}", "the row has no revision", Some("x")),
        (b"{\"id\":\"x\",\"changes\":[{\"rev\":\"1-x\"}]}",
            "the row holds no document: record the feed with include_docs=true", Some("x")),
        (b"{\"id\":\"x\",\"changes\":[{\"rev\":\"1-x\"}],\"doc\":null,\"error\":\"not_found\"}",
            "the row holds the error \"not_found\" and no document", Some("x")),
        (b"{\"id\":\"x\",\"changes\":[{\"rev\":\"1-x\"}],\"doc\":[]}", "the row's document is not an object", Some("x")),
        (b"{\"id\":\"x\",\"changes\":[{\"rev\":\"1-x\"}],\"doc\":{\"_id\":\"y\"}}",
            "the row is of `x`, but its document calls itself `y`", Some("x")),
        (b"{\"id\":\"x\",\"changes\":[{\"rev\":\"1-x\"}],\"doc\":{\"_attachments\":{\"n\":{\"data\":\"A\"}}}}",
            "the attachment `n`: its data is not base64: Invalid input length: 1", Some("x")),
        (b"{\"id\":\"x\",\"changes\":[{\"rev\":\"1-x\"}],\"doc\":{\"_attachments\":7}}",
            "`_attachments` is not an object", Some("x")),
        (b"{\"error\":\"unauthorized\",\"reason\":\"You are not\"}",
            "the line is not a row but the error \"unauthorized\"", None),
        (b"{\"results\":[{\"seq\":1,\"id\":\"a\"}],\"last_seq\":1}",
            "the line holds a whole answer instead of one row: record it with feed=continuous", None),
    ];
    let mut text = row("first", "1-x", &deep).into_bytes();
    for (line, ..) in &bad {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(row("nul\\u0000", "1-x", "").as_bytes());
    let feed = Recording::of(&text);
    let events = feed.events(Since::Start).await;
    let found: Vec<_> = unreadable(&events)
        .into_iter()
        .map(|row| (row.reason.clone(), row.id.as_ref().map(|id| id.as_str().to_owned())))
        .collect();
    let expected: Vec<_> =
        bad.iter().map(|(_, reason, id)| (reason.to_string(), id.map(str::to_owned))).collect();
    assert_eq!(found, expected);
    let place = &unreadable(&events)[1].place;
    let offset = row("first", "1-x", &deep).len() + "nonsense\n".len();
    assert_eq!(*place, format!("row at byte {offset} of library.ndjson"));
    let position = unreadable(&events)[0].position.clone().unwrap();
    assert_eq!(unreadable(&feed.events(Since::Position(position)).await).len(), bad.len() - 1);
    let changes = changes(events);
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[1].id.as_str(), "nul\0");
}

fn of(id: &str, collection: &str) -> String {
    row(id, "1-x", "").replace("}}\n", &format!("}},\"collection\":\"{collection}\"}}\n"))
}

#[tokio::test]
async fn every_collection_is_named_once_and_has_its_own_rows() {
    let feed = Recording::of(
        [
            of("1", "books"),
            of("2", "m\\u00e4rz"),
            row("3", "1-x", ",\"collection\":\"no\""),
            of("4", "books"),
            of("5", "_users"),
            of("6", "").replace("\"\"", "7"),
            of("7", "books").replace("\"doc\":{", "\"doc\":["),
        ]
        .concat(),
    );
    let names = |events: Vec<StoreEvent>| -> Vec<String> {
        events
            .into_iter()
            .map(|event| match event {
                StoreEvent::Collection(name) => name.as_str().to_owned(),
                StoreEvent::Unmatched(pattern) => format!("no {}", pattern.text()),
                StoreEvent::Listed(_) => "!".to_owned(),
            })
            .collect()
    };
    let store = feed.store();
    let listed =
        store.collections(Mode::CatchUp, None).map(Result::unwrap).collect::<Vec<_>>().await;
    assert_eq!(names(listed), ["books", "märz", "library", "!"]);
    assert_eq!(store.identity(), format!("feed:{}", feed.path().display()));

    let mut ids = BTreeMap::new();
    for name in ["books", "märz", "library"] {
        let events: Vec<_> = store
            .open(&name.into())
            .changes(Since::Start, Mode::CatchUp)
            .map(Result::unwrap)
            .collect()
            .await;
        let broken = unreadable(&events).len();
        let FeedEvent::Position(end) = &events[events.len() - 2] else { panic!("{events:?}") };
        let length = fs::metadata(feed.path()).unwrap().len();
        assert!(end.token().starts_with(&format!("\"{length}-")));
        let found: Vec<_> =
            changes(events).iter().map(|change| change.id.as_str().to_owned()).collect();
        ids.insert(name, (found.join(" "), broken));
    }
    assert_eq!(ids["books"], ("1 4".to_owned(), 1));
    assert_eq!(ids["märz"], ("2".to_owned(), 0));
    assert_eq!(ids["library"], ("3".to_owned(), 1));

    let empty = Recording::of("");
    let listed = empty
        .store()
        .collections(Mode::CatchUp, None)
        .map(Result::unwrap)
        .collect::<Vec<_>>()
        .await;
    assert_eq!(names(listed), ["!"]);
}

#[tokio::test]
async fn a_file_that_does_not_exist_is_missing() {
    let store = FeedStore::file("/nowhere/x.ndjson", None, Selection::default());
    let error = store.open(&"x".into()).changes(Since::Start, Mode::Follow).next().await.unwrap();
    let error = error.unwrap_err();
    assert!(matches!(&error, SourceError::Missing { .. }), "{error:?}");
    assert_eq!(error.to_string(), "feed file /nowhere/x.ndjson does not exist");
    let error = store.collections(Mode::CatchUp, None).next().await.unwrap().err().unwrap();
    assert!(matches!(&error, SourceError::Missing { .. }), "{error:?}");
}

#[tokio::test]
async fn a_document_is_looked_up_where_its_row_stands_and_its_last_row_is_found() {
    let attachment = r#","_attachments":{"n":{"file":"later"}}"#;
    let feed =
        Recording::of(row("a", "1-x", attachment) + &row("b", "1-x", "") + &row("c", "1-x", ""));
    let events = feed.events(Since::Start).await;
    let position = unreadable(&events)[0].position.clone().unwrap();
    let (source, a) = (feed.source(), "a".into());
    let error = source.document(&a, Some(&position)).await.unwrap_err();
    assert!(matches!(error, SourceError::Missing { .. }), "{error:?}");
    fs::write(feed.folder.path().join("later"), b"here").unwrap();
    let Reading::Found(found) = source.document(&a, Some(&position)).await.unwrap() else {
        panic!()
    };
    assert_eq!(found.position, Some(position.clone()));
    feed.append(row("b", "2-x", "").replace("\"b\"", "\"\\u0062\""));
    feed.append(deletion("a", "2-x").trim_end());
    let Reading::Found(found) = source.document(&a, Some(&position)).await.unwrap() else {
        panic!()
    };
    assert!(found.is_deletion());
    let found = source.document(&"b".into(), Some(&position)).await.unwrap();
    let Reading::Found(found) = found else { panic!() };
    assert_eq!(found.revision.as_str(), "2-x");
    assert!(matches!(source.document(&a, None).await.unwrap(), Reading::Unknown));
    assert!(matches!(
        source.document(&"z".into(), Some(&position)).await.unwrap(),
        Reading::Unknown
    ));
}

#[tokio::test]
async fn a_listing_goes_on_where_an_earlier_one_ended_if_the_file_is_the_same() {
    let feed = Recording::of([of("1", "books"), of("2", "shelf"), row("3", "1-x", "")].concat());
    let store = feed.store();
    let list = async |since| {
        let (mut names, mut end) = (Vec::new(), None);
        for event in store.collections(Mode::CatchUp, since).collect::<Vec<_>>().await {
            match event.unwrap() {
                StoreEvent::Collection(name) => names.push(name.as_str().to_owned()),
                StoreEvent::Unmatched(pattern) => names.push(format!("no {}", pattern.text())),
                StoreEvent::Listed(position) => end = position,
            }
        }
        names.sort();
        (names.join(" "), end)
    };
    let (names, end) = list(None).await;
    assert_eq!(names, "books library shelf");
    // What is before the end is not read again: nobody notices that it is something else.
    let text = fs::read_to_string(feed.path()).unwrap();
    fs::write(feed.path(), text.replacen("books", "plays", 1)).unwrap();
    feed.append(of("4", "maps"));
    let (names, later) = list(end.clone()).await;
    assert_eq!(names, "books library maps shelf");
    assert_ne!(later, end);
    assert_eq!(list(None).await.0, "library maps plays shelf");
    // Rows without a collection have another one now.
    let named = FeedStore::file(feed.path(), Some("other".into()), Selection::default());
    let listed = named.collections(Mode::CatchUp, later.clone()).collect::<Vec<_>>().await;
    let has = |wanted: &str| {
        let named = listed.iter().map(|event| event.as_ref().unwrap());
        named
            .filter(|one| matches!(one, StoreEvent::Collection(name) if name.as_str() == wanted))
            .count()
    };
    assert_eq!((has("other"), has("library"), has("plays")), (1, 0, 1));
    // A file that was replaced is read from its beginning.
    fs::write(feed.path(), of("1", "new")).unwrap();
    assert_eq!(list(later).await.0, "new");
}

#[tokio::test]
async fn what_belongs_to_a_server_alone_is_not_a_document() {
    let feed = Recording::of([row("_local/x", "0-1", ""), row("a", "1-x", "")].concat());
    let events = feed.events(Since::Start).await;
    assert!(unreadable(&events).is_empty());
    let ids: Vec<_> = changes(events).iter().map(|change| change.id.clone()).collect();
    assert_eq!(ids, ["a".into()]);
}

#[tokio::test]
async fn a_row_beyond_the_limit_is_named_whatever_comes_first() {
    let large = "x".repeat(65 << 20);
    let doc = format!(r#""doc":{{"_id":"big","_rev":"2-b","x":"{large}"}}"#);
    let rest = r#""id":"big","changes":[{"rev":"2-b"}],"seq":7"#;
    for text in [format!("{{{doc},{rest}}}\n"), format!("{{{rest},{doc}}}\n")] {
        let feed = Recording::of(text + &row("a", "1-x", ""));
        let events = feed.events(Since::Start).await;
        let [named] = unreadable(&events)[..] else { panic!("{}", unreadable(&events).len()) };
        assert_eq!(named.id, Some("big".into()));
        assert_eq!(named.revision, Some("2-b".into()));
        assert!(named.reason.contains("larger than 64 MiB"), "{}", named.reason);
        assert_eq!(changes(events).len(), 1);
    }
}

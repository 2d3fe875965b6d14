//! Resuming, scanning and following a feed file.

use super::*;
use crate::document::Position;
use crate::source::Behind;

#[tokio::test]
async fn resuming_at_any_position_gives_exactly_the_rest() {
    let rows: Vec<_> =
        (0..20).map(|n| row(&format!("d{n}"), "1-x", "") + ["", "\n", "\r\n"][n % 3]).collect();
    let feed = Recording::of(rows.concat());
    let all = feed.changes(Since::Start).await;
    assert_eq!(all.len(), 20);
    for (n, change) in all.iter().enumerate() {
        let rest = feed.changes(Since::Position(change.position.clone().unwrap())).await;
        let ids = |changes: &[Change]| changes.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&rest), ids(&all[n + 1..]));
    }
}

#[tokio::test]
async fn an_unfinished_last_row_counts_if_it_is_whole_and_is_read_again_if_not() {
    let whole = row("a", "1-x", "") + row("b", "1-x", "").trim_end();
    let feed = Recording::of(&whole);
    let changes = feed.changes(Since::Start).await;
    assert_eq!(changes.len(), 2);
    feed.append("\n".to_owned() + &row("c", "1-x", ""));
    let rest = feed.changes(Since::Position(changes[1].position.clone().unwrap())).await;
    assert_eq!(rest[0].id.as_str(), "c");

    let half = row("a", "1-x", "") + "{\"seq\":1,";
    let feed = Recording::of(&half);
    let events = feed.events(Since::Start).await;
    let start = row("a", "1-x", "").len();
    let broken = unreadable(&events)[0];
    assert_eq!(
        broken.reason,
        format!("the feed ends in the middle of a row (9 bytes from byte {start})")
    );
    assert_eq!(broken.position, None);
    let [.., FeedEvent::Position(end), FeedEvent::CaughtUp] = &events[..] else {
        panic!("{events:?}")
    };
    feed.append(&row("b", "1-x", "")[9..]);
    let rest = feed.changes(Since::Position(end.clone())).await;
    assert_eq!(rest[0].id.as_str(), "b");
}

#[tokio::test]
async fn a_replaced_file_is_scanned_from_its_beginning() {
    let feed = Recording::of(row("a", "1-x", "") + &row("b", "1-x", ""));
    let end = feed.changes(Since::Start).await[1].position.clone().unwrap();
    for text in
        [row("a", "1-x", ""), row("a", "1-x", "") + &row("c", "1-x", "") + &row("d", "1-x", "")]
    {
        fs::write(feed.path(), &text).unwrap();
        let events = feed.events(Since::Position(end.clone())).await;
        let FeedEvent::ScanStarted { reason } = &events[0] else { panic!("{events:?}") };
        assert_eq!(reason, "the feed file was replaced since the last run");
        let [.., FeedEvent::ScanFinished { exhaustive: false, position }, FeedEvent::CaughtUp] =
            &events[..]
        else {
            panic!("{events:?}")
        };
        assert!(feed.changes(Since::Position(position.clone())).await.is_empty());
    }
}

#[tokio::test]
async fn a_scan_does_not_bring_deleted_documents_back_for_a_moment() {
    let feed = Recording::of(
        [
            row("a", "1-x", ""),
            row("b", "1-x", ""),
            deletion("a", "2-x"),
            deletion("b", "2-x"),
            row("b", "3-x", ""),
            "nonsense\n".into(),
            deletion("c", "2-x"),
        ]
        .concat(),
    );
    let events = feed.events(Since::Scan("tested".into())).await;
    assert!(matches!(&events[0], FeedEvent::ScanStarted { reason } if reason == "tested"));
    let revisions: Vec<_> =
        changes(events).iter().map(|c| format!("{} {}", c.id, c.revision)).collect();
    assert_eq!(revisions, ["b 1-x", "a 2-x", "b 2-x", "b 3-x", "c 2-x"]);
    assert_eq!(feed.changes(Since::Start).await.len(), 6);
}

#[tokio::test]
async fn growth_is_followed() {
    let feed = Recording::of(row("a", "1-x", "") + "{\"seq\":1,");
    let store = feed.store();
    let mut names = store.collections(Mode::Follow, None);
    let mut stream = feed.source().changes(Since::Start, Mode::Follow);
    assert_eq!(changes(catch_up(&mut stream).await).len(), 1);
    feed.append(&row("b", "1-x", "")[9..]);
    assert_eq!(changes(catch_up(&mut stream).await)[0].id.as_str(), "b");
    for n in 0..100 {
        feed.append(row(&format!("n{n}"), "1-x", ""));
    }
    feed.append("{\"collection\":\"new\"}\n");
    let mut seen = Vec::new();
    while seen.len() < 100 {
        seen.extend(changes(catch_up(&mut stream).await));
    }
    assert_eq!(seen[99].id.as_str(), "n99");

    let mut found = Vec::new();
    while found.len() < 3 {
        found.push(match names.next().await.unwrap().unwrap() {
            StoreEvent::Collection(name) => name.as_str().to_owned(),
            StoreEvent::Unmatched(pattern) => format!("no {}", pattern.text()),
            StoreEvent::Listed(_) => "!".to_owned(),
        });
    }
    found.sort();
    assert_eq!(found, ["!", "library", "new"]);
}

#[tokio::test]
async fn a_file_that_is_replaced_or_rewritten_while_followed_expires() {
    let other = row("x", "1-x", "") + &row("y", "1-x", "") + &row("z", "1-x", "");
    let replace = |feed: &Recording| {
        let aside = feed.folder.path().join("aside");
        fs::write(&aside, &other).unwrap();
        fs::rename(aside, feed.path()).unwrap();
    };
    let rewrite = |feed: &Recording| fs::write(feed.path(), &other).unwrap();
    let truncate = |feed: &Recording| fs::write(feed.path(), "").unwrap();
    let acts: [&dyn Fn(&Recording); 3] = [&replace, &rewrite, &truncate];
    for act in acts {
        let feed = Recording::of(row("a", "1-x", "") + &row("b", "1-x", ""));
        let mut stream = feed.source().changes(Since::Start, Mode::Follow);
        catch_up(&mut stream).await;
        act(&feed);
        let error = next(&mut stream).await.unwrap_err();
        assert!(matches!(error, SourceError::Expired { .. }), "{error:?}");
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_file_that_was_rotated_while_followed_may_begin_as_other_formats_do() {
    let hole = "\0".repeat(70_000) + "\n";
    for beginning in
        ["<p>x</p>\"}}\n", "{\"docs\":[1]}}}\n", "HTTP/1.1 200 OK\n", "id: x\"}}\n", &hole]
    {
        let feed = Recording::of(row("a", "1-x", ""));
        let mut stream = feed.source().changes(Since::Start, Mode::Follow);
        catch_up(&mut stream).await;
        fs::write(feed.path(), beginning.to_owned() + &row("b", "1-x", "")).unwrap();
        let error = next(&mut stream).await.unwrap_err();
        assert!(matches!(error, SourceError::Expired { .. }), "{beginning:?}: {error:?}");
        let mut again = feed.source().changes(Since::Scan("tested".into()), Mode::Follow);
        let events = catch_up(&mut again).await;
        assert_eq!(unreadable(&events).len(), 1, "{beginning:?}");
        assert_eq!(changes(events)[0].id.as_str(), "b", "{beginning:?}");
        let named = feed.store().collections(Mode::Follow, None).next().await.unwrap().unwrap();
        assert!(matches!(named, StoreEvent::Collection(_)), "{beginning:?}: {named:?}");
    }
}

#[tokio::test]
async fn a_dropped_stream_ends_its_thread() {
    let feed =
        Recording::of(row("a", "1-x", &format!(",\"f\":\"{}\"", "x".repeat(100_000))).repeat(200));
    let mut stream = feed.source().changes(Since::Start, Mode::Follow);
    next(&mut stream).await.unwrap();
    drop(stream);
    // The runtime waits for its threads when it is dropped at the end of this test.
}

#[tokio::test]
async fn the_bytes_behind_a_position_are_those_after_it_in_the_same_file() {
    let (first, second) = (row("a", "1-x", ""), row("b", "1-x", ""));
    let feed = Recording::of(&first);
    let source = feed.source();
    let end = feed.changes(Since::Start).await[0].position.clone().unwrap();
    let behind = async |position: Option<&Position>| source.behind(position).await.unwrap();
    let bytes = |text: &str| Some(Behind::Bytes(text.len() as u64));
    assert_eq!(behind(Some(&end)).await, bytes(""));
    assert_eq!(behind(None).await, bytes(&first));
    feed.append(&second);
    assert_eq!(behind(Some(&end)).await, bytes(&second));
    fs::write(feed.path(), row("c", "1-other", "") + &second).unwrap();
    assert_eq!(behind(Some(&end)).await, None, "it is another file");
    fs::remove_file(feed.path()).unwrap();
    assert!(source.behind(Some(&end)).await.is_err());
    let packed = Recording::of([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(packed.source().behind(None).await.unwrap(), None, "it is compressed");
}

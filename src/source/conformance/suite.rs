//! The contract of a source as tests that every kind of source passes.
//!
//! A contract looks at a source from outside, through a [`Subject`], and must not know its kind. This
//! file uses public items only, so that the integration tests run it against a real server too.

use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::document::{CollectionName, Content, DocumentState};
use super::source::{Feed, Mode, Reading, Since, SourceError, Store, StoreEvent};
use super::{document, source};

pub use self::subject::{Can, Row, Subject};
use self::subject::{Event, Heard, end, expected, heard, newest, read, shelf};

#[path = "subject.rs"]
mod subject;

fn rows() -> Vec<Row> {
    vec![
        Row::live("a", "1-a", ",\"n\":1"),
        Row::live("b", "1-a", ",\"n\":2"),
        Row::live("é/c?", "1-a", ""),
        Row::live("gone", "1-a", ""),
        Row::dead("gone", "2-b"),
        Row::live("b", "2-b", ",\"n\":3"),
    ]
}

pub async fn it_has_the_interfaces_that_it_says<S: Subject>() {
    assert_has_what_it_says(&*S::start(&[]).await.store(Mode::CatchUp), &shelf());
}

/// The interfaces of a feed are those that its store says it has.
pub fn assert_has_what_it_says(store: &dyn Store, collection: &CollectionName) {
    let (can, feed) = (store.capabilities(), store.open(collection));
    assert_eq!(feed.attachments().is_some(), can.attachments, "attachments");
    assert_eq!(feed.branches().is_some(), can.branches, "branches");
    assert_eq!(feed.security().is_some(), can.security, "security");
    assert!(feed.reads().is_some() || !can.single_reads, "single reads without reads");
}

pub async fn every_row_comes_in_order_and_then_the_end<S: Subject>() {
    let subject = S::start(&rows()).await;
    let events = read(&subject, Since::Start).await;
    assert_eq!(newest(&events), expected(&rows()));
    let marks = |event: &Event| matches!(event, Event::Started | Event::Finished { .. });
    assert!(!events.iter().any(marks), "{events:?}");
    let [.., Event::Position(end), Event::CaughtUp] = &events[..] else { panic!("{events:?}") };
    let last = events.iter().rev().skip(2).find_map(Event::position);
    assert!(last.is_none_or(|last| last.anchor() == end.anchor()), "{last:?} and {end:?}");
}

pub async fn a_body_is_what_the_source_holds<S: Subject>() {
    let deep = format!(",\"d\":{}{}", "[".repeat(3000), "]".repeat(3000));
    let exact =
        r#","n":123456789012345678901234567890, "f":1.0,"e":1e400,"a":1,"a":2,"u":"\u0041\ud83d""#;
    let plain = r#","z":{"_rev":"9-x","_deleted":true,"_attachments":{"no":{}}},"a":[true,null,"ж\u2028\""]"#;
    let members = if S::CAN.keep_bytes { exact.to_owned() + plain + &deep } else { plain.into() };
    let row = Row::live("a\n\"\u{1}", "1-a", &members);
    let subject = S::start(std::slice::from_ref(&row)).await;
    let events = read(&subject, Since::Start).await;
    assert_eq!(newest(&events), expected(std::slice::from_ref(&row)));
    let Some(Event::Change(change)) = events.first() else { panic!("{events:?}") };
    let DocumentState::Present(document) = &change.state else { panic!("it is deleted") };
    assert!(document.attachments.is_empty(), "{document:?}");
    match S::CAN.keep_bytes {
        true => assert!(document.body == row.body(true), "{:?}", document.body),
        false => {
            let held: Value = serde_json::from_slice(&document.body).unwrap();
            assert_eq!(held, serde_json::from_str::<Value>(&row.body(true)).unwrap());
        }
    }
}

pub async fn opened_at_any_position_a_feed_has_the_rest<S: Subject>() {
    let subject = S::start(&rows()).await;
    let events = read(&subject, Since::Start).await;
    for (n, event) in events.iter().enumerate() {
        let Some(position) = event.position() else { continue };
        let rest = read(&subject, Since::Position(position.clone())).await;
        let (rest, lacking) = (newest(&rest), newest(&events[n + 1..]));
        assert!(rest.ends_with(&lacking), "{rest:?} after {event:?}");
        assert!(!S::CAN.resume || rest == lacking, "{rest:?} after {event:?}");
    }
}

pub async fn with_nothing_new_only_the_end_is_said<S: Subject>() {
    let subject = S::start(&rows()).await;
    let position = end(&read(&subject, Since::Start).await);
    let mut again = read(&subject, Since::Position(position.clone())).await;
    if S::CAN.resume {
        again.retain(|event| !matches!(event, Event::Position(_)));
        assert!(matches!(again[..], [Event::CaughtUp]), "{again:?}");
        let again = read(&subject, Since::Position(position.clone())).await;
        let positions: Vec<_> = again.iter().filter_map(Event::position).collect();
        assert!(positions.iter().all(|one| one.anchor() == position.anchor()), "{again:?}");
    }
}

pub async fn what_is_new_comes_after_the_end<S: Subject>() {
    let subject = S::start(&rows()).await;
    let position = end(&read(&subject, Since::Start).await);
    let new = [Row::live("e", "1-a", ""), Row::live("a", "2-b", "")];
    subject.append(&new).await;
    let rest = newest(&read(&subject, Since::Position(position)).await);
    assert!(rest.ends_with(&expected(&new)), "{rest:?}");
    assert!(!S::CAN.resume || rest == expected(&new), "{rest:?}");
}

pub async fn a_position_of_another_incarnation_is_never_continued<S: Subject>() {
    let fewer = vec![Row::live("a", "1-a", "")];
    let other = ["u", "v", "w", "y", "z"].map(|id| Row::live(id, "1-a", ""));
    for others in [fewer, other.to_vec()] {
        let subject = S::start(&rows()).await;
        let position = end(&read(&subject, Since::Start).await);
        subject.replace(&others).await;
        match heard(&subject, Since::Position(position)).await {
            (events, Some(SourceError::Expired { reason })) => {
                assert!(newest(&events).is_empty() && !reason.is_empty(), "{events:?}");
            }
            (events, None) => {
                assert!(!S::CAN.resume || matches!(events[0], Event::Started), "{events:?}");
                assert_eq!(newest(&events), expected(&others));
            }
            (_, error) => panic!("{error:?}"),
        }
        let scan = Since::Scan("tested".to_owned());
        assert_eq!(newest(&read(&subject, scan).await), expected(&others));
    }
}

pub async fn a_scan_is_the_whole_feed_between_its_marks<S: Subject>() {
    let subject = S::start(&rows()).await;
    let events = read(&subject, Since::Scan("tested".to_owned())).await;
    assert_eq!(newest(&events), expected(&rows()));
    let [Event::Started, rows @ .., Event::Finished { position, exhaustive }, Event::CaughtUp] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(*exhaustive, subject.store(Mode::CatchUp).capabilities().exhaustive_scan);
    assert!(rows.iter().all(|event| matches!(event, Event::Change(_) | Event::Position(_))));
    if S::CAN.resume {
        assert!(newest(&read(&subject, Since::Position(position.clone())).await).is_empty());
    }
}

pub async fn a_feed_that_is_cut_has_no_end<S: Subject>() {
    for since in [Since::Start, Since::Scan("tested".to_owned())] {
        let rows = [Row::live("a", "1-a", ""), Row::live("b", "1-a", "")];
        let subject = S::start(&rows).await;
        if !S::CAN.fail {
            return;
        }
        subject.cut().await;
        let (events, error) = heard(&subject, since).await;
        assert!(expected(&rows[..1]).starts_with(&newest(&events)), "{events:?}");
        match error {
            Some(SourceError::Transient { .. }) => {
                let is_end = |it: &Event| matches!(it, Event::CaughtUp | Event::Finished { .. });
                assert!(!events.iter().any(is_end), "{events:?}");
            }
            // A file that is still being written.
            None => {
                let cut = |it: &Event| matches!(it, Event::Unreadable(it) if it.position.is_none());
                let whole = |it: &Event| matches!(it, Event::Finished { exhaustive: true, .. });
                assert!(events.iter().any(cut) && !events.iter().any(whole), "{events:?}");
            }
            Some(other) => panic!("{other:?}"),
        }
    }
}

pub async fn a_row_that_cannot_be_a_change_is_reported_and_passed<S: Subject>() {
    let (before, after) = ([Row::live("a", "1-a", "")], [Row::live("b", "1-a", "")]);
    let subject = S::start(&before).await;
    if !S::CAN.fail {
        return;
    }
    subject.spoil("bad", "3-c").await;
    subject.append(&after).await;
    let events = read(&subject, Since::Start).await;
    assert_eq!(newest(&events), expected(&[before, after.clone()].concat()));
    let [_, Event::Unreadable(row), ..] = &events[..] else { panic!("{events:?}") };
    assert_eq!(row.id, Some("bad".into()));
    assert_eq!(row.revision, Some("3-c".into()));
    assert!(!row.place.is_empty() && !row.reason.is_empty(), "{row:?}");
    let position = row.position.clone().expect("a position after it");
    let rest = read(&subject, Since::Position(position)).await;
    let is_told = rest.iter().any(|event| matches!(event, Event::Unreadable(_)));
    assert!(!S::CAN.resume || !is_told, "{rest:?}");
    assert!(newest(&rest).ends_with(&expected(&after)), "{rest:?}");
}

pub async fn a_tombstone_may_have_a_body<S: Subject>() {
    let why = Row { members: ",\"_deleted\":true,\"why\":1".to_owned(), ..Row::dead("b", "2-b") };
    let rows = [Row::live("a", "1-a", ""), Row::dead("a", "2-b"), why];
    let subject = S::start(&rows).await;
    let events = read(&subject, Since::Start).await;
    assert_eq!(newest(&events), expected(&rows));
    let kept = events.iter().rev().find_map(|event| match event {
        Event::Change(change) if change.id.as_str() == "b" => Some(change.document()),
        _ => None,
    });
    let body: Value = serde_json::from_slice(&kept.unwrap().body).unwrap();
    assert_eq!((&body["_deleted"], &body["why"]), (&json!(true), &json!(1)));
}

pub async fn attachments_arrive_byte_for_byte<S: Subject>() {
    let large = (0..300_001_u32).map(|n| (n % 251) as u8).collect();
    let attachments = vec![("a b/ж.bin", large), ("none", Vec::new())];
    let row = Row { attachments: attachments.clone(), ..Row::live("a", "1-a", "") };
    let subject = S::start(&[row]).await;
    let store = subject.store(Mode::CatchUp);
    let mut heard = Heard::open(&*store, Since::Start, Mode::CatchUp);
    let Some(Ok(Event::Change(change))) = heard.next().await else { panic!("no change") };
    let feed: Arc<dyn Feed> = store.open(&shelf());
    let mut found = Vec::new();
    let document = change.document().into_owned();
    for attachment in &document.attachments {
        let mut bytes = Vec::new();
        match &attachment.content {
            Content::Inline(inline) => bytes.extend_from_slice(inline),
            Content::Remote(_) => {
                let opened = feed.attachment(&change.id, &change.revision, attachment);
                let mut pieces = opened.await.unwrap();
                while let Some(piece) = pieces.next().await {
                    bytes.extend_from_slice(&piece.unwrap());
                }
            }
        }
        assert_eq!(attachment.length.unwrap_or(bytes.len() as u64), bytes.len() as u64);
        found.push((&*attachment.name, bytes));
    }
    found.sort();
    assert!(found == attachments, "{:?}", found.iter().map(|one| one.0).collect::<Vec<_>>());
}

pub async fn a_document_is_read_in_its_newest_state<S: Subject>() {
    let subject = S::start(&rows()).await;
    let events = read(&subject, Since::Start).await;
    let store = subject.store(Mode::CatchUp);
    let (feed, can) = (store.open(&shelf()), store.capabilities());
    for (id, revision, is_deleted) in newest(&events) {
        let position = events.iter().find_map(|event| match event {
            Event::Change(change) if change.id.as_str() == id => change.position.as_ref(),
            _ => None,
        });
        match feed.document(&(&*id).into(), position).await.unwrap() {
            Reading::Found(change) => {
                assert_eq!(
                    (change.revision.as_str(), change.is_deletion()),
                    (&*revision, is_deleted)
                );
            }
            Reading::Unknown => assert!(!S::CAN.reread && !can.single_reads, "{id}"),
        }
    }
    let position = end(&events);
    let nobody = feed.document(&"nobody".into(), Some(&position)).await.unwrap();
    assert!(matches!(nobody, Reading::Unknown), "{nobody:?}");
}

pub async fn a_collection_is_named_once_and_a_later_one_too<S: Subject>() {
    let subject = S::start(&rows()).await;
    let store = subject.store(Mode::CatchUp);
    let mut said = store.collections(Mode::CatchUp, None);
    let first = said.next().await.unwrap().unwrap();
    assert!(matches!(&first, StoreEvent::Collection(name) if *name == shelf()), "{first:?}");
    let listed = said.next().await.unwrap().unwrap();
    assert!(matches!(listed, StoreEvent::Listed(_)), "{listed:?}");
    assert!(said.next().await.is_none());
    if !S::CAN.create {
        return;
    }
    let said = store.collections(Mode::Follow, None).filter_map(async |event| match event {
        Ok(StoreEvent::Collection(name)) => Some(name),
        Ok(_) => None,
        Err(error) => panic!("{error}"),
    });
    let mut said = std::pin::pin!(said);
    assert_eq!(said.next().await, Some(shelf()));
    subject.create("later").await;
    assert_eq!(said.next().await, Some("later".into()));
}

pub async fn growth_is_followed<S: Subject>() {
    if !S::CAN.follow {
        return;
    }
    let subject = S::start(&rows()).await;
    let store = subject.store(Mode::Follow);
    let mut feed = Heard::open(&*store, Since::Start, Mode::Follow);
    assert_eq!(newest(&feed.until("b").await), expected(&rows()));
    for id in ["e", "f"] {
        let new = [Row::live(id, "1-a", "")];
        subject.append(&new).await;
        assert_eq!(newest(&feed.until(id).await), expected(&new));
    }
}

pub async fn a_followed_feed_expires_when_it_is_replaced<S: Subject>() {
    if !S::CAN.swap {
        return;
    }
    let subject = S::start(&rows()).await;
    let store = subject.store(Mode::Follow);
    let mut feed = Heard::open(&*store, Since::Start, Mode::Follow);
    feed.until("b").await;
    subject.replace(&[Row::live("other", "1-a", "")]).await;
    let error = loop {
        match feed.next().await.expect("an error") {
            Ok(event) => assert!(!matches!(event, Event::Change(_)), "{event:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SourceError::Expired { .. }), "{error:?}");
    assert!(feed.next().await.is_none());
}

pub async fn what_is_not_there_is_missing<S: Subject>() {
    let Some(subject) = S::missing().await else { return };
    for mode in [Mode::CatchUp, Mode::Follow] {
        let said = Heard::open(&*subject.store(mode), Since::Start, mode).next().await;
        assert!(matches!(said, Some(Err(SourceError::Missing { .. }))), "{said:?}");
    }
}

/// Makes each contract a test of each subject.
macro_rules! suite {
    ($($module:ident: $subject:ty;)*) => { $(suite!(@ $module, $subject,
        it_has_the_interfaces_that_it_says,
        every_row_comes_in_order_and_then_the_end,
        a_body_is_what_the_source_holds,
        opened_at_any_position_a_feed_has_the_rest,
        with_nothing_new_only_the_end_is_said,
        what_is_new_comes_after_the_end,
        a_position_of_another_incarnation_is_never_continued,
        a_scan_is_the_whole_feed_between_its_marks,
        a_feed_that_is_cut_has_no_end,
        a_row_that_cannot_be_a_change_is_reported_and_passed,
        a_tombstone_may_have_a_body,
        attachments_arrive_byte_for_byte,
        a_document_is_read_in_its_newest_state,
        a_collection_is_named_once_and_a_later_one_too,
        growth_is_followed,
        a_followed_feed_expires_when_it_is_replaced,
        what_is_not_there_is_missing,
    );)* };
    (@ $module:ident, $subject:ty, $($contract:ident,)*) => {
        mod $module {
            $(#[tokio::test]
            async fn $contract() {
                super::suite::$contract::<$subject>().await;
            })*
        }
    };
}

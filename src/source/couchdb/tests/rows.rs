//! Reading single rows and documents.

use bytes::Bytes;

use super::super::origin::Origin;
use super::super::row::{self, Row};
use super::*;
use crate::document::DocumentId;
use crate::source::Reading;

fn read(text: &str) -> Row {
    row::read(&Bytes::copy_from_slice(text.as_bytes()), &Origin::counting(), || "here".into())
        .unwrap()
}

fn changed(text: &str) -> Change {
    match read(text) {
        Row::Change(change) => change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_order_of_keys_unknown_keys_and_repeated_keys_do_not_matter() {
    let change = changed(
        r#"{"x":{"id":"no"},"id":"wrong","doc":{"n":1,"_id":"a","_rev":"1-a"},"seq":1,
            "changes":[{"rev":"1-a","y":0}],"id":"a","seq":2}"#,
    );
    assert_eq!((change.id.as_str(), change.revision.as_str()), ("a", "1-a"));
    assert_eq!(change.position.unwrap().token(), "2");
}

#[test]
fn the_revision_is_the_bodys_and_the_anchor_the_rows() {
    let text =
        r#"{"seq":1,"id":"a","changes":[{"rev":"1-a"}],"doc":{"_id":"a","_rev":"2-b","x":1}}"#;
    let change = changed(text);
    assert_eq!(change.revision.as_str(), "2-b");
    assert_eq!(change.position.unwrap().anchor().unwrap().revision.as_str(), "1-a");
}

#[test]
fn the_other_leaves_are_told_unless_the_body_is_newer_than_its_row() {
    let row = |own: &str| {
        changed(&format!(
            r#"{{"id":"a","changes":[{{"rev":"3-l"}},{{"rev":"3-w"}},{{"rev":"2-d"}}],"doc":{{"_id":"a","_rev":"{own}"}}}}"#
        ))
    };
    let mut others = row("3-w").others.unwrap();
    others.sort();
    assert_eq!(others, ["2-d".into(), "3-l".into()]);
    assert!(row("4-n").others.is_none());
}

#[test]
fn a_body_is_a_slice_of_its_row() {
    let text = r#"{"id":"a","changes":[{"rev":"1-a"}],"doc":{"_id":"a","n":1e400,"n":1.0}}"#;
    let row = Bytes::copy_from_slice(text.as_bytes());
    let Row::Change(change) = row::read(&row, &Origin::counting(), String::new).unwrap() else {
        panic!("no change")
    };
    let DocumentState::Present(document) = change.state else { panic!("deleted") };
    assert_eq!(&document.body[..], br#"{"_id":"a","n":1e400,"n":1.0}"#);
    assert_eq!(document.body.as_ptr(), row[text.find(r#"{"_id""#).unwrap()..].as_ptr());
}

#[test]
fn only_a_key_at_the_top_of_a_body_names_attachments_or_a_deletion() {
    let text = r#"{"id":"a","changes":[{"rev":"1-a"}],
        "doc":{"x":{"_attachments":{"no":{}},"_deleted":true},"y":"\"_attachments\"","_id":"a"}}"#;
    let DocumentState::Present(document) = changed(text).state else { panic!("deleted") };
    assert!(document.attachments.is_empty());
}

#[test]
fn behind_a_key_that_is_no_text_attachments_are_found() {
    let text = r#"{"id":"a","changes":[{"rev":"1-a"}],"doc":{"\ud800":1,
        "_attachments":{"f":{"digest":"md5-x","length":3,"stub":true}},"_id":"a","_rev":"1-a"}}"#;
    let DocumentState::Present(document) = changed(text).state else { panic!("deleted") };
    assert_eq!(document.attachments.len(), 1);
}

#[test]
fn a_tombstone_may_have_a_body_or_none() {
    let with = r#"{"id":"a","changes":[{"rev":"2-a"}],"deleted":true,"doc":{"_id":"a","_deleted":true,"why":1}}"#;
    let without = r#"{"id":"a","changes":[{"rev":"2-a"}],"deleted":true,"doc":null}"#;
    assert!(matches!(changed(with).state, DocumentState::Deleted(Some(_))));
    assert!(matches!(changed(without).state, DocumentState::Deleted(None)));
}

#[test]
fn the_end_of_a_feed_is_told_from_a_row_and_from_an_error() {
    assert!(
        matches!(read(r#"{"last_seq":"3-x","pending":0}"#), Row::End(Some(seq)) if &*seq == "\"3-x\"")
    );
    assert!(matches!(read(r#"{"last_seq":null}"#), Row::End(None)));
    assert!(matches!(read(r#"{"error":"x","reason":"y"}"#), Row::Failure { .. }));
    assert!(matches!(read(r#"{}"#), Row::Unreadable(_)));
    let bad = Bytes::from_static(b"{\"id\":}");
    assert!(row::read(&bad, &Origin::counting(), String::new).is_err());
}

#[tokio::test]
async fn a_document_is_read_apart_from_the_feed() {
    let line = "POST /shelf/_all_docs?include_docs=true&att_encoding_info=true";
    let rows = [
        r#"{"id":"a","key":"a","value":{"rev":"2-a"},"doc":{"_id":"a","_rev":"2-a","n":1.0}}"#,
        r#"{"id":"a","key":"a","value":{"rev":"3-a","deleted":true},"doc":null}"#,
        r#"{"key":"a","error":"not_found"}"#,
        r#"{"id":"a","key":"a","value":{"rev":"2-a"},"doc":null}"#,
    ];
    let answers = rows.map(|row| Answer::json(line, format!(r#"{{"rows":[{row}]}}"#)));
    let replay = Replay::new(answers.into()).await;
    let (source, id) = (source(&replay), DocumentId::from("a"));
    let Ok(Reading::Found(change)) = source.document(&id, None).await else { panic!("no change") };
    assert_eq!((change.revision.as_str(), change.is_deletion()), ("2-a", false));
    assert!(change.position.is_none());
    let Ok(Reading::Found(change)) = source.document(&id, None).await else { panic!("no change") };
    assert_eq!((change.revision.as_str(), change.is_deletion()), ("3-a", true));
    assert!(matches!(source.document(&id, None).await, Ok(Reading::Unknown)));
    let lagging = source.document(&id, None).await;
    assert!(matches!(lagging, Err(SourceError::Transient { .. })), "{lagging:?}");
}

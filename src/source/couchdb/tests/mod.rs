//! What the CouchDB source promises, against recorded and made answers of servers.

mod attachments;
mod broken;
mod feed;
mod following;
mod resume;
mod rows;
mod store;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::replay::{Answer, Replay, recording};
use super::*;
use crate::client::couchdb::Address;
use crate::document::{Anchor, Change, DocumentState, Position};
use crate::source::{Behind, Feed, FeedEvent, Holds, Mode, Since, SourceError, Store};

/// The requests of a catch-up.
const CATCH_UP: &str =
    "GET /shelf/_changes?include_docs=true&att_encoding_info=true&seq_interval=1000";

/// The same of a server whose places are numbers.
const NUMBERED: &str = "GET /shelf/_changes?include_docs=true&att_encoding_info=true";

const NEWEST: &str = "POST /shelf/_all_docs";
const REVS_DIFF: &str = "POST /shelf/_revs_diff";

/// Longer than any test takes.
const FOREVER: Duration = Duration::from_secs(3600);

/// Timings with which no test waits and none runs out.
fn timings() -> Timings {
    Timings {
        quiet: FOREVER,
        check: FOREVER,
        reopen: Duration::ZERO,
        poll: Duration::ZERO,
        lag: [Duration::ZERO; 3],
        ..Timings::default()
    }
}

fn store(replay: &Replay, path: &str, timings: Timings) -> CouchStore {
    let url = replay.url("me:hunter2@", path);
    let options = CouchOptions::of(Address::parse(&url).unwrap());
    CouchStore::new(CouchOptions { timings, ..options }).unwrap()
}

/// The source of `shelf`.
fn source(replay: &Replay) -> Arc<dyn Feed> {
    store(replay, "/shelf", timings()).open(&"shelf".into())
}

/// All that a feed says until it ends, and the error that ended it.
async fn all(
    source: &Arc<dyn Feed>,
    since: Since,
    mode: Mode,
) -> (Vec<FeedEvent>, Option<SourceError>) {
    let mut feed = source.changes(since, mode);
    let mut events = Vec::new();
    while let Some(event) = feed.next().await {
        match event {
            Ok(event) => events.push(event),
            Err(error) => {
                assert!(feed.next().await.is_none(), "the feed went on after {error}");
                return (events, Some(error));
            }
        }
    }
    (events, None)
}

/// All that a catch-up says, in short.
async fn caught_up(source: &Arc<dyn Feed>, since: Since) -> Vec<String> {
    let (events, error) = all(source, since, Mode::CatchUp).await;
    assert!(error.is_none(), "{error:?}");
    events.iter().map(short).collect()
}

/// The error that ends a catch-up.
async fn failure(source: &Arc<dyn Feed>, since: Since) -> SourceError {
    all(source, since, Mode::CatchUp).await.1.expect("the feed should fail")
}

/// The reason for which a position is of no use.
async fn expiry(source: &Arc<dyn Feed>, position: Position) -> String {
    match failure(source, Since::Position(position)).await {
        SourceError::Expired { reason } => reason,
        other => panic!("not expired: {other:?}"),
    }
}

/// An event in a few words.
fn short(event: &FeedEvent) -> String {
    let place = |position: &Position| {
        position.token().trim_matches('"').split('-').next().unwrap().to_owned()
    };
    match event {
        FeedEvent::Change(change) => {
            let at = change.position.as_ref().map(|position| format!(" @{}", place(position)));
            let gone = if change.is_deletion() { " gone" } else { "" };
            let revision: String = change.revision.as_str().chars().take(6).collect();
            format!("{} {revision}{gone}{}", change.id, at.unwrap_or_default())
        }
        FeedEvent::Unreadable(row) => {
            let id = row.id.as_ref().map_or("?", |id| id.as_str());
            format!("unreadable {id}: {}", row.reason)
        }
        FeedEvent::Position(position) => format!("position {}", place(position)),
        FeedEvent::ScanStarted { reason } => format!("scan started: {reason}"),
        FeedEvent::ScanFinished { position, exhaustive } => {
            format!("scan finished {} {exhaustive}", place(position))
        }
        FeedEvent::Holds(Holds { documents, tombstones }) => {
            format!("holds {} and {}", documents.unwrap(), tombstones.unwrap())
        }
        FeedEvent::CaughtUp => "caught up".to_owned(),
        FeedEvent::Progress(progress) => format!("{}/{}", progress.done, progress.total),
    }
}

/// The position before the last event, which a catch-up ends with; the counts may stand between.
fn end(events: &[FeedEvent]) -> Position {
    match events.iter().rev().skip(1).find(|event| !matches!(event, FeedEvent::Holds(_))) {
        Some(FeedEvent::Position(position) | FeedEvent::ScanFinished { position, .. }) => {
            position.clone()
        }
        other => panic!("no position at the end: {other:?}"),
    }
}

fn change<'a>(events: &'a [FeedEvent], id: &str) -> &'a Change {
    let found = events.iter().find_map(|event| match event {
        FeedEvent::Change(change) if change.id.as_str() == id => Some(change),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no change of {id}"))
}

/// A position of a server whose places are numbers.
fn numbered(token: &str, id: &str, revision: &str) -> Position {
    let anchor = Anchor { id: id.into(), revision: revision.into() };
    Position::new(token, "{}".into(), Some(anchor))
}

/// `GET /shelf` as CouchDB answers, with these parts of it replaced.
fn database(replacements: &[(&str, &str)]) -> Answer {
    let recorded = String::from_utf8(recording("database")).unwrap();
    let mut body = recorded.split_once("\r\n\r\n").unwrap().1.to_owned();
    for (from, to) in replacements {
        assert!(body.contains(from));
        body = body.replace(from, to);
    }
    Answer::json("GET /shelf", body)
}

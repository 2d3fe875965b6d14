//! The events of all mirrors, asked for without a socket.

use std::io::Write as _;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::api::mirrors::tests::{Kept, entry};
use crate::api::tests::rows;
use crate::config::file::AgentConfig;

/// A stream of lines that is being read.
struct Lines {
    pieces: BodyDataStream,
    read: String,
}

impl Lines {
    async fn of(kept: &Kept, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = Request::builder().uri(format!("/v1/events{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = kept.routes.clone().oneshot(request.body(Body::empty()).unwrap()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        Self { pieces: answer.into_body().into_data_stream(), read: String::new() }
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.read.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.read = rest;
                return Some(line);
            }
            let piece = tokio::time::timeout(Duration::from_secs(60), self.pieces.next()).await;
            self.read += str::from_utf8(&piece.expect("nothing more comes")?.unwrap()).unwrap();
        }
    }

    /// The next events, as mirror and number, and the position after them.
    async fn events(&mut self, count: usize) -> (Vec<(String, u64)>, String) {
        let mut events = Vec::new();
        loop {
            let line: Value = serde_json::from_str(&self.next().await.unwrap()).unwrap();
            match line["resume"].as_str() {
                Some(position) if events.len() == count => return (events, position.to_owned()),
                Some(_) => {}
                None => {
                    let mirror = line["mirror"].as_str().unwrap().to_owned();
                    events.push((mirror, line["event"].as_u64().unwrap()));
                    assert!(line["documentId"].is_string(), "{line}");
                }
            }
        }
    }
}

fn append(kept: &Kept, documents: &[(&str, &str)]) {
    let feed = kept.dir.path().join("feed.ndjson");
    let mut feed = std::fs::OpenOptions::new().append(true).open(feed).unwrap();
    feed.write_all(rows(documents).as_bytes()).unwrap();
}

fn of(mirror: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<(String, u64)> {
    numbers.map(|number| (mirror.to_owned(), number)).collect()
}

#[tokio::test]
async fn mirrors_join_the_stream_and_a_client_resumes_at_the_position_of_all() {
    let kept = Kept::with(&rows(&[("a", "1"), ("a", "2"), ("a", "3")])).await;
    let mut stream = Lines::of(&kept, "?since=start", &[]).await;
    let (events, position) = stream.events(3).await;
    assert_eq!((events, &*position), (of("live", 1..=3), "live:3"));
    // A mirror without a position begins with its oldest event, as soon as it is at work.
    kept.post("/v1/mirrors/later/start").await;
    let (events, position) = stream.events(3).await;
    assert_eq!((events, &*position), (of("later", 1..=3), "later:3,live:3"));
    drop(stream);
    append(&kept, &[("a", "4")]);
    let mut stream = Lines::of(&kept, "?since=later:3,live:2", &[]).await;
    let (events, position) = stream.events(2).await;
    assert_eq!((events, &*position), (of("live", 3..=4), "later:3,live:4"));
    // From now on: what was written while the other mirror was at rest comes when it runs.
    let mut stream = Lines::of(&kept, "", &[]).await;
    let (events, position) = stream.events(0).await;
    assert_eq!((events, &*position), (vec![], "later:3,live:4"));
    kept.post("/v1/mirrors/later/start").await;
    assert_eq!(stream.events(1).await.0, of("later", 4..=4));
    // The end of the agent is that of the stream.
    kept.agent.stop().await;
    while let Some(line) = stream.next().await {
        assert!(line.contains("resume"), "{line}");
    }
}

#[tokio::test]
async fn a_mirror_that_a_reload_adds_joins_the_stream_and_one_that_it_removes_does_not_end_it() {
    let mut kept = Kept::with(&rows(&[("a", "1")])).await;
    let mut stream = Lines::of(&kept, "", &[]).await;
    assert_eq!(stream.events(0).await.1, "later:1,live:1");
    let path = kept.dir.path().join("plainfold.toml");
    let config = AgentConfig::parse(&entry("new", ""), &path).unwrap();
    kept.agent.reload(config);
    assert_eq!(stream.events(1).await.0, of("new", 1..=1));
    append(&kept, &[("a", "2")]);
    assert_eq!(stream.events(1).await.0, of("new", 2..=2));
    kept.agent.stop().await;
}

#[tokio::test]
async fn events_are_selected_by_mirror_collection_and_id_and_have_positions_as_ids() {
    let kept = Kept::with(&rows(&[("a", "1"), ("a", "2")])).await;
    let sse = [("accept", "text/event-stream"), ("last-event-id", "live:0")];
    let mut stream = Lines::of(&kept, "?mirror=none*&mirror=li%3Fe&collection=a&id=2", &sse).await;
    let mut events = Vec::new();
    while events.last().is_none_or(|(name, _): &(String, _)| name != "written") {
        let (mut name, mut id) = (None, None);
        while let Some(line) = stream.next().await.filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once(": ").unwrap();
            match key {
                "event" => name = Some(value.to_owned()),
                "id" => id = Some(value.to_owned()),
                _ => {}
            }
        }
        events.push((name.unwrap(), id.unwrap()));
    }
    let pair = |name: &str, id: &str| (name.to_owned(), id.to_owned());
    assert_eq!(events, [pair("resume", "live:0"), pair("written", "live:2")]);

    let refuse =
        async |query: &str, status| kept.get(&format!("/v1/events{query}")).await.problem(status);
    assert_eq!(refuse("?mirror=none", 404).await["type"], "urn:plainfold:problem:no-mirror");
    for wrong in ["since=5", "since=live:x", "since=live:1,,", "since=A:1", "mirror=%5B", "id=%5B"]
    {
        refuse(&format!("?{wrong}"), 400).await;
    }
    kept.agent.stop().await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_keeps_no_mirror_open() {
    let ids: Vec<_> = (0..500).map(|number| format!("d{number}")).collect();
    let documents: Vec<_> = ids.iter().map(|id| ("a", id.as_str())).collect();
    let kept = Kept::with(&rows(&documents)).await;
    let mut unread = Lines::of(&kept, "?since=start", &[]).await;
    let roster = kept.agent.roster();
    let live = roster.get(&"live".parse().unwrap()).unwrap();
    let closed = live.watcher().unwrap().closed();
    kept.agent.stop().await;
    closed.await;
    let mut count = 0;
    while unread.next().await.is_some() {
        count += 1;
    }
    assert!((1..500).contains(&count), "{count}");
}

#[test]
fn a_long_position_is_no_id_and_is_read_all_the_same() {
    let long: Places =
        (0..1_000).map(|number| (format!("mirror-{number}").parse().unwrap(), number)).collect();
    let text = text(&long);
    assert!(text.len() > SHORT && text.len() < LONGEST);
    assert_eq!(position(&text).unwrap(), long);
    assert!(position("start").unwrap().is_empty());
    assert!(position(&"a:1,".repeat(LONGEST)).is_err());
    assert_eq!(json!(position("a:1,b:2").unwrap()), json!({ "a": 1, "b": 2 }));
}

//! A server in the suite: a fake that answers as CouchDB does, with one database in memory.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use futures_util::stream;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::suite::{Can, Row, Subject};
use crate::client::couchdb::Address;
use crate::source::couchdb::{CouchOptions, CouchStore, Timings};
use crate::source::{Mode, Store};

/// A server that is a fake.
pub struct Couch {
    data: Arc<watch::Sender<Data>>,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

#[derive(Clone, Default)]
struct Data {
    incarnation: u64,
    /// All updates, in order.
    updates: Vec<Row>,
    /// The documents whose rows are spoilt.
    spoilt: BTreeSet<&'static str>,
    is_cut: bool,
    databases: BTreeSet<String>,
}

type Shared = State<Arc<watch::Sender<Data>>>;
type Answer = (StatusCode, Body);

impl Data {
    /// The last update of each document, with its number.
    fn newest(&self) -> impl Iterator<Item = (usize, &Row)> {
        let is_last =
            |(n, row): &(usize, &Row)| self.updates[n + 1..].iter().all(|later| later.id != row.id);
        self.updates.iter().enumerate().filter(is_last).map(|(n, row)| (n + 1, row))
    }

    fn find(&self, id: &str) -> Option<&Row> {
        self.updates.iter().rev().find(|row| row.id == id)
    }

    /// The rows of a feed after this number.
    fn rows(&self, since: usize) -> Vec<String> {
        let row = |(n, row): (usize, &Row)| {
            let deleted = if row.deleted { ",\"deleted\":true" } else { "" };
            let (id, revision) = (json!(row.id), json!(row.revision));
            let doc = match self.spoilt.contains(row.id) {
                true => "{\"_id\":\"another\"}".to_owned(),
                false => row.body(false),
            };
            format!(
                "{{\"seq\":\"{n}-x\",\"id\":{id},\"changes\":[{{\"rev\":{revision}}}]{deleted},\"doc\":{doc}}}"
            )
        };
        self.newest().filter(|(n, _)| *n > since).map(row).collect()
    }

    fn info(&self) -> Value {
        let dead = self.newest().filter(|(_, row)| row.deleted).count();
        json!({
            "db_name": "shelf", "update_seq": format!("{}-x", self.updates.len()),
            "purge_seq": "0", "doc_count": self.newest().count() - dead, "doc_del_count": dead,
            "instance_start_time": (1 + self.incarnation).to_string(), "disk_format_version": 8,
            "sizes": {"external": 0, "active": 0, "file": 0}, "props": {},
        })
    }
}

impl Couch {
    fn change(&self, change: impl FnOnce(&mut Data)) {
        self.data.send_modify(change);
    }

    async fn serving(data: Data) -> Self {
        let data = Arc::new(watch::Sender::new(data));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router =
            Router::new().fallback(axum::routing::any(answer)).with_state(Arc::clone(&data));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { data, address, _serving: serving }
    }
}

impl Subject for Couch {
    const CAN: Can = Can::EVERYTHING;

    async fn start(rows: &[Row]) -> Self {
        let databases = BTreeSet::from(["shelf".to_owned()]);
        Self::serving(Data { updates: rows.to_vec(), databases, ..Data::default() }).await
    }

    fn store(&self, _: Mode) -> Arc<dyn Store> {
        let mut options =
            CouchOptions::of(Address::parse(&format!("http://{}", self.address)).unwrap());
        let [soon, now] = [Duration::from_millis(10), Duration::ZERO];
        options.timings =
            Timings { quiet: soon, check: soon, reopen: now, poll: soon, ..Timings::default() };
        Arc::new(CouchStore::new(options).unwrap())
    }

    async fn append(&self, rows: &[Row]) {
        self.change(|data| data.updates.extend_from_slice(rows));
    }

    async fn replace(&self, rows: &[Row]) {
        self.change(|data| {
            data.incarnation += 1;
            data.updates = rows.to_vec();
        });
    }

    async fn cut(&self) {
        self.change(|data| data.is_cut = true);
    }

    async fn spoil(&self, id: &'static str, revision: &'static str) {
        self.change(|data| {
            data.spoilt.insert(id);
            data.updates.push(Row { id, revision, ..Row::default() });
        });
    }

    async fn create(&self, name: &str) {
        self.change(|data| data.databases.extend([name.to_owned()]));
    }

    async fn missing() -> Option<Self> {
        Some(Self::serving(Data::default()).await)
    }
}

/// Answers one request.
async fn answer(
    State(shared): Shared,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Answer {
    let data = shared.borrow().clone();
    let path = percent_decode_str(uri.path().trim_start_matches('/')).decode_utf8().unwrap();
    if path == "_all_dbs" {
        return ok(json!(data.databases));
    }
    let (name, rest) = path.split_once('/').unwrap_or((&path, ""));
    if !data.databases.contains(name) {
        let missing = json!({"error": "not_found", "reason": "Database does not exist."});
        return (StatusCode::NOT_FOUND, missing.to_string().into());
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    match (method, rest) {
        (Method::GET, "") => ok(data.info()),
        (Method::GET, "_changes") => (StatusCode::OK, changes(&shared, &query)),
        (Method::GET, "_revs_limit") => ok(json!(1000)),
        (Method::POST, "_revs_diff") => {
            let knows = |id: &str, revision: &str| {
                data.updates.iter().any(|row| row.id == id && row.revision == revision)
            };
            let missing = |(id, revisions): (&String, &Value)| {
                let revisions = revisions.as_array().unwrap().iter();
                let missing: Vec<_> =
                    revisions.filter(|one| !knows(id, one.as_str().unwrap())).collect();
                (!missing.is_empty()).then(|| (id.clone(), json!({ "missing": missing })))
            };
            ok(asked.as_object().unwrap().iter().filter_map(missing).collect())
        }
        (Method::POST, "_all_docs") => {
            let row = |id: &Value| match data.find(id.as_str().unwrap()) {
                None => format!("{{\"key\":{id},\"error\":\"not_found\"}}"),
                Some(row) => {
                    let (doc, deleted) = match row.deleted {
                        true => ("null".to_owned(), ",\"deleted\":true"),
                        false => (row.body(false), ""),
                    };
                    let revision = json!(row.revision);
                    format!(
                        "{{\"id\":{id},\"key\":{id},\"value\":{{\"rev\":{revision}{deleted}}},\"doc\":{doc}}}"
                    )
                }
            };
            let rows: Vec<_> = asked["keys"].as_array().unwrap().iter().map(row).collect();
            (StatusCode::OK, format!("{{\"rows\":[{}]}}", rows.join(",")).into())
        }
        (Method::GET, path) => {
            let (id, name) = path.split_once('/').unwrap_or((path, ""));
            let row = data.find(id).unwrap();
            let bytes = row.attachments.iter().find(|one| one.0 == name).unwrap().1.clone();
            (StatusCode::OK, bytes.into())
        }
        (method, rest) => {
            let what = json!({"error": "unknown", "reason": format!("{method} {rest}")});
            (StatusCode::NOT_IMPLEMENTED, what.to_string().into())
        }
    }
}

/// A feed: to its end, or as long as the database is the same.
fn changes(shared: &watch::Sender<Data>, query: &HashMap<String, String>) -> Body {
    let since = query.get("since").map_or(0, |since| since.trim_end_matches("-x").parse().unwrap());
    let data = shared.borrow().clone();
    if query.get("feed").is_none_or(|feed| feed != "continuous") {
        let (rows, end) = (data.rows(since).join(",\n"), data.updates.len());
        let mut text =
            format!("{{\"results\":[\n{rows}\n],\n\"last_seq\":\"{end}-x\",\"pending\":0}}\n");
        if data.is_cut {
            text.truncate(text.rfind("]").unwrap() - 9);
        }
        return text.into();
    }
    let begun = data.incarnation;
    let state = (shared.subscribe(), since, true);
    let pieces = stream::unfold(state, move |(mut changed, told, is_first)| async move {
        // A line that is empty is a heartbeat.
        let waited = tokio::time::timeout(Duration::from_millis(20), changed.changed()).await;
        if !is_first && matches!(waited, Ok(Err(_))) {
            return None;
        }
        let data = changed.borrow_and_update().clone();
        if data.incarnation != begun {
            return None;
        }
        let mut text: String = data.rows(told).into_iter().map(|row| row + "\n").collect();
        text.push('\n');
        let piece = Ok::<_, std::io::Error>(text);
        Some((piece, (changed, data.updates.len(), false)))
    });
    Body::from_stream(pieces)
}

fn ok(body: Value) -> Answer {
    (StatusCode::OK, body.to_string().into())
}

//! A server in the suite: a fake that answers as CouchDB does, with databases in memory.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::store::{Database, Document, REFUSED};
use super::{Seen, Subject, seen};
use crate::client::couchdb::{Address, Client, ClientOptions};
use crate::document::CollectionName;
use crate::restore::{Cause, CouchTarget};

type Databases = Arc<Mutex<BTreeMap<String, Database>>>;

type Answer = (StatusCode, String);

/// A server that is a fake.
pub struct Couch {
    databases: Databases,
    address: SocketAddr,
    target: CouchTarget,
    _serving: JoinSet<()>,
}

fn target(url: &str) -> CouchTarget {
    let given = Address::parse(url).unwrap();
    let options = ClientOptions { credentials: given.credentials, ..ClientOptions::default() };
    CouchTarget::new(Client::new(given.address, options).unwrap())
}

impl Subject for Couch {
    type Target = CouchTarget;

    async fn start() -> Self {
        let databases = Databases::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", axum::routing::get(async || r#"{"couchdb":"Welcome"}"#))
            .fallback(axum::routing::any(answer))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&databases));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let target = target(&format!("http://{address}"));
        Self { databases, address, target, _serving: serving }
    }

    fn target(&self) -> &CouchTarget {
        &self.target
    }

    fn refuses(&self) -> Option<&'static str> {
        Some(REFUSED)
    }

    async fn broken(&self) -> Vec<(CouchTarget, Cause)> {
        // The database does not exist.
        let missing = target(&format!("http://{}", self.address));
        let refused = target(&format!("http://me:wrong@{}", self.address));
        vec![(missing, Cause::Unusable), (refused, Cause::Credentials)]
    }

    async fn look(&self, collection: &CollectionName) -> Seen {
        let databases = self.databases.lock().unwrap();
        let winners = databases[collection.as_str()].documents.values().map(Document::winner);
        seen(winners.filter(|winner| !winner.deleted).map(|winner| winner.body).collect())
    }
}

/// Answers one request.
async fn answer(
    State(databases): State<Databases>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    if headers.contains_key(header::AUTHORIZATION) {
        return error(StatusCode::UNAUTHORIZED, "unauthorized", "Name or password is incorrect.");
    }
    let path = percent_decode_str(uri.path().trim_start_matches('/')).decode_utf8().unwrap();
    let (name, rest) = path.split_once('/').unwrap_or((&path, ""));
    let mut databases = databases.lock().unwrap();
    if method == Method::PUT && rest.is_empty() {
        if databases.contains_key(name) {
            return error(StatusCode::PRECONDITION_FAILED, "file_exists", "It exists.");
        }
        databases.insert(name.to_owned(), Database::default());
        return ok(json!({"ok": true}));
    }
    let Some(database) = databases.get_mut(name) else {
        return error(StatusCode::NOT_FOUND, "not_found", "Database does not exist.");
    };
    if let Some(content_type) = headers.get(header::CONTENT_TYPE)
        && let Some((_, boundary)) = content_type.to_str().unwrap().split_once("boundary=")
    {
        return put(database, &body, boundary.trim_matches('"'));
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let texts = |key: &str| -> Vec<String> {
        serde_json::from_value(asked[key].clone()).unwrap_or_default()
    };
    match (method, rest) {
        (Method::GET, "") => {
            let count = database.documents.len();
            ok(json!({"db_name": name, "update_seq": count.to_string(), "doc_count": count}))
        }
        (Method::GET, "_security") => ok(database.security.clone().unwrap_or(json!({}))),
        (Method::PUT, "_security") => {
            database.security = Some(asked);
            ok(json!({"ok": true}))
        }
        (Method::GET, "_all_docs") => {
            let from: String = query
                .get("startkey")
                .map_or_else(String::new, |key| serde_json::from_str(key).unwrap());
            let limit = query["limit"].parse().unwrap();
            let listed =
                database.documents.range(from..).map(|(id, one)| row(id, Some(one), false));
            let listed = listed.filter(|row| row["value"]["deleted"] != true).take(limit);
            ok(json!({"rows": listed.collect::<Vec<_>>()}))
        }
        (Method::POST, "_all_docs") => {
            let conflicts = query.contains_key("conflicts");
            let rows = texts("keys");
            let rows = rows.iter().map(|id| row(id, database.documents.get(id), conflicts));
            ok(json!({"rows": rows.collect::<Vec<_>>()}))
        }
        (Method::POST, "_changes") => {
            let changes = |id: String| {
                let winner = database.documents.get(&id)?.winner();
                let leaves = [vec![winner.revision], winner.live, winner.dead].concat();
                let leaves: Vec<_> = leaves.iter().map(|leaf| json!({"rev": leaf})).collect();
                Some(json!({"seq": 1, "id": id, "changes": leaves}))
            };
            let rows: Vec<_> = texts("doc_ids").into_iter().filter_map(changes).collect();
            ok(json!({"results": rows, "last_seq": 1}))
        }
        (Method::POST, "_revs_diff") => {
            let missing = |(id, revisions): (String, Vec<String>)| {
                let unknown = |revision: &String| {
                    database.documents.get(&id).is_none_or(|document| !document.knows(revision))
                };
                let missing: Vec<_> = revisions.into_iter().filter(unknown).collect();
                (!missing.is_empty()).then(|| (id, json!({"missing": missing})))
            };
            let asked: HashMap<String, Vec<String>> = serde_json::from_value(asked).unwrap();
            ok(Value::Object(asked.into_iter().filter_map(missing).collect()))
        }
        (Method::POST, "_bulk_docs") => {
            let write = |body: Value| {
                let (id, rev) = (body["_id"].clone(), body["_rev"].clone());
                let refused = database.write(body).err()?;
                Some(json!({"id": id, "rev": rev, "error": "forbidden", "reason": refused}))
            };
            let docs: Vec<Value> = serde_json::from_value(asked["docs"].clone()).unwrap();
            ok(docs.into_iter().filter_map(write).collect())
        }
        (method, rest) => {
            let what = format!("The fake does not know {method} {rest}.");
            error(StatusCode::NOT_IMPLEMENTED, "unknown", &what)
        }
    }
}

/// A document in parts: its text, and its attachments in their order.
fn put(database: &mut Database, body: &[u8], boundary: &str) -> Answer {
    let mark = format!("--{boundary}");
    let parts: Vec<usize> = memmem::find_iter(body, mark.as_bytes()).collect();
    let mut parts = parts.windows(2).map(|ends| {
        let part = &body[ends[0] + mark.len() + 2..ends[1] - 2];
        &part[memmem::find(part, b"\r\n\r\n").unwrap() + 4..]
    });
    let text = parts.next().unwrap();
    let mut document: Value = serde_json::from_slice(text).unwrap();
    let mut following: Vec<_> = document["_attachments"]
        .as_object_mut()
        .unwrap()
        .iter_mut()
        .filter(|(_, attachment)| attachment["follows"] == true)
        .collect();
    // A parsed object does not keep the order of its members, which is the order of the parts.
    let place = |name: &str| memmem::find(text, json!(name).to_string().as_bytes());
    following.sort_by_key(|(name, _)| place(name));
    for ((_, attachment), bytes) in following.into_iter().zip(parts) {
        assert_eq!(attachment["length"], bytes.len());
        *attachment = json!({"data": STANDARD.encode(bytes)});
    }
    let revision = document["_rev"].clone();
    match database.write(document) {
        Ok(()) => ok(json!({"ok": true, "rev": revision})),
        Err(reason) => error(StatusCode::FORBIDDEN, "forbidden", &reason),
    }
}

/// A row of `_all_docs`.
fn row(id: &str, document: Option<&Document>, conflicts: bool) -> Value {
    let Some(document) = document else { return json!({"key": id, "error": "not_found"}) };
    let winner = document.winner();
    let mut row = json!({"id": id, "key": id, "value": {"rev": winner.revision}});
    if winner.deleted {
        row["value"]["deleted"] = json!(true);
        row["doc"] = Value::Null;
    } else if conflicts {
        row["doc"] = json!({"_id": id, "_rev": winner.revision, "_conflicts": winner.live});
    }
    row
}

fn ok(body: Value) -> Answer {
    (StatusCode::OK, body.to_string())
}

fn error(status: StatusCode, error: &str, reason: &str) -> Answer {
    (status, json!({"error": error, "reason": reason}).to_string())
}

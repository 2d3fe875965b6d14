//! A real pouchdb-server, installed once into `target/test-servers`, started for one test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::http::{self, Answer};
use super::npm;
use super::{DEADLINE, Place};

/// The server, and what lets it keep databases on disk. The latter is an optional dependency of the
/// former, together with another that would have to be compiled.
const PACKAGES: [&str; 2] = ["pouchdb-server@4.2.0", "pouchdb-adapter-leveldb@7.3.1"];

/// Ends the server when the test's end of its standard input closes, even if the test is killed.
const END_WITH_PARENT: &str = "process.stdin.on('end', () => process.exit(0)).resume();\n";

/// What CouchDB 3 does with `require_valid_user`, and this server does not: requests without credentials
/// are refused. (The server judges credentials itself.) And a continuous feed ends when nothing has come for
/// the `timeout` that was asked for.
const LIKE_COUCHDB: &str = r#"
const { emit } = require('http').Server.prototype;
require('http').Server.prototype.emit = function (event, request, answer) {
  const open = event !== 'request' || request.headers.authorization || request.headers.cookie;
  if (!open && request.url !== '/_session') {
    answer.writeHead(401, { 'Content-Type': 'application/json', 'WWW-Authenticate': 'Basic realm="server"' });
    answer.end('{"error":"unauthorized","reason":"Authentication required."}\n');
    return true;
  }
  const asked = event === 'request' ? new URL(request.url, 'http://server').searchParams : new Map();
  if (asked.get('feed') === 'continuous' && asked.has('timeout')) {
    const { write } = answer;
    const end = () => answer.end('{"last_seq":0,"pending":0}\n');
    let silence = setTimeout(end, Number(asked.get('timeout')));
    answer.write = function () {
      clearTimeout(silence);
      silence = setTimeout(end, Number(asked.get('timeout')));
      return write.apply(this, arguments);
    };
  }
  return emit.apply(this, arguments);
};
"#;

/// How many free ports are tried: another process may take one before the server does.
const PORTS_TRIED: usize = 5;

/// Where databases live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Lost when the server stops.
    Memory,
    /// Kept by [`PouchServer::stop`] and found again by [`PouchServer::start_again`].
    Disk,
}

/// A running server. Ended by its own process id when dropped.
pub struct PouchServer {
    process: Option<Child>,
    port: u16,
    place: Place,
    storage: Storage,
    admin: Option<(String, String)>,
    /// Whether requests without credentials are refused.
    closed: bool,
}

impl PouchServer {
    /// Without an admin, in memory.
    pub fn start() -> Self {
        Self::start_with(Storage::Memory, None, false)
    }

    /// With databases on disk, so that they outlive a restart.
    pub fn start_on_disk() -> Self {
        Self::start_with(Storage::Disk, None, false)
    }

    /// With an admin.
    ///
    /// Only the members of a database may then read it, but everybody may list the databases. An
    /// attempt to create one without credentials kills this server.
    pub fn start_with_admin(name: &str, password: &str) -> Self {
        Self::start_with(Storage::Memory, Some((name.to_owned(), password.to_owned())), false)
    }

    /// With an admin, and closed to everybody who gives no credentials.
    pub fn start_closed(name: &str, password: &str) -> Self {
        Self::start_with(Storage::Memory, Some((name.to_owned(), password.to_owned())), true)
    }

    fn start_with(storage: Storage, admin: Option<(String, String)>, closed: bool) -> Self {
        let place = Place::new();
        let uuid = place.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut config = json!({"couchdb": {"uuid": uuid}});
        if let Some((name, password)) = &admin {
            config["admins"][name] = json!(password);
        }
        fs::write(place.join("config.json"), config.to_string()).unwrap();
        fs::write(place.join("end-with-parent.js"), END_WITH_PARENT).unwrap();
        fs::write(place.join("like-couchdb.js"), LIKE_COUCHDB).unwrap();
        let mut server = Self { process: None, port: 0, place, storage, admin, closed };
        for _ in 0..PORTS_TRIED {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("pouchdb-server starts on none of {PORTS_TRIED} ports: {}", server.output());
    }

    /// Starts again on the same port, with what its disk holds.
    pub fn start_again(&mut self) {
        self.stop();
        let deadline = Instant::now() + DEADLINE;
        while !self.launch() {
            assert!(Instant::now() < deadline, "it does not start again: {}", self.output());
        }
    }

    /// Ends the server, as a power cut would.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The server's URL with the admin's credentials, without a path.
    pub fn url(&self) -> String {
        self.url_through(self.address())
    }

    /// The same server by way of another address, such as a proxy's.
    pub fn url_through(&self, address: SocketAddr) -> String {
        match &self.admin {
            Some((name, password)) => format!("http://{name}:{password}@{address}"),
            None => format!("http://{address}"),
        }
    }

    pub fn create_db(&self, db: &str) {
        self.request("PUT", &format!("/{db}"), b"").assert_ok();
    }

    pub fn delete_db(&self, db: &str) {
        self.request("DELETE", &format!("/{db}"), b"").assert_ok();
    }

    /// Lets only the admin read a database.
    pub fn close_db(&self, db: &str) {
        let (name, _) =
            self.admin.as_ref().expect("only a server with an admin has closed databases");
        let nobody = json!({"names": [name], "roles": []});
        let security = json!({"admins": nobody, "members": nobody});
        self.request("PUT", &format!("/{db}/_security"), security.to_string().as_bytes())
            .assert_ok();
    }

    /// Puts a document, whatever its id, over its present revision. Gives the new one.
    pub fn put_doc(&self, db: &str, id: &str, body: &Value) -> String {
        self.put_over(self.rev(db, id).as_deref(), db, id, body)
    }

    /// Puts a document over a revision that is known to be the present one.
    pub fn put_over(&self, rev: Option<&str>, db: &str, id: &str, body: &Value) -> String {
        let mut doc = body.clone();
        doc["_id"] = json!(id);
        if let Some(rev) = rev {
            doc["_rev"] = json!(rev);
        }
        let rows = self.bulk_docs(db, &json!({"docs": [doc]}).to_string());
        rows[0]["rev"].as_str().unwrap_or_else(|| panic!("{id:?}: {rows}")).to_owned()
    }

    /// Puts a body under its own revision: `1-a`, behind it `2-b`, then `3-c`.
    pub fn put_revision(&self, db: &str, body: &str, revision: &str) {
        let ids: Vec<_> =
            ["c", "b", "a"].into_iter().skip_while(|it| !revision.ends_with(it)).collect();
        let history = json!({"start": ids.len(), "ids": ids});
        let docs = format!("[{},\"_revisions\":{history}}}]", body.strip_suffix('}').unwrap());
        self.bulk_docs(db, &format!("{{\"new_edits\":false,\"docs\":{docs}}}"));
    }

    /// Deletes a document, whatever its id.
    pub fn delete_doc(&self, db: &str, id: &str) -> String {
        self.put_doc(db, id, &json!({"_deleted": true}))
    }

    /// Adds an attachment to the present revision of a document. Gives the new one.
    pub fn put_attachment(
        &self,
        db: &str,
        id: &str,
        name: &str,
        kind: &str,
        data: &[u8],
    ) -> String {
        let rev = self.rev(db, id).expect("the document is there");
        let target = format!("/{db}/{}/{}?rev={rev}", encoded(id), encoded(name));
        let mut headers = self.headers();
        headers[0].1 = kind.to_owned();
        let answer = self.request_with("PUT", &target, &headers, data).assert_ok();
        answer.json()["rev"].as_str().unwrap().to_owned()
    }

    /// Puts a document with attachments of any names, whatever its id.
    pub fn put_with_attachments(
        &self,
        db: &str,
        id: &str,
        body: &Value,
        attachments: &[(&str, &str, &[u8])],
    ) -> String {
        let mut doc = body.clone();
        attach(&mut doc, attachments);
        self.put_doc(db, id, &doc)
    }

    /// A document's present revision, unless it is missing or deleted.
    pub fn rev(&self, db: &str, id: &str) -> Option<String> {
        let keys = json!({"keys": [id]}).to_string();
        let answer =
            self.request("POST", &format!("/{db}/_all_docs"), keys.as_bytes()).assert_ok().json();
        let value = &answer["rows"][0]["value"];
        (value["deleted"] != json!(true)).then(|| value["rev"].as_str().map(str::to_owned))?
    }

    /// Writes every row of a recorded feed, in order, so that its documents get their history here:
    /// the revisions are this server's own.
    pub fn load_feed(&self, feed: &Path) {
        let mut revisions: BTreeMap<(String, String), String> = BTreeMap::new();
        let mut created = Vec::new();
        for line in fs::read_to_string(feed).unwrap().lines() {
            let row: Row = serde_json::from_str(line).unwrap();
            if !created.contains(&row.collection) {
                self.create_db(&row.collection);
                created.push(row.collection.clone());
            }
            // Members stay raw text: not every number and depth fits a `Value`.
            let mut doc: BTreeMap<String, Box<RawValue>> =
                serde_json::from_str(row.doc.get()).unwrap();
            let key = (row.collection.clone(), row.id.clone());
            doc.remove("_rev");
            if let Some(rev) = revisions.get(&key) {
                doc.insert("_rev".into(), raw(&json!(rev)));
            }
            if let Some(attachments) = doc.get_mut("_attachments") {
                *attachments = raw(&inlined(attachments, feed.parent().unwrap()));
            }
            let docs = format!("{{\"docs\":[{}]}}", serde_json::to_string(&doc).unwrap());
            let answer = self.bulk_docs(&row.collection, &docs);
            let rev = answer[0]["rev"].as_str().unwrap_or_else(|| panic!("{key:?}: {answer}"));
            if row.deleted {
                revisions.remove(&key);
            } else {
                revisions.insert(key, rev.to_owned());
            }
        }
    }

    /// Any request, with the admin's credentials.
    pub fn request(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        self.request_with(method, target, &self.headers(), body)
    }

    fn request_with(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Answer {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let answer = http::request(self.address(), method, target, &headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}; {}", self.output()))
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("Content-Type", "application/json".to_owned())];
        if let Some((name, password)) = &self.admin {
            let pair = STANDARD.encode(format!("{name}:{password}"));
            headers.push(("Authorization", format!("Basic {pair}")));
        }
        headers
    }

    fn bulk_docs(&self, db: &str, docs: &str) -> Value {
        self.request("POST", &format!("/{db}/_bulk_docs"), docs.as_bytes()).assert_ok().json()
    }

    /// Whether the server came up. Only an answer with this server's own uuid counts: something
    /// else may have taken the port.
    fn launch(&mut self) -> bool {
        let folder = self.place.path();
        let output = File::create(folder.join("output.txt")).unwrap();
        let mut command = Command::new("node");
        command.current_dir(folder).args(["-r", "./end-with-parent.js"]);
        if self.closed {
            command.args(["-r", "./like-couchdb.js"]);
        }
        command
            .arg(installed().join("node_modules/pouchdb-server/bin/pouchdb-server"))
            .args(["-n", "-o", "127.0.0.1", "-p", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        if self.storage == Storage::Memory {
            command.arg("-m");
        }
        let uuid = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let mut process = command.spawn().expect("node runs");
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline && process.try_wait().unwrap().is_none() {
            let headers = self.headers();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            let answer = http::request(self.address(), "GET", "/", &headers, b"");
            if answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.body).contains(&uuid)) {
                self.process = Some(process);
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }

    fn output(&self) -> String {
        fs::read_to_string(self.place.join("output.txt")).unwrap_or_default()
    }
}

impl Drop for PouchServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Answer {
    /// Asserts a status of success.
    #[track_caller]
    pub fn assert_ok(self) -> Self {
        assert!(self.status < 300, "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        self
    }
}

#[derive(serde::Deserialize)]
struct Row<'a> {
    collection: String,
    id: String,
    #[serde(default)]
    deleted: bool,
    #[serde(borrow)]
    doc: &'a RawValue,
}

/// Adds attachments (name, content type, bytes) to a body.
pub fn attach(body: &mut Value, attachments: &[(&str, &str, &[u8])]) {
    for (name, kind, data) in attachments {
        body["_attachments"][name] = json!({"content_type": kind, "data": STANDARD.encode(data)});
    }
}

/// A text as one segment of a URL's path.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// `_attachments` in which files beside the feed have become inline data. Servers refuse a digest
/// that they did not compute for inline data, and do not need one.
fn inlined(attachments: &RawValue, directory: &Path) -> Value {
    let mut entries: Value = serde_json::from_str(attachments.get()).unwrap();
    for entry in entries.as_object_mut().unwrap().values_mut() {
        let data = match entry.get("file").and_then(Value::as_str) {
            Some(file) => json!(STANDARD.encode(fs::read(directory.join(file)).unwrap())),
            None => entry["data"].clone(),
        };
        *entry = json!({"content_type": entry["content_type"], "data": data});
    }
    entries
}

/// A port that nobody listens on. Another process may take it before the caller does.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The folder of the installed server.
fn installed() -> PathBuf {
    npm::installed("test-servers/pouchdb-4.2.0", &["--omit=optional"], &PACKAGES)
}

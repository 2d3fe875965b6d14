//! A server of one small database that answers honestly, except for requests that are set up to be
//! answered otherwise.
//!
//! Each request has a separate connection. Such an answer may be anything that bytes on a connection
//! can be: cut, endless, slow, or no HTTP at all.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::DEADLINE;

/// The user and password that clients are to give, and that must appear nowhere.
pub const USER: &str = "me:hunter2hunter2";

/// Something that is said instead of the honest answer.
pub type Say = Arc<dyn Fn(&mut Talk<'_>) -> io::Result<()> + Send + Sync>;

/// A document as the server holds it.
#[derive(Clone)]
struct Held {
    id: String,
    seq: u64,
    body: Value,
    deleted: bool,
    attachments: Vec<(String, Vec<u8>)>,
}

/// The answers that replace the honest ones, for requests whose line contains a text.
struct Lie {
    request: String,
    say: Say,
    /// Whether it is said before the request has come as a whole.
    early: bool,
    met: usize,
}

#[derive(Default)]
struct Shared {
    documents: Mutex<Vec<Held>>,
    lies: Mutex<Vec<Lie>>,
    requests: Mutex<Vec<String>>,
    heads: Mutex<Vec<String>>,
    /// Whether the database `other` has been created.
    created: AtomicBool,
    ended: AtomicBool,
}

/// The server. It ends when it is dropped.
pub struct Hostile {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// One request, and the connection that it is answered on.
pub struct Talk<'a> {
    stream: &'a TcpStream,
    /// Its first line: `GET /shelf HTTP/1.1`.
    pub line: String,
    /// What came with it.
    pub body: Vec<u8>,
    shared: &'a Shared,
}

impl Hostile {
    /// A server whose database `shelf` holds a few documents.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&accepting)) else { continue };
                std::thread::spawn(move || {
                    // The client may leave at any time: that is what it is tested for.
                    let _ = shared.serve(&client);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        let server = Self { address, shared };
        server.put("plain", &[]);
        server.put("noted", &[("note.txt", b"a note\n")]);
        server.put("deleted", &[]);
        server.delete("deleted");
        server
    }

    /// Its URL without a user.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of its database, with user and password.
    pub fn shelf(&self) -> String {
        format!("http://{USER}@{}/shelf", self.address)
    }

    /// Writes a document's next state.
    pub fn put(&self, id: &str, attachments: &[(&str, &[u8])]) {
        let kept = attachments.iter().map(|(name, data)| (name.to_string(), data.to_vec()));
        let (kept, stubs) = (kept.collect(), stubs(attachments));
        self.write(id, false, stubs, kept);
    }

    /// Deletes a document.
    pub fn delete(&self, id: &str) {
        self.write(id, true, json!({}), Vec::new());
    }

    fn write(&self, id: &str, deleted: bool, stubs: Value, attachments: Vec<(String, Vec<u8>)>) {
        let mut documents = self.shared.documents.lock().unwrap();
        let seq = documents.iter().map(|held| held.seq).max().unwrap_or(0) + 1;
        let mut body = json!({"_id": id, "_rev": format!("{seq}-{seq:032x}"), "n": seq});
        let members = body.as_object_mut().unwrap();
        if deleted {
            members.insert("_deleted".into(), true.into());
        }
        if !attachments.is_empty() {
            members.insert("_attachments".into(), stubs);
        }
        documents.retain(|held| held.id != id);
        documents.push(Held { id: id.to_owned(), seq, body, deleted, attachments });
    }

    /// From now on, requests whose line holds `request` are answered with `say`.
    pub fn lie(&self, request: &str, say: Say) {
        self.arm(request, say, false);
    }

    /// The same, before anything of the request but its line has been read.
    pub fn lie_early(&self, request: &str, say: Say) {
        self.arm(request, say, true);
    }

    fn arm(&self, request: &str, say: Say, early: bool) {
        let lie = Lie { request: request.to_owned(), say, early, met: 0 };
        self.shared.lies.lock().unwrap().push(lie);
    }

    /// The URL of another database, to write into, with user and password.
    pub fn other(&self) -> String {
        format!("http://{USER}@{}/other", self.address)
    }

    /// Creates it.
    pub fn create_other(&self) {
        self.shared.created.store(true, Ordering::SeqCst);
    }

    /// Goes back to honest answers. Says how often it was not.
    pub fn be_honest(&self) -> usize {
        let lies = std::mem::take(&mut *self.shared.lies.lock().unwrap());
        lies.iter().map(|lie| lie.met).sum()
    }

    /// The request lines since the last time this was asked.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// Asserts that a mirror holds what the database does.
    #[track_caller]
    pub fn assert_mirrored(&self, mirror: &Path) {
        let documents = self.shared.documents.lock().unwrap().clone();
        let live = documents.iter().filter(|held| !held.deleted);
        let mut expected: Vec<String> = live.clone().map(|held| held.id.clone()).collect();
        expected.extend(["_security.json".to_owned()]);
        expected.sort();
        let entries = std::fs::read_dir(mirror.join("shelf")).unwrap();
        let mut found: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, expected);
        for held in live {
            let folder = mirror.join("shelf").join(&held.id);
            let text = std::fs::read_to_string(folder.join("document.json")).unwrap();
            assert_eq!(text, format!("{}\n", held.body), "{}", held.id);
            for (name, data) in &held.attachments {
                let file = std::fs::read(folder.join("attachments").join(name)).unwrap();
                assert!(file == *data, "attachment {name} of {}", held.id);
            }
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn stubs(attachments: &[(&str, &[u8])]) -> Value {
    let stub = |data: &[u8]| {
        let digest = format!("md5-{}", STANDARD.encode(Md5::digest(data)));
        json!({"content_type": "text/plain", "digest": digest, "length": data.len(), "stub": true})
    };
    attachments.iter().map(|(name, data)| (name.to_string(), stub(data))).collect()
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(DEADLINE))?;
        client.set_write_timeout(Some(DEADLINE))?;
        let Some(line) = peek_line(client)? else { return Ok(()) };
        self.requests.lock().unwrap().push(line.clone());
        let mut lies = self.lies.lock().unwrap();
        let lie = lies.iter_mut().find(|lie| line.contains(&lie.request)).map(|lie| {
            lie.met += 1;
            (Arc::clone(&lie.say), lie.early)
        });
        drop(lies);
        let mut body = Vec::new();
        if !matches!(lie, Some((_, true))) {
            let request = super::proxy::read_request(&mut { client })?;
            let Some((head, whole)) = request else { return Ok(()) };
            self.heads.lock().unwrap().push(head);
            body = whole;
        }
        let mut talk = Talk { stream: client, line, body, shared: self };
        match lie {
            Some((say, _)) => say(&mut talk),
            None => talk.honest(),
        }
    }

    fn seq(&self) -> u64 {
        self.documents.lock().unwrap().iter().map(|held| held.seq).max().unwrap_or(0)
    }
}

/// The first line of a request, which stays to be read.
fn peek_line(client: &TcpStream) -> io::Result<Option<String>> {
    let mut bytes = [0; 4096];
    loop {
        let count = client.peek(&mut bytes)?;
        if let Some(end) = memchr::memmem::find(&bytes[..count], b"\r\n") {
            return Ok(Some(String::from_utf8_lossy(&bytes[..end]).into_owned()));
        }
        // What is not the beginning of a request, such as a TLS hello, may hold no line at all.
        if count == 0 || count == bytes.len() || !bytes[0].is_ascii_uppercase() {
            return Ok(None);
        }
    }
}

impl Talk<'_> {
    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&mut self.stream).write_all(bytes)
    }

    /// A whole answer.
    pub fn answer(&mut self, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n");
        self.raw(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        self.raw(body)
    }

    /// The head of an answer that continues until the connection ends.
    pub fn begin(&mut self) -> io::Result<()> {
        self.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    }

    /// The same bytes until the client has had enough.
    pub fn for_ever(&mut self, bytes: &[u8]) -> io::Result<()> {
        loop {
            self.raw(bytes)?;
        }
    }

    /// A byte now and then, until the client has had enough.
    pub fn trickle(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes.iter().cycle() {
            self.raw(&[*byte])?;
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// Silence until the client has had enough.
    pub fn hold(&mut self) -> io::Result<()> {
        self.stream.read(&mut [0]).map(drop)
    }

    /// What an honest server answers.
    pub fn honest(&mut self) -> io::Result<()> {
        let target = self.line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let found = match (self.line.split(' ').next().unwrap_or_default(), path) {
            ("GET", "/_all_dbs") => Some(json!(["shelf"])),
            ("GET", "/shelf") => Some(self.database()),
            ("GET", "/other") if self.shared.created.load(Ordering::SeqCst) => {
                Some(self.database())
            }
            ("PUT", "/other") => {
                self.shared.created.store(true, Ordering::SeqCst);
                Some(json!({"ok": true}))
            }
            ("PUT", "/other/_security") => Some(json!({"ok": true})),
            ("POST", "/other/_bulk_docs") => Some(json!([])),
            // It takes no notice of where the listing is to begin.
            ("GET", "/other/_all_docs") => Some(self.listing()),
            ("GET", "/shelf/_changes") if query.contains("feed=continuous") => {
                let since = self.query().to_owned();
                return self.follow(&since);
            }
            ("GET", "/shelf/_changes") => {
                let feed = self.feed(query, &[]);
                return self.answer("200 OK", "", feed.as_bytes());
            }
            ("POST", "/shelf/_changes") => {
                let asked = self.asked("doc_ids");
                let rows = self.rows("").into_iter().filter(|row| asked.contains(&row["id"]));
                Some(json!({"results": rows.collect::<Vec<_>>(), "last_seq": "1-x"}))
            }
            ("GET", "/shelf/_security") => Some(json!({"admins": {"names": ["ada"]}})),
            ("GET", "/shelf/_revs_limit") => Some(json!(1000)),
            ("POST", "/shelf/_revs_diff") => Some(json!({})),
            ("POST", "/shelf/_all_docs") => Some(self.all_docs()),
            ("POST", "/shelf/_bulk_get") => Some(self.bulk_get()),
            _ => None,
        };
        if let Some(found) = found {
            let headers = "Content-Type: application/json\r\n";
            return self.answer("200 OK", headers, found.to_string().as_bytes());
        }
        let mut parts = path.trim_start_matches("/shelf/").split('/');
        let (id, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let documents = self.shared.documents.lock().unwrap().clone();
        let held = documents.iter().find(|held| held.id == id);
        match held.and_then(|held| held.attachments.iter().find(|(known, _)| known == name)) {
            Some((_, data)) => self.answer("200 OK", "", data),
            None => self.answer("404 Not Found", "", b"{\"error\":\"not_found\"}"),
        }
    }

    /// What the database says of itself.
    pub fn database(&self) -> Value {
        let documents = self.shared.documents.lock().unwrap();
        let deleted = documents.iter().filter(|held| held.deleted).count();
        let seq = documents.iter().map(|held| held.seq).max().unwrap_or(0);
        json!({
            "db_name": "shelf", "update_seq": format!("{seq}-x"), "instance_start_time": "1",
            "purge_seq": "0-x", "doc_count": documents.len() - deleted, "doc_del_count": deleted,
        })
    }

    /// The rows that an honest feed has for this query.
    pub fn rows(&self, query: &str) -> Vec<Value> {
        let since = query.split('&').find_map(|part| part.strip_prefix("since="));
        let since = since.and_then(|since| since.split('-').next()?.parse().ok()).unwrap_or(0);
        let documents = self.shared.documents.lock().unwrap();
        let mut rows: Vec<&Held> = documents.iter().filter(|held| held.seq > since).collect();
        rows.sort_by_key(|held| held.seq);
        let row = |held: &Held| {
            let mut row = json!({
                "seq": format!("{}-x", held.seq), "id": held.id, "doc": held.body,
                "changes": [{"rev": held.body["_rev"]}],
            });
            if held.deleted {
                row["deleted"] = true.into();
            }
            row
        };
        rows.into_iter().map(row).collect()
    }

    /// A continuous feed, until the client has had enough.
    fn follow(&mut self, query: &str) -> io::Result<()> {
        self.begin()?;
        let mut query = query.to_owned();
        self.stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        loop {
            for row in self.rows(&query) {
                query = format!("since={}", row["seq"].as_str().unwrap_or_default());
                self.raw(format!("{row}\n").as_bytes())?;
            }
            match self.stream.read(&mut [0]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// An honest feed for this query, with more rows at its beginning, which may be anything.
    pub fn feed(&self, query: &str, more: &[&str]) -> String {
        let rows = self.rows(query).into_iter().map(|row| row.to_string());
        let rows: Vec<String> = more.iter().map(|row| row.to_string()).chain(rows).collect();
        let last = json!(format!("{}-x", self.shared.seq()));
        format!("{{\"results\":[\n{}\n],\n\"last_seq\":{last},\"pending\":0}}\n", rows.join(",\n"))
    }

    /// What follows the question mark of the request's line.
    pub fn query(&self) -> &str {
        let target = self.line.split(' ').nth(1).unwrap_or_default();
        target.split_once('?').map_or("", |(_, query)| query)
    }

    fn asked(&self, member: &str) -> Vec<Value> {
        let asked: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        asked[member].as_array().cloned().unwrap_or_default()
    }

    fn listing(&self) -> Value {
        let documents = self.shared.documents.lock().unwrap();
        let live = documents.iter().filter(|held| !held.deleted);
        let row = |held: &Held| json!({"key": held.id, "value": {"rev": held.body["_rev"]}});
        json!({"rows": live.map(row).collect::<Vec<_>>()})
    }

    fn all_docs(&self) -> Value {
        let documents = self.shared.documents.lock().unwrap();
        let row = |id: &Value| match documents.iter().find(|held| *id == *held.id) {
            None => json!({"key": id, "error": "not_found"}),
            Some(held) if held.deleted => {
                json!({"key": id, "id": id, "value": {"rev": held.body["_rev"], "deleted": true}})
            }
            Some(held) => {
                json!({"key": id, "id": id, "value": {"rev": held.body["_rev"]}, "doc": held.body})
            }
        };
        json!({"rows": self.asked("keys").iter().map(row).collect::<Vec<_>>()})
    }

    fn bulk_get(&self) -> Value {
        let documents = self.shared.documents.lock().unwrap();
        let result = |asked: &Value| {
            let held = documents.iter().find(|held| asked["id"] == *held.id);
            let Some(held) = held else {
                let error = json!({"id": asked["id"], "error": "not_found"});
                return json!({"id": asked["id"], "docs": [{"error": error}]});
            };
            let mut body = held.body.clone();
            for (name, data) in &held.attachments {
                body["_attachments"][name] = json!({"data": STANDARD.encode(data)});
            }
            json!({"id": asked["id"], "docs": [{"ok": body}]})
        };
        json!({"results": self.asked("docs").iter().map(result).collect::<Vec<_>>()})
    }
}

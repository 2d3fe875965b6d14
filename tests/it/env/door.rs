//! A server of any number of small databases, controlled by the test: it sees each request first,
//! and may answer it itself.
//!
//! Each request has a separate connection, and the server counts those that are open. Requests that
//! the test does not answer are answered as CouchDB does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::DEADLINE;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method and path: `GET /db?query`.
    pub line: String,
    /// Its headers' names, in lower case, and values.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What the test says.
pub enum Reply {
    /// What CouchDB would.
    Honest,
    /// This: a status with further headers, and a body.
    Say(String, String),
    /// No answer, as long as the server exists.
    Hang,
}

/// Says this with a body of JSON.
pub fn say(status: &str, body: &str) -> Reply {
    Reply::Say(status.to_owned(), body.to_owned())
}

type Keeper = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// The connections that clients have open.
#[derive(Default)]
struct Connections {
    open: Vec<Weak<TcpStream>>,
    most: usize,
}

impl Connections {
    /// Counts one more, and forgets those that either side has closed.
    fn count(&mut self, one: &Arc<TcpStream>) {
        self.open.retain(|other| other.upgrade().is_some_and(|other| !has_hung_up(&other)));
        self.open.push(Arc::downgrade(one));
        self.most = self.most.max(self.open.len());
    }
}

/// Whether the client has closed its side.
fn has_hung_up(stream: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(
        rustix::net::recv(stream, &mut [0_u8; 1][..], flags),
        Ok((_, 0)) | Err(Errno::CONNRESET)
    )
}

struct Shared {
    databases: Mutex<BTreeMap<String, Vec<String>>>,
    /// The databases that were written to or deleted, in order.
    updates: Mutex<Vec<String>>,
    connections: Mutex<Connections>,
    keeper: Mutex<Keeper>,
    asked: Mutex<Vec<Asked>>,
    changed: Condvar,
    ended: AtomicBool,
    /// How often the test had feeds closed.
    closed: AtomicUsize,
}

/// The server. It ends when it is dropped.
pub struct Door {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Door {
    /// A server with these databases, of one document each.
    pub fn start(databases: &[&str], keeper: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let first = || vec!["first".to_owned()];
        let databases = databases.iter().map(|name| ((*name).to_owned(), first()));
        let shared = Arc::new(Shared {
            databases: Mutex::new(databases.collect()),
            updates: Mutex::default(),
            connections: Mutex::default(),
            keeper: Mutex::new(Box::new(keeper)),
            asked: Mutex::default(),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
            closed: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&accepting)) else { continue };
                let client = Arc::new(client);
                shared.connections.lock().unwrap().count(&client);
                std::thread::spawn(move || {
                    // A client that disconnects does not matter for the test.
                    drop(shared.serve(&client));
                });
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the server, or a database of it, is, for this user part (`me:secret@`).
    pub fn url(&self, user: &str, path: &str) -> String {
        format!("http://{user}{}/{path}", self.address)
    }

    /// Puts another document into a database.
    pub fn put(&self, database: &str, id: &str) {
        let mut databases = self.shared.databases.lock().unwrap();
        databases.get_mut(database).unwrap().push(id.to_owned());
        self.shared.updates.lock().unwrap().push(database.to_owned());
    }

    /// Deletes a database, whose feeds end.
    pub fn delete(&self, database: &str) {
        self.shared.databases.lock().unwrap().remove(database).unwrap();
        self.shared.updates.lock().unwrap().push(database.to_owned());
    }

    /// The most connections that were open at the same time.
    pub fn most_open(&self) -> usize {
        self.shared.connections.lock().unwrap().most
    }

    /// Closes all feeds that are followed.
    pub fn hang_up(&self) {
        self.shared.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Waits until this many matching requests have arrived.
    #[track_caller]
    pub fn wait_for(&self, count: usize, wanted: impl Fn(&Asked) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut asked = self.shared.asked.lock().unwrap();
        while asked.iter().filter(|one| wanted(one)).count() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "only {asked:#?}");
            asked = self.shared.changed.wait_timeout(asked, left).unwrap().0;
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let asked = match read(stream) {
            Ok(Some(asked)) => asked,
            Ok(None) => return Ok(()),
            // This is not HTTP.
            Err(_) => return answer(stream, "400 Bad Request", ""),
        };
        let reply = self.keeper.lock().unwrap()(&asked);
        self.asked.lock().unwrap().push(asked.clone());
        self.changed.notify_all();
        match reply {
            Reply::Say(status, body) => answer(stream, &status, &body),
            Reply::Hang => {
                while !self.ended.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            }
            Reply::Honest => self.honest(stream, &asked),
        }
    }

    fn honest(&self, stream: &TcpStream, asked: &Asked) -> std::io::Result<()> {
        let (method, target) = asked.line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut segments = path.trim_start_matches('/').splitn(2, '/');
        let (name, rest) = (segments.next().unwrap(), segments.next().unwrap_or(""));
        let found = self.databases.lock().unwrap().get(name).cloned();
        let (documents, ok) = match (found, name) {
            (_, "") => {
                return answer(stream, "200 OK", r#"{"couchdb":"Welcome","version":"3.5.0"}"#);
            }
            (_, "_all_dbs") => {
                let names: Vec<_> = self.databases.lock().unwrap().keys().cloned().collect();
                return answer(stream, "200 OK", &serde_json::to_string(&names).unwrap());
            }
            (_, "_dbs_info") => {
                let wanted: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
                let databases = self.databases.lock().unwrap();
                let infos = wanted["keys"].as_array().unwrap().iter().map(|key| {
                    let name = key.as_str().unwrap();
                    match databases.get(name) {
                        Some(held) => {
                            serde_json::json!({ "key": name, "info": info(name, held.len()) })
                        }
                        None => serde_json::json!({ "key": name, "error": "not_found" }),
                    }
                });
                let infos: Vec<_> = infos.collect();
                drop(databases);
                return answer(stream, "200 OK", &serde_json::to_string(&infos).unwrap());
            }
            (_, "_db_updates") => return self.updates(stream),
            (Some(documents), _) => (documents, "200 OK"),
            (None, _) => {
                return answer(
                    stream,
                    "404 Object Not Found",
                    r#"{"error":"not_found","reason":"Database does not exist."}"#,
                );
            }
        };
        match (method, rest) {
            ("GET", "") => answer(stream, ok, &info(name, documents.len()).to_string()),
            ("GET", "_changes") => self.changes(stream, name, query),
            (_, "_all_docs") => {
                let row = |id: &String| serde_json::json!({ "id": id, "key": id, "value": { "rev": "1-a" } });
                let rows: Vec<_> = documents.iter().map(row).collect();
                answer(stream, ok, &serde_json::json!({ "rows": rows }).to_string())
            }
            ("GET", "_revs_limit") => answer(stream, ok, "1000"),
            ("POST", "_session") => answer(stream, "404 Object Not Found", "{}"),
            _ => answer(stream, ok, "{}"),
        }
    }

    fn changes(&self, mut stream: &TcpStream, name: &str, query: &str) -> std::io::Result<()> {
        let since = query.split('&').find_map(|part| part.strip_prefix("since="));
        let mut told: usize =
            since.map_or(0, |since| since.split('-').next().unwrap().parse().unwrap());
        let held = || self.databases.lock().unwrap().get(name).cloned();
        let row = |at: usize, id: &str| {
            format!(
                r#"{{"seq":"{}-a","id":"{id}","changes":[{{"rev":"1-a"}}],"doc":{{"_id":"{id}","_rev":"1-a"}}}}"#,
                at + 1
            )
        };
        if !query.contains("feed=continuous") {
            let documents = held().unwrap_or_default();
            let rows = documents.iter().enumerate().skip(told).map(|(at, id)| row(at, id));
            let rows: Vec<_> = rows.collect();
            let end = documents.len();
            return answer(
                stream,
                "200 OK",
                &format!(
                    "{{\"results\":[\n{}\n],\n\"last_seq\":\"{end}-a\",\"pending\":0}}\n",
                    rows.join(",\n")
                ),
            );
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\n")?;
        let closed = self.closed.load(Ordering::Relaxed);
        let is_open = || closed == self.closed.load(Ordering::Relaxed);
        while is_open() && !self.ended.load(Ordering::Relaxed) {
            let Some(documents) = held() else { return Ok(()) };
            for (at, id) in documents.iter().enumerate().skip(told) {
                stream.write_all((row(at, id) + "\n").as_bytes())?;
            }
            told = documents.len();
            stream.write_all(b"\n")?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Shared {
    /// The names of databases that change from now on.
    fn updates(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\n")?;
        let mut told = self.updates.lock().unwrap().len();
        while !self.ended.load(Ordering::Relaxed) {
            let updates = self.updates.lock().unwrap().clone();
            for (at, name) in updates.iter().enumerate().skip(told) {
                let row = serde_json::json!({ "db_name": name, "type": "updated", "seq": at + 1 });
                stream.write_all(format!("{row}\n").as_bytes())?;
            }
            told = updates.len();
            stream.write_all(b"\n")?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// What a database says about itself.
fn info(name: &str, count: usize) -> serde_json::Value {
    serde_json::json!({
        "db_name": name, "update_seq": format!("{count}-a"), "purge_seq": "0",
        "doc_count": count, "doc_del_count": 0, "instance_start_time": "1",
        "disk_format_version": 8, "props": {},
    })
}

/// The request, unless the client goes away.
fn read(stream: &TcpStream) -> std::io::Result<Option<Asked>> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Ok(Some(Asked { line, headers, body: String::from_utf8_lossy(&body).into_owned() }))
}

fn answer(mut stream: &TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    stream.write_all((head + "Connection: close\r\n\r\n" + body).as_bytes())
}

//! A server for tests that answers each request with bytes given beforehand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// An answer to one request, used once.
pub(super) struct Answer {
    line: String,
    bytes: Vec<u8>,
    then: Then,
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It waits for the next request.
    Next,
    /// It is closed.
    Close,
    /// It stays open in silence.
    Hold,
}

/// A recorded answer of CouchDB 3.4.3.
pub(super) fn recording(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/couchdb-3.4.3");
    std::fs::read(format!("{folder}/{name}.http")).unwrap()
}

impl Answer {
    /// These bytes for the request with this line: `GET /shelf`.
    pub fn bytes(line: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { line: line.to_owned(), bytes: bytes.into(), then: Then::Next }
    }

    /// What CouchDB answered.
    pub fn recorded(line: &str, name: &str) -> Self {
        Self::bytes(line, recording(name))
    }

    /// A body with a status line, such as `200 OK`, and perhaps more headers.
    pub fn made(line: &str, status: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        Self::bytes(line, [head.as_bytes(), body].concat())
    }

    /// A body of JSON.
    pub fn json(line: &str, body: impl AsRef<[u8]>) -> Self {
        Self::made(line, "200 OK\r\nContent-Type: application/json", body)
    }

    /// A body whose length nobody knows beforehand, as one chunk and without an end.
    pub fn endless(line: &str, body: &str) -> Self {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        Self::bytes(line, format!("{head}{:x}\r\n{body}\r\n", body.len()))
    }

    /// The connection is closed after it.
    pub fn close(self) -> Self {
        Self { then: Then::Close, ..self }
    }

    /// The connection stays open after it, and nothing more comes.
    pub fn hold(self) -> Self {
        Self { then: Then::Hold, ..self }
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub line: String,
    pub head: String,
    pub body: String,
}

/// The server. It stops when dropped.
pub(super) struct Replay {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _tasks: JoinSet<()>,
}

struct Shared {
    answers: Vec<Answer>,
    seen: Vec<Seen>,
}

impl Replay {
    pub async fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared { answers, seen: Vec::new() }));
        let mut tasks = JoinSet::new();
        let of_task = shared.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, of_task.clone()));
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    /// The server's URL with this user part (`user:password@`, or nothing) and path.
    pub fn url(&self, user: &str, path: &str) -> String {
        format!("http://{user}{}{path}", self.address)
    }

    /// All requests that came, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().unwrap().seen.clone()
    }

    /// The lines of all requests that came. Fails if an answer was never asked for.
    pub fn lines(&self) -> Vec<String> {
        let shared = self.shared.lock().unwrap();
        let unused: Vec<&str> = shared.answers.iter().map(|answer| &*answer.line).collect();
        assert!(unused.is_empty(), "never asked: {unused:?}, but {:?}", shared.seen);
        shared.seen.iter().map(|seen| seen.line.clone()).collect()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) {
    while let Some(seen) = request(&mut stream).await {
        let answer = {
            let mut shared = shared.lock().unwrap();
            let line = seen.line.clone();
            shared.seen.push(seen);
            let at = shared.answers.iter().position(|answer| answer.line == line);
            let unexpected = || Answer::made(&line, "418 Unexpected", &line).close();
            at.map_or_else(unexpected, |at| shared.answers.remove(at))
        };
        if stream.write_all(&answer.bytes).await.is_err() {
            return;
        }
        match answer.then {
            Then::Next => {}
            Then::Close => return,
            Then::Hold => std::future::pending().await,
        }
    }
}

/// The next request of a connection.
async fn request(stream: &mut TcpStream) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Seen { line, head, body: String::from_utf8(body).unwrap() })
}

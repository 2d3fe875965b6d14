//! A proxy in front of a server that records every request and injects faults.
//!
//! Each request gets a separate connection to the server, and the answer ends with that connection,
//! so the proxy need not understand an answer to find its end.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::DEADLINE;

/// What is done to one answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection is cut after this many bytes of the body.
    CutAfter(usize),
    /// The connection is cut right after the n-th (from 1) occurrence of these bytes: mid-row, for
    /// a marker that stands within one.
    CutAt(Vec<u8>, usize),
    /// Bytes in the body are replaced, once, by as many others (the answer's framing stays valid).
    Replace(Vec<u8>, Vec<u8>),
    /// The answer stops after this many bytes of the body, though the connection stays open, until
    /// the proxy ends or cuts it.
    StallAfter(usize),
    /// This answer is sent (its whole text, head included) instead of the server's.
    Answer(Vec<u8>),
}

/// A fault that waits for its request.
struct Armed {
    /// Stands in the request line.
    request: String,
    fault: Fault,
    left: usize,
    fired: Arc<Count>,
}

/// Counts how often a fault was injected.
pub struct Fired(Arc<Count>);

#[derive(Default)]
struct Count {
    times: Mutex<usize>,
    changed: Condvar,
}

impl Fired {
    /// The count so far.
    pub fn times(&self) -> usize {
        *self.0.times.lock().unwrap()
    }

    /// Waits until it has been met.
    #[track_caller]
    pub fn wait(&self) {
        let times = self.0.times.lock().unwrap();
        let (_times, wait) =
            self.0.changed.wait_timeout_while(times, DEADLINE, |times| *times == 0).unwrap();
        assert!(!wait.timed_out(), "the fault was not met in {DEADLINE:?}");
    }
}

impl Count {
    fn add(&self) {
        *self.times.lock().unwrap() += 1;
        self.changed.notify_all();
    }
}

/// The proxy. Everything of it ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    requests: Mutex<Vec<String>>,
    /// What came with each of them.
    bodies: Mutex<Vec<Vec<u8>>>,
    requested: Condvar,
    faults: Mutex<Vec<Armed>>,
    down: AtomicBool,
    refused: AtomicUsize,
    ended: AtomicBool,
    /// Open connections, to be cut.
    open: Mutex<BTreeMap<u64, TcpStream>>,
    numbers: AtomicU64,
}

impl Proxy {
    /// In front of `server`, on a free port.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            requests: Mutex::default(),
            bodies: Mutex::default(),
            requested: Condvar::new(),
            faults: Mutex::default(),
            down: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
            numbers: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does `fault` to the answers of the next `times` requests whose line holds `request`.
    pub fn inject(&self, request: &str, fault: Fault, times: usize) -> Fired {
        if let Fault::Replace(from, to) = &fault {
            assert_eq!(from.len(), to.len(), "a replacement must keep the answer's length");
        }
        let fired = Arc::new(Count::default());
        let armed =
            Armed { request: request.to_owned(), fault, left: times, fired: Arc::clone(&fired) };
        self.shared.faults.lock().unwrap().push(armed);
        Fired(fired)
    }

    /// While down, every connection is closed at once, and the open ones are cut.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
        if down {
            self.cut_all();
        }
    }

    /// How many connections were refused while down.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Cuts every open connection.
    pub fn cut_all(&self) {
        for stream in self.shared.open.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The request lines since the last time this was asked.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    /// The bodies of the requests since the last time this was asked.
    pub fn take_bodies(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.shared.bodies.lock().unwrap())
    }

    /// Waits until a request whose line holds `part` has come, since the last `take_requests`.
    #[track_caller]
    pub fn wait_for_request(&self, part: &str) {
        let requests = self.shared.requests.lock().unwrap();
        let none = |requests: &mut Vec<String>| !requests.iter().any(|line| line.contains(part));
        let (requests, wait) =
            self.shared.requested.wait_timeout_while(requests, DEADLINE, none).unwrap();
        assert!(!wait.timed_out(), "no request with {part:?} in {DEADLINE:?}: {requests:?}");
    }

    /// Waits until a connection has been refused since there were `before`.
    #[track_caller]
    pub fn wait_until_refused(&self, before: usize) {
        let requests = self.shared.requests.lock().unwrap();
        let none = |_: &mut Vec<String>| self.refused() <= before;
        let (_requests, wait) =
            self.shared.requested.wait_timeout_while(requests, DEADLINE, none).unwrap();
        assert!(!wait.timed_out(), "nobody came while the server was down");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.ended.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            if self.down.load(Ordering::SeqCst) {
                let _guard = self.requests.lock().unwrap();
                self.refused.fetch_add(1, Ordering::SeqCst);
                self.requested.notify_all();
                continue; // dropped, so closed
            }
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                let number = shared.remember(&client);
                // A broken connection is what this proxy is for.
                let _ = shared.serve(&client);
                let _ = client.shutdown(Shutdown::Both);
                shared.open.lock().unwrap().remove(&number);
            });
        }
    }

    fn remember(&self, stream: &TcpStream) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::SeqCst);
        self.open.lock().unwrap().insert(number, stream.try_clone().unwrap());
        number
    }

    fn serve(&self, mut client: &TcpStream) -> io::Result<()> {
        let Some((head, body)) = read_request(&mut client)? else { return Ok(()) };
        let line = head.lines().next().unwrap_or_default().to_owned();
        let armed = self.arm(&line);
        self.bodies.lock().unwrap().push(body.clone());
        self.requests.lock().unwrap().push(line);
        self.requested.notify_all();
        if let Some((Fault::Answer(answer), fired)) = &armed {
            fired.add();
            return client.write_all(answer);
        }
        let server = TcpStream::connect(self.server)?;
        let number = self.remember(&server);
        let done = self.pass(&head, &body, &server, client, armed);
        self.open.lock().unwrap().remove(&number);
        done
    }

    fn pass(
        &self,
        head: &str,
        body: &[u8],
        mut server: &TcpStream,
        client: &TcpStream,
        armed: Option<(Fault, Arc<Count>)>,
    ) -> io::Result<()> {
        let kept =
            head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let head = kept.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\r\n");
        server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
        server.write_all(body)?;
        let mut answer = AnswerWriter::new(client, armed);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = server.read(&mut buffer)?;
            if count == 0 {
                return answer.finish();
            }
            if !answer.write(&buffer[..count])? {
                return Ok(());
            }
        }
    }

    fn arm(&self, line: &str) -> Option<(Fault, Arc<Count>)> {
        let mut faults = self.faults.lock().unwrap();
        let armed =
            faults.iter_mut().find(|armed| armed.left > 0 && line.contains(&armed.request))?;
        armed.left -= 1;
        Some((armed.fault.clone(), Arc::clone(&armed.fired)))
    }
}

/// Passes an answer on, and does its fault to it.
struct AnswerWriter<'a> {
    client: &'a TcpStream,
    armed: Option<(Fault, Arc<Count>)>,
    /// The head until it is complete, afterwards bytes that may begin a marker.
    held: Vec<u8>,
    in_body: bool,
    passed: usize,
}

impl<'a> AnswerWriter<'a> {
    fn new(client: &'a TcpStream, armed: Option<(Fault, Arc<Count>)>) -> Self {
        Self { client, armed, held: Vec::new(), in_body: false, passed: 0 }
    }

    /// Whether the answer continues.
    fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.held.extend_from_slice(bytes);
        if !self.in_body {
            let Some(end) = memchr::memmem::find(&self.held, b"\r\n\r\n") else { return Ok(true) };
            let body = self.held.split_off(end + 4);
            self.client.write_all(&self.held)?;
            self.held = body;
            self.in_body = true;
        }
        let Some((fault, fired)) = self.armed.clone() else {
            return self.flush(self.held.len()).map(|()| true);
        };
        let fire = || fired.add();
        match fault {
            Fault::CutAfter(limit) | Fault::StallAfter(limit) => {
                if self.passed + self.held.len() < limit {
                    return self.flush(self.held.len()).map(|()| true);
                }
                self.flush(limit - self.passed)?;
                fire();
                if matches!(fault, Fault::StallAfter(_)) {
                    // Until somebody shuts the connection down.
                    let _ = self.client.read(&mut [0]);
                }
                Ok(false)
            }
            Fault::CutAt(marker, nth) => match memchr::memmem::find(&self.held, &marker) {
                Some(at) => {
                    self.flush(at + marker.len())?;
                    if nth > 1 {
                        self.armed = Some((Fault::CutAt(marker, nth - 1), fired));
                        return self.write(b"");
                    }
                    fire();
                    Ok(false)
                }
                None => self.flush(self.held.len() - beginning(&self.held, &marker)).map(|()| true),
            },
            Fault::Replace(from, to) => match memchr::memmem::find(&self.held, &from) {
                Some(at) => {
                    self.held[at..at + from.len()].copy_from_slice(&to);
                    fire();
                    self.armed = None;
                    self.flush(self.held.len()).map(|()| true)
                }
                None => self.flush(self.held.len() - beginning(&self.held, &from)).map(|()| true),
            },
            Fault::Answer(_) => unreachable!("answered before the server was asked"),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush(self.held.len())
    }

    fn flush(&mut self, count: usize) -> io::Result<()> {
        self.client.write_all(&self.held[..count])?;
        self.held.drain(..count);
        self.passed += count;
        Ok(())
    }
}

/// How many bytes at the end of `bytes` may be the beginning of `marker`.
fn beginning(bytes: &[u8], marker: &[u8]) -> usize {
    let longest = bytes.len().min(marker.len().saturating_sub(1));
    (1..=longest).rev().find(|count| bytes.ends_with(&marker[..*count])).unwrap_or(0)
}

/// A request's head as text and its body. `None` if the client left before it began one.
pub fn read_request(client: &mut impl Read) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let end = loop {
        if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let lower = head.to_ascii_lowercase();
    let length =
        lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let length: usize = length.unwrap_or(0);
    while body.len() < length {
        match client.read(&mut buffer)? {
            0 => return Ok(None),
            count => body.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(Some((head, body)))
}

//! The API of `plainfold run` at an address: tokens, bad requests, very many connections, sockets of
//! systemd's, and what Schemathesis finds.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::{Value, json};

use crate::env::agent::command_in;
use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome, Running, Stream};
use crate::env::{DEADLINE, Place, http, library, schemathesis};

/// A config, and commands that use it.
struct Setup {
    place: Place,
}

/// An agent that answers at a Unix socket and at an address.
struct Agent {
    running: Running,
    address: SocketAddr,
}

const LISTEN: &str = "['./agent.sock', '127.0.0.1:0']";

impl Setup {
    /// A config with the mirror `books` of a feed, and `later`, which waits.
    fn new(listen: &str, feed: &str) -> Self {
        let place = Place::new();
        let mirror = |name: &str| {
            format!("[[mirror]]\nname = '{name}'\nsource = '{feed}'\ndirectory = '{name}'\n")
        };
        let yearly = "schedule = { cron = '0 0 1 1 *' }\n";
        let text =
            format!("[api]\nlisten = {listen}\n{}{}{yearly}", mirror("books"), mirror("later"));
        fs::write(place.join("plainfold.toml"), text).unwrap();
        Self { place }
    }

    fn of_library() -> Self {
        Self::new(LISTEN, &format!("feed:{}", library().display()))
    }

    fn command(&self, words: &[&str]) -> Command {
        command_in(&self.place, words)
    }

    fn run(&self, words: &[&str]) -> Outcome {
        plainfold::run_command(self.command(words))
    }

    fn start(&self) -> Agent {
        let mut running = plainfold::live_command(self.command(&["run"]));
        let is_address = |line: &str| line.contains("the API answers at http://");
        let line = running.wait_for_line(Stream::Stderr, is_address);
        let address = line.rsplit_once("http://").unwrap().1.parse().unwrap();
        let is_ready = |line: &str| line.contains("mirror=books}: caught up with");
        running.wait_for_line(Stream::Stderr, is_ready);
        Agent { running, address }
    }

    /// A new token.
    fn token(&self, name: &str, role: &str) -> String {
        let outcome = self.run(&["token", "add", name, "--role", role]).assert_code(0);
        assert!(
            outcome.stdout.starts_with("plainfold_") && !outcome.stderr.contains(&outcome.stdout)
        );
        outcome.stdout
    }

    /// The status of the answer at the agent's own socket.
    fn status_at_socket(&self, path: &str) -> u16 {
        let mut socket = UnixStream::connect(self.place.join("agent.sock")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Agent {
    /// The answer to a request, with this token.
    fn ask(&self, method: &str, path: &str, token: Option<&str>) -> http::Answer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> =
            bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        http::request(self.address, method, path, &headers, b"").unwrap()
    }

    fn status(&self, method: &str, path: &str, token: Option<&str>) -> u16 {
        self.ask(method, path, token).status
    }

    /// The number of files that it has open.
    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.running.id())).unwrap().count()
    }

    /// The memory that it uses, in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Asks until it answers as it should.
    fn wait_until_it_answers(&self, token: Option<&str>) {
        let deadline = Instant::now() + DEADLINE;
        let is_well =
            |answer: std::io::Result<http::Answer>| answer.is_ok_and(|it| it.status == 200);
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> =
            bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        while !is_well(http::request(self.address, "GET", "/v1/mirrors", &headers, b"")) {
            assert!(Instant::now() < deadline, "the address does not answer any more");
        }
    }

    fn end(self) -> Outcome {
        self.running.terminate();
        self.running.wait().assert_code(0)
    }
}

#[test]
fn a_token_is_made_used_and_removed_while_the_agent_runs() {
    let setup = Setup::of_library();
    let agent = setup.start();
    let list = "/v1/mirrors";
    assert_eq!(agent.status("GET", list, None), 200, "no token has been made");
    let reader = setup.token("reader", "read");
    let file = setup.place.join("tokens.json");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&file).unwrap().contains(&reader[10..]));
    assert_eq!(agent.status("GET", list, None), 401);
    assert_eq!(agent.status("GET", list, Some("plainfold_x")), 401);
    assert_eq!(agent.status("GET", list, Some(&reader)), 200);
    assert_eq!(agent.status("GET", &format!("{list}?token={reader}"), None), 401);
    assert_eq!(agent.status("GET", "/healthz", None), 200);
    let order = "/v1/mirrors/books/pause";
    let refused = agent.ask("POST", order, Some(&reader));
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (403, &json!("urn:plainfold:problem:no-role"))
    );
    let operator = setup.token("operator", "operate");
    assert_eq!(agent.status("POST", order, Some(&operator)), 200);
    let release = "/v1/mirrors/books/collections/books/release";
    assert_eq!(agent.status("POST", release, Some(&operator)), 403);
    let admin = setup.token("admin", "admin");
    assert_eq!(agent.status("POST", release, Some(&admin)), 200);
    assert_eq!(setup.status_at_socket(list), 200, "the socket needs none");
    let listed = setup.run(&["token", "list", "--format", "json"]).assert_code(0).stdout;
    let names: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(names[1]["name"], "operator");
    setup.run(&["token", "add", "reader", "--role", "admin"]).assert_code(2);

    // A stream that is open ends with its token.
    let mut stream = TcpStream::connect(agent.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!(
        "GET /v1/mirrors/books/events?since=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {reader}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("documentId") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "no event came");
    }
    setup.run(&["token", "remove", "reader"]).assert_code(0);
    assert_eq!(agent.status("GET", list, Some(&reader)), 401);
    let mut rest = Vec::new();
    let left = stream.read_until(b'\0', &mut rest);
    assert!(left.is_ok() && String::from_utf8_lossy(&rest).ends_with("0\r\n\r\n"), "{left:?}");
    setup.run(&["token", "remove", "reader"]).assert_code(2);

    let outcome = agent.end();
    for token in [reader, operator, admin] {
        assert!(!outcome.stderr.contains(&token[10..]) && !listed.contains(&token[10..]));
    }
}

#[test]
fn an_address_that_other_machines_reach_needs_a_token() {
    let setup = Setup::new("['0.0.0.0:0']", &format!("feed:{}", library().display()));
    for words in [&["run"][..], &["config", "check", "--offline"]] {
        let outcome = setup.run(words).assert_code(2);
        assert!(outcome.stderr.contains("plainfold token add"), "{outcome}");
    }
    setup.token("a", "read");
    setup.run(&["config", "check", "--offline"]).assert_code(0);
    let agent = setup.start();
    let address = SocketAddr::from(([127, 0, 0, 1], agent.address.port()));
    assert_eq!(http::request(address, "GET", "/v1/mirrors", &[], b"").unwrap().status, 401);
    let outcome = agent.end();
    assert!(outcome.stderr.contains("without encryption"), "{outcome}");
    fs::write(setup.place.join("tokens.json"), "{}").unwrap();
    let outcome = setup.run(&["run"]).assert_code(2);
    assert!(outcome.stderr.contains("is not a file of tokens"), "{outcome}");
}

#[test]
fn a_bad_request_is_refused_and_the_next_one_is_answered() {
    let setup = Setup::of_library();
    let agent = setup.start();
    let token = setup.token("a", "admin");
    let bearer = format!("authorization: Bearer {token}\r\n");
    let large = format!("x: {}\r\n", "a".repeat(100_000));
    for (request, headers, status) in [
        ("GARBAGE", "", 400),
        ("GET /v1/mirrors HTTP/1.1", large.as_str(), 431),
        ("GET /v1/mirrors HTTP/1.1", "authorization: Bearer\r\n", 401),
        ("GET /v1/mirrors HTTP/1.1", "authorization: \u{1b}[2J\r\n", 400),
        ("GET /v1/nothing HTTP/1.1", &bearer, 404),
        ("DELETE /v1/mirrors HTTP/1.1", &bearer, 405),
        ("GET /v1/mirrors/books/collections?limit=-1 HTTP/1.1", &bearer, 400),
        (
            "POST /v1/mirrors/books/pause HTTP/1.1",
            &format!("{bearer}content-length: 99999999\r\n"),
            413,
        ),
        ("POST /v1/mirrors/books/pause HTTP/1.1", &format!("{bearer}content-length: -1\r\n"), 400),
    ] {
        let mut stream = TcpStream::connect(agent.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // It may be refused before all of it is written.
        let _refused = write!(stream, "{request}\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        let mut answer = Vec::new();
        // What was not read of the request may end the connection after the answer.
        let _ended = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&begin), "{request} {headers:.60}: {answer}");
        assert!(!answer.contains(&token[10..]), "{answer}");
        assert_eq!(agent.status("GET", "/v1/mirrors", Some(&token)), 200);
    }
    // One that is never complete does not keep the agent.
    let socket = setup.place.join("agent.sock");
    let mut slow = UnixStream::connect(&socket).unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").unwrap();
    assert_eq!(setup.status_at_socket("/healthz"), 200);
    let outcome = agent.end();
    assert!(!outcome.stderr.contains(&token[10..]), "{outcome}");
    assert!(!socket.exists(), "the file of the socket is removed");
}

#[test]
fn ten_thousand_connections_disturb_neither_the_mirrors_nor_the_socket() {
    const WANTED: usize = 10_000;
    const AT_A_TIME: usize = 1_000;
    let place = Place::new();
    let mut file = FeedFile::create(place.join("feed.ndjson"));
    file.put("first", json!({}), &[]);
    let setup = Setup::new(LISTEN, &file.source());
    let agent = setup.start();
    let mut tail = plainfold::spawn_command(setup.command(&["tail", "books", "--since", "0"]));
    tail.wait_for_event(|event| event["documentId"] == "first");
    // The test's own end of each connection is a file too.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let room = usize::try_from(limit.current.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let wanted = WANTED.min(room.saturating_sub(1_000));
    if wanted < WANTED {
        eprintln!("ONLY {wanted} connections: a process may have {room} files open here");
    }
    let (files, memory) = (agent.files(), agent.memory());
    let mut connections = Vec::new();
    while connections.len() < wanted {
        for number in 0..AT_A_TIME.min(wanted - connections.len()) {
            let mut stream = TcpStream::connect(agent.address).unwrap();
            // Half of them are silent, and half begin a request. What is closed already cannot be written.
            if number % 2 == 0 {
                let _closed = stream.write_all(b"GET /v1/mirrors HTTP/1.1\r\nx-slow: ");
            }
            connections.push(stream);
        }
        assert_eq!(setup.status_at_socket("/healthz"), 200);
        file.put(&format!("n{}", connections.len()), json!({}), &[]);
    }
    let last = format!("n{wanted}");
    tail.wait_for_event(|event| event["documentId"] == last.as_str());
    let (more_files, more_memory) = (agent.files() - files, agent.memory().saturating_sub(memory));
    eprintln!("{wanted} connections: {more_files} more files, {more_memory} KiB more memory");
    assert!(more_files <= 1_024 + 64 + 50, "{more_files} files");
    assert!(more_memory < 128 * 1024, "{more_memory} KiB");
    drop(connections);
    agent.wait_until_it_answers(None);
    tail.kill();
    agent.end();
}

#[test]
fn an_agent_that_can_open_no_file_answers_again_when_it_can() {
    let setup = Setup::of_library();
    let mut agent = setup.start();
    let pid = Pid::from_raw(agent.running.id().try_into().unwrap());
    let few = |files| Rlimit { current: Some(files), maximum: Some(4096) };
    let before = prlimit(pid, Resource::Nofile, few(3)).unwrap();
    let waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(agent.address).unwrap()).collect();
    agent.running.wait_for_line(Stream::Stderr, |line| line.contains("cannot be accepted now"));
    prlimit(pid, Resource::Nofile, few(before.current.unwrap_or(4096).min(4096))).unwrap();
    agent.wait_until_it_answers(None);
    drop(waiting);
    let outcome = agent.end();
    assert_eq!(outcome.stderr.matches("cannot be accepted now").count(), 1, "{outcome}");
}

/// Passes sockets as systemd does: bound before, and named by the variables, which name the process too.
const ACTIVATE: &str = "
import os, socket, sys
unix = socket.socket(socket.AF_UNIX)
unix.bind(sys.argv[1])
tcp = socket.create_server((sys.argv[2], 0))
unix.listen()
low = [os.dup(unix.fileno()), os.dup(tcp.fileno())]
os.dup2(low[0], 3)
os.dup2(low[1], 4)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='a:b')
os.execv(sys.argv[3], sys.argv[3:])
";

fn activated(setup: &Setup, host: &str) -> Command {
    let mut command = setup.command(&[]);
    let (program, socket) = (command.get_program().to_owned(), setup.place.join("passed.sock"));
    let mut python = Command::new("python3");
    python.args(["-c", ACTIVATE]).arg(&socket).arg(host).arg(program).arg("run");
    python.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    python.env("PLAINFOLD_CONFIG", setup.place.join("plainfold.toml"));
    command = python;
    command.current_dir(setup.place.path());
    command
}

#[test]
fn sockets_that_systemd_passes_are_used_instead_of_those_of_the_config_and_stay() {
    let setup = Setup::of_library();
    let mut running = plainfold::live_command(activated(&setup, "127.0.0.1"));
    let line = running.wait_for_line(Stream::Stderr, |line| line.contains("answers at http://"));
    let address: SocketAddr = line.rsplit_once("http://").unwrap().1.parse().unwrap();
    let socket = setup.place.join("passed.sock");
    assert_eq!(http::request(address, "GET", "/v1/mirrors", &[], b"").unwrap().status, 200);
    assert!(!setup.place.join("agent.sock").exists(), "the config's own is not bound");
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /v1/mirrors HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    running.terminate();
    running.wait().assert_code(0);
    assert!(socket.exists(), "it is systemd's");

    fs::remove_file(&socket).unwrap();
    let outcome = plainfold::run_command(activated(&setup, "0.0.0.0")).assert_code(2);
    assert!(outcome.stderr.contains("plainfold token add"), "{outcome}");
    assert!(socket.exists());
}

#[test]
fn variables_that_name_another_process_pass_no_sockets() {
    let setup = Setup::of_library();
    let mut command = setup.command(&["run"]);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let mut running = plainfold::live_command(command);
    running.wait_for_line(Stream::Stderr, |line| line.contains("the API answers at http://127"));
    assert_eq!(setup.status_at_socket("/healthz"), 200);
    running.terminate();
    running.wait().assert_code(0);
    // A port that another process has is named.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("['{}']", taken.local_addr().unwrap());
    let setup = Setup::new(&listen, &format!("feed:{}", library().display()));
    let outcome = setup.run(&["run"]).assert_code(2);
    assert!(outcome.stderr.contains("another process listens there"), "{outcome}");
}

#[test]
fn what_schemathesis_asks_is_answered_as_the_description_says() {
    const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                          response_headers_conformance,response_schema_conformance,ignored_auth";
    let Some(program) = schemathesis::installed() else { return };
    let setup = Setup::of_library();
    let agent = setup.start();
    let token = setup.token("schemathesis", "admin");
    // Once with names that exist, and once with any.
    let known = "[parameters]\n\"path.name\" = \"books\"\n\"path.collection\" = \"books\"\n";
    for (name, config, seconds) in [("known.toml", known, "25"), ("any.toml", "", "15")] {
        fs::write(setup.place.join(name), config).unwrap();
        let mut command = Command::new(&program);
        command.arg("--config-file").arg(setup.place.join(name));
        command.args([
            "run",
            &format!("http://{}/openapi.json", agent.address),
            "--checks",
            CHECKS,
        ]);
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
        // Streams have no end.
        command.args(["--exclude-path-regex", "/events$", "--phases", "coverage,fuzzing"]);
        command.args(["--seed", "1", "--max-examples", "15", "--max-time", seconds]);
        command.args(["--request-timeout", "30", "--no-shrink", "--continue-on-failure"]);
        command.args(["--warnings", "off"]).current_dir(setup.place.path());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("Tested:"), "{said}");
    }
    assert_eq!(agent.status("GET", "/healthz", None), 200);
    let outcome = agent.end();
    assert!(
        !outcome.stderr.contains("panic") && !outcome.stderr.contains(&token[10..]),
        "{outcome}"
    );
}

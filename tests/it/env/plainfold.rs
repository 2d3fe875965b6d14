//! Runs the binary: to its end, or beside the test with its lines read as they come.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use serde_json::Value;

use super::{DEADLINE, Place};

/// How a run ended, and its output.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Asserts the exit code, and shows what was said if it is another.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Whether a signal of the test's own ended it.
    pub fn was_killed(&self) -> bool {
        self.status.signal().is_some()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstdout:\n{}\nstderr:\n{}", self.status, self.stdout, self.stderr)
    }
}

/// One of the two streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A process that runs beside the test. Killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<(Stream, String)>,
    stdout: Vec<String>,
    stderr: Vec<String>,
    /// How far `wait_for_line` has looked.
    looked: [usize; 2],
}

/// Runs the binary to its end.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Outcome {
    spawn(arguments).wait()
}

/// Runs a command of [`command_of`] to its end.
pub fn run_command(command: Command) -> Outcome {
    Running::start(command).wait()
}

/// Starts a command of [`command_of`], or another, beside the test.
pub fn spawn_command(command: Command) -> Running {
    Running::start(command)
}

/// Starts a command beside the test, whose input lasts as long as the caller keeps its other end.
pub fn spawn_with_input(mut command: Command) -> (Running, ChildStdin) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command runs");
    let input = child.stdin.take().unwrap();
    (Running::read(child), input)
}

/// Runs the binary to its end, and says what memory it took at most, in KiB. `place` is for a file.
pub fn run_measured(place: &Path, arguments: &[&str]) -> (Outcome, u64) {
    const MEASURE: &str = "import os, sys\n\
        child = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])\n\
        _, status, usage = os.wait4(child, 0)\n\
        open(sys.argv[1], 'w').write(str(usage.ru_maxrss))\n\
        os._exit(os.waitstatus_to_exitcode(status) & 255)";
    let inner = command(arguments);
    let peak = place.join("peak");
    let mut outer = Command::new("python3");
    outer.args(["-c", MEASURE]).arg(&peak).arg(inner.get_program()).args(inner.get_args());
    for (variable, _) in inner.get_envs() {
        outer.env_remove(variable);
    }
    let outcome = Running::start(outer).wait();
    let kib = std::fs::read_to_string(peak).unwrap().trim().parse().unwrap();
    (outcome, kib)
}

/// `plainfold mirror <source> <mirror>`, to its end.
pub fn mirror(source: &str, mirror: &Path) -> Outcome {
    run([OsStr::new("mirror"), source.as_ref(), mirror.as_ref()])
}

/// `plainfold status <mirror> --format json`.
pub fn status(mirror: &Path) -> Value {
    let arguments = ["status".as_ref(), mirror.as_os_str(), "--format".as_ref(), "json".as_ref()];
    let outcome = run(arguments).assert_code(0);
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

/// Starts the binary beside the test.
pub fn spawn<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Running {
    Running::start(command(arguments))
}

/// `plainfold mirror --live`; returns when it reports READY=1 to the service manager that the test
/// imitates, which it does when it has caught up.
pub fn live(source: &str, mirror: &Path) -> Running {
    let arguments = ["mirror".as_ref(), source.as_ref(), mirror.as_os_str(), "--live".as_ref()];
    live_command(command(arguments))
}

/// The same by any build.
pub fn live_command(mut command: Command) -> Running {
    let place = Place::new();
    let socket = place.join("notify");
    let notified = UnixDatagram::bind(&socket).unwrap();
    notified.set_read_timeout(Some(DEADLINE)).unwrap();
    command.env("NOTIFY_SOCKET", &socket);
    let mut running = Running::start(command);
    let mut message = [0; 4096];
    loop {
        match notified.recv(&mut message) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&message[..length]);
                if text.lines().any(|line| line == "READY=1") {
                    return running;
                }
            }
            Err(error) => {
                running.kill();
                panic!("never ready: {error}: {}", running.wait());
            }
        }
    }
}

/// `plainfold tail <mirror> --since <since>`, whose lines are write events.
pub fn tail(mirror: &Path, since: u64) -> Running {
    spawn(tail_arguments(mirror, since))
}

/// The write events in the journal of a mirror at rest, after number `since`.
pub fn journal(mirror: &Path, since: u64) -> Vec<Value> {
    let outcome = run(tail_arguments(mirror, since)).assert_code(0);
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn tail_arguments(mirror: &Path, since: u64) -> [OsString; 4] {
    ["tail".into(), mirror.into(), "--since".into(), since.to_string().into()]
}

fn started(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary runs")
}

/// The binary with nothing of the test's environment that could change what it does.
fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_plainfold")), arguments)
}

/// The same of another build.
pub fn command_of<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    for variable in [
        "NOTIFY_SOCKET",
        "RUST_LOG",
        "PLAINFOLD_CONFIG",
        "PLAINFOLD_SOURCE_PASSWORD",
        "PLAINFOLD_TARGET_PASSWORD",
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ] {
        command.env_remove(variable);
    }
    command
}

impl Running {
    /// Starts a command and reads its lines in threads of their own.
    fn start(command: Command) -> Self {
        Self::read(started(command))
    }

    /// Reads a process's lines from now on.
    fn read(mut child: Child) -> Self {
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let to = sender.clone();
        std::thread::spawn(move || {
            read_lines(stdout, |line| to.send((Stream::Stdout, line)).is_ok())
        });
        std::thread::spawn(move || {
            read_lines(stderr, |line| sender.send((Stream::Stderr, line)).is_ok())
        });
        Self { child, lines, stdout: Vec::new(), stderr: Vec::new(), looked: [0; 2] }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of a stream, after those already waited for, that `wanted` accepts.
    #[track_caller]
    pub fn wait_for_line(&mut self, stream: Stream, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (lines, looked) = match stream {
                Stream::Stdout => (&self.stdout, &mut self.looked[0]),
                Stream::Stderr => (&self.stderr, &mut self.looked[1]),
            };
            while *looked < lines.len() {
                *looked += 1;
                if wanted(&lines[*looked - 1]) {
                    return lines[*looked - 1].clone();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.keep(line),
                Err(RecvTimeoutError::Timeout) => {
                    self.kill();
                    panic!("no such line on {stream:?} in {DEADLINE:?}: {}", self.said());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended without such a line on {stream:?}: {}", self.said());
                }
            }
        }
    }

    /// The next line of `tail` as a write event that `wanted` accepts.
    #[track_caller]
    pub fn wait_for_event(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let parse = |line: &str| serde_json::from_str::<Value>(line).ok();
        let line = self
            .wait_for_line(Stream::Stdout, |line| parse(line).is_some_and(|event| wanted(&event)));
        parse(&line).unwrap()
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn wake(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        // The shell's own `kill` is there on every machine; Rust's standard library has none.
        let kill = format!("kill -{name} \"$0\"");
        let kill = Command::new("sh").args(["-c", &kill, &self.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for a line on standard error that contains `text`, or for the end of the process; says
    /// which.
    #[track_caller]
    pub fn says_before_its_end(&mut self, text: &str) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = line.0 == Stream::Stderr && line.1.contains(text);
                    self.keep(line);
                    if found {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    self.kill();
                    panic!("it neither says {text:?} nor ends: {}", self.said());
                }
            }
        }
    }

    /// How many bytes it has read, from wherever.
    pub fn bytes_read(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.id())).unwrap();
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        read.unwrap().parse().unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for the end of its streams and its own.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.kill();
                    panic!("it does not end in {DEADLINE:?}: {}", self.said());
                }
            }
        }
        let status = self.child.wait().unwrap();
        Outcome { status, stdout: self.stdout.join("\n"), stderr: self.stderr.join("\n") }
    }

    fn keep(&mut self, (stream, line): (Stream, String)) {
        match stream {
            Stream::Stdout => self.stdout.push(line),
            Stream::Stderr => self.stderr.push(line),
        }
    }

    fn said(&self) -> String {
        format!("stdout:\n{}\nstderr:\n{}", self.stdout.join("\n"), self.stderr.join("\n"))
    }
}

/// `plainfold tail <mirror> --since <since>` whose output is not read yet.
pub struct UnreadTail(Option<Child>);

impl UnreadTail {
    /// Starts it.
    pub fn start(mirror: &Path, since: u64) -> Self {
        Self(Some(started(command(tail_arguments(mirror, since)))))
    }

    /// Reads it at last.
    pub fn read(mut self) -> Running {
        Running::read(self.0.take().unwrap())
    }
}

impl Drop for UnreadTail {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(mut from: impl BufRead, mut take: impl FnMut(String) -> bool) {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if !take(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()) {
            return;
        }
        line.clear();
    }
}

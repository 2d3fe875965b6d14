//! The systemd units are valid, and the live command reports its state to systemd.
//!
//! No systemd runs here: `systemd-analyze` reads the units, and a socket of the test's own stands
//! in for the one to which services report.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::env::door::{Door, Reply, say};

/// How long anything may take before it counts as missing. A loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `WatchdogSec=` of the unit: systemd kills a service that gives no sign of life for this time.
const WATCHDOG: Duration = Duration::from_secs(2);

/// By how much a sign of life may be late here, where many tests share few processors. A session that
/// gives one in half the time, as it should, has as much to spare once more.
const TOLERANCE: Duration = Duration::from_secs(1);

const LIVE: &str = include_str!("../../systemd/plainfold@.service");
const AGENT: &str = include_str!("../../systemd/plainfold.service");
const CATCH_UP: &str = include_str!("../../systemd/plainfold-catch-up@.service");
const TIMER: &str = include_str!("../../systemd/plainfold-catch-up@.timer");
const SOCKET: &str = include_str!("../../systemd/plainfold.socket");
const README: &str = include_str!("../../systemd/README.md");

#[test]
fn systemd_finds_nothing_to_complain_about_in_the_units() {
    let folder = TempDir::new().unwrap();
    let binary = folder.path().join("plainfold");
    symlink(env!("CARGO_BIN_EXE_plainfold"), &binary).unwrap();
    let mut units = Vec::new();
    for (name, text) in [
        ("plainfold@.service", LIVE),
        // systemd 252 does not know this type, which is from 253, and takes the line before.
        ("plainfold.service", &AGENT.replace("Type=notify-reload", "Type=notify")),
        ("plainfold-catch-up@.service", CATCH_UP),
        ("plainfold-catch-up@.timer", TIMER),
        ("plainfold.socket", SOCKET),
    ] {
        let unit = folder.path().join(name);
        fs::write(&unit, text.replace("/usr/bin/plainfold", binary.to_str().unwrap())).unwrap();
        units.push(unit);
    }
    let (_, rest) = README.split_once("```ini\n").expect("README's drop-in");
    let (drop_in, _) = rest.split_once("```").unwrap();
    fs::create_dir(folder.path().join("plainfold@.service.d")).unwrap();
    fs::write(folder.path().join("plainfold@.service.d/password.conf"), drop_in).unwrap();

    assert!(AGENT.contains("\nType=notify\nType=notify-reload\nExecReload="));
    let complaints = verify(&units);
    assert!(complaints.is_empty(), "systemd-analyze verify says:\n{complaints}");

    // The check itself must be able to fail, in units as in drop-ins.
    fs::write(&units[3], format!("{TIMER}\nNonsense=1\n")).unwrap();
    fs::write(folder.path().join("plainfold@.service.d/password.conf"), "[Service]\nNo=1\n")
        .unwrap();
    let complaints = verify(&units);
    assert!(complaints.contains("Nonsense"), "an unknown key passed: {complaints}");
    assert!(complaints.contains("password.conf"), "the drop-in was not read: {complaints}");
}

#[test]
fn the_service_of_the_agent_is_exposed_to_little() {
    let folder = TempDir::new().unwrap();
    let unit = folder.path().join("plainfold.service");
    let binary = env!("CARGO_BIN_EXE_plainfold");
    let exposure = |text: &str| {
        fs::write(&unit, text.replace("/usr/bin/plainfold", binary)).unwrap();
        let arguments = ["security", "--offline=true", "--threshold=20"];
        Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap()
    };
    let output = exposure(AGENT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!exposure("[Service]\nExecStart=/usr/bin/plainfold run\n").status.success());
}

/// What `systemd-analyze verify` prints of some units; its exit code may be 0 for a mere warning.
fn verify(units: &[PathBuf]) -> String {
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units).output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => panic!(
            "systemd-analyze is not installed, so the units in systemd/ cannot be verified \
             (on Debian: apt-get install systemd)"
        ),
        output => output.expect("systemd-analyze ran"),
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    if said.is_empty() && !output.status.success() { output.status.to_string() } else { said }
}

/// A password that is refused may be right again later, so the service starts again; but not so soon that
/// its attempts lock the user out, which CouchDB does after five within five minutes.
#[test]
fn the_live_service_starts_again_after_refused_credentials_and_locks_nobody_out() {
    let value = |key: &str| LIVE.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    assert_eq!(value("Restart"), Some("on-failure"));
    assert_eq!(value("RestartPreventExitStatus"), Some("2 5 6"));
    let pause: u32 = value("RestartSec").unwrap().parse().unwrap();
    assert!(1 + 300 / pause < 5, "{pause}");
}

#[test]
fn both_services_are_confined_alike() {
    fn confinement(unit: &str) -> Vec<&str> {
        let (_, rest) = unit.split_once("# Confinement.").expect("a part on confinement");
        rest.lines()
            .take_while(|line| *line != "[Install]")
            .filter(|line| !line.is_empty())
            .collect()
    }
    assert!(confinement(LIVE).len() > 20);
    assert_eq!(confinement(LIVE), confinement(CATCH_UP));
}

#[test]
fn a_live_mirror_is_ready_once_caught_up_and_gives_signs_of_life_until_it_stops() {
    let folder = TempDir::new().unwrap();
    let feed = folder.path().join("books.ndjson");
    let row = |n: u32| {
        format!(
            r#"{{"seq":{n},"id":"book-{n}","changes":[{{"rev":"1-a{n}"}}],"doc":{{"_id":"book-{n}","_rev":"1-a{n}","title":"Volume {n}"}}}}"#
        ) + "\n"
    };
    let rows = row(1) + &row(2) + &row(7301);
    fs::write(&feed, &rows).unwrap();
    let mut service = Service::start(folder.path(), &format!("feed:{}", feed.display()));

    service.wait_for("READY=1", |told| told == "READY=1");
    let last = folder.path().join("mirror/books/book-7301/document.json");
    assert!(last.is_file(), "ready, though the feed's last document is not there");

    // For the eyes of `systemctl status`: where in the feed, and how far from its end.
    service.wait_for("a STATUS= with the position and the lag", |told| {
        let status = told.strip_prefix("STATUS=").unwrap_or_default();
        status.contains("position")
            && status.contains(&format!("\"{}-", rows.len()))
            && ["caught up", "behind", "lag"].iter().any(|word| status.contains(word))
    });

    service.wait_for_signs_of_life(3);
    service.terminate();
    service.wait_for("STOPPING=1", |told| told == "STOPPING=1");
    let status = service.wait();
    assert_eq!(status.code(), Some(0), "{}", service.story());
    assert_eq!(service.times("READY=1"), 1, "{}", service.story());
    assert_eq!(service.times("STOPPING=1"), 1, "{}", service.story());
}

#[test]
fn a_live_mirror_whose_source_is_silent_is_not_ready_but_lives_and_stops_when_told() {
    // The kernel accepts the connection, but no server ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = format!("http://{}/books", silent.local_addr().unwrap());
    let folder = TempDir::new().unwrap();
    let mut service = Service::start(folder.path(), &source);

    service.wait_for_signs_of_life(3);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_ok(), "the source was not even asked; {}", service.story());
    service.terminate();
    service.wait_for("STOPPING=1", |told| told == "STOPPING=1");
    service.wait();
    assert_eq!(service.times("READY=1"), 0, "{}", service.story());
}

#[test]
fn a_live_mirror_is_ready_without_a_database_that_always_fails() {
    let server = Door::start(&["broken", "books"], |asked| match asked.line.contains("/broken") {
        true => say("500 Internal Server Error", "{}"),
        false => Reply::Honest,
    });
    let folder = TempDir::new().unwrap();
    let mut service = Service::start(folder.path(), &server.url("", ""));
    service.wait_for("READY=1", |told| told == "READY=1");
    assert!(folder.path().join("mirror/books/first/document.json").is_file());
    server.wait_for(3, |asked| asked.line.contains("/broken"));
    service.terminate();
    service.wait();
    assert_eq!(service.times("READY=1"), 1, "{}", service.story());
}

/// `plainfold mirror … --live` as systemd would run it, and all notifications that it sent.
struct Service {
    process: Child,
    socket: UnixDatagram,
    told: Vec<String>,
    log: PathBuf,
}

impl Service {
    fn start(folder: &Path, source: &str) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let log = folder.join("log");
        let process = Command::new(env!("CARGO_BIN_EXE_plainfold"))
            .args(["mirror", source])
            .arg(folder.join("mirror"))
            .args(["--live", "--progress", "never"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process, socket, told: Vec::new(), log }
    }

    /// Waits for a notification that is wanted, whether it was sent before or not.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.told.iter().any(|told| wanted(told)) {
            assert!(self.hear(deadline), "{what} never came; {}", self.story());
        }
    }

    /// Waits for some signs of life in a row, none of which came too late.
    fn wait_for_signs_of_life(&mut self, some: usize) {
        let start = Instant::now();
        let mut deadline = start + PATIENCE;
        for _ in 0..some {
            let heard = self.told.len();
            while !self.told[heard..].iter().any(|told| told == "WATCHDOG=1") {
                assert!(self.hear(deadline), "no sign of life in time; {}", self.story());
            }
            deadline = Instant::now() + WATCHDOG + TOLERANCE;
        }
        assert!(start.elapsed() > WATCHDOG / 10, "signs of life in a flood; {}", self.story());
    }

    /// Hears one message, which may hold several lines. False if none came in time.
    fn hear(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut message = [0; 4096];
        self.socket.set_read_timeout(Some(left.min(Duration::from_millis(100)))).unwrap();
        match self.socket.recv(&mut message) {
            Ok(length) => {
                let text = std::str::from_utf8(&message[..length]).expect("UTF-8");
                self.told.extend(text.lines().map(str::to_owned));
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // A process that has ended sends nothing more: fail at once, not after a minute.
                self.process.try_wait().unwrap().is_none()
            }
            Err(error) => panic!("the notify socket failed: {error}"),
        }
    }

    /// What `systemctl stop` does first.
    fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for the end, and collects the notifications until then.
    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.process.try_wait().unwrap();
            while self.hear(Instant::now() + Duration::from_millis(50)) && ended.is_some() {}
            if let Some(status) = ended {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end; {}", self.story());
        }
    }

    fn times(&self, line: &str) -> usize {
        self.told.iter().filter(|told| *told == line).count()
    }

    /// For a failed test: all notifications, and the log.
    fn story(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        format!("it told {:#?} and logged:\n{log}", self.told)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

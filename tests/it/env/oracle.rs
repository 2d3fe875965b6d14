//! Runs the oracle and fails with its differences.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Place, root};

/// Asserts that `mirror/<collection>` equals a database as it is now. `url` names the database.
pub fn assert_equals_server(url: &str, mirror: &Path, collection: &str) -> String {
    says_yes(oracle().arg("server").arg(url).arg(mirror.join(collection)))
}

/// Asserts that a mirror equals the final state of a recorded feed, byte for byte.
pub fn assert_equals_feed(feed: &Path, mirror: &Path) -> String {
    says_yes(oracle().arg("feed").arg(feed).arg(mirror))
}

/// Asserts that every document of mirrors is as the first `rows` rows of a feed left it, or as a later
/// row made it, and whole.
pub fn assert_old_or_new<P: AsRef<Path>>(feed: &Path, rows: usize, mirrors: &[P]) -> String {
    let mirrors = mirrors.iter().map(AsRef::as_ref);
    says_yes(oracle().arg("between").arg(feed).arg(rows.to_string()).args(mirrors))
}

/// The faults of a mirror by the same measure; fails if there is no fault.
pub fn faults_of_old_or_new(feed: &Path, rows: usize, mirror: &Path) -> String {
    let mut between = oracle();
    let output = between.arg("between").arg(feed).arg(rows.to_string()).arg(mirror).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts that a mirror contains no temporary or foreign file.
pub fn assert_clean(mirror: &Path) -> String {
    says_yes(oracle().arg("clean").arg(mirror))
}

/// Asserts that two databases are equal: `options` are those of `oracle.py equal`.
pub fn assert_equal_databases(left: &str, right: &str, options: &[&str]) -> String {
    says_yes(oracle().arg("equal").arg(left).arg(right).args(options))
}

/// The differences of two databases; fails if they are equal.
pub fn differences_of_databases(left: &str, right: &str, options: &[&str]) -> String {
    let output = oracle().arg("equal").arg(left).arg(right).args(options).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Invents a database from a seed, with conflicts and tombstones, and writes it to a server.
pub fn generate(url: &str, seed: u64) {
    says_yes(python("generate.py").arg("server").arg(url).arg(seed.to_string()));
}

/// Sends invented databases there and back, by way of a server if one is given, and asserts that
/// they return unchanged.
pub fn assert_roundtrips(server: Option<&str>, seeds: RangeInclusive<u64>, more: &[&str]) {
    let place = Place::new();
    let mut trial = python("roundtrip.py");
    trial.arg("--plainfold").arg(env!("CARGO_BIN_EXE_plainfold"));
    trial.arg("--seeds").arg(format!("{}..{}", seeds.start(), seeds.end()));
    trial.arg("--keep").arg(place.path());
    trial.args(server.map(|url| format!("--server={url}")));
    let said = says_yes(trial.args(more));
    assert_eq!(said.lines().count(), seeds.count(), "{said}");
}

/// A concurrent reader of the mirror, which must never see half a document.
pub struct Reader {
    child: Option<Child>,
    stop: PathBuf,
    _place: Place,
}

impl Reader {
    /// Begins to read. The mirror need not exist yet.
    pub fn start(mirror: &Path) -> Self {
        let place = Place::new();
        let stop = place.join("stop");
        let child = oracle()
            .arg("reader")
            .arg(mirror)
            .arg(&stop)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        Self { child: Some(child), stop, _place: place }
    }

    /// Stops reading; fails with the faults that it found, or if it has read nothing.
    pub fn finish(mut self) -> String {
        std::fs::write(&self.stop, "").unwrap();
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "a reader met half a document:\n{said}");
        assert!(!said.starts_with("checked: 0 documents"), "the reader met no document: {said}");
        said
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn oracle() -> Command {
    python("oracle.py")
}

fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(root().join("tests/oracle").join(script));
    command
}

fn says_yes(command: &mut Command) -> String {
    let output = command.output().expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the oracle says no:\n{said}{complaint}");
    said
}

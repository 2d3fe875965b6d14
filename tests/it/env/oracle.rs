//! Runs the oracle and fails with its differences.

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

/// Asserts that no temporary or foreign file stands in a mirror.
pub fn assert_clean(mirror: &Path) -> String {
    says_yes(oracle().arg("clean").arg(mirror))
}

/// Somebody who reads the mirror all the time, and must never meet half a document.
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

    /// Stops reading; fails with what it found wrong, and if it has read nothing.
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
    let mut command = Command::new("python3");
    command.arg("-B").arg(root().join("tests/oracle/oracle.py"));
    command
}

fn says_yes(command: &mut Command) -> String {
    let output = command.output().expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the oracle says no:\n{said}{complaint}");
    said
}

//! Which clock is read, and where a thread may sleep: async code uses tokio's, so that tests pause it.

use crate::env::{files, root};

/// What a file of `src` must not contain, because a paused clock does not see it.
const REFUSED: [&str; 4] = [
    "std::thread::sleep(",
    " thread::sleep(",
    "std::time::Instant",
    "std::time::{Duration, Instant",
];

/// The files that may contain it, and why.
const ALLOWED: [(&str, &str); 11] = [
    ("src/api/tokens.rs", "a command that waits for the lock of another process"),
    ("src/checkpoint/tests.rs", "a test that waits for a lock of sled's"),
    ("src/cli/signals.rs", "the thread of a second signal, which ends the process"),
    ("src/client/couchdb/credentials.rs", "a thread that waits for a command of the user's"),
    ("src/restore/vouch.rs", "a thread that reads a tree that is being written"),
    ("src/tree/lock.rs", "a thread that waits for the lock of another process"),
    ("src/trial/failpoint.rs", "a test that holds a thread at a failpoint"),
    ("src/verify/inventory.rs", "a thread that reads a tree that is being written"),
    ("src/verify/reading.rs", "a thread that reads a tree that is being written"),
    ("src/verify/restraint.rs", "a thread that reads no faster than it may"),
    ("src/verify/tree.rs", "a thread that reads a tree that is being written"),
];

/// The files of `src` that contain what is refused.
fn found() -> Vec<String> {
    let contains = |text: &str| REFUSED.iter().any(|one| text.contains(one));
    let all = files(&root().join("src"), &["rs"]).into_iter();
    let found = all.filter(|path| contains(&std::fs::read_to_string(path).unwrap()));
    found.map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn async_code_reads_tokios_clock_and_never_puts_a_thread_to_sleep() {
    let allowed: Vec<_> = ALLOWED.iter().map(|(path, _)| *path).collect();
    assert_eq!(found(), allowed, "use tokio::time, or add the file here with the reason");
}

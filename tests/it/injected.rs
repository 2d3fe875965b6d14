//! The state when the file system fails below it: messages and an exit code, never a panic or a
//! hang, and nothing is lost.
//!
//! `strace` injects the faults into the system calls on the state's files. If it cannot be used, the
//! tests report that and pass; the failpoints of `failpoints.rs` and `failing.rs` do not reach sled.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::env::feed::FeedFile;
use crate::env::plainfold::{self, Outcome};
use crate::env::random::Random;
use crate::env::{Place, oracle};

/// sled's system calls on its own files.
const CALLS: [&str; 9] = [
    "openat",
    "pread64",
    "pwrite64",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "flock",
    "statx",
];

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("strace cannot be used here: no faults are injected");
    }
    can
}

/// Runs a command whose system call `call` on the files of the mirror's state fails the `nth` time that a
/// thread makes it. Gives the outcome if the fault has struck.
fn struck(mirror: &Path, fault: (&str, &str, u32), arguments: &[&str]) -> Option<Outcome> {
    let (call, error, nth) = fault;
    let place = Place::new();
    let trace = place.join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&trace);
    command.args(["-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:error={error}:when={nth}")]);
    for file in ["", "db", "conf", "blobs"] {
        command.arg("-P").arg(mirror.join(".plainfold/state").join(file));
    }
    // Longer than any command takes, and short enough to notice a hang.
    command.args(["timeout", "--preserve-status", "--signal=TERM"]);
    command.arg(if arguments.contains(&"--live") { "3" } else { "60" });
    command.arg(env!("CARGO_BIN_EXE_plainfold")).args(arguments);
    let outcome = plainfold::run_command(command);
    let trace = fs::read_to_string(&trace).unwrap_or_default();
    trace.contains("(INJECTED)").then_some(outcome)
}

#[test]
fn a_fault_at_any_system_call_of_the_state_ends_in_words_and_loses_nothing() {
    if !can_trace() {
        return;
    }
    let faults: Vec<_> = CALLS
        .iter()
        .flat_map(|call| ["ENOSPC", "EIO", "ENOMEM"].map(|error| (*call, error)))
        .flat_map(|(call, error)| [1, 2, 3, 5].map(|nth| (call, error, nth)))
        .collect();
    let struck: usize = std::thread::scope(|scope| {
        let parts = faults.chunks(faults.len().div_ceil(4));
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| assert_contained(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(struck > 50, "only {struck} faults have struck");
}

/// The number of faults that have struck.
fn assert_contained(faults: &[(&str, &str, u32)]) -> usize {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..20 {
        feed.put(&format!("book:{number}"), json!({}), &[("note.txt", b"text")]);
    }
    let (whole, mirror) = (place.join("whole"), place.mirror());
    plainfold::mirror(&feed.source(), &whole).assert_code(0);
    feed.put("more", json!({}), &[("note.txt", b"second")]);
    feed.delete("book:1");
    let (source, path) = (feed.source(), mirror.to_str().unwrap());
    let commands: [&[&str]; 6] = [
        &["mirror", &source, path],
        &["mirror", &source, path, "--live"],
        &["status", path],
        &["tail", path, "--since", "0"],
        &["release", path, "shelf"],
        &["verify", path, "--repair", "--against", &source],
    ];
    let mut count = 0;
    // Each fault meets two commands, and each command faults of every kind.
    for (number, fault) in faults.iter().enumerate() {
        for command in [commands[number % 6], commands[(number + 2) % 6]] {
            let _gone = fs::remove_dir_all(&mirror);
            let copied = Command::new("cp").arg("-a").args([&whole, &mirror]).status().unwrap();
            assert!(copied.success());
            let Some(said) = struck(&mirror, *fault, command) else { continue };
            count += 1;
            let case = format!("{fault:?}, {command:?}: {said}");
            match said.status.code() {
                Some(0) => {}
                // The time is up before it has caught up.
                Some(130) if command.contains(&"--live") => {}
                Some(5) => assert!(!said.stderr.is_empty() || !said.stdout.is_empty(), "{case}"),
                _ => panic!("{case}"),
            }
            for word in ["panicked", "internal error", "stack backtrace"] {
                assert!(!said.stderr.contains(word), "{case}");
            }
            plainfold::mirror(&source, &mirror).assert_code(0);
            plainfold::status(&mirror);
            oracle::assert_equals_feed(feed.path(), &mirror);
        }
    }
    count
}

#[test]
fn a_state_that_is_damaged_anyhow_loses_no_document_and_repeats_no_number() {
    const DAMAGES: usize = 120;
    let mut random = Random::from_environment();
    let seeds: Vec<u64> = (0..DAMAGES).map(|_| random.next()).collect();
    std::thread::scope(|scope| {
        for seeds in seeds.chunks(DAMAGES / 4) {
            scope.spawn(|| assert_damages_lose_nothing(seeds));
        }
    });
}

fn assert_damages_lose_nothing(seeds: &[u64]) {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    let (whole, mirror) = (place.join("whole"), place.mirror());
    for number in 0..30 {
        feed.put(&format!("book:{number}"), json!({}), &[]);
        if number % 10 == 9 {
            plainfold::mirror(&feed.source(), &whole).assert_code(0);
        }
    }
    let last = numbers(&whole).into_iter().max().unwrap();
    feed.put("more", json!({}), &[("note.txt", b"text")]);
    feed.delete("book:1");
    for seed in seeds {
        let mut random = Random::seeded(*seed);
        let _gone = fs::remove_dir_all(&mirror);
        assert!(Command::new("cp").arg("-a").args([&whole, &mirror]).status().unwrap().success());
        let what = damage(&mut random, &mirror.join(".plainfold/state"));
        let said = plainfold::mirror(&feed.source(), &mirror).assert_code(0);
        let case = format!("seed {seed}, {what}: {said}");
        assert!(!said.stderr.contains("panicked"), "{case}");
        oracle::assert_equals_feed(feed.path(), &mirror);
        let fresh: Vec<u64> = numbers(&mirror).into_iter().filter(|one| *one > last).collect();
        assert!(fresh.len() >= 2, "both changes have numbers of their own: {fresh:?}: {case}");
    }
}

/// Changes, cuts or lengthens one of the state's files, or removes it.
fn damage(random: &mut Random, state: &Path) -> String {
    let mut files: Vec<_> = fs::read_dir(state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let file = &files[random.below(files.len() as u64) as usize];
    let mut bytes = fs::read(file).unwrap();
    // Most of `db` may be padding: what was written is at its beginning.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
    let what = match random.below(6) {
        0 => {
            bytes.truncate(random.below(used) as usize);
            "cut"
        }
        1 => {
            bytes.extend(random.bytes(600_000));
            "lengthened"
        }
        2 => {
            fs::remove_file(file).unwrap();
            return format!("{} removed", file.display());
        }
        3 => {
            let (from, length) = (random.below(used) as usize, random.below(9_000) as usize);
            let end = (from + length).min(bytes.len());
            bytes[from..end].fill(0);
            "zeroed"
        }
        _ => {
            for _ in 0..=random.below(20) {
                let at = random.below(used.min(bytes.len() as u64)) as usize;
                bytes[at] = random.next() as u8;
            }
            "changed"
        }
    };
    fs::write(file, bytes).unwrap();
    format!("{} {what}", file.display())
}

fn numbers(mirror: &Path) -> Vec<u64> {
    plainfold::journal(mirror, 0).iter().filter_map(|line| line["event"].as_u64()).collect()
}

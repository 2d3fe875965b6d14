//! Plainfold built with its failpoints, so that it aborts at chosen points, and with its recorder.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::plainfold::{self, Outcome, Running};
use super::root;

/// `abort()` ends a process by this signal.
const SIGABRT: i32 = 6;

/// The points of a batch, in the order in which it passes them. Each comes before the step that it is
/// named after, except those that are named after a finished step.
pub const STEPS: [&str; 13] = [
    "stage",
    "stage-text",
    "staged",
    "sync",
    "synced",
    "publish",
    "published",
    "published-synced",
    "commit",
    "flush",
    "committed",
    "told",
    "dispose",
];

/// The operations of the file system.
pub const OPERATIONS: [&str; 15] = [
    "io-make-folder",
    "io-make-file",
    "io-write",
    "io-link",
    "io-sync-file",
    "io-sync",
    "io-sync-file-system",
    "io-rename-new",
    "io-rename",
    "io-rename-folder",
    "io-exchange",
    "io-remove",
    "io-open",
    "io-open-file",
    "io-read",
];

/// The program, built once. All that it depends on has been built for the tests; only Plainfold itself is
/// compiled a second time.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--features", "failpoints", "--example", "crashing"]);
        cargo.arg("--message-format=json").current_dir(root()).stderr(Stdio::inherit());
        let output = cargo.output().expect("cargo runs");
        assert!(output.status.success(), "Plainfold with failpoints cannot be built");
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        let executable = |line: &str| {
            let message: Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        };
        messages.lines().find_map(executable).expect("cargo names the program")
    })
}

/// Runs to its end, or up to the passing of `point` that follows `passings` others.
pub fn run_to<S: AsRef<OsStr>>(
    point: &str,
    passings: u64,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    let mut command = plainfold::command_of(program(), arguments);
    command.env("FAILPOINTS", format!("{point}={}return", skipping(passings)));
    plainfold::run_command(command)
}

/// The same with a slow disk: commits wait for one another. Every flush takes at least 30 ms.
pub fn run_slowly_to<S: AsRef<OsStr>>(
    point: &str,
    passings: u64,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    let mut command = plainfold::command_of(program(), arguments);
    let points = match point {
        "flush" => format!("flush={passings}*sleep(30)->return"),
        _ => format!("flush=sleep(30);{point}={}return", skipping(passings)),
    };
    command.env("FAILPOINTS", points).env("PLAINFOLD_LOG", "debug");
    plainfold::run_command(command)
}

/// Runs to its end while an operation of the file system fails with this error, once, after it was done
/// as often as `passings` says.
pub fn run_failing<S: AsRef<OsStr>>(
    (operation, error): (&str, &str),
    passings: u64,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    let mut command = plainfold::command_of(program(), arguments);
    command.env("FAILPOINTS", failing(operation, error, passings, 1));
    plainfold::run_command(command)
}

/// Runs to its end on a file system that cannot do these things, and says so with these errors.
pub fn run_without<S: AsRef<OsStr>>(
    operations: &[(&str, &str)],
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    let never = |(operation, error): &(&str, &str)| format!("{operation}=return({error})");
    let mut command = plainfold::command_of(program(), arguments);
    command.env("FAILPOINTS", operations.iter().map(never).collect::<Vec<_>>().join(";"));
    plainfold::run_command(command)
}

/// Runs to its end on a file system that limits names to this many bytes.
pub fn run_with_short_names<S: AsRef<OsStr>>(
    most: u32,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    let mut command = plainfold::command_of(program(), arguments);
    command.env("PLAINFOLD_NAME_MAX", most.to_string());
    plainfold::run_command(command)
}

/// Follows a source; once the file `when` exists, an operation of the file system fails with this
/// error, this many times. Returns when it has caught up.
pub fn live_failing(
    (operation, error): (&str, &str),
    times: u64,
    when: &Path,
    source: &str,
    mirror: &Path,
) -> Running {
    let arguments = ["mirror".as_ref(), source.as_ref(), mirror.as_os_str(), "--live".as_ref()];
    let mut command = plainfold::command_of(program(), arguments);
    command.env("FAILPOINTS", failing(operation, error, 0, times)).env("PLAINFOLD_FAILING", when);
    plainfold::live_command(command)
}

/// Starts a run whose thread waits at the passing of `point` that follows `passings` others, until the
/// file `until` exists.
pub fn start_held<S: AsRef<OsStr>>(
    point: &str,
    passings: u64,
    until: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Running {
    let mut command = plainfold::command_of(program(), arguments);
    let hold = format!("{point}={}1*return(hold)", skipping(passings));
    command.env("FAILPOINTS", hold).env("PLAINFOLD_HELD", until);
    plainfold::spawn_command(command)
}

fn failing(operation: &str, error: &str, passings: u64, times: u64) -> String {
    format!("{operation}={}{times}*return({error})", skipping(passings))
}

/// The crate `fail` takes no count of zero.
fn skipping(passings: u64) -> String {
    if passings > 0 { format!("{passings}*off->") } else { String::new() }
}

/// Runs to its end and records in the file `record` what is done to the file system.
pub fn run_recorded<S: AsRef<OsStr>>(
    record: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Outcome {
    let mut command = plainfold::command_of(program(), arguments);
    command.env("PLAINFOLD_RECORD", record);
    plainfold::run_command(command)
}

/// Whether the run has aborted at this point. Fails if it has ended in any other bad way.
#[track_caller]
pub fn aborted_at(point: &str, outcome: Outcome) -> bool {
    if outcome.status.code() == Some(0) {
        return false;
    }
    let said = format!("aborted at the failpoint `{point}`");
    let meant = outcome.status.signal() == Some(SIGABRT) && outcome.stderr.contains(&said);
    assert!(meant, "it ended otherwise than at `{point}`: {outcome}");
    true
}

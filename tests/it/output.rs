//! Output that cannot be written is an error with a separate exit code; a reader that stops early is
//! not an error.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::env::feed::{FeedFile, source};
use crate::env::plainfold::{self, Outcome, command_of};
use crate::env::{Place, library};

/// The exit code for output that cannot be written.
const UNWRITTEN: i32 = 74;

/// Runs the binary with this standard output, to its end.
fn run_to(stdout: impl Into<Stdio>, arguments: &[&str]) -> Outcome {
    let mut command = command_of(Path::new(env!("CARGO_BIN_EXE_plainfold")), arguments);
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Outcome { status: output.status, stdout: String::new(), stderr }
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

struct Damaged {
    place: Place,
    mirror: String,
    feed: String,
}

impl Damaged {
    /// A mirror in which one file is altered.
    fn new() -> Self {
        let place = Place::new();
        plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
        let body = place.mirror().join("members/about%3Alibrary/document.json");
        let text = fs::read_to_string(&body).unwrap();
        fs::write(&body, text.replace("about", "abbut")).unwrap();
        let (mirror, feed) = (place.mirror().display().to_string(), source(&library()));
        Self { place, mirror, feed }
    }

    /// Each command whose output people or programs read, with its exit code.
    fn reports(&self) -> Vec<(Vec<&str>, i32)> {
        let (mirror, feed) = (self.mirror.as_str(), self.feed.as_str());
        let mut all = vec![
            (vec!["--help"], 0),
            (vec!["verify", "--help"], 0),
            (vec!["--version"], 0),
            (vec!["release", mirror, "books"], 0),
        ];
        for format in ["--format=text", "--format=json"] {
            all.push((vec!["status", mirror, format], 0));
            all.push((vec!["tail", mirror, format], 0));
            all.push((vec!["verify", mirror, format], 1));
            all.push((vec!["verify", mirror, "--against", feed, format], 1));
            all.push((vec!["diff", mirror, feed, format], 1));
            all.push((vec!["restore", mirror, "feed:/no/file", "--dry-run", format], 1));
        }
        all
    }
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_of_every_command_and_format() {
    let damaged = Damaged::new();
    for (arguments, _) in damaged.reports() {
        let outcome = run_to(full(), &arguments).assert_code(UNWRITTEN);
        let said = outcome.stderr.contains("cannot be written to standard output: No space left");
        assert!(said, "{arguments:?}: {outcome}");
    }
}

#[test]
fn a_reader_that_has_read_enough_changes_no_exit_code_and_nothing_is_said() {
    let damaged = Damaged::new();
    for (arguments, code) in damaged.reports() {
        let outcome = run_to(closed(), &arguments).assert_code(code);
        assert!(!outcome.stderr.contains("cannot be written"), "{arguments:?}: {outcome}");
    }
}

#[test]
fn a_product_that_cannot_be_written_is_an_error_whoever_reads_it() {
    let damaged = Damaged::new();
    let mirror = damaged.mirror.as_str();
    let products = [vec!["restore", mirror, "feed:-"], vec!["verify", mirror, "--manifest", "-"]];
    for arguments in products {
        for (name, stdout) in [("full", Stdio::from(full())), ("closed", closed())] {
            let outcome = run_to(stdout, &arguments).assert_code(UNWRITTEN);
            assert!(outcome.stderr.contains("standard output"), "{name} {arguments:?}: {outcome}");
        }
    }
    // The report belongs to the manifest, and is still printed.
    let outcome = run_to(full(), &["verify", mirror, "--manifest", "-"]).assert_code(UNWRITTEN);
    assert!(outcome.stderr.contains("1 problem"), "{outcome}");
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_and_a_device_stays_one() {
    let damaged = Damaged::new();
    let mirror = damaged.mirror.as_str();
    // By a link, so that a fault would replace the link and not this machine's device.
    let link = damaged.place.join("full").display().to_string();
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    let outcome = plainfold::run(["verify", mirror, "--manifest", &link]).assert_code(UNWRITTEN);
    let said = format!("the manifest cannot be written to {link}");
    assert!(outcome.stderr.contains(&said), "{outcome}");
    assert!(outcome.stdout.contains("1 problem"), "{outcome}");
    plainfold::run(["restore", mirror, &format!("feed:{link}")]).assert_code(UNWRITTEN);
    plainfold::run(["restore", mirror, "feed:/no/such/folder/feed"]).assert_code(UNWRITTEN);
    plainfold::run(["verify", mirror, "--manifest", "/no/such/folder/sums"]).assert_code(UNWRITTEN);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(!damaged.place.join("full.part").exists());
}

#[test]
fn the_feed_of_a_restore_goes_into_a_pipe_that_has_a_name() {
    let place = Place::new();
    plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
    let pipe = place.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let restoring = plainfold::spawn([
        "restore".to_owned(),
        place.mirror().display().to_string(),
        format!("feed:{}", pipe.display()),
    ]);
    let mut feed = String::new();
    File::open(&pipe).unwrap().read_to_string(&mut feed).unwrap();
    restoring.wait().assert_code(0);
    assert!(feed.lines().count() > 10, "{feed}");
    assert!(!place.join("pipe.part").exists());
}

#[test]
fn the_summary_of_a_mirror_that_cannot_be_written_is_no_success() {
    let place = Place::new();
    let (feed, mirror) = (source(&library()), place.mirror().display().to_string());
    let mut command = command_of(
        Path::new(env!("CARGO_BIN_EXE_plainfold")),
        ["mirror", &feed, &mirror, "--progress", "never"],
    );
    let status = command.stdin(Stdio::null()).stdout(full()).status().unwrap();
    assert_eq!(status.code(), Some(UNWRITTEN));
    plainfold::run(["diff", &mirror, &feed]).assert_code(0);
}

#[test]
fn tail_into_head_ends_well() {
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("shelf.ndjson"));
    for number in 0..2_000 {
        feed.put(&format!("book:{number}"), json!({"n": number}), &[]);
    }
    plainfold::mirror(&feed.source(), &place.mirror()).assert_code(0);
    let script = "set -o pipefail; \"$0\" tail \"$1\" --format text | head -1";
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_plainfold")]).arg(place.mirror());
    let output = shell.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !stderr.contains("cannot be written"), "{stderr}");
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
}

//! A read-only mirror is read by every command that reads, and does not change; a process that holds
//! a mirror and does not answer is reported in bounded time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::env::feed::source;
use crate::env::plainfold::{self, Outcome, Running};
use crate::env::{Place, library};

/// A mirror that its user cannot write to: mounted read-only where that is allowed, else by its modes.
struct ReadOnly {
    place: Place,
    mounted: bool,
}

impl ReadOnly {
    fn new() -> Self {
        let place = Place::new();
        plainfold::mirror(&source(&library()), &place.mirror()).assert_code(0);
        let path = place.mirror();
        let mount = |arguments: &[&str]| {
            let done = Command::new("mount").args(arguments).arg(&path).output();
            done.is_ok_and(|output| output.status.success())
        };
        let bound = mount(&["--bind", path.to_str().unwrap()]);
        let read_only = Self { mounted: bound, place };
        if !bound || !mount(&["-o", "remount,ro,bind"]) {
            eprintln!("no read-only mount is allowed here: the modes of files must do");
            read_only.set_modes(0o500, 0o400);
        }
        let forbidden = fs::write(path.join("probe"), "x").is_err();
        assert!(forbidden || is_root(), "the mirror can be written to");
        read_only
    }

    fn mirror(&self) -> PathBuf {
        self.place.mirror()
    }

    fn set_modes(&self, folders: u32, files: u32) {
        for entry in walkdir::WalkDir::new(self.place.mirror()).contents_first(true) {
            let entry = entry.unwrap();
            let mode = if entry.file_type().is_dir() { folders } else { files };
            let _gone = fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode));
        }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        match self.mounted {
            true => {
                let done = Command::new("umount").arg(self.place.mirror()).status();
                assert!(done.is_ok_and(|status| status.success()), "it stays mounted");
            }
            false => self.set_modes(0o700, 0o600),
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Every name with data that shows whether it was written to.
fn standing(path: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u64)> {
    let walk = walkdir::WalkDir::new(path).into_iter().map(Result::unwrap);
    walk.map(|entry| {
        let found = entry.metadata().unwrap();
        (entry.into_path(), (found.ino(), found.mtime_nsec(), found.ctime_nsec(), found.len()))
    })
    .collect()
}

fn run(command: &str, mirror: &Path, more: &[&str]) -> Outcome {
    let mirror = mirror.display().to_string();
    plainfold::run([command, &mirror].iter().chain(more))
}

#[test]
fn every_command_that_reads_works_on_a_read_only_mount() {
    let read_only = ReadOnly::new();
    let (mirror, feed) = (read_only.mirror(), source(&library()));
    let before = standing(&mirror);
    let status = plainfold::status(&mirror);
    assert_eq!(status["collections"].as_array().unwrap().len(), 3, "{status:#}");
    assert!(status["events"]["last"].as_u64() > Some(10), "{status:#}");
    assert!(plainfold::journal(&mirror, 0).len() > 10);
    run("verify", &mirror, &[]).assert_code(0);
    run("verify", &mirror, &["--against", &feed]).assert_code(0);
    let sums = read_only.place.join("sums").display().to_string();
    run("verify", &mirror, &["--manifest", &sums]).assert_code(0);
    run("diff", &mirror, &[&feed]).assert_code(0);
    let restored = read_only.place.join("restored.ndjson");
    run("restore", &mirror, &[&source(&restored)]).assert_code(0);
    assert!(fs::metadata(restored).unwrap().len() > 0);
    assert_eq!(standing(&mirror), before);
    if read_only.mounted {
        // What has to write says that it cannot.
        let release = run("release", &mirror, &["books"]).assert_code(5);
        assert!(release.stderr.contains("Read-only file system"), "{release}");
        run("verify", &mirror, &["--repair"]).assert_code(5);
    }
}

#[test]
fn status_and_tail_of_a_mirror_at_rest_write_nothing_into_it() {
    let place = Place::new();
    let mirror = place.mirror();
    plainfold::mirror(&source(&library()), &mirror).assert_code(0);
    fs::write(mirror.join(".plainfold/staging/1/7~shelf"), "left by a run that was killed")
        .unwrap();
    let before = standing(&mirror);
    plainfold::status(&mirror);
    assert!(plainfold::journal(&mirror, 0).len() > 10);
    assert_eq!(standing(&mirror), before);
    // A copy may lack the lock.
    fs::remove_file(mirror.join(".plainfold/lock")).unwrap();
    let before = standing(&mirror);
    plainfold::status(&mirror);
    assert_eq!(standing(&mirror), before);
    plainfold::mirror(&source(&library()), &mirror).assert_code(0);
}

#[test]
fn a_damaged_state_is_reported_by_status_and_stays_where_it_is() {
    let place = Place::new();
    let mirror = place.mirror();
    plainfold::mirror(&source(&library()), &mirror).assert_code(0);
    fs::write(mirror.join(".plainfold/state/conf"), [b'x'; 4096]).unwrap();
    let before = standing(&mirror);
    let status = plainfold::status(&mirror);
    assert!(status["trouble"].as_str().unwrap().contains("cannot be read"), "{status:#}");
    assert_eq!(standing(&mirror), before);
}

fn signal(process: &Running, name: &str) {
    let kill = ["-c", "kill -\"$1\" \"$0\"", &process.id().to_string(), name].map(str::to_owned);
    assert!(Command::new("sh").args(kill).status().unwrap().success());
}

#[test]
fn a_process_that_is_stopped_is_named_by_every_command_that_asks_it() {
    let place = Place::new();
    let mirror = place.mirror();
    let feed = place.join("feed.ndjson");
    fs::copy(library(), &feed).unwrap();
    let live = plainfold::live(&source(&feed), &mirror);
    signal(&live, "STOP");
    let stopped = format!("process {} is stopped", live.id());
    let status = run("status", &mirror, &[]).assert_code(5);
    assert!(status.stdout.contains(&stopped), "{status}");
    let json = run("status", &mirror, &["--format", "json"]).assert_code(5).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["running"], &json["pid"]), (&true.into(), &live.id().into()), "{json:#}");
    assert!(json["trouble"].as_str().unwrap().contains(&stopped), "{json:#}");
    let undelete = run("restore", &mirror, &["http://127.0.0.1:1", "--undelete"]);
    for outcome in [run("tail", &mirror, &[]), run("release", &mirror, &["books"]), undelete] {
        let outcome = outcome.assert_code(5);
        assert!(outcome.stderr.contains(&stopped), "{outcome}");
    }
    // A command that reads only the tree asks no process.
    run("verify", &mirror, &[]).assert_code(0);
    signal(&live, "CONT");
    assert_eq!(plainfold::status(&mirror)["running"], true);
    live.terminate();
    live.wait().assert_code(0);
}

#[test]
fn a_process_whose_socket_is_gone_is_named_too() {
    let place = Place::new();
    let mirror = place.mirror();
    let live = plainfold::live(&source(&library()), &mirror);
    fs::remove_file(mirror.join(".plainfold/socket")).unwrap();
    let silent = format!("process {} does not answer", live.id());
    let status = run("status", &mirror, &[]).assert_code(5);
    assert!(status.stdout.contains(&silent), "{status}");
    let tail = run("tail", &mirror, &[]).assert_code(5);
    assert!(tail.stderr.contains(&silent), "{tail}");
    let undelete = run("restore", &mirror, &["http://127.0.0.1:1", "--undelete"]).assert_code(5);
    assert!(undelete.stderr.contains(&silent), "{undelete}");
    live.terminate();
    live.wait().assert_code(0);
}

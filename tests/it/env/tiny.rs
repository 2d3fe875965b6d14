//! A small temporary file system, which can be filled, emptied, and made read-only.
//!
//! It is a tmpfs in a separate mount namespace, accessed through the process that keeps it, so that
//! it needs no privileges on most systems and vanishes with its process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Place;

/// The file system, and the shell that keeps it.
pub struct Tiny {
    shell: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    path: PathBuf,
    place: Place,
}

impl Tiny {
    /// A file system of this many MiB; `None`, with a message, if this system does not allow it.
    pub fn mount(mib: u32) -> Option<Self> {
        Self::mount_as("tmpfs", &format!("size={mib}m"))
    }

    /// One of this type, with these options.
    pub fn mount_as(kind: &str, options: &str) -> Option<Self> {
        let place = Place::new();
        let mut shell = Command::new("unshare");
        shell.args(["--user", "--map-root-user", "--mount", "sh"]);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut shell = shell.spawn().ok()?;
        let orders = shell.stdin.take().unwrap();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        let path = PathBuf::from(format!("/proc/{}/root", shell.id()))
            .join(place.path().strip_prefix("/").unwrap());
        let mut tiny = Self { shell, orders, answers, path, place };
        let mount = format!("mount -t {kind} -o {options} none '{}'", tiny.place.path().display());
        if !tiny.order(&mount) {
            eprintln!("skipped: a small file system cannot be mounted here");
            return None;
        }
        Some(tiny)
    }

    /// Where the test's mirror goes. Not made here.
    pub fn mirror(&self) -> PathBuf {
        self.path.join("mirror")
    }

    /// Takes all files that are left.
    pub fn fill_files(&self) {
        let balloons = self.path.join("balloons");
        fs::create_dir(&balloons).unwrap();
        let made =
            (0..1_000_000).take_while(|n| File::create(balloons.join(n.to_string())).is_ok());
        assert!(made.count() > 0, "there was room to be taken");
    }

    /// Uses all space that is left, except this many bytes.
    pub fn fill(&self, but: u64) {
        let path = self.path.join("balloon");
        let mut balloon = File::options().create(true).append(true).open(&path).unwrap();
        let piece = [0; 4096];
        while balloon.write_all(&piece).is_ok() {}
        let length = balloon.metadata().unwrap().len();
        assert!(length > 0, "there was room to be taken");
        balloon.set_len(length - but).unwrap();
    }

    /// Gives it back.
    pub fn empty(&self) {
        fs::remove_file(self.path.join("balloon")).unwrap();
    }

    /// Makes it read-only; returns `false` if open files prevent that.
    pub fn make_read_only(&mut self) -> bool {
        let order = format!("mount -o remount,ro '{}'", self.place.path().display());
        self.order(&order)
    }

    /// Lets everybody write again.
    pub fn make_writable(&mut self) {
        let order = format!("mount -o remount,rw '{}'", self.place.path().display());
        assert!(self.order(&order), "{order}");
    }

    fn order(&mut self, command: &str) -> bool {
        let mut answer = String::new();
        let asked = writeln!(self.orders, "{command} 2>/dev/null; echo $?");
        asked.is_ok() && self.answers.read_line(&mut answer).is_ok() && answer.trim() == "0"
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

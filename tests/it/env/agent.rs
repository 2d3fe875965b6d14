//! The agent in a place of its own: its config, commands that use it, and requests to it.

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Place;
use super::plainfold::{self, Outcome, Running, Stream};

/// A config in a place, and commands that use it.
pub struct Setup {
    pub place: Place,
}

impl Setup {
    pub fn new() -> Self {
        Self { place: Place::new() }
    }

    pub fn config(&self) -> PathBuf {
        self.place.join("plainfold.toml")
    }

    /// Replaces the config by another one, as an editor does.
    pub fn write(&self, mirrors: &[String]) {
        let text = format!("[api]\nlisten = ['./agent.sock']\n{}", mirrors.concat());
        self.replace(&text);
    }

    pub fn replace(&self, text: &str) {
        let new = self.place.join("plainfold.toml.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.config()).unwrap();
    }

    pub fn mirror(&self, name: &str, source: &str, more: &str) -> String {
        let directory = self.place.join(name).display().to_string();
        format!(
            "[[mirror]]\nname = '{name}'\nsource = '{source}'\ndirectory = '{directory}'\n{more}\n"
        )
    }

    pub fn command(&self, words: &[&str]) -> Command {
        command_in(&self.place, words)
    }

    pub fn run(&self, words: &[&str]) -> Outcome {
        plainfold::run_command(self.command(words))
    }

    /// `plainfold run` that has started all mirrors.
    pub fn start(&self) -> Running {
        plainfold::live_command(self.command(&["run"]))
    }

    pub fn mirrors(&self, code: i32) -> Value {
        let outcome = self.run(&["mirrors", "--format", "json"]).assert_code(code);
        serde_json::from_str(&outcome.stdout).unwrap()
    }

    /// Asks the agent at its socket.
    pub fn request(&self, request: &str) -> BufReader<UnixStream> {
        let mut socket = UnixStream::connect(self.place.join("agent.sock")).unwrap();
        write!(socket, "{request} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").unwrap();
        BufReader::new(socket)
    }

    /// The status code and the JSON that the agent answers.
    pub fn ask(&self, request: &str) -> (u16, Value) {
        let mut answer = String::new();
        self.request(request).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}")))
    }

    pub fn status(&self, name: &str) -> Value {
        let outcome = self.run(&["status", name, "--format", "json"]).assert_code(0);
        serde_json::from_str(&outcome.stdout).unwrap()
    }
}

pub fn of<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut mirrors = list["mirrors"].as_array().unwrap().iter();
    mirrors.find(|mirror| mirror["name"] == name).unwrap_or_else(|| panic!("{name}: {list}"))
}

pub fn said(running: &mut Running, mirror: &str, text: &str) -> String {
    let named = format!("mirror={mirror}}}");
    running.wait_for_line(Stream::Stderr, |line| line.contains(&named) && line.contains(text))
}

/// Waits until each of the mirrors has said it, in any order.
pub fn all_said(running: &mut Running, mirrors: &[&str], text: &str) {
    let mut left: Vec<_> = mirrors.iter().map(|name| format!("mirror={name}}}")).collect();
    while !left.is_empty() {
        let is_named = |line: &str| left.iter().any(|name| line.contains(name));
        let line =
            running.wait_for_line(Stream::Stderr, |line| line.contains(text) && is_named(line));
        left.retain(|name| !line.contains(name));
    }
}

pub fn hang_up(running: &Running) {
    let pid = running.id().to_string();
    let status = std::process::Command::new("sh").args(["-c", "kill -HUP $0", &pid]).status();
    assert!(status.unwrap().success());
}

pub fn feed(path: &Path) -> String {
    format!("feed:{}", path.display())
}

/// A command that finds the config `plainfold.toml` of a place.
pub fn command_in(place: &Place, words: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_plainfold"));
    let mut command = plainfold::command_of(program, words);
    command.env("PLAINFOLD_CONFIG", place.join("plainfold.toml")).current_dir(place.path());
    command
}

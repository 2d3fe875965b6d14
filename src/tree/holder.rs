//! Who holds a mirror, as its lock file says.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who holds a mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// Its process id; 0 if it could not be read.
    pub pid: u32,
    /// Its command: "mirror", "status", …
    pub command: String,
    /// The time when it took the lock, in RFC 3339.
    pub since: String,
    /// The path of the Unix socket where it answers requests, if it does.
    pub socket: Option<PathBuf>,
    /// When its catch-up began, once that has reached its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught_up: Option<jiff::Timestamp>,
}

impl Holder {
    /// A holder for this process, from now on.
    pub fn this_process(command: &str) -> Self {
        Self {
            pid: std::process::id(),
            command: command.to_owned(),
            since: jiff::Timestamp::now().to_string(),
            socket: None,
            caught_up: None,
        }
    }

    /// The number of attempts to get the lock. A command that is finished in a moment, or that has
    /// not identified itself yet, is waited for longer than others. A process that only reads the
    /// holder takes the lock for a moment too.
    pub(crate) fn patience(&self) -> u32 {
        let passing = matches!(self.command.as_str(), "status" | "tail" | "release");
        if passing || self.pid == 0 { 60 } else { 4 }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return f.write_str("another process, which has not identified itself yet");
        }
        write!(f, "`plainfold {}` (process {}, since {})", self.command, self.pid, self.since)
    }
}

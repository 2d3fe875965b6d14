//! Who holds a mirror, as its lock file says.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::document::MirrorName;

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
    /// Whether the catch-up that it began at that time has reached its end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub caught_up: bool,
    /// Which mirror of which config it is, if `plainfold run` holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<AgentMirror>>,
}

/// A mirror of `plainfold run`, as others find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentMirror {
    /// Its name in the config.
    pub name: MirrorName,
    /// The path of the config.
    pub config: PathBuf,
}

impl Holder {
    /// A holder for this process, from now on.
    pub fn this_process(command: &str) -> Self {
        Self {
            pid: std::process::id(),
            command: command.to_owned(),
            since: jiff::Timestamp::now().to_string(),
            socket: None,
            caught_up: false,
            agent: None,
        }
    }

    /// What somebody does who wants to work on the mirror that it holds, as the end of a sentence.
    pub(super) fn remedy(&self) -> String {
        self.agent.as_deref().map_or_else(String::new, |AgentMirror { name, config }| {
            format!(
                ": it is the mirror {name} of {config}. To see it, run `plainfold status {name}`; to \
                 catch up now, `plainfold catch-up {name}`; to free it, remove it from this config",
                config = config.display()
            )
        })
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
        let command = if self.agent.is_some() { "run" } else { &self.command };
        write!(f, "`plainfold {command}` (process {}, since {})", self.pid, self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_says_which_mirror_it_holds_and_others_say_no_more_than_before() {
        let plain = Holder::this_process("mirror");
        assert_eq!(plain.remedy(), "");
        assert!(plain.to_string().starts_with("`plainfold mirror` (process "), "{plain}");
        assert!(!serde_json::to_string(&plain).unwrap().contains("agent"));
        let name = "books".parse().unwrap();
        let agent = AgentMirror { name, config: "/etc/plainfold.toml".into() };
        let held = Holder { agent: Some(agent.into()), ..plain };
        let read: Holder = serde_json::from_str(&serde_json::to_string(&held).unwrap()).unwrap();
        assert_eq!(read, held);
        assert!(read.to_string().starts_with("`plainfold run` (process "), "{read}");
        assert!(read.remedy().contains("the mirror books of /etc/plainfold.toml"));
    }
}

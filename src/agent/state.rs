//! What a mirror of the agent is doing, as values for people and programs.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::MirrorName;

/// What a mirror of the agent is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum MirrorState {
    /// It waits for its turn to start, or is being opened.
    Starting,
    /// Its session runs.
    Running {
        /// The time since which it does.
        since: Timestamp,
    },
    /// It has caught up, and waits for the next time of its schedule.
    Waiting {
        /// That time; `None` if the schedule names no further one.
        next: Option<Timestamp>,
    },
    /// It ended with an error that time may mend, and starts again.
    Failed {
        /// The error.
        error: String,
        /// The time of the next start.
        next: Timestamp,
    },
    /// It ended with an error that somebody has to mend, and starts again only when its entry in the
    /// config changes, or when it is told to.
    Parked {
        /// The error.
        error: String,
        /// What to do.
        remedy: String,
    },
    /// It finishes what is in flight, and ends.
    Stopping,
}

impl MirrorState {
    /// The state in a word, as it is serialised.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Waiting { .. } => "waiting",
            Self::Failed { .. } => "failed",
            Self::Parked { .. } => "parked",
            Self::Stopping => "stopping",
        }
    }

    /// Why the mirror does not run, if it should.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Failed { error, .. } | Self::Parked { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The time of the next start, if it is known.
    pub fn next(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting { next } => *next,
            Self::Failed { next, .. } => Some(*next),
            _ => None,
        }
    }
}

/// How the last session of a mirror ended, in this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastRun {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Whether the mirror held everything then that the source held.
    pub complete: bool,
    /// What is missing, or why it ended, if it is not complete.
    pub trouble: Option<String>,
}

/// A mirror of the agent in a line: an element of the answer to `GET /v1/mirrors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MirrorSummary {
    /// The name.
    pub name: MirrorName,
    /// The directory.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// The source, without credentials.
    pub source: String,
    /// When it runs, as the config says it.
    pub schedule: String,
    /// What it is doing.
    #[serde(flatten)]
    pub state: MirrorState,
    /// How often it was started in this process.
    pub starts: u64,
    /// How its last session ended, if it has had one in this process.
    pub last_run: Option<LastRun>,
    /// The number of its collections, while it runs.
    pub collections: Option<usize>,
    /// The number of documents in it, while it runs and as far as it is known.
    pub documents: Option<u64>,
    /// The number of documents that could not be mirrored, while it runs.
    pub failures: Option<u64>,
    /// The number of deletions that are held back, while it runs.
    pub held_back: Option<u64>,
    /// The number of documents that a verification found damaged, while it runs.
    #[serde(default)]
    pub damaged: Option<u64>,
    /// Whether every collection has caught up since it started.
    pub caught_up: bool,
    /// The lag of the collection that is furthest behind, in seconds.
    pub lag_seconds: Option<f64>,
    /// Why a collection waits or has failed, if one does.
    pub trouble: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_serialised_by_its_word() {
        let at: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let error = || "why".to_owned();
        for state in [
            MirrorState::Starting,
            MirrorState::Running { since: at },
            MirrorState::Waiting { next: Some(at) },
            MirrorState::Waiting { next: None },
            MirrorState::Failed { error: error(), next: at },
            MirrorState::Parked { error: error(), remedy: "what to do".to_owned() },
            MirrorState::Stopping,
        ] {
            let value = serde_json::to_value(&state).unwrap();
            assert_eq!(value["state"], state.word());
            assert_eq!(serde_json::from_value::<MirrorState>(value).unwrap(), state);
        }
    }
}

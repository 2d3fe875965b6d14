//! Programs that run before and after each session of a mirror.

use std::time::Duration;

use super::schedule::Period;
use super::value::{Bad, Key, Value};

/// How long a program may take.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Programs with their arguments that run before and after each session of a mirror. Each gets JSON on
/// its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHooks {
    /// Runs before a session. If it fails, the session does not start.
    pub before: Option<Vec<String>>,
    /// Runs when a session has ended and the mirror is closed.
    pub after: Option<Vec<String>>,
    /// How long each of them may take.
    pub timeout: Duration,
}

impl Default for RunHooks {
    fn default() -> Self {
        Self { before: None, after: None, timeout: TIMEOUT }
    }
}

/// The keys of `hooks`.
pub(super) const HOOKS: &[Key<RunHooks>] = &[
    Key {
        name: "before",
        allowed: "an array of a program and its arguments, such as [\"/usr/local/bin/mounted\", \"/srv\"]",
        read: |hooks, value| {
            hooks.before = Some(command(value)?);
            Ok(())
        },
    },
    Key {
        name: "after",
        allowed: "an array of a program and its arguments, such as [\"/usr/local/bin/snapshot\", \"books\"]",
        read: |hooks, value| {
            hooks.after = Some(command(value)?);
            Ok(())
        },
    },
    Key {
        name: "timeout",
        allowed: "a duration of at least 1 s, such as \"10m\"",
        read: |hooks, value| {
            let Period(timeout) = value.parse()?;
            if timeout < Duration::from_secs(1) {
                return Err(Bad::Kind);
            }
            hooks.timeout = timeout;
            Ok(())
        },
    },
];

/// A program and its arguments.
pub(super) fn command(value: Value<'_>) -> Result<Vec<String>, Bad> {
    let command: Vec<String> = value.get()?;
    if command.first().is_none_or(|program| program.trim().is_empty()) {
        return Err(Bad::Why("it names no program".to_owned()));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(Bad::Why("it holds a NUL".to_owned()));
    }
    Ok(command)
}

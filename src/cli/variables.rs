//! Environment variables of the terminal and of the log.

use std::ffi::OsString;

/// Whether the user and the terminal allow colours, by the usual variables.
pub fn wants_colour() -> bool {
    set("NO_COLOR").is_none()
        && set("CLICOLOR").is_none_or(|value| value != "0")
        && set("TERM").is_some_and(|value| value != "dumb")
}

/// The value of a variable. An empty one counts as not set.
pub fn set(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

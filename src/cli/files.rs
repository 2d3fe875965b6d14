//! How many files the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit to what the process may raise it to: a mirror of many collections has many files
/// open. Where that is refused, the limit stays as it is.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

//! How many files the process may have open, and how large they may be.

use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Raises the limit to what the process may raise it to: a mirror of many collections has many files
/// open. Where that is refused, the limit stays as it is.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Has a write beyond the largest size of a file fail, instead of ending the process: it concerns one
/// document. Within the runtime.
pub fn survive_size_limit() {
    // The handler stays, whatever becomes of this.
    let _stays = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
}

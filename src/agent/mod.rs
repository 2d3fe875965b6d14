//! The agent: every mirror of a config in one process. It starts a session for each mirror, by its
//! schedule, starts it again when it ends, and follows changes of the config.
//!
//! It knows no interface: what answers requests about a mirror is given to it.

mod after;
mod alarm;
mod alerts;
mod due;
mod home;
mod hooks;
mod keeper;
mod program;
mod roster;
mod service;
mod state;
mod watch;

pub use home::MIRROR;
pub use keeper::{Begin, SessionEnd};
pub use roster::{MirrorHandle, Roster};
pub use service::{Agent, all_started};
pub use state::{LastRun, MirrorState, MirrorSummary};
pub use watch::ConfigWatch;

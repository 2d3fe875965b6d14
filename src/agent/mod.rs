//! The agent: every mirror of a config in one process. It starts a session for each mirror, by its
//! schedule, starts it again when it ends, and follows changes of the config.
//!
//! It knows no interface: what answers requests about a mirror is given to it.

mod alarm;
mod alerts;
mod hooks;
mod roster;
mod state;

pub use alarm::Alarm;
pub use alerts::{Alert, AlertKind, AlertState};
pub use roster::{MirrorHandle, Roster};
pub use state::{LastRun, MirrorState, MirrorSummary};

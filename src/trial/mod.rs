//! Hooks for tests of crashes, power losses and failing disks: named points at which the process
//! aborts, failures of the file system, and a record of all its operations. Without the feature
//! `failpoints`, which no release has, everything here is empty.

#[cfg(not(feature = "failpoints"))]
mod absent;
#[cfg(feature = "failpoints")]
mod failpoint;
#[cfg(feature = "failpoints")]
mod recorder;

#[cfg(not(feature = "failpoints"))]
pub use absent::{
    attempt, committed, exchanged, limited, linked, longest_name, made, pass, removed, renamed,
    synced, written,
};
#[cfg(feature = "failpoints")]
pub use failpoint::{attempt, limited, longest_name, pass};
#[cfg(feature = "failpoints")]
pub use recorder::{committed, exchanged, linked, made, removed, renamed, synced, written};

/// The extent of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The bytes of one file, or the names in one folder.
    Itself,
    /// The whole file system.
    FileSystem,
}

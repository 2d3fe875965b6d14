//! What tests of crashes, power losses and failing disks hook into: named points at which the process
//! aborts, failures of the file system, and a record of all that is done to it. Without the feature `failpoints`, which no release
//! has, everything here is empty. It must not know what the points and the folders mean.

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

/// How much a sync makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The bytes of one file, or the names in one folder.
    Itself,
    /// All of the file system.
    FileSystem,
}

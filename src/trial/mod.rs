//! What tests of crashes and power losses hook into: named points at which the process aborts, and a
//! record of all that is done to the file system. Without the feature `failpoints`, which no release
//! has, everything here is empty. It must not know what the points and the folders mean.

#[cfg(not(feature = "failpoints"))]
mod absent;
#[cfg(feature = "failpoints")]
mod failpoint;
#[cfg(feature = "failpoints")]
mod recorder;

#[cfg(not(feature = "failpoints"))]
pub use absent::{committed, exchanged, linked, made, pass, removed, renamed, synced, written};
#[cfg(feature = "failpoints")]
pub use failpoint::pass;
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

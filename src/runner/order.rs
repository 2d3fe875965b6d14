//! What the supervisor is told while it works.

use crate::document::CollectionName;

/// A message to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A run has reached the end of its source: others may have its place.
    AtEnd(CollectionName),
    /// A run waits for its source, or for the disk: others may have its place.
    Waits(CollectionName),
    /// A run has something to do again.
    Busy(CollectionName),
    /// A collection has changed at its source, or has something to do.
    Visit(CollectionName),
    /// Nothing has changed since this moment in the collections that sleep, but in those that were named
    /// before.
    InStep(jiff::Timestamp),
}

//! What passes from the reader of the feed to the disk, in order: batches, and signals between them.

use bytes::Bytes;

use super::batch::Seen;
use super::evidence::Reached;
use crate::document::{Position, Properties};
use crate::source::Holds;

/// Items that pass from the reader of the feed to the disk, in order.
#[derive(Debug)]
pub enum Work<B> {
    Batch(B),
    Signal(Signal),
}

/// An item with a fixed place between the batches.
#[derive(Debug)]
pub enum Signal {
    /// A full listing begins.
    BeginScan(String),
    /// The listing is complete. Documents not in `seen` are gone, if there is a `seen`.
    EndScan { position: Position, seen: Option<Seen> },
    /// The number of documents at the source, including everything before this item.
    Holds(Holds),
    /// The end of the source has been reached.
    CaughtUp(Reached),
    /// The events that an interrupted run may not have emitted have been emitted.
    Told,
    /// The security object of the collection, as the source sends it.
    Security(Bytes),
    /// How the collection was created, as the source reports it.
    Properties(Properties),
    /// Delete what the brake holds back.
    Release,
}

impl Signal {
    /// Whether documents may overtake it.
    pub fn removes(&self) -> bool {
        matches!(self, Self::EndScan { .. } | Self::Release)
    }
}

//! A revision apart from the winning one, with the history that leads to it. Pure.

use bytes::Bytes;

use super::{Document, Revision};

/// A leaf of a document's revision tree.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Which revision it is.
    pub revision: Revision,
    /// The revisions that led to it, as JSON text: `{"start":3,"ids":["c","b","a"]}`, newest first.
    pub history: Bytes,
    /// Its content. The body holds the history too, as `_revisions`.
    pub document: Document,
}

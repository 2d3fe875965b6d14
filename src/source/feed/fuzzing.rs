//! A door for the fuzz targets to the reading of rows. No part of the library's interface.

use bytes::Bytes;

use super::content::Folder;
use super::row;
use super::stubs::Surroundings;
use crate::document::DocumentState;

/// The body that comes of a line, if the line becomes a change and holds one.
pub fn body_of(line: &[u8]) -> Option<Bytes> {
    let around = Surroundings {
        folder: &Folder::new("/nonexistent"),
        feed: None,
        hidden: &[],
        check: &|| Ok(()),
    };
    let row = row::parse(line).ok()??;
    match row.into_change(None, None, &around).ok()?.state {
        DocumentState::Present(document) | DocumentState::Deleted(Some(document)) => {
            Some(document.body)
        }
        DocumentState::Deleted(None) => None,
    }
}

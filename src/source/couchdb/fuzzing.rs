//! A door for the fuzz targets to the reading of rows. No part of the library's interface.

use bytes::Bytes;

use super::origin::Origin;
use super::row::{self, Row};
use crate::document::DocumentState;

/// Reads a row; whether the body that comes of it, if one does, stands in the row byte for byte.
pub fn body_is_verbatim(row: &Bytes) -> bool {
    match row::read(row, &Origin::counting(), String::new) {
        Ok(Row::Change(change)) => match change.state {
            DocumentState::Present(document) | DocumentState::Deleted(Some(document)) => {
                row.as_ptr_range().contains(&document.body.as_ptr())
            }
            DocumentState::Deleted(None) => true,
        },
        _ => true,
    }
}

//! Access for the fuzz targets to the readers of our own files. Not part of the library's interface.

use crate::tree::format;
use crate::tree::record::Record;

/// Reads a text as each of the small files of `.plainfold`.
pub fn read_small_files(text: &[u8]) {
    let path = std::path::Path::new("m");
    let _ = format::parse(path, path, text);
    let _ = serde_json::from_slice::<Record>(text);
}

/// Formats a body, which must be JSON, with indentation.
pub fn pretty(json: &[u8]) -> Vec<u8> {
    crate::json::pretty::pretty(json)
}

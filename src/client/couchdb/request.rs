//! One request, before it is sent.

use std::time::Duration;

use reqwest::Method;

use super::upload::Upload;

/// The largest answer that is held in memory, in bytes. A stream has no such limit.
pub const MAX_ANSWER: usize = 128 << 20;

/// The requested part of an attachment.
#[derive(Clone, Debug)]
pub struct Part {
    /// From this byte to its end.
    pub from: u64,
    /// The `ETag` of the file whose beginning has been read.
    pub tag: Option<String>,
}

/// One request, before it is sent.
pub(super) struct Request {
    pub method: Method,
    /// Below the server's address, percent-encoded, with its leading slash.
    pub path: String,
    /// Without the question mark, percent-encoded.
    pub query: String,
    pub upload: Option<Upload>,
    /// The requested part of a file, if not all of it.
    pub part: Option<Part>,
    pub accepts: Accepts,
    pub patience: Option<Duration>,
    /// Whether the answer never ends, and comes a few bytes at a time.
    pub beats: bool,
    /// The largest answer that is held, in bytes.
    pub most: usize,
}

/// The form of the wanted answer.
pub(super) enum Accepts {
    Json,
    File,
    GzippedFile,
}

impl Request {
    pub fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            query: String::new(),
            upload: None,
            part: None,
            accepts: Accepts::Json,
            patience: None,
            beats: false,
            most: MAX_ANSWER,
        }
    }

    pub fn post(path: String, upload: impl Into<Upload>) -> Self {
        Self { method: Method::POST, upload: Some(upload.into()), ..Self::get(path) }
    }

    pub fn put(path: String) -> Self {
        Self { method: Method::PUT, ..Self::get(path) }
    }

    /// Whether its answer may be large.
    pub fn may_take_long(&self) -> bool {
        !matches!(self.accepts, Accepts::Json) || self.path.ends_with("/_bulk_get")
    }
}

//! What a request sends: JSON held in memory, or a stream of a known length.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};

/// The slowest that a stream is expected to be taken, in bytes a second.
const SLOWEST: u64 = 256 << 10;

/// The body of a request.
pub struct Upload {
    length: u64,
    content_type: String,
    body: reqwest::Body,
}

impl Upload {
    /// A stream of exactly `length` bytes. The request breaks where the stream yields an error.
    pub fn streamed(
        length: u64,
        content_type: impl Into<String>,
        stream: BoxStream<'static, io::Result<Bytes>>,
    ) -> Self {
        let body = reqwest::Body::wrap_stream(stream);
        Self { length, content_type: content_type.into(), body }
    }

    /// How much longer than for a small request an answer may take.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.length / SLOWEST)
    }

    pub(super) fn attach(self, builder: RequestBuilder) -> RequestBuilder {
        // With its length said, a stream is not sent in chunks, which some proxies refuse.
        let builder = builder.header(CONTENT_LENGTH, self.length);
        builder.header(CONTENT_TYPE, self.content_type).body(self.body)
    }
}

impl From<Vec<u8>> for Upload {
    fn from(json: Vec<u8>) -> Self {
        let content_type = "application/json".to_owned();
        Self { length: json.len() as u64, content_type, body: json.into() }
    }
}

impl From<Bytes> for Upload {
    fn from(json: Bytes) -> Self {
        let content_type = "application/json".to_owned();
        Self { length: json.len() as u64, content_type, body: json.into() }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({} bytes)", self.length)
    }
}

//! Sends a document followed by its large attachments unencoded: `multipart/related`.
//!
//! In `_bulk_docs` attachments are base64 within JSON, which CouchDB holds in memory several times.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::client::couchdb::Upload;
use crate::restore::target::{Files, raw};

/// A document in parts.
pub(super) struct Parts {
    /// Its text, which says in what order its attachments follow.
    text: Bytes,
    /// Their names and lengths.
    attachments: Vec<(String, u64)>,
}

impl Parts {
    /// A text and the parts after it; `None` without parts.
    pub fn new((text, attachments): (Bytes, Vec<(String, u64)>)) -> Option<Self> {
        (!attachments.is_empty()).then_some(Self { text, attachments })
    }

    /// Whether every server finds the attachments by their names. pouchdb-server uses the names of
    /// the parts, and unescapes them in a special way; CouchDB uses the parts' order.
    pub fn have_plain_names(&self) -> bool {
        self.attachments.iter().all(|(name, _)| is_plain(name))
    }

    /// The upload of the document. `watch` sees each piece as it is sent.
    pub fn upload<W>(&self, files: &Arc<dyn Files>, watch: W) -> Upload
    where
        W: FnMut(&std::io::Result<Bytes>) + Send + 'static,
    {
        let boundary = boundary();
        let mut length = 0;
        let mut streams: Vec<BoxStream<'static, std::io::Result<Bytes>>> = Vec::new();
        let mut text = |part: Vec<u8>, streams: &mut Vec<_>| {
            length += part.len() as u64;
            streams.push(stream::iter([Ok(Bytes::from(part))]).boxed());
        };
        let mut head =
            format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n").into_bytes();
        head.extend_from_slice(&self.text);
        text(head, &mut streams);
        let mut attached = 0;
        for (name, size) in &self.attachments {
            let mut head = format!("\r\n--{boundary}\r\nContent-Length: {size}\r\n");
            if is_plain(name) {
                head += &format!("Content-Disposition: attachment; filename=\"{name}\"\r\n");
            }
            // The document contains its type.
            head += "\r\n";
            text(head.into_bytes(), &mut streams);
            streams.push(raw(name.clone(), *size, Arc::clone(files)));
            attached += size;
        }
        text(format!("\r\n--{boundary}--").into_bytes(), &mut streams);
        let whole = stream::iter(streams).flatten().inspect(watch).boxed();
        let content_type = format!("multipart/related; boundary=\"{boundary}\"");
        Upload::streamed(length + attached, content_type, whole)
    }
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" ._-()+,/".contains(&byte))
}

/// The boundary between the parts. It is new each time, so that nobody can have written an
/// attachment that contains it.
fn boundary() -> String {
    let random = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_every_server_reads_alike_are_plain() {
        for name in ["a.txt", "a b/c (1).bin"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["a\"b", "a\\b", "a%22", "&#1234;", "ж", "a\r\nb", "a;b"] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn boundaries_do_not_repeat() {
        assert_ne!(boundary(), boundary());
    }
}

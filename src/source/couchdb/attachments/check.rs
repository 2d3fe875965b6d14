//! Whether the bytes of an attachment are what they should be.

use crate::document::{Attachment, Digester};
use crate::source::SourceError;

/// What the bytes of an attachment must be.
pub(super) struct Check {
    digest: Option<Digests>,
    length: Option<u64>,
    /// Whether the store keeps it gzipped, so that the digest is that of the gzipped bytes.
    gzipped: bool,
    /// Whether the bytes come gzipped.
    encoded: bool,
    seen: u64,
    seen_encoded: u64,
}

/// The digest in the stub, and those of the bytes: it must equal one of them.
struct Digests {
    stated: String,
    identity: Digester,
    encoded: Digester,
}

impl Check {
    pub fn new(attachment: &Attachment, encoded: bool) -> Self {
        let digests = |stated: &str| {
            let digester = Digester::of(stated)?;
            let (stated, identity) = (stated.to_owned(), digester.clone());
            Some(Digests { stated, identity, encoded: digester })
        };
        Self {
            digest: attachment.digest.as_deref().and_then(digests),
            length: attachment.length,
            gzipped: attachment.gzipped,
            encoded,
            seen: 0,
            seen_encoded: 0,
        }
    }

    /// These are bytes of the attachment itself.
    pub fn identity(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.identity.update(bytes);
        }
        self.seen += bytes.len() as u64;
    }

    /// These are gzipped bytes of the attachment.
    pub fn encoded(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.encoded.update(bytes);
        }
        self.seen_encoded += bytes.len() as u64;
    }

    /// How many bytes may come over the line, if more have come already. Gzip makes nothing much
    /// longer, and the length of what was sent to the server gzipped is that of the gzipped bytes.
    pub fn passed(&self) -> Option<u64> {
        let length = self.length?;
        let (seen, most) = match self.encoded {
            true => (self.seen_encoded, length.saturating_add(length / 100 + 1024)),
            false => (self.seen, length),
        };
        (seen > most).then_some(most)
    }

    /// Checks the bytes. The length counts only if there is no digest: the stub of an attachment that was
    /// sent to the server gzipped may have a wrong length.
    pub fn verdict(self, subject: &str) -> Result<(), SourceError> {
        let length_fits = self.length.is_none_or(|length| length == self.seen);
        let Some(digest) = self.digest else {
            return if length_fits { Ok(()) } else { Err(self.of_other_length(subject)) };
        };
        let Digests { stated, identity, encoded } = digest;
        if (self.encoded && encoded.finish() == stated) || identity.finish() == stated {
            return Ok(());
        }
        if self.gzipped && !self.encoded && length_fits {
            return Ok(());
        }
        let seen = self.seen;
        Err(SourceError::transient(format!(
            "{subject} came as {seen} bytes that do not match its digest {stated}"
        )))
    }

    fn of_other_length(&self, subject: &str) -> SourceError {
        let (seen, length) = (self.seen, self.length.unwrap_or_default());
        SourceError::transient(format!("{subject} came as {seen} bytes instead of {length}"))
    }
}

//! The download of one attachment, resumed where it broke off.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;

use super::check::Check;
use crate::client::couchdb::{AttachmentAnswer, Body, Database, Part};
use crate::document::{Attachment, DocumentId, Revision};
use crate::source::SourceError;

/// How many decoded bytes make a piece of a stream.
const PIECE: usize = 64 << 10;

/// After a connection that breaks before it has brought this many bytes, no other is opened.
const LEAST: u64 = 16 << 10;

/// The pauses before an attachment that broke off is requested again.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// What is requested.
pub(super) struct File {
    pub database: Database,
    pub id: DocumentId,
    pub revision: Revision,
    pub name: Arc<str>,
    /// Whether it is requested gzipped.
    pub gzip: bool,
    /// Whether its path arrives as it is, also through a proxy that decodes paths.
    pub plain: bool,
    /// Its name in messages.
    pub subject: String,
}

impl File {
    /// Requests it, or a part of it.
    pub async fn open(&self, part: Option<Part>) -> Result<AttachmentAnswer, SourceError> {
        let Self { database, id, revision, name, gzip, subject, .. } = self;
        let opened = database.attachment(id, revision, name, *gzip, part).await;
        opened.map_err(|error| match SourceError::from(error) {
            SourceError::Missing { what } => {
                SourceError::Missing { what: format!("{} ({what})", missing(subject)) }
            }
            other => other,
        })
    }
}

pub(super) fn missing(subject: &str) -> SourceError {
    SourceError::missing(format!("{subject} does not exist on the server"))
}

/// An attachment's bytes on their way from the server.
pub(super) struct Download {
    file: File,
    body: Body,
    /// The `ETag` of these bytes.
    tag: Option<String>,
    /// How many bytes there are in all, as they come over the line, if the server says.
    whole: Option<u64>,
    /// How many of them have come.
    came: u64,
    /// How many had come at the last request.
    came_before: u64,
    /// How many of those that come next are already here.
    repeated: u64,
    /// Whether they can be put together from parts: something must tell whether they fit.
    resumable: bool,
    /// What came and has not been decoded yet.
    input: Bytes,
    /// Present while the bytes come gzipped.
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    /// Taken when the stream has ended.
    check: Option<Check>,
}

impl Download {
    /// The bytes of this answer, and of those that follow when it breaks off.
    pub fn new(file: File, answer: AttachmentAnswer, attachment: &Attachment) -> Self {
        let AttachmentAnswer { body, gzipped } = answer;
        let tag = body.tag();
        Self {
            whole: body.range().and_then(|(_, whole)| whole),
            resumable: tag.is_some() || attachment.digest.is_some(),
            tag,
            file,
            body,
            came: 0,
            came_before: 0,
            repeated: 0,
            input: Bytes::new(),
            decoder: gzipped.then(|| MultiGzDecoder::new(Vec::new())),
            check: Some(Check::new(attachment, gzipped)),
        }
    }

    /// The next piece.
    pub async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
        loop {
            let check = self.check.as_mut()?;
            match &mut self.decoder {
                Some(decoder) if !self.input.is_empty() => {
                    if let Err(error) = decode(decoder, &mut self.input) {
                        return Some(Err(self.broken(&error)));
                    }
                    if decoder.get_ref().len() >= PIECE {
                        let piece = Bytes::from(std::mem::take(decoder.get_mut()));
                        check.identity(&piece);
                        return Some(Ok(piece));
                    }
                    continue;
                }
                _ => {}
            }
            let mut chunk = match self.body.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return self.end(),
                Err(error) => match self.resume(error.into()).await {
                    Ok(()) => continue,
                    Err(error) => {
                        self.check = None;
                        return Some(Err(error));
                    }
                },
            };
            let repeated = self.repeated.min(chunk.len() as u64);
            self.repeated -= repeated;
            chunk.advance(usize::try_from(repeated).unwrap_or(usize::MAX).min(chunk.len()));
            self.came += chunk.len() as u64;
            match self.decoder.is_some() {
                true => check.encoded(&chunk),
                false => check.identity(&chunk),
            }
            if let Some(most) = check.passed() {
                return Some(Err(self.endless(most)));
            }
            if self.decoder.is_some() {
                self.input = chunk;
            } else if !chunk.is_empty() {
                return Some(Ok(chunk));
            }
        }
    }

    /// Requests the rest after this error, if that makes sense.
    async fn resume(&mut self, mut error: SourceError) -> Result<(), SourceError> {
        let is_transient =
            |error: &SourceError| matches!(error, SourceError::Transient { retry_after: None, .. });
        if !self.resumable || self.came - self.came_before < LEAST {
            return Err(error);
        }
        self.came_before = self.came;
        for pause in PAUSES {
            if !is_transient(&error) {
                return Err(error);
            }
            tracing::debug!(bytes = self.came, %error, "an attachment broke off; asking for the rest");
            tokio::time::sleep(pause).await;
            let part = Part { from: self.came, tag: self.tag.clone() };
            match self.file.open(Some(part)).await {
                Ok(answer) => return self.take(answer).ok_or(error),
                Err(other) => error = other,
            }
        }
        Err(error)
    }

    /// Takes what an answer brings of the rest, if it is of the same bytes.
    fn take(&mut self, answer: AttachmentAnswer) -> Option<()> {
        let (from, whole) = answer.body.range()?;
        let differs =
            |before: Option<u64>| before.zip(whole).is_some_and(|(before, now)| before != now);
        let retagged = self.tag.as_ref().zip(answer.body.tag()).is_some_and(|(a, b)| *a != b);
        if answer.gzipped != self.decoder.is_some() || differs(self.whole) || retagged {
            return None;
        }
        self.repeated = self.came.checked_sub(from)?;
        self.body = answer.body;
        Some(())
    }

    /// The end of the body: what is left in the decoder, and then the verdict.
    fn end(&mut self) -> Option<Result<Bytes, SourceError>> {
        if let Some(mut decoder) = self.decoder.take() {
            if let Err(error) = decoder.try_finish() {
                return Some(Err(self.broken(&error)));
            }
            let rest = Bytes::from(std::mem::take(decoder.get_mut()));
            if !rest.is_empty() {
                self.check.as_mut()?.identity(&rest);
                return Some(Ok(rest));
            }
        }
        let error = self.check.take()?.verdict(&self.file.subject).err()?;
        self.suspect();
        Some(Err(error))
    }

    /// What came is something else. The next time, the path is not relied on.
    fn suspect(&self) {
        if !self.file.plain {
            self.file.database.note_decoding();
        }
    }

    fn endless(&mut self, most: u64) -> SourceError {
        self.check = None;
        self.suspect();
        SourceError::transient(format!("{} came as more than {most} bytes", self.file.subject))
    }

    fn broken(&mut self, error: &std::io::Error) -> SourceError {
        self.check = None;
        SourceError::transient(format!("{} came as broken gzip: {error}", self.file.subject))
    }
}

/// Decodes until there is enough for a piece. One call of `write` decodes no more than the
/// decoder's buffer holds, so a few bytes cannot become many megabytes here.
fn decode(decoder: &mut MultiGzDecoder<Vec<u8>>, input: &mut Bytes) -> std::io::Result<()> {
    while !input.is_empty() && decoder.get_ref().len() < PIECE {
        let taken = decoder.write(input)?;
        if taken == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        input.advance(taken);
    }
    Ok(())
}

//! Opens an attachment of a row that has been read, wherever its bytes are.

use std::fs::File;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::content::{Expected, Fault, Folder, Locator, read_range, stream as stream_of};
use crate::document::{Attachment, Content, DocumentId};
use crate::source::{Attachments, ByteStream, SourceError, Wanted};

/// Opens an attachment; `feed` opens the feed file that the row was in.
pub(super) async fn open(
    id: &DocumentId,
    attachment: &Attachment,
    folder: Folder,
    feed: impl FnOnce() -> Result<Arc<File>, SourceError> + Send + 'static,
) -> Result<ByteStream, SourceError> {
    let what = format!("the attachment `{}` of `{id}`", attachment.name);
    let text = match &attachment.content {
        Content::Inline(bytes) => {
            let bytes = bytes.clone();
            return Ok(stream::once(async { Ok(bytes) }).boxed());
        }
        Content::Remote(text) => text,
    };
    let digest = attachment.digest.clone().filter(|_| !attachment.gzipped);
    let expected = Expected {
        what: what.clone(),
        length: attachment.length,
        digest: digest.filter(|digest| digest.starts_with("md5-")),
    };
    match Locator::parse(text) {
        // However often it is asked: a recorded feed does not change.
        Some(Locator::Stub) => Err(SourceError::permanent(
            "the feed holds only its stub: record the feed with attachments=true, or give \
             --no-attachments",
        )),
        Some(Locator::Range(range, gzipped)) => {
            let feed = blocking(feed).await?;
            Ok(stream_of(read_range(feed, range, gzipped), expected))
        }
        Some(Locator::File(name)) => {
            let file = blocking(move || {
                folder.open(&name).map_err(|fault| match fault.within(&what) {
                    Fault::Missing(what) => SourceError::Missing { what },
                    Fault::Wrong(what) => SourceError::Permanent { what },
                })
            });
            Ok(stream_of(Box::new(file.await?), expected))
        }
        None => Err(SourceError::permanent(format!("{what} is not of this feed: `{text}`"))),
    }
}

/// Reads attachments into memory, one after another.
pub(super) async fn collect_all<S: Attachments>(
    source: &S,
    wanted: &[Wanted],
) -> Result<Vec<Result<Bytes, SourceError>>, SourceError> {
    let mut answers = Vec::with_capacity(wanted.len());
    for Wanted { id, revision, attachment } in wanted {
        answers.push(match source.stream(id, revision, attachment).await {
            Ok(stream) => collect(stream).await,
            Err(error) => Err(error),
        });
    }
    Ok(answers)
}

async fn collect(stream: ByteStream) -> Result<Bytes, SourceError> {
    let gather = |mut all: BytesMut, chunk: Bytes| async move {
        all.extend_from_slice(&chunk);
        Ok(all)
    };
    stream.try_fold(BytesMut::new(), gather).await.map(BytesMut::freeze)
}

/// Runs what may wait for a disk where that holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SourceError::permanent(format!("reading the feed broke off: {error}"))),
    }
}

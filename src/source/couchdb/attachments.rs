//! Attachments' own bytes: streamed for large ones, many at once for small ones, always checked.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;

use self::check::Check;
use self::download::{Download, File, missing};
use crate::client::couchdb::{BulkDocument, BulkItem, Database, With};
use crate::client::couchdb::{bounded, bulk_get_results, can_address, is_plain};
use crate::document::{Attachment, Content, DocumentId, Revision};
use crate::source::{ByteStream, SourceError, Wanted};

mod check;
mod download;

/// The number of documents of one bulk request.
const BULK_DOCUMENTS: usize = 100;

/// How many bytes of attachments one bulk request asks for, about; base64 makes them a third more.
const BULK_BYTES: u64 = 8 << 20;

/// The largest sum of a document's attachments for which it is asked for in bulk: a bulk answer
/// brings all of them, wanted or not.
const BULK_DOCUMENT_BYTES: u64 = 1 << 20;

/// The largest attachment that is read into memory if its stub has no length.
const MAX_WHOLE: u64 = 1 << 20;

/// How many attachments are requested at the same time, if not in bulk.
const AT_ONCE: usize = 4;

/// Opens a stream of one attachment's bytes.
pub(super) async fn stream(
    database: &Database,
    id: &DocumentId,
    revision: &Revision,
    attachment: &Attachment,
) -> Result<ByteStream, SourceError> {
    open(database, id, revision, attachment, attachment.gzipped).await
}

/// Opens a stream of one attachment's bytes, requested gzipped or as they are.
async fn open(
    database: &Database,
    id: &DocumentId,
    revision: &Revision,
    attachment: &Attachment,
    gzip: bool,
) -> Result<ByteStream, SourceError> {
    let subject = subject(database, id, revision, attachment);
    let wanted =
        Wanted { id: id.clone(), revision: revision.clone(), attachment: attachment.clone() };
    if !can_address(id, &attachment.name) {
        return inline(database, &wanted).await;
    }
    let plain = is_plain(id, &attachment.name);
    if !plain
        && database.decodes()
        && let Ok(stream) = inline(database, &wanted).await
    {
        return Ok(stream);
    }
    let file = File {
        database: database.clone(),
        id: id.clone(),
        revision: revision.clone(),
        name: attachment.name.clone(),
        gzip,
        plain,
        subject,
    };
    let answer = match file.open(None).await {
        // A proxy that decodes the path asks the server for something else.
        Err(error @ (SourceError::Missing { .. } | SourceError::Permanent { .. })) if !plain => {
            let found = inline(database, &wanted).await.map_err(|_| error)?;
            database.note_decoding();
            return Ok(found);
        }
        opened => opened?,
    };
    let download = Download::new(file, answer, attachment);
    Ok(stream::unfold(download, |mut download| async {
        download.next().await.map(|piece| (piece, download))
    })
    .boxed())
}

/// A stream of one attachment's bytes that came with its document.
async fn inline(database: &Database, wanted: &Wanted) -> Result<ByteStream, SourceError> {
    /// Such an answer is large, and one at a time is read.
    static ROOM: Semaphore = Semaphore::const_new(1);
    let room = ROOM.acquire().await;
    let mut answers = bulk(database, &[wanted]).await?;
    drop(room);
    let absent = || {
        let Wanted { id, revision, attachment } = wanted;
        Err(missing(&subject(database, id, revision, attachment)))
    };
    let bytes = answers.pop().unwrap_or_else(absent)?;
    Ok(stream::iter([Ok(bytes)]).boxed())
}

/// Reads many attachments, in the order of `wanted`.
pub(super) async fn many(
    database: &Database,
    wanted: &[Wanted],
) -> Result<Vec<Result<Bytes, SourceError>>, SourceError> {
    let mut answers: Vec<Option<Result<Bytes, SourceError>>> = vec![None; wanted.len()];
    let (batches, mut singles) = plan(wanted);
    // What came whole and does not match its digest: the digest may be that of gzipped bytes though
    // nothing says so, and only those bytes can tell.
    let mut doubtful = Vec::new();
    for batch in batches {
        let asked: Vec<&Wanted> = batch.iter().filter_map(|&index| wanted.get(index)).collect();
        match bulk(database, &asked).await {
            Ok(found) => {
                for (index, answer) in batch.into_iter().zip(found) {
                    if matches!(answer, Err(SourceError::Transient { .. })) {
                        doubtful.push(index);
                    }
                    answers[index] = Some(answer);
                }
            }
            Err(error @ (SourceError::Transient { .. } | SourceError::Refused { .. })) => {
                return Err(error);
            }
            // An answer too large to hold, or a server that has no bulk request.
            Err(_) => singles.extend(batch),
        }
    }
    let singles = singles.into_iter().map(|index| (index, false));
    let doubtful = doubtful.into_iter().map(|index| (index, true));
    let asked = singles.chain(doubtful).map(|(index, gzip)| async move {
        let Some(one) = wanted.get(index) else { return (index, None) };
        (index, Some(whole(database, one, gzip).await))
    });
    // Collected first: a lazily mapped iterator would tie the future to the closure's lifetime.
    let asked: Vec<_> = asked.collect();
    let mut found = stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some((index, answer)) = found.next().await {
        answers[index] = answer;
    }
    drop(found);
    let answers = answers.into_iter().zip(wanted).map(|(answer, one)| {
        answer.unwrap_or_else(|| {
            Err(missing(&subject(database, &one.id, &one.revision, &one.attachment)))
        })
    });
    Ok(answers.collect())
}

/// Which of the wanted are asked for together, in batches, and which one by one; as indexes.
fn plan(wanted: &[Wanted]) -> (Vec<Vec<usize>>, Vec<usize>) {
    let mut documents: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<(&DocumentId, &Revision), usize> = HashMap::new();
    for (index, one) in wanted.iter().enumerate() {
        let at = *known.entry((&one.id, &one.revision)).or_insert_with(|| {
            documents.push(Vec::new());
            documents.len() - 1
        });
        documents[at].push(index);
    }
    let (mut batches, mut singles) = (Vec::new(), Vec::new());
    let (mut batch, mut count, mut bytes) = (Vec::new(), 0, 0);
    for document in documents {
        let of_document = document.iter().filter_map(|&index| wanted.get(index));
        let Some(sum) = weight(of_document).filter(|sum| *sum <= BULK_DOCUMENT_BYTES) else {
            singles.extend(document);
            continue;
        };
        if count == BULK_DOCUMENTS || (count > 0 && bytes + sum > BULK_BYTES) {
            batches.push(std::mem::take(&mut batch));
            (count, bytes) = (0, 0);
        }
        batch.extend(document);
        (count, bytes) = (count + 1, bytes + sum);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    (batches, singles)
}

/// How many bytes of attachments a document has in all: as its body said, or else as far as wanted.
fn weight<'a>(of_document: impl Iterator<Item = &'a Wanted>) -> Option<u64> {
    let mut sum = 0_u64;
    for one in of_document {
        if let Content::Remote(said) = &one.attachment.content
            && let Ok(whole) = said.parse()
        {
            return Some(whole);
        }
        sum = sum.checked_add(one.attachment.length?)?;
    }
    Some(sum)
}

/// Reads attachments of a few documents with one request, in their order.
async fn bulk(
    database: &Database,
    wanted: &[&Wanted],
) -> Result<Vec<Result<Bytes, SourceError>>, SourceError> {
    let mut documents: Vec<(&DocumentId, &Revision)> =
        wanted.iter().map(|one| (&one.id, &one.revision)).collect();
    documents.dedup();
    let answer = database.bulk_get(&documents, With::Attachments).await?;
    // pouchdb-server regroups the results, so they are found by id and revision, not by order.
    let mut found: HashMap<(&str, &str, &str), Bytes> = HashMap::new();
    let mut refused: HashMap<&str, String> = HashMap::new();
    let results = bulk_get_results::<BulkDocument<'_>>(&answer)?;
    for result in &results {
        for item in &result.docs {
            match item {
                BulkItem { ok: Some(document), .. } => {
                    for (name, attachment) in &document.attachments.0 {
                        if let Some(bytes) = attachment.bytes() {
                            let key = (&*result.id, document.revision.as_str(), name.as_str());
                            found.insert(key, Bytes::from(bytes));
                        }
                    }
                }
                BulkItem { error: Some(error), .. } => {
                    refused.insert(&result.id, bounded(&database.scrub(error.get())));
                }
                _ => {}
            }
        }
    }
    let answers = wanted.iter().map(|one| {
        let subject = subject(database, &one.id, &one.revision, &one.attachment);
        let key = (one.id.as_str(), one.revision.as_str(), &*one.attachment.name);
        let Some(bytes) = found.get(&key).cloned() else {
            let said = refused.get(one.id.as_str()).map(|said| format!(" ({said})"));
            let what = format!("{}{}", missing(&subject), said.unwrap_or_default());
            return Err(SourceError::Missing { what });
        };
        if bytes.len() as u64 > expected(&one.attachment) {
            return Err(longer(&subject));
        }
        let mut check = Check::new(&one.attachment, false);
        check.identity(&bytes);
        check.verdict(&subject)?;
        Ok(bytes)
    });
    Ok(answers.collect())
}

/// Reads one attachment into memory. `gzip` asks for it gzipped whatever its stub says.
async fn whole(database: &Database, wanted: &Wanted, gzip: bool) -> Result<Bytes, SourceError> {
    let Wanted { id, revision, attachment } = wanted;
    let gzip = gzip || attachment.gzipped;
    let mut pieces = open(database, id, revision, attachment, gzip).await?;
    let mut whole = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if (whole.len() + piece.len()) as u64 > expected(attachment) {
            return Err(longer(&subject(database, id, revision, attachment)));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// How many bytes of an attachment are held in memory: what its stub says of its length was the
/// measure for how many are asked for at once.
fn expected(attachment: &Attachment) -> u64 {
    attachment.length.unwrap_or(MAX_WHOLE)
}

fn longer(subject: &str) -> SourceError {
    SourceError::permanent(format!("{subject} is longer than its stub says"))
}

/// An attachment as messages name it.
fn subject(
    database: &Database,
    id: &DocumentId,
    revision: &Revision,
    attachment: &Attachment,
) -> String {
    format!("attachment `{}` of `{id}` at {revision} in {}", attachment.name, database.url())
}

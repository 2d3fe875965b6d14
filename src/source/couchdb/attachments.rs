//! Attachments' own bytes: streamed for large ones, many at once for small ones, always checked.
//!
//! It must not know where the bytes go.

use std::collections::HashMap;
use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures_util::stream::{self, StreamExt};

use crate::client::couchdb::{Body, BulkDocument, BulkItem, Database, With};
use crate::client::couchdb::{bounded, bulk_get_results, can_address};
use crate::document::{Attachment, Content, Digester, DocumentId, Revision};
use crate::source::{ByteStream, SourceError, Wanted};

/// How many documents one bulk request asks for.
const BULK_DOCUMENTS: usize = 100;

/// How many bytes of attachments one bulk request asks for, about; base64 makes them a third more.
const BULK_BYTES: u64 = 8 << 20;

/// The largest sum of a document's attachments for which it is asked for in bulk: a bulk answer
/// brings all of them, wanted or not.
const BULK_DOCUMENT_BYTES: u64 = 1 << 20;

/// The largest attachment that is read into memory where its stub tells no length.
const MAX_WHOLE: u64 = 1 << 20;

/// How many attachments are asked for at the same time, where not in bulk.
const AT_ONCE: usize = 4;

/// How many decoded bytes make a piece of a stream.
const PIECE: usize = 64 << 10;

/// Opens a stream of one attachment's bytes.
pub(super) async fn stream(
    database: &Database,
    id: &DocumentId,
    revision: &Revision,
    attachment: &Attachment,
) -> Result<ByteStream, SourceError> {
    open(database, id, revision, attachment, attachment.gzipped).await
}

/// Opens a stream of one attachment's bytes, asked for gzipped or as they are.
async fn open(
    database: &Database,
    id: &DocumentId,
    revision: &Revision,
    attachment: &Attachment,
    gzip: bool,
) -> Result<ByteStream, SourceError> {
    let subject = subject(database, id, revision, attachment);
    if !can_address(id, &attachment.name) {
        let wanted =
            Wanted { id: id.clone(), revision: revision.clone(), attachment: attachment.clone() };
        let mut answers = bulk(database, &[&wanted]).await?;
        let bytes = answers.pop().unwrap_or_else(|| Err(missing(&subject)))?;
        return Ok(stream::iter([Ok(bytes)]).boxed());
    }
    let opened = database.attachment(id, revision, &attachment.name, gzip).await;
    let answer = opened.map_err(|error| match SourceError::from(error) {
        SourceError::Missing { what } => {
            SourceError::Missing { what: format!("{} ({what})", missing(&subject)) }
        }
        other => other,
    })?;
    let decoder = answer.gzipped.then(|| MultiGzDecoder::new(Vec::new()));
    let check = Check::new(attachment, answer.gzipped);
    let download =
        Download { body: answer.body, input: Bytes::new(), decoder, check: Some(check), subject };
    Ok(stream::unfold(download, |mut download| async {
        download.next().await.map(|piece| (piece, download))
    })
    .boxed())
}

/// Reads many attachments, in the order in which they are asked for.
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

/// An attachment's bytes on their way from the server.
struct Download {
    body: Body,
    /// What came and has not been decoded yet.
    input: Bytes,
    /// Present while the bytes come gzipped.
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    /// Taken when the stream has ended.
    check: Option<Check>,
    subject: String,
}

impl Download {
    async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
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
            match self.body.chunk().await {
                Ok(Some(chunk)) if self.decoder.is_some() => {
                    check.encoded(&chunk);
                    if let Some(most) = check.passed() {
                        return Some(Err(self.endless(most)));
                    }
                    self.input = chunk;
                }
                Ok(Some(chunk)) => {
                    check.identity(&chunk);
                    if let Some(most) = check.passed() {
                        return Some(Err(self.endless(most)));
                    }
                    return Some(Ok(chunk));
                }
                Ok(None) => return self.end(),
                Err(error) => {
                    self.check = None;
                    return Some(Err(error.into()));
                }
            }
        }
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
        self.check.take()?.verdict(&self.subject).err().map(Err)
    }

    fn endless(&mut self, most: u64) -> SourceError {
        self.check = None;
        SourceError::transient(format!("{} came as more than {most} bytes", self.subject))
    }

    fn broken(&mut self, error: &std::io::Error) -> SourceError {
        self.check = None;
        SourceError::transient(format!("{} came as broken gzip: {error}", self.subject))
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

/// What the bytes of an attachment must come to.
struct Check {
    digest: Option<Digests>,
    length: Option<u64>,
    /// Whether the store keeps it gzipped, so that the digest is that of the gzipped bytes.
    gzipped: bool,
    /// Whether the bytes come gzipped.
    encoded: bool,
    seen: u64,
    seen_encoded: u64,
}

/// The digest that the stub tells, and what the bytes come to: it is that of either.
struct Digests {
    stated: String,
    identity: Digester,
    encoded: Digester,
}

impl Check {
    fn new(attachment: &Attachment, encoded: bool) -> Self {
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
    fn identity(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.identity.update(bytes);
        }
        self.seen += bytes.len() as u64;
    }

    /// These are gzipped bytes of the attachment.
    fn encoded(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.encoded.update(bytes);
        }
        self.seen_encoded += bytes.len() as u64;
    }

    /// How many bytes may come over the line, if more have come already. Gzip makes nothing much
    /// longer, and the length of what was sent to the server gzipped is that of the gzipped bytes.
    fn passed(&self) -> Option<u64> {
        let length = self.length?;
        let (seen, most) = match self.encoded {
            true => (self.seen_encoded, length.saturating_add(length / 100 + 1024)),
            false => (self.seen, length),
        };
        (seen > most).then_some(most)
    }

    /// Whether all is well. A length is believed only where no digest can tell: of an attachment
    /// that was sent to the server gzipped, the length in its stub need not be right.
    fn verdict(self, subject: &str) -> Result<(), SourceError> {
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

/// An attachment as messages name it.
fn subject(
    database: &Database,
    id: &DocumentId,
    revision: &Revision,
    attachment: &Attachment,
) -> String {
    format!("attachment `{}` of `{id}` at {revision} in {}", attachment.name, database.url())
}

fn missing(subject: &str) -> SourceError {
    SourceError::missing(format!("{subject} is not there"))
}

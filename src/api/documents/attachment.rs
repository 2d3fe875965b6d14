//! `GET /collections/{collection}/documents/{document}/attachments/{attachment}`: the bytes of an
//! attachment, streamed.

use std::io::{self, Read as _, Seek as _, SeekFrom};

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::header::CONTENT_RANGE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::range::{WantedBytes, wanted};
use super::sent::{SentFile, answer, is_known, unchanged};
use super::{Files, Reader, TRIES};
use crate::api::problem::{ApiProblem, ApiProblemKind};
use crate::archive::{Problem, ProblemKind, StoredCollection, StoredFile};
use crate::document::{CollectionName, DocumentId, plain};

/// The number of bytes that are read at a time.
const PIECE: usize = 256 * 1024;

/// The attachment that a path names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InAttachment {
    /// The name of the collection, percent-encoded.
    #[param(value_type = String)]
    collection: CollectionName,
    /// The id of the document, percent-encoded.
    #[param(value_type = String)]
    document: DocumentId,
    /// The name of the attachment, percent-encoded: `cover%2Ffront.png`.
    attachment: String,
}

/// The open file of an attachment.
struct Opened {
    file: Box<dyn StoredFile>,
    length: u64,
    content: SentFile,
}

/// Answers with the bytes of an attachment
///
/// PNG, JPEG, GIF, WebP, AVIF and PDF have their type; everything else is only for download. One range of
/// bytes can be asked for.
#[utoipa::path(
    get, path = "/collections/{collection}/documents/{document}/attachments/{attachment}",
    operation_id = "attachment",
    params(InAttachment, ("Range" = Option<String>, Header, description = "One range: `bytes=0-999`")),
    responses(
        (status = 200, description = "The bytes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "A part of them", body = Vec<u8>, content_type = "application/octet-stream"),
    )
)]
pub async fn read(
    files: Files,
    Path(named): Path<InAttachment>,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    let opened = files.read(move |reader| open(reader, &named)).await?;
    let Opened { file, length, content } = opened;
    if is_known(&headers, content.tag.as_deref()) {
        return Ok(unchanged(&content));
    }
    let part = match wanted(&headers, length, content.tag.as_deref()) {
        WantedBytes::Whole => None,
        WantedBytes::Part(start, end) => Some((start, end)),
        WantedBytes::Nothing => {
            let detail = format!("the attachment has {length} bytes: ask for some of these");
            let mut refused = ApiProblem::new(ApiProblemKind::NoRange, detail).into_response();
            refused.headers_mut().extend(content_range(&format!("bytes */{length}")));
            return Ok(refused);
        }
    };
    let (start, end) = part.unwrap_or((0, length));
    let body = Body::from_stream(pieces(files, file, start, end));
    let mut answer = answer(&content, end - start, body);
    if part.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{length}", end - 1);
        answer.headers_mut().extend(content_range(&range));
    }
    Ok(answer)
}

fn content_range(range: &str) -> Option<(axum::http::HeaderName, HeaderValue)> {
    Some((CONTENT_RANGE, HeaderValue::from_str(range).ok()?))
}

/// Opens the file of an attachment. If its document changes meanwhile, it is looked for again.
fn open(reader: &Reader, named: &InAttachment) -> Result<Opened, ApiProblem> {
    let failed = |error| ApiProblem::internal(&error);
    let collection = reader.collection(&named.collection)?;
    let name = collection.name_of(&named.document);
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let before = collection.version(&name).map_err(failed)?;
        match open_once(reader, &*collection, named) {
            Ok(opened) => return Ok(opened),
            Err(problem) if tries == 0 || collection.version(&name).map_err(failed)? == before => {
                return Err(problem);
            }
            Err(_) => {}
        }
    }
}

fn open_once(
    reader: &Reader,
    collection: &dyn StoredCollection,
    named: &InAttachment,
) -> Result<Opened, ApiProblem> {
    let failed = |error| ApiProblem::internal(&error);
    let document = reader.document(collection, &named.document)?;
    let none = |what: &str| {
        let name = plain::quoted(&named.attachment);
        let detail = format!("{} has no attachment {name}{what}", plain::quoted(&document.path));
        ApiProblem::new(ApiProblemKind::NoAttachment, detail)
    };
    let found = document.attachments.iter().find(|one| one.name == named.attachment);
    let found = found.ok_or_else(|| none(": `GET …/documents/{document}` lists those it has"))?;
    let Some(mut file) = document.open_attachment(found).map_err(failed)? else {
        if !collection.holds_attachments().map_err(failed)? {
            return Err(none(
                " in this mirror, which does not hold attachments: `attachments = true` in the config, \
                 or `plainfold mirror --attachments true`, fetches them",
            ));
        }
        let (path, missing) = (document.attachment_path(found), ProblemKind::Missing);
        return Err(reader.damaged(&Problem::new(missing, path, "it is missing")));
    };
    let path = document.attachment_path(found);
    let ended = |error: io::Error| {
        let detail = format!("{path} cannot be read: {error}; look at the disk");
        ApiProblem::new(ApiProblemKind::Internal, detail)
    };
    let length = file.seek(SeekFrom::End(0)).map_err(ended)?;
    let (kind, digest) = (found.stub.content_type.as_deref(), found.stub.digest.as_deref());
    Ok(Opened { file, length, content: SentFile::of_attachment(&found.name, kind, digest) })
}

/// The bytes of an open file from `start` to `end`, one piece at a time. Each piece has a turn of its own,
/// so that a slow client keeps nobody from reading.
pub fn pieces(
    files: Files,
    file: Box<dyn StoredFile>,
    start: u64,
    end: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((file, start), move |(mut file, at)| {
        let files = files.clone();
        async move {
            if at >= end {
                return Ok(None);
            }
            let turn = files.turn().await;
            let read = move || {
                let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let mut bytes = vec![0; piece];
                file.seek(SeekFrom::Start(at))?;
                // Somebody has cut the file: the client notices by the length that was announced.
                file.read_exact(&mut bytes)?;
                drop(turn);
                Ok::<_, io::Error>((Bytes::from(bytes), file))
            };
            let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
            let (bytes, file) = read?;
            let at = at + bytes.len() as u64;
            Ok(Some((bytes, (file, at))))
        }
    })
}

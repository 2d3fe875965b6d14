//! `GET /collections/{collection}/documents/{document}/body`: the bytes of a document's JSON, streamed.

use axum::body::Body;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Response;

use super::attachment::pieces;
use super::document::InDocument;
use super::sent::{SentFile, answer, is_known, unchanged};
use super::{Files, Reader, TRIES};
use crate::api::problem::{ApiProblem, ApiProblemKind};
use crate::archive::StoredFile;
use crate::document::plain;

/// Answers with the JSON of a document
///
/// Byte for byte as its file has it. The body of a document that is deleted is its tombstone.
#[utoipa::path(
    get, path = "/collections/{collection}/documents/{document}/body", operation_id = "body",
    params(InDocument),
    responses((status = 200, description = "The JSON of the document", body = serde_json::Value))
)]
pub async fn read(
    files: Files,
    Path(named): Path<InDocument>,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    let (file, length, tag) = files.read(move |reader| open(reader, &named)).await?;
    let content = SentFile { kind: "application/json", is_inert: true, tag: Some(tag), name: None };
    if is_known(&headers, content.tag.as_deref()) {
        return Ok(unchanged(&content));
    }
    Ok(answer(&content, length, Body::from_stream(pieces(files, file, 0, length))))
}

/// Checks a body and opens its file, so that a slow client holds a file and no memory. If the document changes
/// meanwhile, it is read again.
fn open(
    reader: &Reader,
    named: &InDocument,
) -> Result<(Box<dyn StoredFile>, u64, String), ApiProblem> {
    let failed = |error| ApiProblem::internal(&error);
    let collection = reader.collection(&named.collection)?;
    let name = collection.name_of(&named.document);
    for _ in 0..TRIES {
        let before = collection.version(&name).map_err(failed)?;
        let document = reader.document(&*collection, &named.document)?;
        let file = document.open_body().map_err(failed)?;
        let Some(file) = file.filter(|_| collection.version(&name).is_ok_and(|now| now == before))
        else {
            continue;
        };
        let body = document.body;
        let hash = match &body.written {
            Some(written) => blake3::hash(written),
            None => blake3::Hasher::new().update(&body.text).update(b"\n").finalize(),
        };
        return Ok((file, body.length(), format!("\"b3-{}\"", hash.to_hex())));
    }
    let id = plain::quoted(named.document.as_str());
    let detail = format!("the document {id} changes all the time: ask again later");
    Err(ApiProblem::new(ApiProblemKind::Unavailable, detail))
}

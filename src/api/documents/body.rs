//! `GET /collections/{collection}/documents/{document}/body`: the bytes of a document's JSON.

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Response;

use super::Files;
use super::document::InDocument;
use super::sent::{SentFile, answer, is_known, unchanged};
use crate::api::problem::ApiProblem;

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
    let found = files.read(move |reader| {
        let collection = reader.collection(&named.collection)?;
        let body = reader.document(&*collection, &named.document)?.body;
        let bytes = match body.written {
            Some(written) => written,
            None => Bytes::from([&body.text[..], b"\n"].concat()),
        };
        let tag = format!("\"b3-{}\"", blake3::hash(&bytes).to_hex());
        Ok((bytes, tag))
    });
    let (bytes, tag) = found.await?;
    let content = SentFile { kind: "application/json", is_inert: true, tag: Some(tag), name: None };
    if is_known(&headers, content.tag.as_deref()) {
        return Ok(unchanged(&content));
    }
    let length = bytes.len() as u64;
    Ok(answer(&content, length, Body::from(bytes)))
}

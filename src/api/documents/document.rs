//! `GET /collections/{collection}/documents/{document}`: what a mirror holds of a document.

use axum::extract::Path;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Files;
use crate::api::json;
use crate::api::problem::ApiProblem;
use crate::archive::StoredDocument;
use crate::document::{CollectionName, DocumentId, Revision};

/// The document that a path names.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InDocument {
    /// The name of the collection, percent-encoded: `books%2F2024`.
    #[param(value_type = String)]
    pub collection: CollectionName,
    /// The id of the document, percent-encoded: `_design%2Fall`.
    #[param(value_type = String)]
    pub document: DocumentId,
}

/// A document as a mirror holds it.
#[derive(Debug, Serialize, ToSchema)]
pub struct DocumentEntry {
    /// The id.
    id: DocumentId,
    /// The revision, if the body contains one.
    revision: Option<Revision>,
    /// Whether it is deleted at the source: then the body is its tombstone.
    deleted: bool,
    /// The path of its folder, relative to the mirror.
    path: String,
    /// The length of its body in bytes.
    bytes: u64,
    /// Its attachments, by name.
    attachments: Vec<AttachmentEntry>,
}

/// An attachment as a mirror holds it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttachmentEntry {
    /// The name.
    name: String,
    /// The media type that the source gives it.
    content_type: Option<String>,
    /// The length of its file in bytes; without a file, the length that the source gives it.
    bytes: Option<u64>,
    /// The digest that the source gives it, such as `md5-…`.
    digest: Option<String>,
    /// The path of its file, relative to the mirror.
    path: String,
    /// Whether the mirror holds its file.
    stored: bool,
}

impl From<StoredDocument> for DocumentEntry {
    fn from(document: StoredDocument) -> Self {
        let attachments = document.attachments.iter().map(|one| AttachmentEntry {
            name: one.name.clone(),
            content_type: one.stub.content_type.clone(),
            bytes: one.size.or(one.stub.length),
            digest: one.stub.digest.clone(),
            path: document.attachment_path(one),
            stored: one.size.is_some(),
        });
        Self {
            attachments: attachments.collect(),
            bytes: document.body.length(),
            id: document.id,
            revision: document.revision,
            deleted: document.deleted,
            path: document.path,
        }
    }
}

/// Describes a document
///
/// Without its body, which has a path of its own.
#[utoipa::path(
    get, path = "/collections/{collection}/documents/{document}", operation_id = "document",
    params(InDocument),
    responses((status = 200, description = "The document", body = DocumentEntry))
)]
pub async fn read(files: Files, Path(named): Path<InDocument>) -> Result<Response, ApiProblem> {
    let found = files.read(move |reader| {
        let collection = reader.collection(&named.collection)?;
        reader.document(&*collection, &named.document).map(DocumentEntry::from)
    });
    Ok(json(&found.await?))
}

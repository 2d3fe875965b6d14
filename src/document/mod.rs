//! The values that all layers use: ids, revisions, positions, changes, attachments.
//!
//! Pure data.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod branch;
mod cursor_name;
mod digest;
mod doubtful;
mod folder;
mod head;
mod limit;
mod mirror_name;
mod mode;
pub mod plain;
mod selection;
mod skim;
mod tally;

pub use branch::{Branch, descends};
pub use cursor_name::CursorName;
pub use digest::{Digester, decode_base64};
pub use doubtful::doubtful_name;
pub use folder::FolderIdentity;
pub use head::{Head, Stub};
pub use limit::{BadLimit, DeletionLimit, MaxDelete};
pub use mirror_name::{BadMirrorName, MirrorName};
pub use mode::{BadMode, FolderMode};
pub use selection::{BadGlob, Pattern, Selection};
pub use skim::{Skim, Surface};
pub use tally::Tally;

/// Declares a cheaply cloned, immutable string type.
macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_value! {
    /// The id of a document, exactly as its store spells it. Any Unicode text.
    DocumentId
}

text_value! {
    /// The name of a collection: a CouchDB database, or a collection of a recorded feed.
    CollectionName
}

text_value! {
    /// A document's revision. CouchDB's are `generation-hash`; other stores' are any text.
    Revision
}

impl DocumentId {
    /// Whether it is local to one server, such as the checkpoint of a replication, and not a
    /// document.
    pub fn is_local(&self) -> bool {
        self.0.starts_with("_local/")
    }
}

impl Revision {
    /// The number before the first `-`, if there is one.
    pub fn generation(&self) -> Option<u64> {
        self.0.split_once('-')?.0.parse().ok()
    }

    /// Compares this revision with another one of the same document: by generation, then by hash, as
    /// CouchDB chooses a winner among leaves. `None` if either has no generation: then their order
    /// is unknown.
    pub fn age(&self, other: &Self) -> Option<Ordering> {
        let generations = self.generation()?.cmp(&other.generation()?);
        Some(generations.then_with(|| self.0.cmp(&other.0)))
    }
}

/// A source's own opaque place in its feed.
///
/// Only the source that issued a position may look inside it; everybody else stores it, returns it
/// and prints its [`token`](Position::token).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    #[serde(deserialize_with = "compacted")]
    token: Arc<str>,
    context: Arc<str>,
    anchor: Option<Anchor>,
}

/// Puts a token on one line, whatever an earlier version stored.
fn compacted<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    let token = Arc::<str>::deserialize(from)?;
    Ok(one_line(token))
}

fn one_line(token: Arc<str>) -> Arc<str> {
    match plain::compact(&token) {
        Cow::Borrowed(_) => token,
        Cow::Owned(compact) => compact.into(),
    }
}

/// The change at a position, by which a source recognises its history later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The document that changed.
    pub id: DocumentId,
    /// Its revision at that time.
    pub revision: Revision,
}

impl Position {
    /// A position. `token` is JSON text (CouchDB's `seq`, quotes included, or a number); `context`
    /// is anything that the source needs with it. White space between the tokens of the JSON is
    /// dropped, because it is printed and stored on lines with others.
    pub fn new(token: impl Into<Arc<str>>, context: Arc<str>, anchor: Option<Anchor>) -> Self {
        Self { token: one_line(token.into()), context, anchor }
    }

    /// The position as JSON text, as subscribers receive it.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The source's context of the position.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The change at this position, if the source recorded it.
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }
}

/// The properties with which a collection was created at its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// Whether its documents are grouped by the part of their ids before the first colon.
    #[serde(default)]
    pub partitioned: bool,
    /// The number of revisions of a document that it remembers, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revs_limit: Option<u64>,
}

/// The revisions that are kept in addition to the winning revisions of live documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The branches that lost a conflict, and the histories of all.
    pub revisions: bool,
    /// The tombstones of documents that are deleted.
    pub deleted: bool,
}

impl Kept {
    /// Everything.
    pub const ALL: Self = Self { revisions: true, deleted: true };
}

/// The newest state of one document, as a feed reported it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The document.
    pub id: DocumentId,
    /// Its revision in this state.
    pub revision: Revision,
    /// The position in the feed after this change; `None` if the source gave none for this row.
    pub position: Option<Position>,
    /// The leaves of its revision tree beside this revision, which lost a conflict or were deleted.
    /// `None` if the source was not asked for them.
    pub others: Option<Vec<Revision>>,
    /// The state of the document.
    pub state: DocumentState,
}

/// A document's state after a change.
#[derive(Clone, Debug)]
pub enum DocumentState {
    /// It exists, with this body.
    Present(Document),
    /// It is deleted. The tombstone, if the source sent one.
    Deleted(Option<Document>),
}

impl Change {
    /// Whether the document is deleted.
    pub fn is_deletion(&self) -> bool {
        matches!(self.state, DocumentState::Deleted(_))
    }

    /// The body of the document or its tombstone. For a deletion without one, the smallest possible
    /// tombstone.
    pub fn document(&self) -> Cow<'_, Document> {
        match &self.state {
            DocumentState::Present(document) | DocumentState::Deleted(Some(document)) => {
                Cow::Borrowed(document)
            }
            DocumentState::Deleted(None) => {
                Cow::Owned(Document::tombstone(&self.id, &self.revision))
            }
        }
    }

    /// The bytes that this change holds in memory, for the bounds of queues.
    pub fn weight(&self) -> usize {
        /// Roughly the size of the values around a body.
        const OVERHEAD: usize = 256;
        OVERHEAD
            + match &self.state {
                DocumentState::Deleted(None) => 0,
                DocumentState::Deleted(Some(document)) | DocumentState::Present(document) => {
                    document.weight()
                }
            }
    }
}

/// A document's content in one revision.
#[derive(Clone, Debug)]
pub struct Document {
    /// The body as raw JSON text, byte for byte as the source sent it, except that inline attachment
    /// data is replaced by a stub.
    pub body: Bytes,
    /// The attachments of the body, in its order.
    pub attachments: Vec<Attachment>,
}

impl Document {
    /// The tombstone of a deleted document, if its source does not send one.
    fn tombstone(id: &DocumentId, revision: &Revision) -> Self {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let (id, revision) = (text(id.as_str()), text(revision.as_str()));
        let body = format!("{{\"_id\":{id},\"_rev\":{revision},\"_deleted\":true}}");
        Self { body: body.into(), attachments: Vec::new() }
    }

    fn weight(&self) -> usize {
        let inline = |attachment: &Attachment| match &attachment.content {
            Content::Inline(bytes) => bytes.len(),
            Content::Remote(locator) => locator.len(),
        };
        self.body.len() + self.attachments.iter().map(inline).sum::<usize>()
    }
}

/// One attachment of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, exactly as the store spells it. Any Unicode text.
    pub name: Arc<str>,
    /// The digest of its stub, such as `md5-<base64>`. It belongs to the encoded bytes if `gzipped`.
    pub digest: Option<Arc<str>>,
    /// Its length in bytes, before any encoding, from the stub.
    pub length: Option<u64>,
    /// Whether the store keeps it gzipped, so that the digest is that of the gzipped bytes.
    pub gzipped: bool,
    /// The place of its bytes.
    pub content: Content,
}

/// The place of an attachment's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In memory.
    Inline(Bytes),
    /// At the source, which alone understands the text (it may be empty).
    Remote(Arc<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(left: &str, right: &str) -> Option<Ordering> {
        Revision::from(left).age(&Revision::from(right))
    }

    #[test]
    fn revisions_age_by_generation_as_a_number_and_then_by_hash() {
        assert_eq!(age("2-a", "10-a"), Some(Ordering::Less));
        assert_eq!(age("2-b", "2-a"), Some(Ordering::Greater));
        assert_eq!(age("2-a", "2-a"), Some(Ordering::Equal));
    }

    #[test]
    fn nothing_is_said_of_the_age_of_revisions_without_a_generation() {
        assert_eq!(age("abc", "2-a"), None);
        assert_eq!(age("2-a", "x-a"), None);
    }

    #[test]
    fn a_position_comes_back_from_its_stored_form_unchanged() {
        let anchor = Anchor { id: "a\u{2028}b".into(), revision: "1-x".into() };
        let position = Position::new("\"12-g1AAA\"", "ctx".into(), Some(anchor));
        let stored = serde_json::to_string(&position).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&stored).unwrap(), position);
    }

    #[test]
    fn a_position_is_one_line_also_if_an_earlier_version_stored_more() {
        let position = Position::new("[\n1,\r\n \"a b\"\n]", "a\nb".into(), None);
        assert_eq!(position.token(), "[1,\"a b\"]");
        let stored = r#"{"token":"[\n1,\r\n \"a b\"\n]","context":"a\nb","anchor":null}"#;
        assert_eq!(serde_json::from_str::<Position>(stored).unwrap(), position);
    }
}

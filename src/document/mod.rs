//! The values that every layer speaks of: ids, revisions, positions, changes, attachments.
//!
//! Pure data. It must not know I/O, tokio, or any store.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

mod branch;
mod digest;
mod doubtful;
mod folder;
mod head;
mod limit;
mod members;
mod mode;
pub mod plain;
mod selection;
mod skim;
mod tally;

pub use branch::{Branch, descends};
pub use digest::{Digester, decode_base64};
pub use doubtful::doubtful_name;
pub use folder::FolderIdentity;
pub use head::{Head, Key, Stub};
pub use limit::{BadLimit, DeletionLimit, MaxDelete};
pub use members::{Members, Text};
pub use mode::{BadMode, FolderMode};
pub use selection::{BadGlob, Pattern, Selection};
pub use skim::{Skim, Surface};
pub use tally::Tally;

/// Declares a cheaply cloned, immutable string with a meaning of its own.
macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
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
    /// The name of a collection: a CouchDB database, or what a recorded feed calls one.
    CollectionName
}

text_value! {
    /// A document's revision. CouchDB's are `generation-hash`; other stores' are any text.
    Revision
}

impl DocumentId {
    /// Whether it names something that only one server has, such as a replication's checkpoint, and
    /// not a document.
    pub fn is_local(&self) -> bool {
        self.0.starts_with("_local/")
    }
}

impl Revision {
    /// The number before the first `-`, where there is one.
    pub fn generation(&self) -> Option<u64> {
        self.0.split_once('-')?.0.parse().ok()
    }

    /// How this revision stands to another of the same document: by generation, then by hash, as
    /// CouchDB chooses a winner among leaves. `None` where either has no generation: then nothing
    /// is known of their age.
    pub fn age(&self, other: &Self) -> Option<Ordering> {
        let generations = self.generation()?.cmp(&other.generation()?);
        Some(generations.then_with(|| self.0.cmp(&other.0)))
    }
}

/// A source's own opaque place in its feed.
///
/// Only the source that issued a position may look inside it; everybody else stores it, hands it
/// back and prints its [`token`](Position::token).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    #[serde(deserialize_with = "compacted")]
    token: Arc<str>,
    context: Arc<str>,
    anchor: Option<Anchor>,
}

/// A token on one line, whatever an earlier version stored.
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

/// The change that stood at a position, by which a source recognises its own history later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The document that changed.
    pub id: DocumentId,
    /// Its revision at that time.
    pub revision: Revision,
}

impl Position {
    /// A position. `token` is JSON text (CouchDB's `seq`, quotes included, or a number), `context`
    /// whatever the source wants to find again beside it. White space between the tokens of the JSON
    /// is dropped, because it is printed and stored on lines with others.
    pub fn new(token: impl Into<Arc<str>>, context: Arc<str>, anchor: Option<Anchor>) -> Self {
        Self { token: one_line(token.into()), context, anchor }
    }

    /// The place as JSON text, as subscribers see it.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What the source noted beside the place.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The change that stood here, if the source noted it.
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }
}

/// How a collection was created at its source, beyond its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// Whether its documents are grouped by the part of their ids before the first colon.
    #[serde(default)]
    pub partitioned: bool,
    /// How many revisions of a document it remembers, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revs_limit: Option<u64>,
}

/// What is kept beside the winning revisions of live documents.
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

/// The newest state of one document, as a feed told it.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which document.
    pub id: DocumentId,
    /// Its revision in this state.
    pub revision: Revision,
    /// The place in the feed after this change; `None` where the source gave none for this row.
    pub position: Option<Position>,
    /// The leaves of its revision tree beside this revision: what lost a conflict, or was deleted
    /// there. `None` where the source was not asked for them.
    pub others: Option<Vec<Revision>>,
    /// What the document is now.
    pub state: DocumentState,
}

/// A document's state after a change.
#[derive(Clone, Debug)]
pub enum DocumentState {
    /// It lives, with this body.
    Present(Document),
    /// It is gone. The tombstone itself, where the source sent one.
    Deleted(Option<Document>),
}

impl Change {
    /// Whether the document is gone.
    pub fn is_deletion(&self) -> bool {
        matches!(self.state, DocumentState::Deleted(_))
    }

    /// The document or its tombstone. Of a deletion without one, the least that a tombstone says.
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
        /// What the values around a body take, roughly.
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
    /// The body as raw JSON text, byte for byte as the source sent it. Inline attachment data has
    /// been taken out of it, and a stub stands in its place.
    pub body: Bytes,
    /// The attachments that the body names, in its order.
    pub attachments: Vec<Attachment>,
}

impl Document {
    /// What stands for a document that is deleted, where its source does not say it itself.
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
    /// The digest of its stub, such as `md5-<base64>`. Of the encoded bytes where `gzipped`.
    pub digest: Option<Arc<str>>,
    /// Its length in bytes, before any encoding, as the stub says.
    pub length: Option<u64>,
    /// Whether the store keeps it gzipped, so that the digest is that of the gzipped bytes.
    pub gzipped: bool,
    /// Where its bytes are.
    pub content: Content,
}

/// Where an attachment's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Here.
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

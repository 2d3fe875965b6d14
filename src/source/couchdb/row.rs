//! From the bytes of a row to a change. Bodies stay slices of the row, byte for byte.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::origin::Origin;
use crate::document::{
    Anchor, Attachment, Branch, Change, Content, Document, DocumentId, DocumentState, Position,
    Revision, Surface,
};
use crate::json::{self, Key, Members, Object, Text};
use crate::source::Unreadable;

/// What a row of a feed says.
#[derive(Debug)]
pub(super) enum Row {
    /// A document's newest state.
    Change(Change),
    /// A document's newest revision, without a body that could be used.
    Bodiless(Bodiless),
    /// It cannot be made into a change.
    Unreadable(Unreadable),
    /// The server ends the feed, at this position if it gives one.
    End(Option<Arc<str>>),
    /// The server gives up, in its own words.
    Failure {
        /// CouchDB's name for it: `not_found`.
        error: String,
        /// Why, for people.
        reason: String,
    },
}

impl Row {
    /// The position after this row, if it has one.
    pub fn position(&self) -> Option<&Position> {
        match self {
            Self::Change(change) => change.position.as_ref(),
            Self::Bodiless(bodiless) => bodiless.position.as_ref(),
            Self::Unreadable(unreadable) => unreadable.position.as_ref(),
            Self::End(_) | Self::Failure { .. } => None,
        }
    }

    /// The change of this row, as far as it says.
    pub fn anchor(&self) -> Option<Anchor> {
        let (id, revision) = match self {
            Self::Change(change) => (&change.id, &change.revision),
            Self::Bodiless(bodiless) => (&bodiless.id, bodiless.revision.as_ref()?),
            Self::Unreadable(row) => (row.id.as_ref()?, row.revision.as_ref()?),
            Self::End(_) | Self::Failure { .. } => return None,
        };
        Some(Anchor { id: id.clone(), revision: revision.clone() })
    }

    /// Whether it names something local to the server, which no replication copies.
    pub fn is_local(&self) -> bool {
        let id = match self {
            Self::Change(change) => Some(&change.id),
            Self::Bodiless(bodiless) => Some(&bodiless.id),
            Self::Unreadable(row) => row.id.as_ref(),
            Self::End(_) | Self::Failure { .. } => None,
        };
        id.is_some_and(DocumentId::is_local)
    }
}

/// A row that names a document that has to be read apart.
#[derive(Clone, Debug)]
pub(super) struct Bodiless {
    pub id: DocumentId,
    pub revision: Option<Revision>,
    pub position: Option<Position>,
    pub why: Apart,
}

/// Why a document has to be read apart from its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    /// The server did not send it.
    NotSent,
    /// The row is too large to be held; its size in bytes.
    TooLarge(u64),
    /// The row is not JSON, as these words say.
    NotJson(String),
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent => f.write_str("the feed names it without its body"),
            Self::TooLarge(bytes) => write!(f, "its row in the feed is {} MiB", bytes >> 20),
            Self::NotJson(error) => write!(f, "its row in the feed is not JSON: {error}"),
        }
    }
}

/// Reads a row of which only a part is known. `place` says where it is.
pub(super) fn skimmed(surface: Surface, why: Apart, origin: &Origin, place: String) -> Row {
    let Surface { id, revision, seq, .. } = surface;
    let anchor = id.clone().zip(revision.clone());
    let position = seq
        .filter(|seq| seq.len() <= LONGEST_PLACE)
        .map(|seq| origin.within(seq.into(), anchor.map(|(id, revision)| Anchor { id, revision })));
    match id {
        Some(id) => Row::Bodiless(Bodiless { id, revision, position, why }),
        None => {
            let reason = format!("the row names no document that could be requested, and {why}");
            Row::Unreadable(Unreadable { id, revision, place, position, reason })
        }
    }
}

/// Reads a row. An error means that its bytes are not JSON. `place` says where it is.
pub(super) fn read(
    row: &Bytes,
    origin: &Origin,
    place: impl Fn() -> String,
) -> Result<Row, serde_json::Error> {
    let fields: Fields<'_> = json::read(row)?;
    let id = fields.id.and_then(text::<DocumentId>);
    if id.is_none() {
        if let Some(error) = fields.error {
            let words = |raw: &RawValue| text(raw).unwrap_or_else(|| raw.get().to_owned());
            let reason = fields.reason.map(words).unwrap_or_default();
            return Ok(Row::Failure { error: words(error), reason });
        }
        if fields.id.is_none() && fields.ends {
            return Ok(Row::End(fields.last_seq.map(|seq| seq.get().into())));
        }
    }
    let leaves = fields.changes.and_then(leaves).unwrap_or_default();
    let deleted = fields.deleted.is_some_and(|raw| raw.get() == "true");
    let made = id.as_ref().zip(fields.doc).map(|(id, doc)| state(row, doc, deleted, id));
    let own = made.as_ref().and_then(|made| made.as_ref().ok()?.1.as_ref());
    // pouchdb-server does not name the winner first. A body may be newer than its row.
    let named = own.filter(|own| leaves.contains(own)).or(leaves.first()).cloned();
    let place_fits = |seq: &&RawValue| seq.get().len() <= LONGEST_PLACE;
    let position = fields.seq.filter(place_fits).map(|seq| {
        let anchor = id.clone().zip(named.clone());
        origin.within(seq.get().into(), anchor.map(|(id, revision)| Anchor { id, revision }))
    });
    let unreadable = |id, revision, position, reason: &str| {
        let (place, reason) = (place(), reason.to_owned());
        Ok(Row::Unreadable(Unreadable { id, revision, place, position, reason }))
    };
    let Some(id) = id else {
        return unreadable(None, named, position, "the row names no document");
    };
    let (state, own) = match made {
        Some(Ok(made)) => made,
        Some(Err(reason)) => return unreadable(Some(id), named, position, &reason),
        None if deleted => (DocumentState::Deleted(None), None),
        None => {
            return match named {
                None => unreadable(Some(id), None, position, NO_REVISION),
                revision => {
                    Ok(Row::Bodiless(Bodiless { id, revision, position, why: Apart::NotSent }))
                }
            };
        }
    };
    let Some(revision) = own.or(named) else {
        return unreadable(Some(id), None, position, NO_REVISION);
    };
    let others = others(leaves, &revision);
    Ok(Row::Change(Change { id, revision, position, others, state }))
}

/// The longest position that is accepted, in bytes: a position that does not fit into a URL could not be
/// requested again. CouchDB's have a few hundred.
pub(super) const LONGEST_PLACE: usize = 16 << 10;

/// What is wrong with a row without a revision.
const NO_REVISION: &str = "the row names no revision";

/// The state that a body makes, and the revision that the body names. `whole` holds the body.
pub(super) fn state(
    whole: &Bytes,
    doc: &RawValue,
    deleted: bool,
    id: &DocumentId,
) -> Result<(DocumentState, Option<Revision>), String> {
    let body = whole.slice_ref(doc.get().as_bytes());
    let head = Head::read(&body);
    if !body.starts_with(b"{") {
        return Err("the body is not a JSON object".to_owned());
    }
    if let Some(other) = head.id.as_deref().filter(|other| *other != id.as_str()) {
        return Err(format!("the body is another document's, `{other}`"));
    }
    let revision = head.revision.map(|revision| Revision::from(revision.as_ref()));
    let attachments = head.attachments.map_or(Ok(Vec::new()), Stubs::into_attachments);
    if deleted || head.deleted {
        // What a tombstone says of attachments must not keep a document from being deleted.
        let attachments = attachments.unwrap_or_default();
        return Ok((DocumentState::Deleted(Some(Document { body, attachments })), revision));
    }
    Ok((DocumentState::Present(Document { body, attachments: attachments? }), revision))
}

/// A revision as a server sends it with its history: `body` has a `_revisions`.
pub(super) fn branch(
    whole: &Bytes,
    body: &RawValue,
    id: &DocumentId,
    history: &RawValue,
) -> Result<Branch, String> {
    let (state, revision) = state(whole, body, false, id)?;
    let revision = revision.ok_or("the body names no revision")?;
    let history = whole.slice_ref(history.get().as_bytes());
    let (DocumentState::Present(document) | DocumentState::Deleted(Some(document))) = state else {
        return Err("the body is missing".to_owned());
    };
    Ok(Branch { revision, history, document })
}

/// The fields of a row, in any order; of a repeated one the last counts, and `null` is absence.
#[derive(Default)]
struct Fields<'a> {
    seq: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    changes: Option<&'a RawValue>,
    deleted: Option<&'a RawValue>,
    doc: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    reason: Option<&'a RawValue>,
    last_seq: Option<&'a RawValue>,
    /// Whether there is a `last_seq`, be it `null`.
    ends: bool,
}

impl<'de> Object<'de> for Fields<'de> {
    type Key = Key<'de>;

    fn member<A: MapAccess<'de>>(&mut self, key: Key<'de>, map: &mut A) -> Result<(), A::Error> {
        match &*key.0 {
            "seq" => self.seq = map.next_value()?,
            "id" => self.id = map.next_value()?,
            "changes" => self.changes = map.next_value()?,
            "deleted" => self.deleted = map.next_value()?,
            "doc" => self.doc = map.next_value()?,
            "error" => self.error = map.next_value()?,
            "reason" => self.reason = map.next_value()?,
            "last_seq" => {
                self.last_seq = map.next_value()?;
                self.ends = true;
            }
            _ => _ = map.next_value::<IgnoredAny>()?,
        }
        Ok(())
    }
}

/// What a body says about itself.
#[derive(Default)]
struct Head<'a> {
    id: Option<Cow<'a, str>>,
    revision: Option<Cow<'a, str>>,
    deleted: bool,
    attachments: Option<Stubs>,
    /// Whether all of it has to be read.
    whole: bool,
}

impl<'a> Head<'a> {
    /// Reads a body that is known to be JSON. A field of the wrong type counts as absent; `_attachments` of
    /// the wrong type count as unusable.
    fn read(body: &'a [u8]) -> Self {
        // Without this word in it the rest of a body need not be read: CouchDB sends id and
        // revision first. (The word may also stand deeper; then reading shows that.)
        let whole = memmem::find(body, b"\"_attachments\"").is_some()
            || memmem::find(body, b"\"_deleted\"").is_some();
        json::begin(Self { whole, ..Self::default() }, body)
    }
}

impl<'de> Object<'de> for Head<'de> {
    type Key = Key<'de>;

    fn member<A: MapAccess<'de>>(&mut self, key: Key<'de>, map: &mut A) -> Result<(), A::Error> {
        match &*key.0 {
            "_id" => self.id = borrowed(map.next_value()?),
            "_rev" => self.revision = borrowed(map.next_value()?),
            "_deleted" => self.deleted = map.next_value::<&RawValue>()?.get() == "true",
            "_attachments" => self.attachments = Some(Stubs::read(map.next_value()?)),
            _ => _ = map.next_value::<IgnoredAny>()?,
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        !self.whole && self.id.is_some() && self.revision.is_some()
    }
}

/// The stubs of a body's attachments, in its order, or why they cannot be read.
struct Stubs(Result<Vec<(String, Stub)>, String>);

/// The stub of an attachment.
#[derive(Deserialize)]
struct Stub {
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    length: Option<u64>,
    #[serde(default)]
    encoding: Option<String>,
}

impl Stubs {
    fn read(raw: &RawValue) -> Self {
        let stubs = serde_json::from_str(raw.get()).map(|Members(stubs)| stubs);
        Self(stubs.map_err(|error| format!("`_attachments` cannot be read: {error}")))
    }

    /// The attachments. Each notes the sum of all their lengths as its place at the source, from
    /// which [`super::attachments`] decides whether to request the whole document at once.
    fn into_attachments(self) -> Result<Vec<Attachment>, String> {
        let stubs = self.0?;
        let mut lengths = stubs.iter().map(|(_, stub)| stub.length);
        let sum = lengths.try_fold(0_u64, |sum, length| sum.checked_add(length?));
        let sum = sum.map(|sum| sum.to_string()).unwrap_or_default();
        let sum: Arc<str> = sum.into();
        let attachment = |(name, stub): (String, Stub)| Attachment {
            name: name.into(),
            digest: stub.digest.map(Arc::from),
            length: stub.length,
            gzipped: stub.encoding.as_deref() == Some("gzip"),
            content: Content::Remote(sum.clone()),
        };
        Ok(stubs.into_iter().map(attachment).collect())
    }
}

/// The revisions in a row's `changes`: the winner alone, or every leaf.
fn leaves(changes: &RawValue) -> Option<Vec<Revision>> {
    #[derive(Deserialize)]
    struct One {
        rev: Revision,
    }
    let changes: Vec<One> = serde_json::from_str(changes.get()).ok()?;
    Some(changes.into_iter().map(|one| one.rev).collect())
}

/// The leaves beside this one. If the body is newer than the row, the row's leaves are out of date, and a
/// newer row follows.
fn others(mut leaves: Vec<Revision>, revision: &Revision) -> Option<Vec<Revision>> {
    let place = leaves.iter().position(|leaf| leaf == revision)?;
    leaves.swap_remove(place);
    Some(leaves)
}

/// A JSON string as a value; `None` for anything else.
fn text<T: serde::de::DeserializeOwned>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// A JSON string, borrowed where it has no escapes.
fn borrowed(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

//! One row of a feed: its text made into a change.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

use super::content::Fault;
use super::stubs::{Surroundings, take_out};
use crate::document::{Change, Document, DocumentId, DocumentState, Position, Revision, Surface};
use crate::json::cursor::{self as json, Cursor, Invalid};

/// A row that has been found to be whole: it names a document, its revision and its state.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The document.
    pub id: DocumentId,
    /// Its revision: the document's own, else the row's.
    pub revision: Revision,
    /// Whether the document is gone.
    pub deleted: bool,
    /// The collection that the row names, if it names one.
    pub collection: Option<Cow<'a, str>>,
    text: &'a str,
    doc: Option<Range<usize>>,
    attachments: Vec<Range<usize>>,
}

/// A row that cannot be made into a change, with what could be read of it.
#[derive(Debug)]
pub(super) struct Broken {
    /// The document, if the row got so far.
    pub id: Option<DocumentId>,
    /// Its revision, likewise.
    pub revision: Option<Revision>,
    /// The collection that the row names, likewise.
    pub collection: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

impl Broken {
    /// A row of which nothing could be read.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { id: None, revision: None, collection: None, fault: wrong(reason) }
    }

    /// The same with what is known of a row that was not kept in memory.
    pub fn named_by(self, surface: Option<&Surface>) -> Self {
        let Some(Surface { id, revision, collection, .. }) = surface.cloned() else { return self };
        Self { id, revision, collection, ..self }
    }
}

/// What a row says of its collection, without being parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glance<'a> {
    /// It names none.
    Unnamed,
    /// It names this one.
    Named(&'a str),
    /// Only parsing can tell.
    Unclear,
}

/// Looks for a row's collection where most recorders write it. The rows of other collections are
/// passed by this alone, and so it must never say what parsing would not.
pub(super) fn glance(row: &[u8]) -> Glance<'_> {
    static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"collection\""));
    const FIRST: &[u8] = b"{\"collection\":\"";
    const LAST: &[u8] = b",\"collection\":";
    let Some(found) = KEY.find(row) else { return Glance::Unnamed };
    let named = |name| match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() && !name.contains('\\') => Glance::Named(name),
        _ => Glance::Unclear,
    };
    // The last member of a row is the one that counts. No string can hold its quotes.
    let last = row.strip_suffix(b"\"}").and_then(|row| {
        let quote = memchr::memrchr(b'"', row)?;
        row[..quote].ends_with(LAST).then_some(&row[quote + 1..])
    });
    if let Some(name) = last {
        return named(name);
    }
    match row.strip_prefix(FIRST) {
        Some(rest) if found == 1 && KEY.find(rest).is_none() => {
            named(&rest[..memchr::memchr(b'"', rest).unwrap_or(0)])
        }
        _ => Glance::Unclear,
    }
}

/// Reads a row. `None` for a line that ends CouchDB's answer.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Row<'_>>, Broken> {
    read(bytes).map_err(|broken| match glance(bytes) {
        // Others have passed it by that name.
        Glance::Named(name) => Broken { collection: Some(name.to_owned()), ..broken },
        Glance::Unnamed | Glance::Unclear => broken,
    })
}

fn read(bytes: &[u8]) -> Result<Option<Row<'_>>, Broken> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(not_text(bytes, error)),
    };
    let mut found = Found::default();
    let complete = found.read(text);
    if complete.is_ok() && found.id.is_none() && found.is_closing && !found.holds_results {
        return Ok(None);
    }
    let judged = complete.map_err(|e| wrong(format!("the row is not JSON: {e}"))).and_then(|()| {
        let (id, revision) = (found.id()?, found.revision()?);
        found.check_document(&id)?;
        Ok((id, revision, found.collection()?))
    });
    match judged {
        Ok((id, revision, collection)) => Ok(Some(Row {
            id,
            revision,
            deleted: found.deleted || found.doc_deleted,
            collection,
            text,
            doc: found.doc,
            attachments: found.attachments,
        })),
        Err(fault) => Err(found.broken(fault)),
    }
}

/// Whether this is a whole JSON object: a line without its newline may be the half of one.
pub(super) fn is_whole(row: &[u8]) -> bool {
    row.first() == Some(&b'{')
        && std::str::from_utf8(row).is_ok_and(|text| json::validate(text).is_ok())
}

impl Row<'_> {
    /// The change that the row describes. Its body is cut out of `owner`, which the row must be a
    /// part of, or copied, so that a small document does not keep a large buffer in memory.
    pub fn into_change(
        self,
        position: Option<Position>,
        owner: Option<&Bytes>,
        around: &Surroundings<'_>,
    ) -> Result<Change, Broken> {
        match self.state(owner, around) {
            Ok(state) => {
                Ok(Change { id: self.id, revision: self.revision, position, others: None, state })
            }
            Err(fault) => Err(Broken {
                id: Some(self.id),
                revision: Some(self.revision),
                collection: self.collection.map(Cow::into_owned),
                fault,
            }),
        }
    }

    fn state(
        &self,
        owner: Option<&Bytes>,
        around: &Surroundings<'_>,
    ) -> Result<DocumentState, Fault> {
        let Some(doc) = self.doc.clone() else { return Ok(DocumentState::Deleted(None)) };
        let taken = take_out(self.text, doc.clone(), &self.attachments, &self.revision, around)?;
        let body = match (taken.body, owner) {
            (Some(body), _) => Bytes::from(body),
            (None, Some(owner)) => owner.slice_ref(self.text[doc].as_bytes()),
            (None, None) => Bytes::copy_from_slice(self.text[doc].as_bytes()),
        };
        let document = Document { body, attachments: taken.attachments };
        Ok(match self.deleted {
            true => DocumentState::Deleted(Some(document)),
            false => DocumentState::Present(document),
        })
    }
}

/// What has been found in a row so far: values as they stand in its text.
#[derive(Debug, Default)]
struct Found<'a> {
    id: Option<&'a str>,
    collection: Option<&'a str>,
    revision: Option<&'a str>,
    deleted: bool,
    error: Option<&'a str>,
    /// Where the document stands; `None` for `null`.
    doc: Option<Range<usize>>,
    doc_is_object: bool,
    doc_id: Option<&'a str>,
    doc_revision: Option<&'a str>,
    doc_deleted: bool,
    attachments: Vec<Range<usize>>,
    is_closing: bool,
    holds_results: bool,
}

impl<'a> Found<'a> {
    fn read(&mut self, text: &'a str) -> Result<(), Invalid> {
        let mut cursor = Cursor::new(text);
        let Some(mut row) = cursor.object() else {
            return Err(cursor.expected("an object"));
        };
        while let Some(key) = cursor.member(&mut row)? {
            // The collection's key must be spelled plainly, as `glance` expects it.
            match key.plain() {
                "collection" => self.collection = Some(cursor.skip()?),
                "seq" => _ = cursor.skip()?,
                _ if key.is("id") => self.id = Some(cursor.skip()?),
                _ if key.is("changes") => self.read_changes(&mut cursor)?,
                _ if key.is("deleted") => self.deleted = cursor.skip()? == "true",
                _ if key.is("doc") => self.read_doc(&mut cursor)?,
                _ if key.is("error") => self.error = Some(cursor.skip()?),
                other => {
                    self.is_closing |= other == "last_seq";
                    self.holds_results |= other == "results";
                    cursor.skip()?;
                }
            }
        }
        cursor.finish()
    }

    /// The first revision named is the winner's.
    fn read_changes(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Invalid> {
        self.revision = None;
        let Some(mut changes) = cursor.array() else { return cursor.skip().map(drop) };
        while cursor.element(&mut changes)? {
            let Some(mut change) = cursor.object() else {
                cursor.skip()?;
                continue;
            };
            while let Some(key) = cursor.member(&mut change)? {
                let value = cursor.skip()?;
                if key.is("rev") && self.revision.is_none() {
                    self.revision = Some(value);
                }
            }
        }
        Ok(())
    }

    fn read_doc(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Invalid> {
        (self.doc_id, self.doc_revision, self.doc_deleted) = (None, None, false);
        self.attachments.clear();
        let start = cursor.offset();
        let Some(mut doc) = cursor.object() else {
            let value = cursor.skip()?;
            self.doc = (value != "null").then_some(start..start + value.len());
            self.doc_is_object = false;
            return Ok(());
        };
        while let Some(key) = cursor.member(&mut doc)? {
            let start = cursor.offset();
            let value = cursor.skip()?;
            match key {
                _ if !key.plain().starts_with(['_', '\\']) => {}
                _ if key.is("_id") => self.doc_id = Some(value),
                _ if key.is("_rev") => self.doc_revision = Some(value),
                _ if key.is("_deleted") => self.doc_deleted = value == "true",
                _ if key.is("_attachments") => self.attachments.push(start..start + value.len()),
                _ => {}
            }
        }
        self.doc = Some(start..cursor.passed());
        self.doc_is_object = true;
        Ok(())
    }

    fn id(&self) -> Result<DocumentId, Fault> {
        let Some(raw) = self.id else {
            return Err(wrong(match self.error {
                _ if self.holds_results => "the line holds a whole answer instead of one row: \
                     record it with feed=continuous"
                    .to_owned(),
                Some(error) => format!("the line is not a row but the error {}", excerpt(error)),
                None => "the row has no id".to_owned(),
            }));
        };
        match text("the row's id", raw)? {
            id if id.is_empty() => Err(wrong("the row's id is empty")),
            id => Ok(DocumentId::from(&*id)),
        }
    }

    fn revision(&self) -> Result<Revision, Fault> {
        let Some(raw) = self.doc_revision.or(self.revision) else {
            return Err(wrong("the row has no revision"));
        };
        match text("the row's revision", raw)? {
            revision if revision.is_empty() => Err(wrong("the row's revision is empty")),
            revision => Ok(Revision::from(&*revision)),
        }
    }

    fn collection(&self) -> Result<Option<Cow<'a, str>>, Fault> {
        match self.collection.map(|raw| text("the row's collection", raw)).transpose()? {
            Some(name) if name.is_empty() => Err(wrong("the row's collection has no name")),
            name => Ok(name),
        }
    }

    fn check_document(&self, id: &DocumentId) -> Result<(), Fault> {
        match (&self.doc, self.error) {
            // Rows of local documents are passed over.
            (None, _) if self.deleted || id.is_local() => return Ok(()),
            (None, Some(error)) => {
                let error = excerpt(error);
                return Err(wrong(format!("the row holds the error {error} and no document")));
            }
            (None, None) => {
                return Err(wrong(
                    "the row holds no document: record the feed with include_docs=true",
                ));
            }
            (Some(_), _) if !self.doc_is_object => {
                return Err(wrong("the row's document is not an object"));
            }
            (Some(_), _) => {}
        }
        match self.doc_id.map(|raw| text("the document's id", raw)).transpose()? {
            Some(other) if other != id.as_str() => {
                Err(wrong(format!("the row is of `{id}`, but its document calls itself `{other}`")))
            }
            _ => Ok(()),
        }
    }

    fn broken(&self, fault: Fault) -> Broken {
        let collection = self.collection().ok().flatten().map(Cow::into_owned);
        Broken { id: self.id().ok(), revision: self.revision().ok(), collection, fault }
    }
}

/// What is known of a row that is not text.
fn not_text(bytes: &[u8], error: std::str::Utf8Error) -> Broken {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Found::default();
    // What can be read of it is all that is asked for here.
    let _ = found.read(&text);
    let fault = wrong(format!("the row is not UTF-8 text at its byte {}", error.valid_up_to()));
    let mut broken = found.broken(fault);
    broken.id = broken.id.filter(|id| !id.as_str().contains('\u{fffd}'));
    broken
}

fn text<'a>(what: &str, raw: &'a str) -> Result<Cow<'a, str>, Fault> {
    if !raw.starts_with('"') {
        return Err(wrong(format!("{what} is not text but {}", excerpt(raw))));
    }
    json::string(raw).map_err(|error| wrong(format!("{what} is not text: {error}")))
}

fn wrong(reason: impl Into<String>) -> Fault {
    Fault::Wrong(reason.into())
}

/// As much of a value as fits into a message.
fn excerpt(raw: &str) -> String {
    const LIMIT: usize = 80;
    match raw.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &raw[..end]),
        None => raw.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_glance_never_says_what_parsing_would_not(
            members in prop::collection::vec(prop_oneof![
                "\"collection\":\"[ab,]{0,2}\"", "\"collection\": \"[ab]\"", "\"collection\":7",
                Just(r#""doc":{"collection":"c"}"#.to_owned()), Just(r#""x":"collection\",""#.to_owned()),
                Just(r#""y":",\"collection\":\"d\"""#.to_owned()), Just(r#""z":1"#.to_owned()),
            ], 0..5)
        ) {
            let row = format!("{{{}}}", members.join(","));
            let mut found = Found::default();
            found.read(&row).unwrap();
            let parsed = found.collection();
            match glance(row.as_bytes()) {
                Glance::Unnamed => prop_assert_eq!(parsed, Ok(None)),
                Glance::Named(name) => prop_assert_eq!(parsed, Ok(Some(name.into()))),
                Glance::Unclear => {}
            }
        }
    }

    #[test]
    fn a_glance_finds_a_collection_where_recorders_write_it() {
        assert_eq!(glance(br#"{"collection":"books","id":"a"}"#), Glance::Named("books"));
        assert_eq!(glance(br#"{"id":"a","collection":"books"}"#), Glance::Named("books"));
        assert_eq!(glance(br#"{"id":"a"}"#), Glance::Unnamed);
    }

    #[test]
    fn a_broken_row_belongs_to_the_collection_that_a_glance_gives_it() {
        let row = br#"{"collection":"a","id":nonsense,"collection":"b"}"#;
        assert_eq!(parse(row).unwrap_err().collection.as_deref(), Some("b"));
    }
}

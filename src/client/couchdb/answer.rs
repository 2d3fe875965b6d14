//! The answers of a server as types, with the fields that are read.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{Error, NOTHING_SAID, bounded};
use crate::document::{DocumentId, Revision, decode_base64};
use crate::json::{self, Key, Members, Object};

/// What a server says about itself.
#[derive(Clone, Debug, Deserialize)]
pub struct ServerInfo {
    /// Its version, if it says.
    pub version: Option<String>,
    /// A name for this server that outlives its restarts.
    pub uuid: Option<String>,
    /// `Welcome` from CouchDB and from services built on it; pouchdb-server returns another text.
    #[serde(default)]
    pub couchdb: Option<String>,
}

/// What a database says about itself.
#[derive(Clone, Debug, Deserialize)]
pub struct DatabaseInfo {
    /// When it was created on CouchDB since 3.3, `0` before; the start of the server's process on
    /// pouchdb-server.
    #[serde(default)]
    pub instance_start_time: Option<Box<RawValue>>,
    /// How many purges there were: `12-opaque`, or a number.
    #[serde(default)]
    pub purge_seq: Option<Box<RawValue>>,
    /// The end of its feed, as JSON text.
    pub update_seq: Box<RawValue>,
    /// Live documents, where the server says.
    #[serde(default)]
    pub doc_count: Option<u64>,
    /// Deleted documents; pouchdb-server does not say.
    #[serde(default)]
    pub doc_del_count: Option<u64>,
    /// How large it is; pouchdb-server does not say.
    #[serde(default)]
    pub sizes: Sizes,
    /// How it was created; pouchdb-server does not say.
    #[serde(default)]
    pub props: Props,
    /// The format of the database's files. Only CouchDB reports it, in every version.
    #[serde(default)]
    pub disk_format_version: Option<u64>,
}

impl DatabaseInfo {
    /// Whether it has never held a document, not even a deleted one: its feed ends where it begins.
    pub fn is_untouched(&self) -> bool {
        let end = self.update_seq.get().trim_start_matches('"');
        let number = end.split(['-', '"']).next();
        self.changes() == 0 && number == Some("0")
    }

    /// About how many changes its feed has: one for each document, deleted or not.
    pub fn changes(&self) -> u64 {
        let (living, deleted) = (self.doc_count, self.doc_del_count);
        living.unwrap_or_default().saturating_add(deleted.unwrap_or_default())
    }
}

/// How a database was created.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Props {
    /// Whether its documents are grouped by the part of their ids before the first colon.
    #[serde(default)]
    pub partitioned: bool,
}

/// How large a database is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Sizes {
    /// Bytes of its documents' bodies and attachments, before compression.
    #[serde(default)]
    pub external: u64,
}

/// Revisions of one document that a database does not know.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct MissingRevisions {
    /// The unknown ones.
    #[serde(default)]
    pub missing: Vec<Revision>,
    /// Known ones that may be their ancestors.
    #[serde(default)]
    pub possible_ancestors: Vec<Revision>,
}

/// One entry of `_bulk_docs`' answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Unwritten {
    /// The document; pouchdb-server may not say.
    #[serde(default)]
    pub id: Option<DocumentId>,
    /// Which of its revisions, where the server says so.
    #[serde(default)]
    pub rev: Option<Revision>,
    /// Why it was not written: a word, or pouchdb-server's `true`.
    #[serde(default)]
    pub error: Option<Value>,
    /// The server's reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// pouchdb-server's word for the error.
    #[serde(default)]
    pub name: Option<String>,
}

/// The answer to a document that was put under the revision that it has.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Written {
    /// Which revision was written.
    One {
        /// Whether it was.
        ok: bool,
        /// Which.
        rev: Revision,
    },
    /// pouchdb-server answers as `_bulk_docs` does.
    Many(Vec<Unwritten>),
}

impl Unwritten {
    /// The same, with every text of the server scrubbed.
    pub(super) fn scrubbed(self, scrub: impl Fn(&str) -> String) -> Self {
        let all = |text: Option<String>| text.map(|text| scrub(&text));
        let error = self.error.map(|error| match error {
            Value::String(text) => Value::String(scrub(&text)),
            other => other,
        });
        Self { error, reason: all(self.reason), name: all(self.name), ..self }
    }

    /// Why, in the server's words.
    pub fn why(&self) -> String {
        let word = self.error.as_ref().and_then(Value::as_str).or(self.name.as_deref());
        let words = [word, self.reason.as_deref()];
        let words: Vec<_> = words.into_iter().flatten().filter(|text| !text.is_empty()).collect();
        if words.is_empty() { NOTHING_SAID.to_owned() } else { bounded(&words.join(": ")) }
    }
}

/// One row of `_all_docs`.
#[derive(Debug, Deserialize)]
pub struct AllDocsRow<'a> {
    /// The id that was asked for.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    /// Why the document is missing: `not_found`.
    #[serde(default, borrow)]
    pub error: Option<&'a RawValue>,
    /// The newest revision.
    #[serde(default)]
    pub value: Option<AllDocsValue>,
    /// The body, `null` for a deleted document.
    #[serde(default, borrow)]
    pub doc: Option<&'a RawValue>,
}

/// The newest revision in a row of `_all_docs`.
#[derive(Debug, Deserialize)]
pub struct AllDocsValue {
    /// Which.
    pub rev: Revision,
    /// Whether it is a deletion.
    #[serde(default)]
    pub deleted: bool,
}

/// One entry of `_bulk_get`'s answer; `D` is what is read of a document.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub struct BulkResult<'a, D> {
    /// The document. pouchdb-server groups the entries by it.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// What there is of it.
    #[serde(borrow)]
    pub docs: Vec<BulkItem<'a, D>>,
}

/// One revision in `_bulk_get`'s answer; pouchdb-server may answer `{}`.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub struct BulkItem<'a, D> {
    /// The document.
    #[serde(default = "Option::default")]
    pub ok: Option<D>,
    /// Why it is missing: `{"id","rev","error","reason"}`.
    #[serde(default, borrow)]
    pub error: Option<&'a RawValue>,
    /// The revision that pouchdb-server does not have.
    #[serde(default)]
    pub missing: Option<Revision>,
}

/// A document with its attachments inline.
#[derive(Debug)]
pub struct BulkDocument<'a> {
    /// Which revision it is.
    pub revision: Revision,
    /// Its attachments.
    pub attachments: BulkAttachments<'a>,
}

/// The attachments of a [`BulkDocument`], in their order.
pub type BulkAttachments<'a> = Members<String, BulkAttachment<'a>>;

/// One attachment inline.
#[derive(Debug, Deserialize)]
pub struct BulkAttachment<'a> {
    /// Its bytes as JSON text: a string of base64, quotes included.
    #[serde(default, borrow)]
    pub data: Option<&'a RawValue>,
}

impl BulkAttachment<'_> {
    /// Its bytes, if they are present and valid.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let text = self.data?.get();
        match text.strip_prefix('"')?.strip_suffix('"')? {
            // Base64 has no character that must be escaped, but some escape the slash.
            escaped if escaped.contains('\\') => {
                decode_base64(&serde_json::from_str::<String>(text).ok()?).ok()
            }
            plain => decode_base64(plain).ok(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for BulkDocument<'a> {
    /// By hand, because the keys of a body need not be text, which what serde derives refuses.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default)]
        struct Found<'a>(Option<Revision>, BulkAttachments<'a>);

        impl<'de> Object<'de> for Found<'de> {
            type Key = Key<'de>;

            fn member<A: MapAccess<'de>>(
                &mut self,
                key: Key<'de>,
                map: &mut A,
            ) -> Result<(), A::Error> {
                match &*key.0 {
                    "_rev" => self.0 = Some(map.next_value()?),
                    "_attachments" => self.1 = map.next_value()?,
                    _ => _ = map.next_value::<IgnoredAny>()?,
                }
                Ok(())
            }
        }

        let Found(revision, attachments) = json::object(deserializer)?;
        let revision = revision.ok_or_else(|| D::Error::missing_field("_rev"))?;
        Ok(BulkDocument { revision, attachments })
    }
}

/// The rows of an answer of `_all_docs`.
pub fn all_docs_rows(answer: &[u8]) -> Result<Vec<AllDocsRow<'_>>, Error> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        rows: Vec<AllDocsRow<'a>>,
    }
    let answer: Answer<'_> = serde_json::from_slice(answer).map_err(|e| unread("_all_docs", &e))?;
    Ok(answer.rows)
}

/// The entries of an answer of [`super::Database::bulk_get`].
pub fn bulk_get_results<'a, D: Deserialize<'a>>(
    answer: &'a [u8],
) -> Result<Vec<BulkResult<'a, D>>, Error> {
    #[derive(Deserialize)]
    #[serde(bound(deserialize = "D: Deserialize<'de>"))]
    struct Answer<'a, D> {
        #[serde(borrow)]
        results: Vec<BulkResult<'a, D>>,
    }
    let answer: Answer<'a, D> =
        serde_json::from_slice(answer).map_err(|e| unread("_bulk_get", &e))?;
    Ok(answer.results)
}

/// The rows of an answer of [`super::Database::change_of`].
pub fn changes_rows(answer: &[u8]) -> Result<Vec<&RawValue>, Error> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        results: Vec<&'a RawValue>,
    }
    let answer: Answer<'_> = serde_json::from_slice(answer).map_err(|e| unread("_changes", &e))?;
    Ok(answer.results)
}

fn unread(endpoint: &str, error: &serde_json::Error) -> Error {
    // Only the place: the text there may hold anything.
    let (line, column) = (error.line(), error.column());
    let what = if error.is_data() { "is not what was requested" } else { "is not complete JSON" };
    Error::transient(format!("the answer of {endpoint} {what}, at line {line} column {column}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_whose_keys_are_no_text_is_read_in_bulk() {
        let answer = br#"{"results":[{"id":"d","docs":[{"ok":{"\ud800":"\udc00","_rev":"1-a",
            "_attachments":{"f":{"data":"YQ=="}}}}]}]}"#;
        let results = bulk_get_results::<BulkDocument<'_>>(answer).unwrap();
        let document = results[0].docs[0].ok.as_ref().unwrap();
        assert_eq!(document.revision.as_str(), "1-a");
        assert_eq!(document.attachments.0[0].1.bytes().unwrap(), b"a");
        let nameless = br#"{"results":[{"id":"d","docs":[{"ok":{}}]}]}"#;
        assert!(bulk_get_results::<BulkDocument<'_>>(nameless).is_err());
    }

    #[test]
    fn a_database_is_untouched_where_its_feed_ends_at_the_beginning() {
        let untouched = |end: &str, rest: &str| {
            let text = format!(r#"{{"update_seq":{end}{rest}}}"#);
            serde_json::from_str::<DatabaseInfo>(&text).unwrap().is_untouched()
        };
        assert!(untouched("0", r#","doc_count":0"#));
        assert!(untouched(r#""0-g1AAAACTeJ""#, r#","doc_count":0,"doc_del_count":0"#));
        assert!(!untouched("7", ""), "all of its documents may be deleted");
        assert!(!untouched(r#""10-g1AAAACT""#, ""));
        assert!(!untouched("0", r#","doc_count":1"#));
    }
}

//! Converts a `document.json` of RxDB's backup plugin into a document of CouchDB.
//!
//! Pure. Members are left out, added or, for attachments, rewritten; no other value is re-encoded.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::folder_of;
use crate::archive::ProblemKind;
use crate::document::{DocumentId, Revision, Stub};
use crate::json;

/// Hexadecimal digits of a SHA-256, RxDB's digest unless the application provides another hash
/// function.
const SHA256_DIGITS: usize = 64;

/// A document.
#[derive(Debug)]
pub(super) struct Read {
    pub id: DocumentId,
    pub revision: Option<Revision>,
    /// Its body in CouchDB's form.
    pub body: Bytes,
    pub stubs: Vec<(String, Stub)>,
}

/// What is wrong with a body.
type Wrong = (ProblemKind, String);

/// Reads the text of a document whose folder is `folder`, relative to the plugin's directory.
pub(super) fn read(text: &[u8], folder: &str) -> Result<Read, Wrong> {
    let members = Members::read(text).map_err(|error| {
        let kind = if error.is_eof() { ProblemKind::HalfWritten } else { ProblemKind::Altered };
        (kind, format!("it is not JSON: {error}"))
    })?;
    let id = id(&members, folder)?;
    let (mut kept, mut stubs) = (Vec::new(), Vec::new());
    if members.named("_id").is_none() {
        kept.push(format!("\"_id\":{}", serde_json::Value::from(id.as_str())));
    }
    for (key, raw, value) in &members.0 {
        match key.as_str() {
            // Specific to RxDB, and refused by CouchDB.
            "_meta" => continue,
            "_deleted" if value.get() == "false" => continue,
            "_deleted" => {
                let reason = "its body says that it is deleted (`_deleted`)";
                return Err((ProblemKind::Altered, reason.to_owned()));
            }
            "_attachments" => {
                let (text, found) = attachments(value).map_err(|error| {
                    (ProblemKind::Altered, format!("its `_attachments` cannot be read: {error}"))
                })?;
                stubs = found;
                if !stubs.is_empty() {
                    kept.push(format!("{}:{text}", raw.get()));
                }
            }
            _ => kept.push(format!("{}:{}", raw.get(), value.get())),
        }
    }
    let revision = members.named("_rev").and_then(text_of).map(Into::into);
    Ok(Read { id, revision, body: format!("{{{}}}", kept.join(",")).into(), stubs })
}

/// The id is the value of one member, whose name only the application's schema knows. It is the
/// member for which the plugin makes exactly this folder.
fn id(members: &Members<'_>, folder: &str) -> Result<DocumentId, Wrong> {
    let mut found = HashSet::new();
    for (key, _, value) in &members.0 {
        let own = !key.starts_with('_') || key == "_id";
        let Some(text) = text_of(value).filter(|_| own) else { continue };
        if folder_of(&text).as_deref() != Some(folder) {
            continue;
        }
        if key == "_id" || text == folder {
            return Ok(text.into());
        }
        found.insert(text);
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id.into()),
        (None, _) => {
            let reason = "no member of its body holds an id that matches the name of its folder";
            Err((ProblemKind::Altered, reason.to_owned()))
        }
        (Some(one), Some(other)) => {
            let reason =
                format!("its id may be {one:?} or {other:?}: both match the name of its folder");
            Err((ProblemKind::Altered, reason))
        }
    }
}

/// The member `_attachments` in CouchDB's form, and its stubs. CouchDB does not know RxDB's digest,
/// so the stub contains it and the text does not.
fn attachments(value: &RawValue) -> serde_json::Result<(String, Vec<(String, Stub)>)> {
    let entries = Members::read(value.get().as_bytes())?;
    let (mut texts, mut stubs) = (Vec::new(), Vec::new());
    for (name, raw, value) in entries.0 {
        let own: Own<'_> = serde_json::from_str(value.get())?;
        let mut text = String::new();
        if let Some(kind) = own.kind {
            text.push_str(&format!("\"content_type\":{},", kind.get()));
        }
        if let Some(length) = own.length {
            text.push_str(&format!("\"length\":{length},"));
        }
        texts.push(format!("{}:{{{text}\"stub\":true}}", raw.get()));
        let is_sha256 = |digest: &String| {
            digest.len() == SHA256_DIGITS && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let digest = own.digest.filter(is_sha256);
        let digest = digest.map(|digest| format!("sha256-{}", digest.to_ascii_lowercase()));
        let content_type = own.kind.and_then(text_of);
        stubs.push((name, Stub { digest, length: own.length, content_type, encoding: None }));
    }
    Ok((format!("{{{}}}", texts.join(",")), stubs))
}

/// RxDB's description of an attachment.
#[derive(Deserialize)]
struct Own<'a> {
    digest: Option<String>,
    length: Option<u64>,
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
}

fn text_of(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The members of an object in order: key, the raw key, value.
struct Members<'a>(Vec<(String, &'a RawValue, &'a RawValue)>);

impl<'a> Members<'a> {
    fn read(text: &'a [u8]) -> serde_json::Result<Self> {
        let json::Members(raw) =
            serde_json::from_slice::<json::Members<&RawValue, &RawValue>>(text)?;
        let member =
            |(raw, value): (&'a RawValue, _)| Ok((serde_json::from_str(raw.get())?, raw, value));
        raw.into_iter().map(member).collect::<Result<_, _>>().map(Self)
    }

    /// Of a repeated key, the last counts.
    fn named(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().rev().find(|(key, ..)| key == name).map(|(_, _, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str, folder: &str) -> Result<String, Wrong> {
        read(text.as_bytes(), folder).map(|read| String::from_utf8(read.body.to_vec()).unwrap())
    }

    #[test]
    fn what_is_rxdbs_own_goes_and_every_other_byte_stays() {
        let text = r#"{"isbn":"a","n":1.0,"x":"\u00e9","big":123456789012345678901,"_deleted":false,"_attachments":{},"_meta":{"lwt":1.01},"_rev":"2-tok"}"#;
        let read = read(text.as_bytes(), "a").unwrap();
        assert_eq!(
            std::str::from_utf8(&read.body).unwrap(),
            r#"{"_id":"a","isbn":"a","n":1.0,"x":"\u00e9","big":123456789012345678901,"_rev":"2-tok"}"#
        );
        assert_eq!(read.revision, Some("2-tok".into()));
    }

    #[test]
    fn an_id_of_its_own_is_not_written_twice() {
        assert_eq!(body(r#"{"_id":"a","n":1}"#, "a").unwrap(), r#"{"_id":"a","n":1}"#);
    }

    #[test]
    fn stubs_are_spelt_as_couchdb_spells_them() {
        let digest = "2D711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let text = format!(
            r#"{{"k":"a","_attachments":{{"x \u0031":{{"length":1,"digest":"{digest}","type":"text/plain"}},"y":{{"digest":"xxh"}}}}}}"#
        );
        let read = read(text.as_bytes(), "a").unwrap();
        assert_eq!(
            std::str::from_utf8(&read.body).unwrap(),
            r#"{"_id":"a","k":"a","_attachments":{"x \u0031":{"content_type":"text/plain","length":1,"stub":true},"y":{"stub":true}}}"#
        );
        let (name, stub) = &read.stubs[0];
        assert_eq!(name, "x 1");
        assert_eq!(stub.digest, Some(format!("sha256-{}", digest.to_lowercase())));
        assert_eq!(read.stubs[1].1, Stub::default());
    }

    #[test]
    fn the_id_is_the_value_that_the_folder_was_made_of() {
        let id = |text: &str, folder: &str| {
            read(text.as_bytes(), folder).map(|read| read.id.as_str().to_owned())
        };
        assert_eq!(id(r#"{"a":"x","k":"y"}"#, "y").unwrap(), "y");
        assert_eq!(id(r#"{"k":"a//b","n":"c"}"#, "a/b").unwrap(), "a//b");
        assert_eq!(id(r#"{"k":"a//b","n":"a/b"}"#, "a/b").unwrap(), "a/b");
        assert_eq!(id(r#"{"_id":"a//b","n":"a/b"}"#, "a/b").unwrap(), "a//b");
        let (_, reason) = id(r#"{"k":"a//b","n":"a/b/"}"#, "a/b").unwrap_err();
        assert!(reason.contains("both match"), "{reason}");
        for text in [r#"{"k":"../y"}"#, r#"{"k":1,"_rev":"y"}"#, r#"{"in":{"k":"y"}}"#] {
            let (kind, reason) = id(text, "y").unwrap_err();
            assert_eq!(kind, ProblemKind::Altered);
            assert!(reason.contains("name of its folder"), "{reason}");
        }
    }

    #[test]
    fn what_is_no_whole_document_is_said_to_be_so() {
        let kind = |text: &str| body(text, "a").unwrap_err().0;
        assert_eq!(kind(r#"{"k":"a","n":"#), ProblemKind::HalfWritten);
        assert_eq!(kind(""), ProblemKind::HalfWritten);
        assert_eq!(kind("[]"), ProblemKind::Altered);
        assert_eq!(kind(r#"{"k":"a","_deleted":true}"#), ProblemKind::Altered);
        assert_eq!(kind(r#"{"k":"a","_attachments":7}"#), ProblemKind::Altered);
    }
}

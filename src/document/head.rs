//! The members of a body that Plainfold needs: id, revision, attachments. Read without parsing the
//! rest. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use crate::json::{self, Key, Object, Text};

/// The top-level members of a body. If a key is repeated, the last one counts.
#[derive(Debug, Default)]
pub struct Head<'a> {
    /// `_id`.
    pub id: Option<Cow<'a, str>>,
    /// `_rev`.
    pub revision: Option<Cow<'a, str>>,
    /// `_attachments`, as raw JSON text.
    pub attachments: Option<&'a RawValue>,
    /// `_revisions`, as raw JSON text: the revisions that led to this one.
    pub history: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    /// Reads the head of a body.
    pub fn read(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        json::read(body)
    }

    /// The stubs by attachment name; empty if the body has no attachments, or its `_attachments` is
    /// not an object.
    pub fn stubs(&self) -> BTreeMap<String, Stub> {
        let parse = |raw: &RawValue| serde_json::from_str(raw.get()).ok();
        self.attachments.and_then(parse).unwrap_or_default()
    }
}

/// A stub: the description of an attachment in a body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Stub {
    /// The digest, such as `md5-<base64>`.
    pub digest: Option<String>,
    /// The length in bytes, before any encoding.
    pub length: Option<u64>,
    /// Its media type.
    pub content_type: Option<String>,
    /// The encoding in the store: `gzip`, or none.
    pub encoding: Option<String>,
}

impl<'de> Object<'de> for Head<'de> {
    type Key = Key<'de>;

    fn member<A: MapAccess<'de>>(&mut self, key: Key<'de>, map: &mut A) -> Result<(), A::Error> {
        match &*key.0 {
            "_id" => self.id = Some(map.next_value::<Text<'de>>()?.0),
            "_rev" => self.revision = Some(map.next_value::<Text<'de>>()?.0),
            "_attachments" => self.attachments = Some(map.next_value()?),
            "_revisions" => self.history = Some(map.next_value()?),
            _ => _ = map.next_value::<IgnoredAny>()?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_read_wherever_it_stands() {
        let body = br#"{"n":{"_rev":"9-no"},"_rev":"1-\u0061","_attachments":{"f":{"digest":"md5-x","length":3,"stub":true}},"_id":"d"}"#;
        let head = Head::read(body).unwrap();
        assert_eq!(head.id.as_deref(), Some("d"));
        assert_eq!(head.revision.as_deref(), Some("1-a"));
        let stub = &head.stubs()["f"];
        assert_eq!((stub.digest.as_deref(), stub.length), (Some("md5-x"), Some(3)));
    }

    #[test]
    fn keys_that_are_no_text_are_no_obstacle() {
        let body =
            br#"{"\ud800":1,"\udc00_id":2,"_i\u0064":"d","":3,"_attachments":{"f":{"length":3}}}"#;
        let head = Head::read(body).unwrap();
        assert_eq!(head.id.as_deref(), Some("d"));
        assert_eq!(head.stubs()["f"].length, Some(3));
    }

    #[test]
    fn nesting_of_ten_thousand_is_no_trouble() {
        let body = format!(r#"{{"x":{}{},"_rev":"1-a"}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(Head::read(body.as_bytes()).unwrap().revision.as_deref(), Some("1-a"));
    }

    #[test]
    fn a_body_that_is_not_an_object_is_an_error() {
        assert!(Head::read(b"[]").is_err());
        assert!(Head::read(b"{\"a\":").is_err());
    }
}

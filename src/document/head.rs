//! The members of a body that Plainfold needs: id, revision, attachments. Read without parsing the
//! rest. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::json::Text;

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
        serde_json::from_slice(body)
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

impl<'de> Deserialize<'de> for Head<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Head<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut head = Head::default();
                while let Some(Key(key)) = map.next_key()? {
                    match &*key {
                        "_id" => head.id = Some(map.next_value::<Text<'de>>()?.0),
                        "_rev" => head.revision = Some(map.next_value::<Text<'de>>()?.0),
                        "_attachments" => head.attachments = Some(map.next_value()?),
                        "_revisions" => head.history = Some(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(head)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A member's key, borrowed if it has no escapes.
///
/// JSON allows keys that are not valid Unicode: half a surrogate pair, `"\ud800"`. The invalid part
/// is replaced, so that such a key neither matches one of ours nor causes an error.
#[derive(Debug)]
pub struct Key<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Key(String::from_utf8_lossy(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Key(String::from_utf8_lossy(bytes).into_owned().into()))
            }
        }

        // serde_json refuses half a pair in a string, but not in bytes.
        deserializer.deserialize_bytes(Bytes)
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

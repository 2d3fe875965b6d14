//! The text of a document for a target: the stored body with its attachments inserted.
//!
//! Nothing is re-encoded: everything except attachment stubs and the revision is copied byte for
//! byte.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use md5::{Digest, Md5};
use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use crate::document::{DocumentId, Revision};
use crate::json::{self, Key, Members, Object};

/// A document's text in pieces, so that no attachment has to be in memory.
#[derive(Clone, Debug)]
pub struct BodyText {
    /// The pieces, in order.
    pub pieces: Vec<Piece>,
    /// The revision of the body; derived from its bytes if it contains none.
    pub revision: Revision,
    /// Members that the body lacks, and a target needs.
    lacking: Vec<String>,
    /// Whether the body has no members.
    is_empty: bool,
}

/// A part of a document's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text that is copied.
    Text(Bytes),
    /// The position where members may be added.
    Members,
    /// The revision, a JSON string.
    Revision,
    /// The text before or after an attachment's inline data.
    Edge(Edge),
    /// An attachment's bytes, base64, without the quotes around them.
    Attachment {
        /// Its name.
        name: String,
        /// The length of its file.
        size: u64,
    },
}

/// A side of an attachment's inline data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Before them.
    Start,
    /// After them.
    End,
}

/// The place of the bytes of a document's attachments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    /// Inside its text, as base64.
    Inline,
    /// After its text, each in a separate part.
    Follows,
}

/// The members of a stub that are kept beside the inline data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stubs {
    /// The members that a server accepts with inline data: content type and `revpos`. It computes
    /// the others.
    Server,
    /// Everything, for a feed: the digest shows whether the data arrived intact.
    Feed,
}

/// Facts about a document beside its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyContext<'a> {
    /// The revisions that led to it, as JSON text.
    pub history: Option<&'a str>,
    /// Whether it is a tombstone.
    pub deleted: bool,
}

/// The key of a history, as JSON.
const HISTORY: &str = "\"_revisions\"";

/// A revision that is written on top of another one at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The new revision.
    pub revision: Revision,
    /// The revision that it follows.
    pub parent: Revision,
}

impl BodyText {
    /// Splits a body into pieces. `size` returns the length of an attachment's file.
    pub fn new(
        id: &DocumentId,
        body: &Bytes,
        beside: BodyContext<'_>,
        stubs: Stubs,
        size: impl Fn(&str) -> Option<u64>,
    ) -> Result<Self, String> {
        std::str::from_utf8(body)
            .map_err(|error| format!("it is not UTF-8 at its byte {}", error.valid_up_to()))?;
        // Keys are compared as bytes, which would accept control characters: so the body is
        // validated first.
        let whole: &RawValue =
            serde_json::from_slice(body).map_err(|error| format!("it is not JSON: {error}"))?;
        let anatomy: Anatomy<'_> = json::read(whole.get().as_bytes())
            .map_err(|error| format!("it cannot be restored: {error}"))?;
        let mut lacking = Vec::new();
        if !anatomy.has_id {
            lacking.push(format!("\"_id\":{}", quoted(id.as_str())));
        }
        let revision = match &anatomy.revision {
            Some(revision) => Revision::from(&**revision),
            None => {
                let revision = made_revision(body);
                lacking.push(format!("\"_rev\":\"{revision}\""));
                revision
            }
        };
        if beside.deleted && !anatomy.is_deleted {
            lacking.push("\"_deleted\":true".to_owned());
        }
        if let Some(history) = beside.history.filter(|_| !anatomy.has_history) {
            lacking.push(format!("{HISTORY}:{history}"));
        }
        let mut edits: Vec<Edit> = Vec::new();
        let at = |raw: &RawValue| {
            let start = raw.get().as_ptr() as usize - body.as_ptr() as usize;
            start..start + raw.get().len()
        };
        edits.extend(anatomy.revisions.iter().map(|raw| (at(raw), vec![Piece::Revision])));
        for raw in &anatomy.attachments {
            edits.extend(inlined(raw, stubs, at, &size)?);
        }
        // Specific to RxDB, and refused by CouchDB. A feed accepts it.
        if let (Stubs::Server, [raw]) = (stubs, &anatomy.metas[..])
            && anatomy.members > 1
        {
            edits.push((member(body, at(raw)), Vec::new()));
        }
        edits.sort_by_key(|(range, _)| range.start);
        let open = body.iter().position(|byte| *byte == b'{').map_or(0, |brace| brace + 1);
        let mut pieces = vec![Piece::Text(body.slice(..open)), Piece::Members];
        let mut copied = open;
        for (range, replacement) in edits {
            pieces.push(Piece::Text(body.slice(copied..range.start)));
            pieces.extend(replacement);
            copied = range.end;
        }
        pieces.push(Piece::Text(body.slice(copied..)));
        Ok(Self { pieces, revision, lacking, is_empty: anatomy.members == 0 })
    }

    /// The pieces with their revision and members in place: only text and attachments are left. If
    /// nothing changes, the body comes out as it went in.
    pub fn rendered(&self, on_top: Option<&Successor>) -> Vec<Piece> {
        self.render(on_top, Data::Inline)
    }

    /// The text alone, which says that the bytes of attachments follow, and these attachments in the
    /// order in which they must follow.
    pub fn rendered_apart(&self, on_top: Option<&Successor>) -> (Bytes, Vec<(String, u64)>) {
        let mut text = Vec::new();
        for piece in self.render(on_top, Data::Follows) {
            if let Piece::Text(part) = piece {
                text.extend_from_slice(&part);
            }
        }
        let following = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Attachment { name, size } if *size > 0 => Some((name.clone(), *size)),
            _ => None,
        });
        (text.into(), following.collect())
    }

    fn render(&self, on_top: Option<&Successor>, data: Data) -> Vec<Piece> {
        let mut members = self.lacking.clone();
        let mut revision = &self.revision;
        if let Some(on_top) = on_top {
            revision = &on_top.revision;
            let before = members.len();
            members.retain(|member| !member.starts_with("\"_rev\""));
            if members.len() < before {
                members.push(format!("\"_rev\":{}", quoted(revision.as_str())));
            }
            members.retain(|member| !member.starts_with(HISTORY));
            members.push(history(&on_top.revision, &on_top.parent));
        }
        let mut added = members.join(",");
        if !added.is_empty() && !self.is_empty {
            added.push(',');
        }
        let render = |piece: &Piece| match piece {
            Piece::Members => Piece::Text(added.clone().into()),
            Piece::Revision => Piece::Text(quoted(revision.as_str()).into()),
            // No part follows for an empty attachment: there would be nothing to wait for.
            Piece::Attachment { size, .. } if data == Data::Follows => Piece::Text(match size {
                0 => "\"data\":\"\"".into(),
                _ => format!("\"follows\":true,\"length\":{size}").into(),
            }),
            Piece::Edge(_) if data == Data::Follows => Piece::Text(Bytes::new()),
            Piece::Edge(Edge::Start) => Piece::Text("\"data\":\"".into()),
            Piece::Edge(Edge::End) => Piece::Text("\"".into()),
            other => other.clone(),
        };
        self.pieces.iter().map(render).collect()
    }

    /// The bytes of its attachments, before any encoding.
    pub fn attached(&self) -> u64 {
        let sizes = self.pieces.iter().map(|piece| match piece {
            Piece::Attachment { size, .. } => *size,
            _ => 0,
        });
        sizes.sum()
    }
}

/// The length of rendered pieces, in bytes.
pub fn length(pieces: &[Piece]) -> u64 {
    let lengths = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.len() as u64,
        Piece::Attachment { size, .. } => size.div_ceil(3) * 4,
        Piece::Members | Piece::Revision | Piece::Edge(_) => 0,
    });
    lengths.sum()
}

/// The revision of a body that contains none.
pub fn made_revision(body: &[u8]) -> Revision {
    format!("1-{:x}", Md5::digest(body)).into()
}

/// The tombstone that ends another branch of a document, as JSON text. The same branch always gets
/// the same tombstone, so that a restore can be repeated.
pub fn tombstone(id: &DocumentId, leaf: &Revision) -> Option<String> {
    let hash = format!("{:x}", Md5::digest(format!("plainfold ends {id} {leaf}")));
    let revision = format!("{}-{hash}", leaf.generation()? + 1).into();
    let (id, history) = (quoted(id.as_str()), history(&revision, leaf));
    Some(format!("{{\"_id\":{id},\"_rev\":\"{revision}\",\"_deleted\":true,{history}}}"))
}

/// The revision under which `ours` is written on top of `winner`, which descends from it. Its hash
/// shows a later restore what it was made from.
pub fn on_top(id: &DocumentId, ours: &Revision, winner: &Revision) -> Option<Successor> {
    let revision = format!("{}-{}", winner.generation()? + 1, mark(id, ours));
    Some(Successor { revision: revision.into(), parent: winner.clone() })
}

/// Whether a revision was made by [`on_top`] of `ours`.
pub fn is_on_top(id: &DocumentId, ours: &Revision, revision: &Revision) -> bool {
    revision.as_str().split_once('-').is_some_and(|(_, hash)| hash == mark(id, ours))
}

fn mark(id: &DocumentId, ours: &Revision) -> String {
    format!("{:x}", Md5::digest(format!("plainfold restores {id} {ours}")))
}

fn history(revision: &Revision, parent: &Revision) -> String {
    let hash = |revision: &Revision| {
        quoted(revision.as_str().split_once('-').map_or(revision.as_str(), |(_, hash)| hash))
    };
    let start = revision.generation().unwrap_or(1);
    format!("{HISTORY}:{{\"start\":{start},\"ids\":[{},{}]}}", hash(revision), hash(parent))
}

/// A string as JSON.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A range of a body, and its replacement.
type Edit = (Range<usize>, Vec<Piece>);

/// The range of a member, given the range of its value, with one adjacent comma.
fn member(body: &[u8], value: Range<usize>) -> Range<usize> {
    let (before, after) = (&body[..value.start], &body[value.end..]);
    let key_end = before.iter().rposition(|byte| *byte == b'"').unwrap_or_default();
    let key = before[..key_end].iter().rposition(|byte| *byte == b'"').unwrap_or_default();
    let is_space = |byte: &u8| byte.is_ascii_whitespace();
    match before[..key].iter().rposition(|byte| !is_space(byte)) {
        Some(comma) if before[comma] == b',' => comma..value.end,
        _ => {
            let comma =
                after.iter().position(|byte| !is_space(byte)).filter(|at| after[*at] == b',');
            key..comma.map_or(value.end, |at| value.end + at + 1)
        }
    }
}

/// Replaces each stub in the value of `_attachments` by inline data.
fn inlined(
    attachments: &RawValue,
    stubs: Stubs,
    at: impl Fn(&RawValue) -> Range<usize>,
    size: impl Fn(&str) -> Option<u64>,
) -> Result<Vec<Edit>, String> {
    type Named<'a> = Members<json::Text<'a>, &'a RawValue>;
    let entries: Option<Named<'_>> = serde_json::from_str(attachments.get())
        .map_err(|error| format!("its `_attachments` cannot be read: {error}"))?;
    let mut edits = Vec::new();
    for (json::Text(name), entry) in entries.unwrap_or_default().0 {
        let members: Named<'_> = serde_json::from_str(entry.get())
            .map_err(|error| format!("the attachment `{name}` cannot be read: {error}"))?;
        let size =
            size(&name).ok_or_else(|| format!("the file of the attachment `{name}` is missing"))?;
        let mut text = "{".to_owned();
        for (json::Text(key), value) in &members.0 {
            let keep = match stubs {
                Stubs::Server => matches!(&**key, "content_type" | "revpos"),
                Stubs::Feed => !matches!(&**key, "stub" | "follows" | "data"),
            };
            if keep {
                text.push_str(&format!("{}:{},", quoted(key), value.get()));
            }
        }
        let data = Piece::Attachment { name: name.into_owned(), size };
        let (start, end) = (Piece::Edge(Edge::Start), Piece::Edge(Edge::End));
        let pieces = vec![Piece::Text(text.into()), start, data, end, Piece::Text("}".into())];
        edits.push((at(entry), pieces));
    }
    Ok(edits)
}

/// The positions in a body of the members that a restore needs.
#[derive(Debug, Default)]
struct Anatomy<'a> {
    members: usize,
    has_id: bool,
    has_history: bool,
    is_deleted: bool,
    revision: Option<Cow<'a, str>>,
    revisions: Vec<&'a RawValue>,
    attachments: Vec<&'a RawValue>,
    metas: Vec<&'a RawValue>,
}

impl<'de> Object<'de> for Anatomy<'de> {
    type Key = Key<'de>;

    fn member<A: MapAccess<'de>>(&mut self, key: Key<'de>, map: &mut A) -> Result<(), A::Error> {
        self.members += 1;
        match &*key.0 {
            "_id" => {
                map.next_value::<IgnoredAny>()?;
                self.has_id = true;
            }
            "_rev" => {
                let raw: &RawValue = map.next_value()?;
                let text: json::Text<'de> =
                    serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
                self.revision = Some(text.0);
                self.revisions.push(raw);
            }
            "_attachments" => self.attachments.push(map.next_value()?),
            "_meta" => self.metas.push(map.next_value()?),
            "_revisions" => {
                map.next_value::<IgnoredAny>()?;
                self.has_history = true;
            }
            "_deleted" => self.is_deleted = map.next_value::<&RawValue>()?.get() == "true",
            _ => _ = map.next_value::<IgnoredAny>()?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str, stubs: Stubs, on_top: Option<&Successor>) -> String {
        shown_beside(body, BodyContext::default(), stubs, on_top)
    }

    fn shown_beside(
        body: &str,
        beside: BodyContext<'_>,
        stubs: Stubs,
        on_top: Option<&Successor>,
    ) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let text = BodyText::new(&"d".into(), &body, beside, stubs, |_| Some(3)).unwrap();
        let pieces = text.rendered(on_top);
        let show = |piece: &Piece| match piece {
            Piece::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            Piece::Attachment { name, .. } => format!("<{name}>"),
            other => panic!("{other:?}"),
        };
        pieces.iter().map(show).collect()
    }

    #[test]
    fn a_body_without_attachments_comes_out_as_it_went_in() {
        let body = r#" { "_id" : "d","n":1e400,"n":123456789012345678901234567890 , "_rev":"1-a","z":1.0} "#;
        assert_eq!(shown(body, Stubs::Server, None), body);
    }

    #[test]
    fn a_key_that_is_no_text_comes_out_as_it_went_in() {
        let body = r#"{"_id":"d","_rev":"1-a","\ud800":"\udc00"}"#;
        assert_eq!(shown(body, Stubs::Server, None), body);
    }

    #[test]
    fn data_takes_the_place_of_stubs_and_nothing_else_moves() {
        let body = r#"{"_id":"d","_rev":"2-a","_attachments" : { "a b" :{"content_type":"text/plain","revpos":2,"digest":"md5-x","length":3,"stub":true}},"x":1.0}"#;
        let server = r#"{"_id":"d","_rev":"2-a","_attachments" : { "a b" :{"content_type":"text/plain","revpos":2,"data":"<a b>"}},"x":1.0}"#;
        assert_eq!(shown(body, Stubs::Server, None), server);
        let feed = r#"{"_id":"d","_rev":"2-a","_attachments" : { "a b" :{"content_type":"text/plain","revpos":2,"digest":"md5-x","length":3,"data":"<a b>"}},"x":1.0}"#;
        assert_eq!(shown(body, Stubs::Feed, None), feed);
    }

    #[test]
    fn rxdbs_own_member_is_left_out_for_a_server_and_kept_in_a_feed() {
        for (body, server) in [
            (
                r#"{"a":1 , "_meta" :{"lwt":1.01},"_rev":"1-a"}"#,
                r#"{"_id":"d","a":1 ,"_rev":"1-a"}"#,
            ),
            (r#"{ "_\u006deta":{} , "_rev":"1-a"}"#, r#"{"_id":"d",  "_rev":"1-a"}"#),
            (r#"{"_rev":"1-a","_meta":{}}"#, r#"{"_id":"d","_rev":"1-a"}"#),
        ] {
            assert_eq!(shown(body, Stubs::Server, None), server);
            assert_eq!(shown(body, Stubs::Feed, None), body.replacen('{', r#"{"_id":"d","#, 1));
        }
        let only = r#"{"_meta":{}}"#;
        assert!(shown(only, Stubs::Server, None).contains("_meta"));
    }

    #[test]
    fn what_a_target_needs_and_the_body_lacks_is_added() {
        let made = shown("{}", Stubs::Server, None);
        assert_eq!(made, r#"{"_id":"d","_rev":"1-99914b932bd37a50b983c5e7c90ae93b"}"#);
    }

    #[test]
    fn a_revision_on_top_of_another_tells_its_history_and_is_known_again() {
        let (id, ours) = ("d".into(), "2-a".into());
        let on_top = on_top(&id, &ours, &"7-w".into()).unwrap();
        assert!(is_on_top(&id, &ours, &on_top.revision));
        assert!(!is_on_top(&id, &"3-a".into(), &on_top.revision));
        let (hash, shown) = (
            &on_top.revision.as_str()[2..],
            shown(r#"{"_id":"d","_rev":"2-a"}"#, Stubs::Server, Some(&on_top)),
        );
        let expected = format!(
            r#"{{"_revisions":{{"start":8,"ids":["{hash}","w"]}},"_id":"d","_rev":"8-{hash}"}}"#
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_history_is_added_once_and_gives_way_to_that_of_a_revision_on_top() {
        let body = r#"{"_id":"d","_rev":"2-a"}"#;
        let told = r#""_revisions":{"start":2,"ids":["a","0"]}"#;
        let beside = BodyContext { history: told.split_once(':').map(|(_, h)| h), deleted: true };
        let whole = format!(r#"{{"_deleted":true,{told},"_id":"d","_rev":"2-a"}}"#);
        assert_eq!(shown_beside(body, beside, Stubs::Server, None), whole);
        assert_eq!(shown_beside(&whole, beside, Stubs::Server, None), whole);
        let top = on_top(&"d".into(), &"2-a".into(), &"7-w".into()).unwrap();
        let shown = shown_beside(body, beside, Stubs::Server, Some(&top));
        assert_eq!(shown.matches("_revisions").count(), 1, "{shown}");
        assert!(shown.contains(r#""start":8"#), "{shown}");
    }

    #[test]
    fn a_key_with_a_control_character_in_it_is_no_json() {
        for body in ["{\"a\0\":1}", "{\"_attachments\":{\"f\n\":{}}}"] {
            let body = Bytes::copy_from_slice(body.as_bytes());
            let size = |_: &str| Some(1);
            let error =
                BodyText::new(&"d".into(), &body, BodyContext::default(), Stubs::Server, size);
            assert!(error.unwrap_err().contains("not JSON"));
        }
    }

    #[test]
    fn a_missing_file_and_text_that_is_not_utf8_are_named() {
        let body = Bytes::from_static(br#"{"_rev":"1-a","_attachments":{"f":{"stub":true}}}"#);
        let error =
            BodyText::new(&"d".into(), &body, BodyContext::default(), Stubs::Server, |_| None)
                .unwrap_err();
        assert!(error.contains("`f`"), "{error}");
        let body = Bytes::from_static(b"{\"x\":\"\xff\"}");
        let error =
            BodyText::new(&"d".into(), &body, BodyContext::default(), Stubs::Server, |_| None)
                .unwrap_err();
        assert!(error.contains("byte 6"), "{error}");
    }
}

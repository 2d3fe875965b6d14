//! Reads the important members of a row of a feed in a stream, for rows that are too large for
//! memory or that contain invalid JSON. Pure.
//!
//! It knows JSON's brackets and strings and nothing else, and uses constant memory.

use std::fmt;

use memchr::memchr2;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{DocumentId, Revision};

/// The longest value of a member that is kept, in bytes. Of a longer list of revisions the beginning
/// is kept.
const LONGEST_VALUE: usize = 64 << 10;

/// The longest key that is compared, escapes included.
const LONGEST_KEY: usize = 80;

/// The deepest nesting of a document.
const DEEPEST: usize = 1 << 20;

/// The important members of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// The document, if the row names one in no more than 64 KiB.
    pub id: Option<DocumentId>,
    /// Its revision: that of the body or, without one, the first of the row.
    pub revision: Option<Revision>,
    /// The position in the feed after the row, as JSON text.
    pub seq: Option<String>,
    /// The collection, if the row of a recorded feed names one.
    pub collection: Option<String>,
}

impl Surface {
    /// The members of a whole row.
    pub fn of(row: &[u8]) -> Self {
        let mut skim = Skim::default();
        skim.pass(row);
        skim.surface()
    }
}

/// Reads a row in pieces and keeps only its [`Surface`].
#[derive(Debug, Default)]
pub struct Skim {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether a member's key comes next, in the row or in its document.
    key_due: bool,
    /// The key that is being read, or was read last.
    key: Vec<u8>,
    in_key: bool,
    /// Whether the parser is in the document, if it is deeper than the row itself.
    in_doc: bool,
    /// The value that is being kept: the depth at which it ends, and its bytes so far.
    kept: Option<(Member, usize, Vec<u8>)>,
    found: Found,
}

/// A member whose value is kept.
#[derive(Clone, Copy, Debug)]
enum Member {
    Id,
    Seq,
    Changes,
    Collection,
    DocRevision,
}

/// The values, as raw text of the row. If a member is repeated, the last one counts.
#[derive(Debug, Default)]
struct Found {
    id: Vec<u8>,
    seq: Vec<u8>,
    changes: Vec<u8>,
    collection: Vec<u8>,
    doc_revision: Vec<u8>,
}

impl Skim {
    /// Skips these bytes. Returns the number of bytes that belong to the row, if it ends in them.
    pub fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.in_string {
                let from = at;
                at += match self.escaped {
                    true => 1,
                    false => memchr2(b'"', b'\\', &bytes[at..]).map_or(bytes.len() - at, |n| n + 1),
                };
                self.keep(&bytes[from..at]);
                match bytes[at - 1] {
                    _ if self.escaped => self.escaped = false,
                    b'"' => (self.in_string, self.in_key) = (false, false),
                    b'\\' => self.escaped = true,
                    _ => {}
                }
                continue;
            }
            at += 1;
            match byte {
                b'"' => {
                    self.in_string = true;
                    if self.key_due && self.is_shallow() {
                        self.key.clear();
                        (self.in_key, self.key_due) = (true, false);
                    }
                    self.keep(b"\"");
                }
                b'{' | b'[' => {
                    self.keep(&[byte]);
                    self.depth += 1;
                    if self.depth == 2 {
                        self.in_doc = byte == b'{' && self.names(b"doc");
                    }
                    self.key_due = byte == b'{' && self.is_shallow();
                }
                b'}' | b']' => {
                    self.end_value();
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at);
                    }
                    self.keep(&[byte]);
                }
                b',' => {
                    self.end_value();
                    self.key_due = self.is_shallow();
                    self.keep(b",");
                }
                b':' if self.kept.is_none() && self.is_shallow() => self.begin_value(),
                _ => self.keep(&[byte]),
            }
        }
        None
    }

    /// Whether it is nested deeper than any document.
    pub fn is_too_deep(&self) -> bool {
        self.depth > DEEPEST
    }

    /// The result.
    pub fn surface(&self) -> Surface {
        let Found { id, seq, changes, collection, doc_revision } = &self.found;
        let id = parsed(id).filter(|id: &DocumentId| !id.as_str().is_empty());
        let revision = parsed(doc_revision).or_else(|| first_revision(changes));
        let seq = parsed::<Box<RawValue>>(seq).filter(|seq| seq.get() != "null");
        let seq = seq.map(|seq| seq.get().to_owned());
        Surface { id, revision, seq, collection: parsed(collection) }
    }

    /// Whether the parser is directly in the row, or directly in its document.
    fn is_shallow(&self) -> bool {
        self.depth == 1 || (self.depth == 2 && self.in_doc)
    }

    /// Whether the last key equals this one.
    fn names(&self, key: &[u8]) -> bool {
        let plain = self.key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\""));
        match plain {
            Some(plain) if !plain.contains(&b'\\') => plain == key,
            _ => parsed::<String>(&self.key).is_some_and(|text| text.as_bytes() == key),
        }
    }

    fn begin_value(&mut self) {
        let member = match self.depth {
            1 if self.names(b"id") => Member::Id,
            1 if self.names(b"seq") => Member::Seq,
            1 if self.names(b"changes") => Member::Changes,
            1 if self.names(b"collection") => Member::Collection,
            2 if self.names(b"_rev") => Member::DocRevision,
            _ => return,
        };
        self.kept = Some((member, self.depth, Vec::new()));
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.in_key {
            let room = LONGEST_KEY.saturating_sub(self.key.len());
            self.key.extend_from_slice(&bytes[..bytes.len().min(room)]);
        } else if let Some((_, _, value)) = &mut self.kept {
            // One byte more than is kept shows that it is too long.
            let room = (LONGEST_VALUE + 1).saturating_sub(value.len());
            value.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Ends the value that is kept, if it ends at this depth.
    fn end_value(&mut self) {
        let ends = self.kept.as_ref().is_some_and(|(_, depth, _)| *depth == self.depth);
        let Some((member, _, value)) = self.kept.take_if(|_| ends) else { return };
        let fits = value.len() <= LONGEST_VALUE;
        let found = &mut self.found;
        match member {
            Member::Changes => found.changes = value,
            Member::Id => found.id = if fits { value } else { Vec::new() },
            Member::Seq => found.seq = if fits { value } else { Vec::new() },
            Member::Collection => found.collection = if fits { value } else { Vec::new() },
            Member::DocRevision => found.doc_revision = if fits { value } else { Vec::new() },
        }
    }
}

fn parsed<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

/// The first revision of a row's `changes`, whose end may be missing.
fn first_revision(changes: &[u8]) -> Option<Revision> {
    #[derive(Deserialize)]
    struct One {
        rev: Revision,
    }
    struct First<'f>(&'f mut Option<Revision>);
    impl<'de> Visitor<'de> for First<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of revisions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            *self.0 = list.next_element::<One>()?.map(|one| one.rev);
            Ok(())
        }
    }
    let mut first = None;
    // serde treats stopping after the first as an error.
    let _ = serde_json::Deserializer::from_slice(changes).deserialize_seq(First(&mut first));
    first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The result for a row that comes in pieces of this size.
    fn skimmed(row: &str, size: usize) -> Surface {
        let mut skim = Skim::default();
        let mut ends = row.as_bytes().chunks(size).map(|piece| skim.pass(piece));
        assert!(ends.by_ref().any(|end| end.is_some()), "{row} does not end");
        assert!(ends.next().is_none(), "{row} ends early");
        skim.surface()
    }

    fn surface(id: &str, revision: &str, seq: &str) -> Surface {
        let (id, revision) = (Some(id.into()), Some(revision.into()));
        Surface { id, revision, seq: Some(seq.into()), collection: None }
    }

    #[test]
    fn a_row_is_known_by_its_members_in_any_order() {
        let doc = r#"{"_id":"no","id":"no","seq":9,"x":[{"id":"no","_rev":"9-no"}],"_rev":"2-b"}"#;
        let parts = [
            r#""seq":"5-\"a,b""#.to_owned(),
            r#""\u0069d" : "d\u00e9\/ж" "#.to_owned(),
            r#""changes":[{"rev":"1-a"},{"rev":"2-b"}]"#.to_owned(),
            format!(r#""doc":{doc}"#),
        ];
        for turn in 0..parts.len() {
            let mut parts = parts.clone();
            parts.rotate_left(turn);
            let row = format!("{{{}}}", parts.join(","));
            for size in [1, 2, 7, 1000] {
                assert_eq!(skimmed(&row, size), surface("dé/ж", "2-b", r#""5-\"a,b""#), "{row}");
            }
        }
    }

    #[test]
    fn a_row_that_is_not_json_inside_is_named() {
        let row = br#"{"id":"a","seq":7,"changes":[{"rev":"1-a"}],"doc":{"x":NaN,"y":"\xff","_rev":tru}}"#;
        assert_eq!(Surface::of(row), surface("a", "1-a", "7"));
        let row = b"{\"id\":\"a\xff\",\"seq\":7,\"changes\":[{\"rev\":\"1-a\"}]}";
        assert_eq!(Surface::of(row).id, None, "an id that is not text names no document");
    }

    #[test]
    fn what_is_too_long_is_not_kept_and_hides_nothing_else() {
        let long = "x".repeat(LONGEST_VALUE);
        let changes = r#"{"rev":"3-c"},"#.repeat(LONGEST_VALUE / 10);
        let row = format!(
            r#"{{"id":"{long}","changes":[{changes}{{"rev":"1-a"}}],"{long}":1,"seq":{long},"seq":3}}"#
        );
        let found = skimmed(&row, 1000);
        assert_eq!(
            (found.id, found.revision, found.seq.as_deref()),
            (None, Some("3-c".into()), Some("3"))
        );
    }

    proptest! {
        #[test]
        fn it_ends_where_the_object_ends(value in json_value(), size in 1_usize..9) {
            let row = format!(r#"{{"doc":{value},"seq":null,"id":"d"}}"#);
            let mut skim = Skim::default();
            let text = format!("{row},rest");
            let mut passed = 0;
            for piece in text.as_bytes().chunks(size) {
                match skim.pass(piece) {
                    Some(end) => { passed += end; break; }
                    None => passed += piece.len(),
                }
            }
            prop_assert_eq!(passed, row.len());
            let found = skim.surface();
            prop_assert_eq!((found.id, found.seq), (Some("d".into()), None));
        }
    }

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(serde_json::Value::from),
            "[\"\\\\{}\\[\\],:a-z_]{0,8}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map("[a-z\"{]{0,3}|id|seq|_rev", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}

//! A losing revision, with the history that leads to it. Pure.

use bytes::Bytes;

use super::{Document, Revision};

/// A leaf of a document's revision tree.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The revision.
    pub revision: Revision,
    /// The revisions that led to it, as JSON text: `{"start":3,"ids":["c","b","a"]}`, newest first.
    pub history: Bytes,
    /// Its content. The body contains the history too, as `_revisions`.
    pub document: Document,
}

/// Whether a history (`{"start":…,"ids":[…]}`, as CouchDB sends it) passes through this revision
/// before it reaches its own. Then that revision is no longer a leaf.
pub fn descends(history: &[u8], from: &Revision) -> bool {
    #[derive(serde::Deserialize)]
    struct History<'a> {
        start: u64,
        #[serde(borrow)]
        ids: Vec<std::borrow::Cow<'a, str>>,
    }
    let Ok(History { start, ids }) = serde_json::from_slice(history) else { return false };
    let Some((generation, hash)) = from.as_str().split_once('-') else { return false };
    let Ok(generation) = generation.parse::<u64>() else { return false };
    let place = start.checked_sub(generation).and_then(|place| usize::try_from(place).ok());
    place.is_some_and(|place| place > 0 && ids.get(place).is_some_and(|id| id == hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_descends_from_those_in_its_history() {
        let history = br#"{"start":5,"ids":["e","d","c"]}"#;
        let descends = |from: &str| super::descends(history, &from.into());
        assert!(descends("4-d") && descends("3-c"));
        for other in ["5-e", "4-e", "3-d", "2-b", "6-d", "x", "4", "-d", "4-"] {
            assert!(!descends(other), "{other}");
        }
        assert!(!super::descends(b"no history", &Revision::from("4-d")));
    }
}

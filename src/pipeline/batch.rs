//! Gathers the changes of one round of durable steps, the newest of each document.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::evidence::Reached;
use crate::document::{Change, Content, Document, DocumentId, DocumentState, Position};
use crate::mirror::Authority;
use crate::source::Unreadable;

/// The largest attachment that is fetched together with others and held in memory.
pub const SMALL_ATTACHMENT: u64 = 64 * 1024;

/// The most changes in a batch.
const MOST_CHANGES: usize = 2_000;

/// Roughly the most bytes in a batch, including attachments that will be held in memory. A single
/// change may be larger; then it is alone.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A change, and whether it may replace a newer revision.
#[derive(Clone, Debug)]
pub struct Item {
    pub change: Change,
    pub authority: Authority,
    /// Whether the feed brought it: the brake counts the deletions of the feed.
    pub fed: bool,
}

/// Changes that are made durable together.
#[derive(Debug, Default)]
pub struct Batch {
    pub items: Vec<Item>,
    pub unreadable: Vec<Unreadable>,
    /// The position in the feed after this batch, if it moved.
    pub position: Option<Position>,
    /// The last end of the source that was reached among these changes.
    pub at_end: Option<Reached>,
    places: HashMap<DocumentId, usize>,
    bytes: usize,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
            && self.unreadable.is_empty()
            && self.position.is_none()
            && self.at_end.is_none()
    }

    pub fn is_full(&self) -> bool {
        self.items.len() + self.unreadable.len() >= MOST_CHANGES || self.bytes >= MOST_BYTES
    }

    /// Whether `change` has to wait for the next batch: this batch holds a newer revision of the
    /// same document, and the source can only be asked which one is right when the newer one is in
    /// the tree.
    pub fn conflicts_with(&self, change: &Change) -> bool {
        let held = self.places.get(&change.id).map(|place| &self.items[*place].change.revision);
        held.is_some_and(|held| change.revision.age(held) == Some(Ordering::Less))
    }

    /// Adds a change and drops an earlier one of the same document.
    pub fn push(&mut self, change: Change, authority: Authority) {
        if let Some(position) = &change.position {
            self.position = Some(position.clone());
        }
        self.at_end = self.at_end.map(Reached::passed);
        self.bytes += weight(&change);
        let item = Item { change, authority, fed: authority == Authority::Feed };
        match self.places.get(&item.change.id) {
            Some(place) => self.items[*place] = item,
            None => {
                self.places.insert(item.change.id.clone(), self.items.len());
                self.items.push(item);
            }
        }
    }

    /// Adds a row that could not be made into a change.
    pub fn push_unreadable(&mut self, row: Unreadable) {
        if let Some(position) = &row.position {
            self.position = Some(position.clone());
        }
        self.at_end = self.at_end.map(Reached::passed);
        self.unreadable.push(row);
    }
}

/// The memory that a change takes before it is written, including the small attachments that will be
/// fetched for it.
fn weight(change: &Change) -> usize {
    let fetched = match &change.state {
        DocumentState::Present(Document { attachments, .. }) => attachments
            .iter()
            .filter(|attachment| matches!(attachment.content, Content::Remote(_)))
            .filter_map(|attachment| attachment.length)
            .filter(|length| *length <= SMALL_ATTACHMENT)
            .sum(),
        DocumentState::Deleted(_) => 0,
    };
    let one = change.weight() + usize::try_from(fetched).unwrap_or(usize::MAX / 2);
    // The other leaves are fetched too, and may be as large.
    one.saturating_mul(1 + change.others.as_ref().map_or(0, Vec::len))
}

/// The documents seen in a scan, as hashes of 16 bytes, so that a million ids stay small. In
/// practice two different ids never have the same hash (128 bits).
#[derive(Debug, Default)]
pub struct Seen {
    hashes: HashSet<[u8; 16]>,
    /// The scan had a row without an id: it is unknown which document it stood for.
    pub blind: bool,
}

impl Seen {
    pub fn insert(&mut self, id: &DocumentId) {
        self.hashes.insert(hash(id));
    }

    pub fn contains(&self, id: &DocumentId) -> bool {
        self.hashes.contains(&hash(id))
    }
}

fn hash(id: &DocumentId) -> [u8; 16] {
    let hash = blake3::hash(id.as_str().as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Attachment;

    fn deletion(id: &str, revision: &str, token: Option<&str>) -> Change {
        Change {
            id: id.into(),
            revision: revision.into(),
            position: token.map(|token| Position::new(token, "".into(), None)),
            others: None,
            state: DocumentState::Deleted(None),
        }
    }

    #[test]
    fn only_the_newest_change_of_a_document_stays_and_the_position_moves_on() {
        let mut batch = Batch::default();
        batch.push(deletion("a", "1-x", Some("1")), Authority::Feed);
        batch.push(deletion("b", "1-x", None), Authority::Feed);
        batch.push(deletion("a", "2-x", Some("3")), Authority::Feed);
        let revisions: Vec<_> =
            batch.items.iter().map(|item| item.change.revision.as_str()).collect();
        assert_eq!(revisions, ["2-x", "1-x"]);
        assert_eq!(batch.position.unwrap().token(), "3");
    }

    #[test]
    fn a_row_without_a_position_never_moves_it() {
        let mut batch = Batch::default();
        batch.push(deletion("a", "1-x", None), Authority::Feed);
        assert!(batch.position.is_none());
    }

    #[test]
    fn an_older_revision_waits_for_the_next_batch() {
        let mut batch = Batch::default();
        batch.push(deletion("a", "2-x", None), Authority::Feed);
        assert!(batch.conflicts_with(&deletion("a", "1-x", None)));
        assert!(!batch.conflicts_with(&deletion("a", "3-x", None)));
        assert!(!batch.conflicts_with(&deletion("b", "1-x", None)));
    }

    /// Changes with attachments of these lengths, at the source or in memory.
    fn present(id: &str, remote: &[u64], inline: &[usize]) -> Change {
        let attachment = |length, content| Attachment {
            name: "f".into(),
            digest: None,
            length: Some(length),
            gzipped: false,
            content,
        };
        let remote = remote.iter().map(|length| attachment(*length, Content::Remote("".into())));
        let inline = inline
            .iter()
            .map(|length| attachment(*length as u64, Content::Inline(vec![0; *length].into())));
        let attachments = remote.chain(inline).collect();
        let state = DocumentState::Present(Document { body: "{}".into(), attachments });
        Change { state, ..deletion(id, "1-x", None) }
    }

    fn full_after(change: impl Fn(usize) -> Change) -> usize {
        let mut batch = Batch::default();
        (1..=MOST_CHANGES * 2)
            .find(|n| {
                batch.push(change(*n), Authority::Feed);
                batch.is_full()
            })
            .unwrap()
    }

    #[test]
    fn a_batch_is_full_by_count_or_by_what_it_will_hold_in_memory() {
        let many = |n: usize| deletion(&n.to_string(), "1-x", None);
        assert_eq!(full_after(many), MOST_CHANGES);
        let small = |n: usize| present(&n.to_string(), &[65_536], &[]);
        let held = full_after(small);
        assert_eq!(held, 64, "64 KiB each, and what is around them, are 4 MiB");
        let large = |n: usize| present(&n.to_string(), &[65_537], &[]);
        assert_eq!(full_after(large), MOST_CHANGES, "large ones are streamed");
        let branched = |n: usize| Change { others: Some(vec!["1-y".into()]), ..small(n) };
        assert_eq!(full_after(branched), held.div_ceil(2), "other leaves are as large");
    }

    #[test]
    fn rows_that_cannot_be_read_fill_a_batch_too() {
        let row = Unreadable {
            id: None,
            revision: None,
            place: "row 1".into(),
            position: None,
            reason: "it is torn".into(),
        };
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        (1..MOST_CHANGES).for_each(|_| batch.push_unreadable(row.clone()));
        assert!(!batch.is_empty() && !batch.is_full());
        batch.push_unreadable(row);
        assert!(batch.is_full());
    }
}

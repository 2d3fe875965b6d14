//! The content of a collection, as sorted (id, revision) pairs: its digest, and its differences from
//! another. `docs/format.md` defines the digest, so that anyone can compute it.

use std::io;
use std::iter::Peekable;

use serde::Serialize;

use crate::document::{DocumentId, Revision};
use crate::tree::checksum::Checksum;
use crate::tree::sorted::{Merge, Sorted, Sorter};

/// Collects a collection's documents in any order. The last entry for an id counts.
#[derive(Debug, Default)]
pub struct Listing(Sorter);

/// A collection's documents, in order.
#[derive(Debug)]
pub struct ListedRevisions(Sorted);

/// The size of a collection, and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The number of documents.
    pub documents: u64,
    /// The digest of their ids and revisions, 64 hexadecimal digits.
    pub digest: String,
}

/// A document that differs between two places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The kind.
    pub kind: DifferenceKind,
    /// Its collection.
    pub collection: String,
    /// Its id.
    pub id: String,
    /// Its revision in the mirror.
    pub here: Option<String>,
    /// Its revision on the other side.
    pub there: Option<String>,
}

/// The kinds of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// Only the mirror holds it.
    OnlyHere,
    /// Only the other side holds it.
    OnlyThere,
    /// The revisions differ.
    Revision,
    /// The revision is the same, but the bytes differ.
    Bytes,
}

/// Stands for bytes that were not read.
pub const UNREAD: Checksum = [0; 32];

/// Stands for bytes that differ from the mirror's, without a hash.
pub const OTHER: Checksum = [0xff; 32];

impl Listing {
    /// Adds a document, with a hash of all its bytes, or [`UNREAD`].
    pub fn push(
        &mut self,
        id: &DocumentId,
        revision: Option<&Revision>,
        content: &Checksum,
    ) -> io::Result<()> {
        let revision = revision.map_or("", Revision::as_str);
        let value = [&[1], content.as_slice(), revision.as_bytes()].concat();
        self.0.push(&key(id.as_str()), &value)
    }

    /// Removes a document.
    pub fn push_deleted(&mut self, id: &DocumentId) -> io::Result<()> {
        self.0.push(&key(id.as_str()), &[0])
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Ends the input.
    pub fn finish(self) -> ListedRevisions {
        ListedRevisions(self.0.finish())
    }
}

impl ListedRevisions {
    /// Reopens the listing for later changes.
    pub fn reopen(&self) -> io::Result<Listing> {
        let mut sorter = Sorter::default();
        for record in self.0.iter()? {
            let record = record?;
            sorter.push(&record.key, &record.value)?;
        }
        Ok(Listing(sorter))
    }

    /// The size of the listing, and its digest.
    pub fn side(&self) -> io::Result<Side> {
        let mut sum = Sum::default();
        for document in self.documents()? {
            sum.add(&document?);
        }
        Ok(sum.side())
    }

    /// Compares with another listing, and passes on each difference.
    pub fn compare(
        &self,
        other: &Self,
        collection: &str,
        mut differs: impl FnMut(Difference),
    ) -> io::Result<(Side, Side)> {
        let (mut ours, mut theirs) = (self.documents()?, other.documents()?);
        let (mut here, mut there) = (Sum::default(), Sum::default());
        let (mut left, mut right) = (ours.next().transpose()?, theirs.next().transpose()?);
        loop {
            let order = match (&left, &right) {
                (None, None) => return Ok((here.side(), there.side())),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(left), Some(right)) => left.key.cmp(&right.key),
            };
            let mine = left.take_if(|_| order.is_le());
            let its = right.take_if(|_| order.is_ge());
            if let Some(document) = &mine {
                here.add(document);
                left = ours.next().transpose()?;
            }
            if let Some(document) = &its {
                there.add(document);
                right = theirs.next().transpose()?;
            }
            if let Some(difference) = difference(mine, its, collection) {
                differs(difference);
            }
        }
    }

    fn documents(&self) -> io::Result<Documents<'_>> {
        Ok(Documents(self.0.iter()?.peekable()))
    }
}

fn difference(
    here: Option<Document>,
    there: Option<Document>,
    collection: &str,
) -> Option<Difference> {
    let kind = match (&here, &there) {
        (Some(_), None) => DifferenceKind::OnlyHere,
        (None, Some(_)) => DifferenceKind::OnlyThere,
        (Some(here), Some(there)) if here.revision != there.revision => DifferenceKind::Revision,
        (Some(here), Some(there))
            if here.content != there.content
                && [here, there].iter().all(|side| side.content != UNREAD) =>
        {
            DifferenceKind::Bytes
        }
        _ => return None,
    };
    let id = unescape(&here.as_ref().or(there.as_ref())?.key);
    let text = |document: Document| String::from_utf8_lossy(&document.revision).into_owned();
    let (here, there) = (here.map(text), there.map(text));
    Some(Difference { kind, collection: collection.to_owned(), id, here, there })
}

struct Document {
    key: Box<[u8]>,
    revision: Vec<u8>,
    content: Vec<u8>,
}

struct Documents<'a>(Peekable<Merge<'a>>);

impl Iterator for Documents<'_> {
    type Item = io::Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let record = match self.0.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            let is_last = !matches!(self.0.peek(), Some(Ok(next)) if next.key == record.key);
            if let Some((1, rest)) = record.value.split_first().filter(|_| is_last)
                && let Some((content, revision)) = rest.split_at_checked(UNREAD.len())
            {
                let (content, revision) = (content.to_vec(), revision.to_vec());
                return Some(Ok(Document { key: record.key, revision, content }));
            }
        }
    }
}

#[derive(Default)]
struct Sum {
    hasher: blake3::Hasher,
    documents: u64,
}

impl Sum {
    fn add(&mut self, document: &Document) {
        let mut line = document.key.to_vec();
        escape(&String::from_utf8_lossy(&document.revision), &mut line);
        line.push(b'\n');
        self.hasher.update(&line);
        self.documents += 1;
    }

    fn side(self) -> Side {
        Side { documents: self.documents, digest: self.hasher.finalize().to_string() }
    }
}

/// The beginning of a document's line. It includes the tab after the id, so that the order of keys
/// is the order of lines.
fn key(id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.len() + 1);
    escape(id, &mut key);
    key.push(b'\t');
    key
}

/// Writes a text as a field of a line, as jq's `@tsv` does.
fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(br"\\"),
            b'\t' => out.extend_from_slice(br"\t"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            other => out.push(other),
        }
    }
}

fn unescape(key: &[u8]) -> String {
    let mut text = Vec::with_capacity(key.len());
    let mut bytes = key.strip_suffix(b"\t").unwrap_or(key).iter();
    while let Some(&byte) = bytes.next() {
        text.push(match byte {
            b'\\' => match bytes.next() {
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                _ => b'\\',
            },
            other => other,
        });
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(documents: &[(&str, &str)]) -> ListedRevisions {
        let mut listing = Listing::default();
        for (id, revision) in documents {
            let id = DocumentId::from(*id);
            match *revision {
                "" => listing.push_deleted(&id).unwrap(),
                revision => listing.push(&id, Some(&revision.into()), &UNREAD).unwrap(),
            }
        }
        listing.finish()
    }

    #[test]
    fn the_digest_is_that_of_the_sorted_lines() {
        let side = listed(&[("b", "1-x"), ("a\tb\\", "2-y"), ("a\u{1}", "1-z")]).side().unwrap();
        let lines = "a\u{1}\t1-z\na\\tb\\\\\t2-y\nb\t1-x\n";
        assert_eq!(side.digest, blake3::hash(lines.as_bytes()).to_string());
        assert_eq!(side.documents, 3);
    }

    #[test]
    fn the_last_word_on_an_id_counts() {
        let listing = listed(&[("a", "1-x"), ("b", "1-x"), ("a", "2-x"), ("b", "")]);
        assert_eq!(listing.side().unwrap(), listed(&[("a", "2-x")]).side().unwrap());
    }

    #[test]
    fn every_kind_of_difference_is_told_with_its_id_and_revisions() {
        let (here, there) = (
            listed(&[("a\n", "1-x"), ("b", "1-x"), ("d", "1-x")]),
            listed(&[("b", "2-x"), ("c", "1-x"), ("d", "1-x")]),
        );
        let mut told = Vec::new();
        here.compare(&there, "c", |difference| told.push(difference)).unwrap();
        let told: Vec<_> =
            told.iter().map(|one| (one.kind, &*one.id, one.here.is_some())).collect();
        let expected = [
            (DifferenceKind::OnlyHere, "a\n", true),
            (DifferenceKind::Revision, "b", true),
            (DifferenceKind::OnlyThere, "c", false),
        ];
        assert_eq!(told, expected);
    }
}

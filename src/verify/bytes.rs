//! Compares a document of the mirror with the bytes that its source sends: body, attachments,
//! history, branches, tombstone.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{Hash as _, Hasher as _};
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::VerifyError;
use crate::archive::{Entry, StoredDocument, TreeCollection};
use crate::document::{Branch, Change, Content, Document, DocumentId, Revision};
use crate::source::retry::{RetryPolicy, attempts};
use crate::source::{Feed, PIECES, SourceError, Wanted, pass_on};
use crate::tree::MirrorError;

/// The largest attachment, in bytes, that is requested together with the document's others.
const SMALL: u64 = 64 << 10;
/// The most small attachments in one request, and their bytes.
const GROUP: (usize, u64) = (100, 1 << 20);
/// The time after which a silent source is not waited for, so that one document does not delay the
/// comparison of all others. A large item may take one second longer before it begins, for each
/// multiple of this number of bytes.
const SILENCE: Duration = Duration::from_secs(10);
const BYTES_A_SECOND: u64 = 1 << 20;
/// The number of comparisons of a document that is replaced while it is compared.
const TRIES: usize = 5;
/// The number of documents without checksums that are remembered one by one, per collection. With
/// more of them, every document of the collection is compared.
const REMEMBERED: usize = 200_000;

/// The documents of a collection with a file without a checksum, in bounded memory.
#[derive(Debug, Default)]
pub struct Unchecked {
    /// Hashes of their ids: a collision only costs an unnecessary comparison.
    ids: HashSet<u64>,
    /// Whether there are more than are remembered.
    many: bool,
}

impl Unchecked {
    /// Remembers a document.
    pub fn note(&mut self, id: &DocumentId) {
        if self.ids.len() < REMEMBERED {
            self.ids.insert(hash(id));
        } else {
            self.many = true;
        }
    }

    /// Whether there is no such document.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn may_hold(&self, id: &DocumentId) -> bool {
        self.many || self.ids.contains(&hash(id))
    }
}

fn hash(id: &DocumentId) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// The documents that are compared byte by byte.
#[derive(Clone, Copy, Debug)]
pub enum CompareScope<'a> {
    /// All.
    Every,
    /// Those with a file without a checksum.
    Unchecked(&'a Unchecked),
}

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No byte differs, as far as both sides have the same revision.
    Same,
    /// Some bytes differ.
    Differs,
    /// The source's bytes could not be read: the reason.
    Unread(String),
}

/// A collection of a mirror together with the source's.
#[derive(Clone)]
pub struct Comparer<'a> {
    pub collection: Arc<TreeCollection>,
    pub source: Arc<dyn Feed>,
    pub which: CompareScope<'a>,
    /// Whether the source knows histories and branches.
    pub branches: bool,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error("a task of the comparison ended unexpectedly: {0}; please report this")]
    Task(#[from] tokio::task::JoinError),
}

impl Comparer<'_> {
    /// Compares the source's version of a document with the stored one, if both are at the same
    /// revision. Fails if the source does not answer at all.
    pub async fn compare(&self, change: &Change) -> Result<Verdict, VerifyError> {
        if let CompareScope::Unchecked(unchecked) = self.which
            && !unchecked.may_hold(&change.id)
        {
            return Ok(Verdict::Same);
        }
        let mut verdict = Verdict::Same;
        for _ in 0..TRIES {
            let before = self.collection.standing(&self.collection.name_of(&change.id)).ok();
            verdict = match self.look(change).await {
                Ok(true) => return Ok(Verdict::Same),
                Ok(false) => Verdict::Differs,
                Err(Failed::Source(error @ SourceError::Refused { .. })) => {
                    return Err(error.into());
                }
                Err(error) => Verdict::Unread(error.to_string()),
            };
            let after = self.collection.standing(&self.collection.name_of(&change.id)).ok();
            if before == after {
                break;
            }
        }
        Ok(verdict)
    }

    async fn look(&self, change: &Change) -> Result<bool, Failed> {
        let (collection, id) = (Arc::clone(&self.collection), change.id.clone());
        let entry = spawn_blocking(move || collection.entry(&collection.name_of(&id))).await??;
        // An entry that is not a document has been reported already.
        let Some(Entry::Document(stored)) = entry else { return Ok(true) };
        let stored = Arc::new(*stored);
        let sent = change.document();
        let is_meant = match change.is_deletion() {
            true => stored.deleted && stored.revision.as_ref() == Some(&change.revision),
            false => !stored.deleted && stored.is_at_revision_of(&sent.body),
        };
        if !is_meant || !self.is_wanted(&stored) {
            return Ok(true);
        }
        // The source sent no tombstone for this deletion, so there is nothing to compare ours with.
        if change.is_deletion() && !matches!(sent, std::borrow::Cow::Borrowed(_)) {
            return Ok(true);
        }
        let none = Revision::from("");
        let revision = stored.revision.clone().unwrap_or(none);
        Ok(self.holds(&stored, None, &change.id, &revision, &sent).await?
            && self.holds_branches(&stored, &change.id).await?)
    }

    fn is_wanted(&self, stored: &StoredDocument) -> bool {
        match self.which {
            CompareScope::Every => true,
            CompareScope::Unchecked(_) => stored.lacks_checksums().unwrap_or(true),
        }
    }

    /// Whether the body and the attachments of a document, or of one of its branches, are those that
    /// the source sent.
    async fn holds(
        &self,
        stored: &Arc<StoredDocument>,
        branch: Option<usize>,
        id: &DocumentId,
        revision: &Revision,
        sent: &Document,
    ) -> Result<bool, Failed> {
        let part = Part { stored: Arc::clone(stored), branch };
        if !part.document().holds(&sent.body) {
            return Ok(false);
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        for attachment in &sent.attachments {
            let Some(file) = part.open(&attachment.name)? else { continue };
            if let Content::Inline(inline) = &attachment.content {
                let inline = inline.clone();
                if !spawn_blocking(move || is_same(file, &inline)).await? {
                    return Ok(false);
                }
                continue;
            }
            let (id, revision) = (id.clone(), revision.clone());
            let wanted = Wanted { id, revision, attachment: attachment.clone() };
            match attachment.length.filter(|length| *length <= SMALL) {
                None => {
                    if !self.is_same_stream(file, &wanted).await? {
                        return Ok(false);
                    }
                }
                Some(length) => {
                    if group.len() >= GROUP.0 || bytes + length > GROUP.1 {
                        let full = std::mem::take(&mut group);
                        bytes = 0;
                        if !self.are_same(&part, full).await? {
                            return Ok(false);
                        }
                    }
                    bytes += length;
                    group.push(wanted);
                }
            }
        }
        self.are_same(&part, group).await
    }

    /// Compares small attachments that one request returns.
    async fn are_same(&self, part: &Part, wanted: Vec<Wanted>) -> Result<bool, Failed> {
        if wanted.is_empty() {
            return Ok(true);
        }
        let policy = RetryPolicy::CATCH_UP;
        let asking = || patiently(GROUP.1, self.source.many_attachments(&wanted));
        let mut answers = attempts(&policy, asking).await?;
        let lost = || Err(SourceError::transient("the source answered nothing"));
        answers.resize_with(wanted.len(), lost);
        for (wanted, answer) in wanted.iter().zip(answers) {
            let Some(file) = part.open(&wanted.attachment.name)? else { continue };
            let is_same = match answer {
                Ok(bytes) => spawn_blocking(move || is_same(file, &bytes)).await?,
                // An attachment that is longer than its stub says, or did not arrive.
                Err(_) => self.is_same_stream(file, wanted).await?,
            };
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compares an attachment with its file while it is received.
    async fn is_same_stream(&self, file: File, wanted: &Wanted) -> Result<bool, Failed> {
        let Wanted { id, revision, attachment } = wanted;
        let length = attachment.length.unwrap_or_default();
        let open = || patiently(length, self.source.attachment(id, revision, attachment));
        let pieces = attempts(&RetryPolicy::CATCH_UP, open).await?;
        let pieces = tokio_stream::StreamExt::timeout(pieces, SILENCE);
        let pieces = pieces.map(|piece| piece.unwrap_or_else(|_| Err(silent(SILENCE)))).boxed();
        let (sender, receiver) = mpsc::channel::<Bytes>(PIECES);
        let comparing = spawn_blocking(move || is_same_pieces(file, receiver));
        let passed = pass_on(pieces, sender).await;
        let is_same = comparing.await?;
        passed?;
        Ok(is_same)
    }

    /// Whether the stored history and branches are the source's.
    async fn holds_branches(
        &self,
        stored: &Arc<StoredDocument>,
        id: &DocumentId,
    ) -> Result<bool, Failed> {
        let winner = stored.revision.iter().filter(|_| stored.history.is_some());
        let others = stored.conflicts.iter().filter_map(|branch| branch.revision.as_ref());
        let wanted: Vec<_> =
            winner.chain(others).map(|revision| (id.clone(), revision.clone())).collect();
        if wanted.is_empty() || !self.branches {
            return Ok(true);
        }
        let asking = || patiently(GROUP.1, self.source.many_branches(&wanted));
        let answers = attempts(&RetryPolicy::CATCH_UP, asking).await?;
        for answer in answers {
            let Branch { revision, history, document } = match answer {
                Ok(branch) => branch,
                // The mirror holds a branch that the source does not have, or no longer has.
                Err(SourceError::Missing { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let same = match stored.branch_at(&revision) {
                None => stored.history.as_ref().is_none_or(|held| held.holds(&history)),
                Some(branch) => self.holds(stored, Some(branch), id, &revision, &document).await?,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Sends a request for about this number of bytes, with a limit on silence.
async fn patiently<T>(
    bytes: u64,
    request: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let patience = SILENCE + Duration::from_secs(bytes / BYTES_A_SECOND);
    tokio::time::timeout(patience, request).await.unwrap_or_else(|_| Err(silent(patience)))
}

/// It is not repeated: each attempt would take as long.
fn silent(patience: Duration) -> SourceError {
    SourceError::permanent(format!("the source has sent nothing for {} s", patience.as_secs()))
}

/// A document, or one of its branches.
struct Part {
    stored: Arc<StoredDocument>,
    branch: Option<usize>,
}

impl Part {
    fn document(&self) -> &StoredDocument {
        let branch = self.branch.and_then(|at| self.stored.conflicts.get(at));
        branch.unwrap_or(&self.stored)
    }

    /// The file of an attachment. A missing one is reported elsewhere, or was excluded.
    fn open(&self, name: &str) -> Result<Option<File>, MirrorError> {
        let document = self.document();
        let attachment = document.attachments.iter().find(|one| one.name == name);
        attachment.map_or(Ok(None), |attachment| document.open_attachment(attachment))
    }
}

fn is_same(mut file: File, sent: &[u8]) -> bool {
    same_piece(&mut file, sent) && is_at_end(&mut file)
}

fn is_same_pieces(mut file: File, mut pieces: mpsc::Receiver<Bytes>) -> bool {
    while let Some(piece) = pieces.blocking_recv() {
        if !same_piece(&mut file, &piece) {
            return false;
        }
    }
    is_at_end(&mut file)
}

/// Whether the next bytes of a file are these. An unreadable file counts as different.
fn same_piece(file: &mut File, sent: &[u8]) -> bool {
    const PIECE: usize = 64 << 10;
    let mut held = [0; PIECE];
    for sent in sent.chunks(PIECE) {
        let held = &mut held[..sent.len()];
        if file.read_exact(held).is_err() || held != sent {
            return false;
        }
    }
    true
}

fn is_at_end(file: &mut File) -> bool {
    matches!(file.read(&mut [0]), Ok(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        use std::io::Seek as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn a_file_is_the_same_when_every_byte_is_and_it_ends_there() {
        let long = vec![b'x'; 200_000];
        assert!(is_same(file(&long), &long));
        assert!(is_same(file(b""), b""));
        assert!(!is_same(file(&long), &long[1..]) && !is_same(file(&long[1..]), &long));
        let mut other = long.clone();
        other[150_000] = b'y';
        assert!(!is_same(file(&long), &other));
    }

    #[test]
    fn pieces_are_compared_as_they_come() {
        let compare = |held: &[u8], pieces: &[&'static [u8]]| {
            let (sender, receiver) = mpsc::channel(9);
            for piece in pieces {
                sender.try_send(Bytes::from_static(piece)).unwrap();
            }
            drop(sender);
            is_same_pieces(file(held), receiver)
        };
        assert!(compare(b"abcdef", &[b"abc", b"", b"def"]));
        assert!(!compare(b"abcdef", &[b"abc", b"de"]));
        assert!(!compare(b"abcdef", &[b"abc", b"defg"]));
        assert!(!compare(b"abcdef", &[b"abx", b"def"]));
    }

    #[test]
    fn documents_without_checksums_are_remembered_in_bounded_memory() {
        let mut unchecked = Unchecked::default();
        let id = |number: usize| DocumentId::from(format!("{number}"));
        assert!(unchecked.is_empty());
        unchecked.note(&id(0));
        assert!(unchecked.may_hold(&id(0)) && !unchecked.may_hold(&id(1)));
        (0..REMEMBERED).for_each(|number| unchecked.note(&id(number)));
        assert!(!unchecked.may_hold(&id(REMEMBERED)));
        unchecked.note(&id(REMEMBERED));
        assert!(unchecked.may_hold(&id(REMEMBERED + 1)), "from now on all are looked at");
        assert!(unchecked.ids.len() <= REMEMBERED);
    }
}

//! Reads one document completely, and finds everything that is wrong with it.

use std::fs::File;
use std::io::Read;
use std::iter;
use std::ops::{AddAssign, SubAssign};

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::archive::{Problem, ProblemKind, StoredAttachment, StoredDocument, StoredText};
use crate::document::{Digester, DocumentId, Revision, Stub};
use crate::tree::MirrorError;
use crate::tree::checksum::{Checksum, Noted, Unnoted};
use crate::tree::inventory::{Contents, FileSum};

/// The size of the pieces in which a file is read.
const PIECE: usize = 128 << 10;

const OTHER_BYTES: &str = "its bytes differ from those that were written (checksum)";

/// The result of reading a document.
#[derive(Debug)]
pub struct Checked {
    pub id: DocumentId,
    pub revision: Option<Revision>,
    pub what: What,
    /// A hash of the body and of every attachment with its name.
    pub content: Checksum,
    pub counts: Counts,
    pub problems: Vec<Problem>,
    /// The files that were read, by paths relative to the mirror.
    pub files: Contents,
    /// The files that have lost the checksum beside them, relative to the mirror.
    pub unnoted: Vec<String>,
    /// The path and SHA-256 of every intact file, if requested.
    pub sums: Vec<(String, String)>,
}

/// Counts of everything else that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Deleted documents whose tombstones are kept.
    pub tombstones: u64,
    /// Files of attachments.
    pub attachments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files without a checksum beside them, which were only checked in other ways.
    pub unchecked: u64,
}

/// The kind of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Document,
    /// A tombstone, which does not count as a document.
    Tombstone,
    /// The security object of a collection.
    Security,
}

/// How to read documents.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Whether attachments without a file count as missing.
    pub attachments: bool,
    /// Whether the SHA-256 of every file is requested.
    pub sums: bool,
}

/// Reads a whole document.
pub fn check(document: &StoredDocument, how: How) -> Result<Checked, MirrorError> {
    let what = if document.deleted { What::Tombstone } else { What::Document };
    let mut checked = Checked::nothing_of(document.id.clone(), what);
    checked.counts.tombstones = u64::from(document.deleted);
    checked.revision = document.revision.clone();
    checked.problems = document.extras()?;
    checked.problems.extend(document.problems.iter().cloned());
    let mut content = blake3::Hasher::new();
    let body = StoredText {
        text: document.body.clone(),
        path: document.body_path(),
        checksum: document.checksum,
        written: document.written.clone(),
    };
    for text in iter::once(&body).chain(&document.history) {
        content.update(&checked.text(text, how));
    }
    for attachment in &document.attachments {
        let path = document.attachment_path(attachment);
        match document.open_attachment(attachment)? {
            Some(file) => {
                let noted = document.noted(&file);
                let read = read(file, attachment, how, noted)
                    .map_err(|error| MirrorError::io("read", &path, error))?;
                content.update(&(attachment.name.len() as u64).to_le_bytes());
                content.update(attachment.name.as_bytes()).update(&read.hash);
                checked.counts.attachments += 1;
                checked.counts.bytes += read.length;
                checked.note(&path, read.length, read.hash, read.noted);
                match read.verdict(&attachment.stub) {
                    Some((kind, reason)) => {
                        let reason = reason + document.caveat();
                        checked.problems.push(Problem::new(kind, path, reason));
                    }
                    None if how.sums => checked.sums.extend(read.sha256.map(|sum| (path, sum))),
                    None => {}
                }
            }
            None if how.attachments => {
                let reason = "the body names it, but the file is missing";
                checked.problems.push(Problem::new(ProblemKind::Missing, path, reason));
            }
            None => {}
        }
    }
    for branch in &document.conflicts {
        let branch = check(branch, how)?;
        content.update(&branch.content);
        checked.counts += Counts { tombstones: 0, ..branch.counts };
        checked.sums.extend(branch.sums);
        checked.files.extend(branch.files);
        checked.unnoted.extend(branch.unnoted);
        // The document itself has reported the extra entries of its folder.
        let others = branch.problems.into_iter();
        checked.problems.extend(others.filter(|one| one.kind != ProblemKind::Extra));
    }
    checked.content = *content.finalize().as_bytes();
    Ok(checked)
}

/// Compares the security object of a collection with the checksum beside it.
pub fn check_security(text: &StoredText, how: How) -> Checked {
    let mut checked = Checked::nothing_of("_security".into(), What::Security);
    checked.content = checked.text(text, how);
    checked
}

impl Checked {
    fn nothing_of(id: DocumentId, what: What) -> Self {
        Self {
            id,
            revision: None,
            what,
            content: [0; 32],
            counts: Counts::default(),
            problems: Vec::new(),
            files: Contents::new(),
            unnoted: Vec::new(),
            sums: Vec::new(),
        }
    }

    fn note(&mut self, path: &str, length: u64, hash: Checksum, noted: Noted) {
        self.files.insert(path.to_owned(), FileSum { length, sum: Some(hash) });
        self.counts.unchecked += u64::from(noted.is_err());
        if noted == Err(Unnoted::Lost) {
            self.unnoted.push(path.to_owned());
        }
    }

    /// Compares JSON text with the checksum beside its file; returns the hash of its bytes.
    fn text(&mut self, text: &StoredText, how: How) -> Checksum {
        let length = text.written.as_ref().map_or(text.text.len() + 1, Bytes::len) as u64;
        self.counts.bytes += length;
        let hash = *blake3::Hasher::new().update(&text.text).update(b"\n").finalize().as_bytes();
        self.note(&text.path, length, hash, text.checksum);
        match text.checksum {
            Ok(noted) if noted != hash => {
                let problem = Problem::new(ProblemKind::Altered, text.path.clone(), OTHER_BYTES);
                self.problems.push(problem);
            }
            _ => {
                if how.sums {
                    let sum = match &text.written {
                        Some(written) => Sha256::new().chain_update(written),
                        None => Sha256::new().chain_update(&text.text).chain_update(b"\n"),
                    };
                    self.sums.push((text.path.clone(), format!("{:x}", sum.finalize())));
                }
            }
        }
        hash
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self { tombstones, attachments, bytes, unchecked } = other;
        self.tombstones += tombstones;
        self.attachments += attachments;
        self.bytes += bytes;
        self.unchecked += unchecked;
    }
}

impl SubAssign for Counts {
    /// Subtracts saturating: files that change while they are read may be subtracted more often than
    /// added.
    fn sub_assign(&mut self, other: Self) {
        let Self { tombstones, attachments, bytes, unchecked } = other;
        self.tombstones = self.tombstones.saturating_sub(tombstones);
        self.attachments = self.attachments.saturating_sub(attachments);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.unchecked = self.unchecked.saturating_sub(unchecked);
    }
}

/// The result for an attachment's file.
struct Seen {
    length: u64,
    hash: Checksum,
    /// The digest in the stub, if it can be compared.
    digest: Option<String>,
    /// In lower case, if requested.
    sha256: Option<String>,
    noted: Noted,
}

fn read(
    mut file: File,
    attachment: &StoredAttachment,
    how: How,
    noted: Noted,
) -> std::io::Result<Seen> {
    let stub = &attachment.stub;
    // The digest is that of gzipped bytes, which are not here.
    let comparable = |_: &&str| stub.encoding.is_none() || is_of_rxdb(stub);
    let mut digester = stub.digest.as_deref().filter(comparable).and_then(Digester::of);
    let mut hasher = blake3::Hasher::new();
    let mut sum = (how.sums && !is_of_rxdb(stub)).then(Sha256::new);
    let mut length = 0;
    let size = attachment.size.unwrap_or_default().saturating_add(1).min(PIECE as u64);
    let mut piece = vec![0; usize::try_from(size).unwrap_or(PIECE)];
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = &piece[..read];
        hasher.update(bytes);
        if let Some(digester) = &mut digester {
            digester.update(bytes);
        }
        if let Some(sum) = &mut sum {
            sum.update(bytes);
        }
        length += read as u64;
    }
    let digest = digester.map(Digester::finish);
    let known = || digest.as_deref()?.strip_prefix("sha256-").map(str::to_owned);
    Ok(Seen {
        length,
        hash: *hasher.finalize().as_bytes(),
        sha256: sum.map(|sum| format!("{:x}", sum.finalize())).or_else(known),
        digest,
        noted,
    })
}

impl Seen {
    /// The problem of a file, by the checksum beside it and by its stub.
    fn verdict(&self, stub: &Stub) -> Option<(ProblemKind, String)> {
        let short = stub.length.filter(|length| self.length < *length);
        if self.noted.is_ok_and(|noted| noted != self.hash) {
            return Some(match short {
                Some(length) => self.of_length(ProblemKind::HalfWritten, length),
                None => (ProblemKind::Altered, OTHER_BYTES.to_owned()),
            });
        }
        if self.digest.is_some() && self.digest == stub.digest {
            return None;
        }
        let kind = if short.is_some() { ProblemKind::HalfWritten } else { ProblemKind::Altered };
        match stub.length {
            // If it was sent to the server gzipped, the length in the stub may be wrong: the
            // checksum is more reliable, and without one the length may be the gzipped one.
            Some(_) if stub.encoding.is_some() && (self.noted.is_ok() || short.is_none()) => None,
            Some(length) if length != self.length => Some(self.of_length(kind, length)),
            _ if self.digest.is_none() || may_be_gzipped(stub) => None,
            _ => {
                let digest = stub.digest.as_deref().unwrap_or_default();
                Some((kind, format!("its bytes do not match the digest in the body, {digest}")))
            }
        }
    }

    fn of_length(&self, kind: ProblemKind, length: u64) -> (ProblemKind, String) {
        (kind, format!("its length is {}, but the body says {length}", self.length))
    }
}

/// Whether the digest is RxDB's, which is always that of the attachment's uncompressed bytes.
fn is_of_rxdb(stub: &Stub) -> bool {
    stub.digest.as_deref().is_some_and(|digest| digest.starts_with("sha256-"))
}

/// Whether a CouchDB may store this type gzipped without saying so, so that the digest is that of
/// the gzipped bytes.
fn may_be_gzipped(stub: &Stub) -> bool {
    if is_of_rxdb(stub) {
        return false;
    }
    let kind = stub.content_type.as_deref().unwrap_or("text/").to_ascii_lowercase();
    kind.starts_with("text/")
        || ["json", "xml", "javascript"].iter().any(|part| kind.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn md5(bytes: &[u8]) -> String {
        let mut digester = Digester::of("md5-").unwrap();
        digester.update(bytes);
        digester.finish()
    }

    fn seen(bytes: &[u8], noted: Option<&[u8]>) -> Seen {
        Seen {
            length: bytes.len() as u64,
            hash: *blake3::hash(bytes).as_bytes(),
            digest: Some(md5(bytes)),
            sha256: None,
            noted: noted.map(|bytes| *blake3::hash(bytes).as_bytes()).ok_or(Unnoted::Lost),
        }
    }

    fn stub(bytes: &[u8], kind: &str) -> Stub {
        Stub {
            digest: Some(md5(bytes)),
            length: Some(bytes.len() as u64),
            content_type: Some(kind.to_owned()),
            encoding: None,
        }
    }

    fn kind(seen: &Seen, stub: &Stub) -> Option<ProblemKind> {
        seen.verdict(stub).map(|(kind, _)| kind)
    }

    #[test]
    fn a_file_is_judged_by_its_checksum_and_by_its_stub() {
        let png = stub(b"right", "image/png");
        assert_eq!(kind(&seen(b"right", Some(b"right")), &png), None);
        assert_eq!(kind(&seen(b"right", None), &png), None);
        assert_eq!(kind(&seen(b"wrong", Some(b"right")), &png), Some(ProblemKind::Altered));
        assert_eq!(kind(&seen(b"wrong", None), &png), Some(ProblemKind::Altered));
        assert_eq!(kind(&seen(b"rig", Some(b"right")), &png), Some(ProblemKind::HalfWritten));
        assert_eq!(kind(&seen(b"rig", None), &png), Some(ProblemKind::HalfWritten));
        // Another attachment's file, moved here with its checksum.
        assert_eq!(kind(&seen(b"moved", Some(b"moved")), &png), Some(ProblemKind::Altered));
    }

    #[test]
    fn rxdbs_digest_is_that_of_the_bytes_whatever_their_type() {
        let digest = |bytes: &[u8]| format!("sha256-{:x}", Sha256::digest(bytes));
        let text = Stub { digest: Some(digest(b"right")), ..stub(b"right", "text/plain") };
        let right = Seen { digest: Some(digest(b"right")), ..seen(b"right", None) };
        assert_eq!(kind(&right, &text), None);
        let wrong = Seen { digest: Some(digest(b"wrong")), ..seen(b"wrong", None) };
        assert_eq!(kind(&wrong, &text), Some(ProblemKind::Altered));
    }

    #[test]
    fn a_digest_of_gzipped_bytes_is_no_false_alarm() {
        let unmarked = Stub { digest: Some("md5-gzipped".to_owned()), ..stub(b"right", "text/x") };
        let marked = Stub { encoding: Some("gzip".to_owned()), ..unmarked.clone() };
        for stub in [&unmarked, &marked] {
            assert_eq!(kind(&seen(b"right", None), stub), None);
            assert_eq!(kind(&seen(b"right", Some(b"right")), stub), None);
            assert_eq!(kind(&seen(b"rig", None), stub), Some(ProblemKind::HalfWritten));
        }
        let encoded_length = Stub { length: Some(3), ..marked };
        assert_eq!(kind(&seen(b"right", None), &encoded_length), None);
    }
}

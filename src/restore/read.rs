//! Reads a collection of the tree into batches of documents that are ready to be written.
//!
//! All functions block.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::iter;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::RestoreFailure;
use super::body::{BodyContext, BodyText, Piece, Stubs};
use super::target::{Files, Item};
use super::vouch::{ALTERED, Read, Vouching, missing};
use crate::archive::{Entry, StoredCollection, StoredDocument, StoredFile, StoredText};
use crate::document::{DocumentId, Revision};
use crate::tree::MirrorError;
use crate::tree::checksum::Checksum;
use crate::tree::inventory::{FileSum, Inventory, Recorded};
use crate::tree::layout::SECURITY;

/// The most bytes of a document's attachments that are read into memory; a larger document is
/// streamed alone.
const MAX_INLINE: u64 = 1 << 20;

/// The most documents in a batch.
const MAX_DOCUMENTS: usize = 500;

/// The most bytes in a batch, unless a single document is larger.
const MAX_BYTES: u64 = 2 << 20;

/// Documents that are compared and written together.
#[derive(Default)]
pub(super) struct Batch {
    /// The documents.
    pub items: Vec<Item>,
    /// The problems that were found.
    pub failures: Vec<RestoreFailure>,
    weight: u64,
}

/// Reads a whole collection, design documents last, and passes batches on as long as they are
/// accepted.
pub(super) fn batches(
    collection: &Arc<dyn StoredCollection>,
    stubs: Stubs,
    wants: &dyn Fn(&DocumentId) -> bool,
    accept_unchecked: bool,
    hand_on: &mut dyn FnMut(Batch) -> bool,
) -> Result<(), MirrorError> {
    // Opened first, so that documents that are written meanwhile are newer than its records.
    let inventory = collection.inventory()?;
    let names = collection.entry_names()?;
    let mut batch = Batch::default();
    // A server builds a view's index from its documents: better once than after every batch.
    for designs in [false, true] {
        let mut vouching = Vouching::new(&**collection, inventory.as_ref(), accept_unchecked)?;
        for name in names.iter().filter(|name| name.starts_with("_design%2F") == designs) {
            let document = match collection.entry(name) {
                Ok(Some(Entry::Document(document))) => document,
                Ok(None) => continue,
                Ok(Some(Entry::Problem(problem))) => {
                    batch.fail(problem.path, problem.reason);
                    continue;
                }
                Err(error) => {
                    batch.fail(collection.path_of(name), error.to_string());
                    continue;
                }
            };
            if !wants(&document.id) {
                continue;
            }
            let items = batch.check(collection, name, &document, stubs, &mut vouching);
            for item in items {
                let weight = item.weight();
                let alone = item.text.attached() > 0;
                let full = batch.weight + weight > MAX_BYTES || batch.items.len() >= MAX_DOCUMENTS;
                let has_items = !batch.items.is_empty();
                if has_items && (alone || full) && !hand_on(std::mem::take(&mut batch)) {
                    return Ok(());
                }
                batch.weight += weight;
                batch.items.push(item);
                if alone && !hand_on(std::mem::take(&mut batch)) {
                    return Ok(());
                }
            }
        }
    }
    if let Some(inventory) = inventory.as_ref().filter(|_| !collection.is_part()) {
        let wanted = |recorded: &Recorded| {
            let id = recorded.id.as_deref().map(DocumentId::from);
            id.or_else(|| collection.id_of(&recorded.name)).is_none_or(|id| wants(&id))
        };
        batch.failures.extend(missing(&**collection, inventory, &names, wanted)?);
    }
    hand_on(batch);
    Ok(())
}

/// The security object of a collection, or what is wrong with it; `None` if it does not exist.
pub(super) fn security(
    collection: &dyn StoredCollection,
    accept_unchecked: bool,
) -> Result<Option<Result<Bytes, RestoreFailure>>, MirrorError> {
    let inventory = collection.inventory()?;
    let failure = |path, reason| RestoreFailure { path, reason };
    let stored = match collection.security()? {
        None => {
            let lost = |inventory: &Inventory| {
                let of = HashSet::from([SECURITY.to_owned()]);
                let recorded = collection.recorded(of)?.0;
                Ok::<_, MirrorError>(
                    inventory.damage.is_none() && recorded.iter().any(|one| !one.allows(None)),
                )
            };
            let reason = "it is missing (the inventory lists it): fetch it again with `plainfold \
                          verify --repair`";
            let lost = inventory.as_ref().map(lost).transpose()?.unwrap_or_default();
            return Ok(lost.then(|| Err(failure(collection.security_path(), reason.to_owned()))));
        }
        Some(Err(problem)) => return Ok(Some(Err(failure(problem.path, problem.reason)))),
        Some(Ok(stored)) => stored,
    };
    let mut vouching = Vouching::new(collection, inventory.as_ref(), accept_unchecked)?;
    let mut read = Read::default();
    if let Err(reason) = read.push_text(&stored) {
        return Ok(Some(Err(failure(stored.path, reason))));
    }
    let again = || {
        let mut read = Read::default();
        let Some(Ok(stored)) = collection.security()? else { return Ok(None) };
        let _altered = read.push_text(&stored);
        Ok(Some(read))
    };
    Ok(Some(match vouching.judge(SECURITY, read, again)?.pop() {
        Some(failure) => Err(failure),
        None => Ok(stored.text),
    }))
}

impl Read {
    /// Records a text, and fails if it was altered.
    fn push_text(&mut self, text: &StoredText) -> Result<(), String> {
        let sum = text.sum();
        self.push(text.path.clone(), sum, text.checksum);
        match text.checksum.is_ok_and(|noted| Some(noted) != sum.sum) {
            true => Err(format!("{} {ALTERED}", text.path)),
            false => Ok(()),
        }
    }
}

impl Batch {
    /// What to write for a document and its branches. Problems are added to the failures.
    fn check(
        &mut self,
        collection: &Arc<dyn StoredCollection>,
        name: &str,
        document: &StoredDocument,
        stubs: Stubs,
        vouching: &mut Vouching<'_>,
    ) -> Vec<Item> {
        match document.extras() {
            Ok(extras) => extras.into_iter().for_each(|one| self.fail(one.path, one.reason)),
            Err(error) => self.fail(document.path.clone(), error.to_string()),
        }
        for problem in &document.problems {
            self.fail(problem.path.clone(), problem.reason.clone());
        }
        let winner = document.revision.as_ref().filter(|_| !document.conflicts.is_empty());
        let branches = document.conflicts.iter().map(|branch| (branch, winner));
        let (mut items, mut read) = (Vec::new(), Read::default());
        let mut failed: HashSet<String> = HashSet::new();
        for (document, branch_of) in iter::once((document, None)).chain(branches) {
            match item(collection, name, document, branch_of, stubs, vouching, &mut read) {
                Ok(item) => items.push(item),
                Err(reason) => {
                    failed.insert(document.path.clone());
                    self.fail(document.path.clone(), reason);
                }
            }
        }
        failed.extend(document.problems.iter().filter_map(|one| folder_of(&one.path)));
        match vouching.judge(name, read, || reread(&**collection, name)) {
            Ok(failures) => {
                for failure in failures {
                    items.retain(|item| item.path != failure.path);
                    // Problems that were found before have been reported.
                    if !failed.contains(&failure.path) {
                        self.failures.push(failure);
                    }
                }
            }
            Err(error) => {
                self.fail(document.path.clone(), error.to_string());
                items.clear();
            }
        }
        items
    }

    fn fail(&mut self, path: String, reason: String) {
        self.failures.push(RestoreFailure { path, reason });
    }
}

fn item(
    collection: &Arc<dyn StoredCollection>,
    name: &str,
    document: &StoredDocument,
    branch_of: Option<&Revision>,
    stubs: Stubs,
    vouching: &Vouching<'_>,
    read: &mut Read,
) -> Result<Item, String> {
    read.push_text(&document.body)?;
    let mut beside = BodyContext { history: None, deleted: document.deleted };
    if let Some(history) = &document.history {
        read.push_text(history)?;
        // A feed has no place for it.
        beside.history = match stubs {
            Stubs::Server => std::str::from_utf8(&history.text).ok(),
            Stubs::Feed => None,
        };
    }
    for attachment in &document.attachments {
        let path = document.attachment_path(attachment);
        let Some(size) = attachment.size else {
            return Err(format!("the file of its attachment is missing: {path}"));
        };
        // If the source kept it gzipped, the length may be that of the gzipped bytes.
        let stated = attachment.stub.length.filter(|_| attachment.stub.encoding.is_none());
        if let Some(stated) = stated.filter(|stated| *stated != size) {
            let caveat = document.caveat;
            return Err(format!(
                "the length of {path} is {size}, but the body says {stated}{caveat}"
            ));
        }
        let unread = |error: io::Error| format!("{path} cannot be read: {error}");
        let mut file = open(document, &attachment.name).map_err(unread)?;
        if !fits_digest(&mut *file, attachment.stub.digest.as_deref()).map_err(unread)? {
            let caveat = document.caveat;
            return Err(format!("{path} does not match the digest in the body{caveat}"));
        }
        let noted = file.noted();
        let sum = match vouching.hashes(noted) {
            true => Some(file.rewind().and_then(|()| hash(&mut *file)).map_err(unread)?),
            false => None,
        };
        if noted.is_ok_and(|noted| Some(noted) != sum) {
            return Err(format!("{path} {ALTERED}"));
        }
        read.push(path, FileSum { length: size, sum }, noted);
    }
    let size = |name: &str| document.attachments.iter().find(|one| one.name == name)?.size;
    let mut text = BodyText::new(&document.id, &document.body.text, beside, stubs, size)?;
    let attached = text.attached();
    let revision = document.revision.as_ref().map(|revision| revision.as_str().to_owned());
    let files = StoredFiles { collection: Arc::clone(collection), name: name.to_owned(), revision };
    if attached <= MAX_INLINE {
        for piece in &mut text.pieces {
            if let Piece::Attachment { name, size } = piece {
                let read = held(document, name, *size);
                let data = read.map_err(|e| format!("the attachment `{name}` cannot be read: {e}"));
                *piece = Piece::Text(STANDARD.encode(data?).into());
            }
        }
    }
    let bytes = document.body.text.len() as u64 + attached;
    let (id, path) = (document.id.clone(), document.path.clone());
    let (deleted, branch_of) = (document.deleted, branch_of.cloned());
    let branches: Vec<_> =
        document.conflicts.iter().filter_map(|branch| branch.revision.clone()).collect();
    // A mirror that keeps no branches keeps no histories either.
    let has_all_branches = document.history.is_some() || !branches.is_empty();
    let files = Arc::new(files);
    Ok(Item { id, path, deleted, branch_of, branches, has_all_branches, text, bytes, files })
}

/// The files of a document and its branches, read again; `None` if it is gone.
fn reread(collection: &dyn StoredCollection, name: &str) -> Result<Option<Read>, MirrorError> {
    let Some(Entry::Document(document)) = collection.entry(name)? else { return Ok(None) };
    let mut read = Read::default();
    for document in iter::once(&*document).chain(&document.conflicts) {
        for text in iter::once(&document.body).chain(&document.history) {
            let _altered = read.push_text(text);
        }
        for attachment in &document.attachments {
            let path = document.attachment_path(attachment);
            let Some(mut file) = document.open_attachment(attachment)? else { continue };
            let sum = hash(&mut *file).map_err(|error| MirrorError::io("read", &path, error))?;
            let sum = FileSum { length: attachment.size.unwrap_or_default(), sum: Some(sum) };
            read.push(path, sum, file.noted());
        }
    }
    Ok(Some(read))
}

/// The folder that contains a file.
fn folder_of(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(folder, _)| folder.to_owned())
}

fn hash(file: &mut dyn StoredFile) -> io::Result<Checksum> {
    Ok(*blake3::Hasher::new().update_reader(file)?.finalize().as_bytes())
}

/// Whether a file matches its digest, if that is a SHA-256: nothing else is known of RxDB's
/// attachments.
fn fits_digest(file: &mut dyn StoredFile, digest: Option<&str>) -> io::Result<bool> {
    let Some(stated) = digest.and_then(|digest| digest.strip_prefix("sha256-")) else {
        return Ok(true);
    };
    let mut hasher = Sha256::new();
    io::copy(file, &mut hasher)?;
    Ok(format!("{:x}", hasher.finalize()) == stated)
}

fn held(document: &StoredDocument, name: &str, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size as usize);
    open(document, name)?.read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(io::Error::other("its length changed while it was read"));
    }
    Ok(bytes)
}

fn open(document: &StoredDocument, name: &str) -> io::Result<Box<dyn StoredFile>> {
    let attachment = document.attachments.iter().find(|attachment| attachment.name == name);
    let attachment = attachment.ok_or(io::ErrorKind::NotFound)?;
    let file = document.open_attachment(attachment).map_err(io::Error::other)?;
    file.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A document's attachments, opened again by its folder. No folder is held open meanwhile: more
/// documents may be in flight than a process may have open files.
struct StoredFiles {
    collection: Arc<dyn StoredCollection>,
    name: String,
    revision: Option<String>,
}

impl Files for StoredFiles {
    fn open(&self, name: &str) -> io::Result<Box<dyn io::Read + Send>> {
        let changed = || io::Error::other("the document changed while it was restored");
        let entry = self.collection.entry(&self.name).map_err(io::Error::other)?;
        let Some(Entry::Document(document)) = entry else { return Err(changed()) };
        let mut all = iter::once(&*document).chain(&document.conflicts);
        let is_ours = |one: &&StoredDocument| {
            one.revision.as_ref().map(|revision| revision.as_str()) == self.revision.as_deref()
        };
        Ok(open(all.find(is_ours).ok_or_else(changed)?, name)?)
    }
}

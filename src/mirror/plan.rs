//! What a change means for the tree, decided by what the tree holds.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use super::beneath::Folder;
use super::collection::Collection;
use super::error::MirrorError;
use super::layout::{ATTACHMENTS, DOCUMENT};
use super::names::Name;
use crate::document::{Attachment, Change, Document, DocumentState, Head, Revision, Stub};

/// Whether a change may replace a newer revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// It came by the feed, which may repeat and rewind: an older revision is not applied.
    Feed,
    /// The source said just now that this is the document's present state.
    Confirmed,
}

/// What is to be done for a change.
#[derive(Debug)]
pub enum Plan {
    /// The tree has it already.
    Unchanged,
    /// The tree holds a newer revision. Ask the source which one is right.
    Older {
        /// The revision that the tree holds.
        held: Revision,
    },
    /// The document is to be written.
    Write(Write),
    /// The document is to be removed.
    Remove(Name),
    /// The id is too long for a name, and the body does not carry it: once written, it could not
    /// be read back from the tree.
    Nameless,
}

/// How a document is to be written.
#[derive(Debug)]
pub struct Write {
    pub(super) name: Name,
    pub(super) shape: Shape,
    /// The names of attachments whose bytes the tree has already, and keeps.
    pub(super) reuse: Vec<Arc<str>>,
    /// The attachments whose bytes are needed.
    pub fetch: Vec<Attachment>,
}

/// What a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing: the folder is new.
    New,
    /// `document.json` alone, in a folder that stays.
    Body,
    /// The whole folder.
    Folder,
}

/// What the tree holds of a document.
#[derive(Debug)]
pub struct Held {
    /// Its body, with the newline that ends the file.
    pub text: Vec<u8>,
    /// Its revision, where the body tells one.
    pub revision: Option<Revision>,
    stubs: BTreeMap<String, Stub>,
    folder: Folder,
}

impl Collection {
    /// Decides what a change means here.
    pub fn plan(&self, change: &Change, authority: Authority) -> Result<Plan, MirrorError> {
        let name = self.document_name(change.id.as_str());
        let newcomers = self.newcomers.as_ref();
        let found = match newcomers.is_some_and(|newcomers| newcomers.welcome(name.as_str())) {
            // Should something stand there all the same, publishing finds it in its way.
            true => Found::Nothing,
            false => self.look(&name)?,
        };
        if let Found::Document(held) = &found
            && let Some(held) = &held.revision
            && authority == Authority::Feed
            && change.revision.age(held) == Some(Ordering::Less)
        {
            return Ok(Plan::Older { held: held.clone() });
        }
        match (&change.state, found) {
            (DocumentState::Deleted(_), Found::Document(_)) => Ok(Plan::Remove(name)),
            // What is no document of ours is nobody's business here.
            (DocumentState::Deleted(_), Found::Nothing | Found::Foreign) => Ok(Plan::Unchanged),
            (DocumentState::Present(document), _)
                if name.is_shortened() && !carries(&document.body, change.id.as_str()) =>
            {
                Ok(Plan::Nameless)
            }
            (DocumentState::Present(document), Found::Document(held)) => {
                self.plan_replacement(name, &change.revision, document, &held)
            }
            (DocumentState::Present(document), found) => {
                let wanted = self.mirror.attachments;
                let fetch = if wanted { document.attachments.clone() } else { Vec::new() };
                let shape = match found {
                    Found::Nothing => Shape::New,
                    Found::Foreign | Found::Document(_) => Shape::Folder,
                };
                Ok(Plan::Write(Write { name, shape, reuse: Vec::new(), fetch }))
            }
        }
    }

    /// What the tree holds of the document with this id.
    pub fn held(&self, id: &str) -> Result<Option<Held>, MirrorError> {
        Ok(match self.look(&self.document_name(id))? {
            Found::Document(held) => Some(*held),
            Found::Nothing | Found::Foreign => None,
        })
    }

    fn plan_replacement(
        &self,
        name: Name,
        revision: &Revision,
        document: &Document,
        held: &Held,
    ) -> Result<Plan, MirrorError> {
        let stored = held.folder.open(ATTACHMENTS).ok().flatten();
        let (mut reuse, mut fetch) = (Vec::new(), Vec::new());
        for attachment in &document.attachments {
            if self.has(held, stored.as_ref(), revision, attachment)? {
                reuse.push(Arc::clone(&attachment.name));
            } else if self.mirror.attachments {
                fetch.push(attachment.clone());
            }
        }
        let same_attachments = fetch.is_empty() && held.stubs.len() == reuse.len();
        if fetch.is_empty() && held.says(revision, &document.body) {
            return Ok(Plan::Unchanged);
        }
        let nothing_stored = stored.is_none() && fetch.is_empty();
        let shape = if same_attachments || nothing_stored { Shape::Body } else { Shape::Folder };
        Ok(Plan::Write(Write { name, shape, reuse, fetch }))
    }

    /// Whether the bytes of an attachment are in the tree: the revision or the digest is the same,
    /// and the file is there.
    fn has(
        &self,
        held: &Held,
        stored: Option<&Folder>,
        revision: &Revision,
        attachment: &Attachment,
    ) -> Result<bool, MirrorError> {
        let Some(stored) = stored else { return Ok(false) };
        let Some(stub) = held.stubs.get(&*attachment.name) else { return Ok(false) };
        let same_digest =
            attachment.digest.is_some() && stub.digest.as_deref() == attachment.digest.as_deref();
        if !same_digest && held.revision.as_ref() != Some(revision) {
            return Ok(false);
        }
        let kind = stored.kind(self.mirror.encode(&attachment.name).as_str())?;
        Ok(kind.is_some_and(rustix::fs::FileType::is_file))
    }

    fn look(&self, name: &Name) -> Result<Found, MirrorError> {
        let folder = match self.folder.open(name.as_str()) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(Found::Nothing),
            Err(MirrorError::InTheWay { .. }) => return Ok(Found::Foreign),
            Err(error) => return Err(error),
        };
        // A folder without a body is no document: an interrupted run of old, or somebody else's.
        let Some(file) = folder.open_file(DOCUMENT)? else { return Ok(Found::Foreign) };
        Ok(Found::Document(Box::new(Held::read(folder, file)?)))
    }
}

/// Whether a body tells this id.
fn carries(body: &[u8], id: &str) -> bool {
    Head::read(body).is_ok_and(|head| head.id.as_deref() == Some(id))
}

enum Found {
    Nothing,
    /// Something that is no document stands there.
    Foreign,
    Document(Box<Held>),
}

impl Held {
    fn read(folder: Folder, mut file: File) -> Result<Self, MirrorError> {
        let mut text = Vec::new();
        file.read_to_end(&mut text)
            .map_err(|error| MirrorError::io("read", folder.path().join(DOCUMENT), error))?;
        // A damaged body has no revision and no stubs, and so is replaced by whatever comes.
        let head = Head::read(&text).unwrap_or_default();
        let revision = head.revision.as_deref().map(Revision::from);
        let stubs = head.stubs();
        Ok(Self { revision, stubs, folder, text })
    }

    /// Whether this is the body of that revision. Where a body tells no revision, its bytes decide.
    fn says(&self, revision: &Revision, body: &[u8]) -> bool {
        match &self.revision {
            Some(held) => held == revision,
            None => self.text.strip_suffix(b"\n") == Some(body),
        }
    }
}

//! Decides what a change means for the tree, by what the tree holds.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::collection::Collection;
use crate::document::{Attachment, Change, Document, Head, Revision, Stub, descends};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{ATTACHMENTS, CONFLICTS, DOCUMENT, HISTORY, body_file};
use crate::tree::names::Name;

/// Whether a change may replace a newer revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The feed brought it, and a feed may repeat and rewind: an older revision is not applied.
    Feed,
    /// The source has just confirmed that this is the document's present state.
    Confirmed,
    /// The same, and the document in the tree was found damaged: none of its files are kept.
    Repair,
}

impl Authority {
    /// The parts of a newer state that the source has reported meanwhile.
    pub fn confirmed(self) -> Self {
        match self {
            Self::Feed | Self::Confirmed => Self::Confirmed,
            Self::Repair => Self::Repair,
        }
    }
}

/// The operation for a change.
#[derive(Debug)]
pub enum Plan {
    /// The tree has it already.
    Unchanged,
    /// The tree holds a newer revision. The source has to say which one is right.
    Older {
        /// The revision that the tree holds.
        held: Revision,
    },
    /// Write the document.
    Write(Write),
    /// Remove the document.
    Remove(Name),
    /// The id is too long for a name, and the body does not contain it: once written, it could not
    /// be read back from the tree.
    Nameless,
}

/// How to write a document.
#[derive(Debug)]
pub struct Write {
    pub(super) name: Name,
    /// The document's id, if its name does not show it.
    pub(super) id: Option<Arc<str>>,
    pub(super) revision: Revision,
    /// Whether it is a tombstone that is kept.
    pub(super) deleted: bool,
    /// Whether it replaces a document by a tombstone.
    pub(super) buries: bool,
    /// Whether the tree does not hold the document, or holds its tombstone.
    pub(super) arrives: bool,
    pub(super) shape: Shape,
    /// The names of attachments that are kept from the tree.
    pub(super) reuse: Vec<Arc<str>>,
    /// The folders of branches that are kept from the tree.
    pub(super) keep: Vec<String>,
    /// Whether the winner's history is kept from the tree.
    pub(super) keep_history: bool,
    /// The attachments that must be fetched.
    pub fetch: Vec<Attachment>,
    /// The revisions that must be fetched with their histories: branches that the tree lacks, and
    /// the winner, whose history alone is written.
    pub branches: Vec<Revision>,
}

/// The part that a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing: the folder is new.
    New,
    /// `document.json` alone, in a folder that stays.
    Body,
    /// The whole folder.
    Folder,
}

/// The document as the tree holds it.
#[derive(Debug)]
pub struct Held {
    /// Its body, with the newline that ends the file.
    pub text: Vec<u8>,
    /// Its revision, if the body contains one.
    pub revision: Option<Revision>,
    /// Whether it is a tombstone that was kept.
    pub deleted: bool,
    stubs: BTreeMap<String, Stub>,
    folder: Folder,
}

impl Write {
    /// A write that reuses nothing from the tree.
    pub(super) fn rewrite(
        name: Name,
        change: &Change,
        shape: Shape,
        fetch: Vec<Attachment>,
        branches: Vec<Revision>,
    ) -> Self {
        Self {
            id: untold_by(&name, change),
            name,
            revision: change.revision.clone(),
            deleted: change.is_deletion(),
            buries: false,
            arrives: false,
            shape,
            reuse: Vec::new(),
            keep: Vec::new(),
            keep_history: false,
            fetch,
            branches,
        }
    }

    /// Whether it replaces a document by a tombstone.
    pub fn buries(&self) -> bool {
        self.buries
    }

    /// Whether the tree does not hold the document, or holds its tombstone.
    pub fn is_new(&self) -> bool {
        self.arrives
    }
}

impl Collection {
    /// Decides the operation for a change.
    pub fn plan(&self, change: &Change, authority: Authority) -> Result<Plan, MirrorError> {
        let name = self.document_name(change.id.as_str());
        if authority == Authority::Repair {
            return self.plan_repair(name, change);
        }
        let newcomers = self.newcomers.as_ref();
        let found = match newcomers.is_some_and(|newcomers| newcomers.welcome(name.as_str())) {
            // If an entry exists nevertheless, publishing will find it.
            true => Found::Nothing,
            false => self.look(&name)?,
        };
        if let Found::Document(held) = &found
            && let Some(newer) = &held.revision
            && authority == Authority::Feed
            && change.revision.age(newer) == Some(Ordering::Less)
        {
            // A follower that has fetched a newer revision meanwhile need not ask the source.
            let history = held.folder.read_file(HISTORY)?;
            return Ok(match history.is_some_and(|one| descends(&one, &change.revision)) {
                true => Plan::Unchanged,
                false => Plan::Older { held: newer.clone() },
            });
        }
        if change.is_deletion() && !self.kept.deleted {
            return Ok(match found {
                Found::Document(_) => Plan::Remove(name),
                // An entry that is not one of our documents is not touched.
                Found::Nothing | Found::Foreign => Plan::Unchanged,
            });
        }
        let document = change.document();
        if name.is_shortened() && !carries(&document.body, change.id.as_str()) {
            return Ok(Plan::Nameless);
        }
        match found {
            Found::Document(held) => self.plan_replacement(name, change, &document, &held),
            found => {
                let wanted = self.attachments;
                let fetch = if wanted { document.attachments.clone() } else { Vec::new() };
                let shape = match found {
                    Found::Nothing => Shape::New,
                    Found::Foreign | Found::Document(_) => Shape::Folder,
                };
                let arrives = !change.is_deletion();
                let branches = self.plan_branches(change, None)?.fetch;
                let write = Write::rewrite(name, change, shape, fetch, branches);
                Ok(Plan::Write(Write { arrives, ..write }))
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
        change: &Change,
        document: &Document,
        held: &Held,
    ) -> Result<Plan, MirrorError> {
        let (revision, deleted) = (&change.revision, change.is_deletion());
        let body = &document.body;
        let stored = held.folder.open(ATTACHMENTS).ok().flatten();
        let (mut reuse, mut fetch) = (Vec::new(), Vec::new());
        for attachment in &document.attachments {
            if self.has(held, stored.as_ref(), revision, attachment)? {
                reuse.push(Arc::clone(&attachment.name));
            } else if self.attachments {
                fetch.push(attachment.clone());
            }
        }
        let branches = self.plan_branches(change, Some(held))?;
        let same_body = held.deleted == deleted
            && held.says(revision)
            && self.mirror.wrote(&held.text, body)
            && self.vouches_for(&held.folder, body_file(deleted))?;
        if fetch.is_empty() && same_body && branches.are_there {
            return Ok(Plan::Unchanged);
        }
        let same_attachments = fetch.is_empty() && held.stubs.len() == reuse.len();
        let nothing_stored = stored.is_none() && fetch.is_empty();
        let body_alone = held.deleted == deleted && branches.fetch.is_empty() && !branches.in_tree;
        let shape = match body_alone && (same_attachments || nothing_stored) {
            true => Shape::Body,
            false => Shape::Folder,
        };
        let Branches { keep, keep_history, fetch: branches, .. } = branches;
        let revision = revision.clone();
        Ok(Plan::Write(Write {
            id: untold_by(&name, change),
            name,
            revision,
            deleted,
            buries: deleted && !held.deleted,
            arrives: held.deleted && !deleted,
            shape,
            reuse,
            keep,
            keep_history,
            fetch,
            branches,
        }))
    }

    /// Decides which branches and histories are kept and which are fetched.
    pub(super) fn plan_branches(
        &self,
        change: &Change,
        held: Option<&Held>,
    ) -> Result<Branches, MirrorError> {
        let there = match held {
            Some(held) => self.branches_of(&held.folder)?,
            None => BTreeMap::new(),
        };
        let history = match held {
            Some(held) => held.folder.kind(HISTORY)?.is_some(),
            None => false,
        };
        let vouched = match held {
            Some(held) if history => self.vouches_for(&held.folder, HISTORY)?,
            _ => false,
        };
        let in_tree = history || !there.is_empty();
        if !self.kept.revisions {
            return Ok(Branches { in_tree, are_there: true, ..Branches::default() });
        }
        let same = held.is_some_and(|held| held.revision.as_ref() == Some(&change.revision));
        let keep_history = same && history;
        let Some(others) = &change.others else {
            // A newer row will list the leaves soon.
            let (keep, fetch) = (there.into_keys().collect(), Vec::new());
            return Ok(Branches { in_tree, are_there: true, keep, keep_history, fetch });
        };
        let keep_history = keep_history && vouched;
        let mut branches = Branches { in_tree, keep_history, ..Branches::default() };
        let mut whole = 0;
        for revision in others {
            let name = self.mirror.encode(revision.as_str()).as_str().to_owned();
            match there.get(&name) == Some(&true) {
                true => {
                    branches.keep.push(name);
                    whole += 1;
                }
                false => branches.fetch.push(revision.clone()),
            }
        }
        // The first revision has no history.
        let told = keep_history || change.revision.generation() == Some(1);
        if !told {
            branches.fetch.push(change.revision.clone());
        }
        branches.are_there = branches.fetch.is_empty() && whole == there.len();
        Ok(branches)
    }

    /// The folders of the branches that are intact in the tree, and whether their files have
    /// checksums.
    fn branches_of(&self, document: &Folder) -> Result<BTreeMap<String, bool>, MirrorError> {
        let mut whole = BTreeMap::new();
        let Ok(Some(conflicts)) = document.open(CONFLICTS) else { return Ok(whole) };
        for name in conflicts.names()? {
            let Ok(Some(folder)) = conflicts.open(&name) else { continue };
            let Some(text) = folder.read_file(DOCUMENT)? else { continue };
            let branch = Held::of(folder, text, false);
            let names =
                |revision: &Revision| self.mirror.encode(revision.as_str()).as_str() == name;
            if branch.revision.as_ref().is_some_and(names)
                && let Some(vouched) = self.is_vouched(&branch)?
            {
                whole.insert(name, vouched);
            }
        }
        Ok(whole)
    }

    /// Whether the files of a branch have checksums; `None` if an attachment that is wanted is missing.
    fn is_vouched(&self, branch: &Held) -> Result<Option<bool>, MirrorError> {
        let mut vouched = self.vouches_for(&branch.folder, DOCUMENT)?;
        if !self.attachments || branch.stubs.is_empty() {
            return Ok(Some(vouched));
        }
        let Ok(Some(stored)) = branch.folder.open(ATTACHMENTS) else { return Ok(None) };
        for name in branch.stubs.keys() {
            let name = self.mirror.encode(name);
            let kind = stored.kind(name.as_str())?;
            if !kind.is_some_and(rustix::fs::FileType::is_file) {
                return Ok(None);
            }
            vouched = vouched && self.vouches_for(&stored, name.as_str())?;
        }
        Ok(Some(vouched))
    }

    /// Whether the tree has the bytes of an attachment: the digest is the same or, if the source
    /// gives none, the revision; and the file exists.
    fn has(
        &self,
        held: &Held,
        stored: Option<&Folder>,
        revision: &Revision,
        attachment: &Attachment,
    ) -> Result<bool, MirrorError> {
        let Some(stored) = stored else { return Ok(false) };
        let Some(stub) = held.stubs.get(&*attachment.name) else { return Ok(false) };
        let same = match (&stub.digest, &attachment.digest) {
            (Some(held), Some(wanted)) => **held == **wanted,
            _ => held.revision.as_ref() == Some(revision),
        };
        if !same {
            return Ok(false);
        }
        let name = self.mirror.encode(&attachment.name);
        let kind = stored.kind(name.as_str())?;
        Ok(kind.is_some_and(rustix::fs::FileType::is_file)
            && self.vouches_for(stored, name.as_str())?)
    }

    fn look(&self, name: &Name) -> Result<Found, MirrorError> {
        let folder = match self.folder.open(name.as_str()) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(Found::Nothing),
            Err(MirrorError::InTheWay { .. }) => return Ok(Found::Foreign),
            Err(error) => return Err(error),
        };
        for deleted in [false, true] {
            if let Some(text) = folder.read_file(body_file(deleted))? {
                return Ok(Found::Document(Box::new(Held::of(folder, text, deleted))));
            }
        }
        // A folder without a body is not a document: an interrupted run of an older version, or
        // somebody else, made it.
        Ok(Found::Foreign)
    }
}

/// The id of a changed document, if its name does not show it.
fn untold_by(name: &Name, change: &Change) -> Option<Arc<str>> {
    name.is_shortened().then(|| change.id.as_str().into())
}

/// Whether a body contains this id.
pub(super) fn carries(body: &[u8], id: &str) -> bool {
    Head::read(body).is_ok_and(|head| head.id.as_deref() == Some(id))
}

/// The branches of a document: kept, and to be fetched.
#[derive(Debug, Default)]
pub(super) struct Branches {
    /// Whether the tree holds a branch or a history of this document.
    in_tree: bool,
    /// Whether the tree holds exactly what it should.
    are_there: bool,
    /// The folders of branches that are kept.
    keep: Vec<String>,
    /// Whether the winner's history is kept.
    keep_history: bool,
    /// The branches that must be fetched.
    pub fetch: Vec<Revision>,
}

enum Found {
    Nothing,
    /// The entry is not a document.
    Foreign,
    Document(Box<Held>),
}

impl Held {
    fn of(folder: Folder, text: Vec<u8>, deleted: bool) -> Self {
        // A damaged body has no revision and no stubs, so any change replaces it.
        let head = Head::read(&text).unwrap_or_default();
        let revision = head.revision.as_deref().map(Revision::from);
        let stubs = head.stubs();
        Self { revision, deleted, stubs, folder, text }
    }

    /// Whether it may be the body of that revision. If it contains none, its bytes decide.
    fn says(&self, revision: &Revision) -> bool {
        self.revision.as_ref().is_none_or(|held| held == revision)
    }
}

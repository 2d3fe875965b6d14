//! Planned writes that need attachments or revisions from the source, and what each still lacks.

use std::collections::HashSet;
use std::sync::Arc;

use super::batch::{Item, SMALL_ATTACHMENT};
use crate::document::{Attachment, Content, Revision};
use crate::mirror::{Blob, Material, Sync, Write};
use crate::source::Wanted;

/// A planned write that needs attachments or revisions from the source.
#[derive(Debug)]
pub struct Pending {
    pub item: Item,
    pub write: Write,
    pub material: Material,
    /// How the fetched files are made durable.
    pub sync: Sync,
}

/// An attachment that a document lacks: the losing revision that it belongs to, as an index into the
/// list of branches, and the attachment.
#[derive(Debug)]
pub struct MissingAttachment {
    pub branch: Option<usize>,
    pub wanted: Wanted,
}

impl MissingAttachment {
    /// Whether it may be requested together with others, and held in memory.
    pub fn is_small(&self) -> bool {
        self.wanted.attachment.length.is_some_and(|length| length <= SMALL_ATTACHMENT)
    }
}

impl Pending {
    /// Adds the bytes of an attachment.
    pub fn take(&mut self, branch: Option<usize>, name: Arc<str>, blob: Blob) {
        let blobs = match branch {
            None => Some(&mut self.material.blobs),
            Some(at) => self.material.branches.get_mut(at).map(|branch| &mut branch.blobs),
        };
        if let Some(blobs) = blobs {
            blobs.insert(name, blob);
        }
    }

    /// Adds the attachments that came with the document.
    pub fn take_inline(&mut self, with_branches: bool) {
        for missing in self.attachments(with_branches) {
            if let Content::Inline(bytes) = missing.wanted.attachment.content {
                self.take(missing.branch, missing.wanted.attachment.name, Blob::Bytes(bytes));
            }
        }
    }

    /// Whether nothing more is needed from the source.
    pub fn is_complete(&self, with_branches: bool) -> bool {
        self.branches().is_empty() && self.attachments(with_branches).is_empty()
    }

    /// Whether all known missing parts are small, so that they may be requested in a group.
    pub fn is_small(&self, with_branches: bool) -> bool {
        self.attachments(with_branches).iter().all(MissingAttachment::is_small)
    }

    /// The number and the bytes of the missing attachments, as far as they are known.
    pub fn wanted(&self, with_branches: bool) -> (usize, u64) {
        let missing = self.attachments(with_branches);
        let lengths = missing.iter().filter_map(|one| one.wanted.attachment.length);
        (missing.len(), lengths.fold(0, u64::saturating_add))
    }

    /// The missing revisions.
    pub fn branches(&self) -> Vec<Revision> {
        let known = self.material.branches.iter().map(|files| &files.branch.revision);
        let known: HashSet<&Revision> = known.collect();
        self.write.branches.iter().filter(|wanted| !known.contains(wanted)).cloned().collect()
    }

    /// The missing attachments.
    pub fn attachments(&self, with_branches: bool) -> Vec<MissingAttachment> {
        let (id, revision) = (&self.item.change.id, &self.item.change.revision);
        let missing = |branch, revision: &Revision, attachment: &Attachment| MissingAttachment {
            branch,
            wanted: Wanted {
                id: id.clone(),
                revision: revision.clone(),
                attachment: attachment.clone(),
            },
        };
        let lacks = |attachment: &&Attachment| !self.material.blobs.contains_key(&attachment.name);
        let of_winner = self.write.fetch.iter().filter(lacks);
        let mut all: Vec<MissingAttachment> =
            of_winner.map(|one| missing(None, revision, one)).collect();
        if !with_branches {
            return all;
        }
        // Only the history of the winner is written: its attachments are in the plan.
        let others = self.material.branches.iter().enumerate();
        for (at, files) in others.filter(|(_, files)| files.branch.revision != *revision) {
            let attachments = files.branch.document.attachments.iter();
            let lacks = attachments.filter(|one| !files.blobs.contains_key(&one.name));
            all.extend(lacks.map(|one| missing(Some(at), &files.branch.revision, one)));
        }
        all
    }

    /// The part of this material that the write needs.
    pub fn reusable(&self, material: Material) -> Material {
        let Material { mut blobs, branches } = material;
        let needs = |name: &str| self.write.fetch.iter().any(|one| &*one.name == name);
        blobs.retain(|name, _| needs(name));
        let branches = branches.into_iter();
        let needed = branches.filter(|files| self.write.branches.contains(&files.branch.revision));
        Material { blobs, branches: needed.collect() }
    }
}

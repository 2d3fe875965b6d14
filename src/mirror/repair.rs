//! Decides what a change means for a document that was found damaged: all of its files are
//! rewritten.

use rustix::fs::FileType;

use super::collection::Collection;
use super::plan::{Plan, Shape, Write, carries};
use crate::document::{Attachment, Change};
use crate::tree::MirrorError;
use crate::tree::layout::{ATTACHMENTS, DOCUMENT, TOMBSTONE};
use crate::tree::names::Name;

impl Collection {
    /// Decides what the source's answer means for a damaged document. The old files stay until the
    /// new ones replace them; an entry that never was a document is not removed.
    pub(super) fn plan_repair(&self, name: Name, change: &Change) -> Result<Plan, MirrorError> {
        let folder = match self.folder.open(name.as_str()) {
            Err(MirrorError::InTheWay { .. }) => None,
            folder => folder?,
        };
        if change.is_deletion() && !self.kept.deleted {
            let body = |name| -> Result<bool, MirrorError> {
                let kind = folder.as_ref().map(|folder| folder.kind(name)).transpose()?.flatten();
                Ok(kind.is_some_and(FileType::is_file))
            };
            let removed = body(DOCUMENT)? || body(TOMBSTONE)?;
            return Ok(if removed { Plan::Remove(name) } else { Plan::Unchanged });
        }
        let document = change.document();
        if name.is_shortened() && !carries(&document.body, change.id.as_str()) {
            return Ok(Plan::Nameless);
        }
        let living = folder.as_ref().map(|folder| folder.kind(DOCUMENT)).transpose()?.flatten();
        // A mirror without attachments may keep files of an earlier run: those are rewritten too.
        let stored = folder.and_then(|folder| folder.open(ATTACHMENTS).ok().flatten());
        let has_file = |attachment: &&Attachment| {
            let name = self.mirror.encode(&attachment.name);
            let kind = stored.as_ref().and_then(|stored| stored.kind(name.as_str()).ok().flatten());
            kind.is_some_and(FileType::is_file)
        };
        let wanted = |attachment: &&Attachment| self.attachments || has_file(attachment);
        let fetch = document.attachments.iter().filter(wanted).cloned().collect();
        let shape = match self.folder.kind(name.as_str())? {
            None => Shape::New,
            Some(_) => Shape::Folder,
        };
        let buries = change.is_deletion() && living.is_some();
        let branches = self.plan_branches(change, None)?.fetch;
        Ok(Plan::Write(Write { buries, ..Write::rewrite(name, change, shape, fetch, branches) }))
    }
}

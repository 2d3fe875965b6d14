//! Reads a document's folder: its body, its attachments, its history and its branches.

use super::collection::{NAMELESS, TreeCollection};
use crate::archive::document::{
    DocumentFiles, Entry, StoredAttachment, StoredDocument, StoredFile,
};
use crate::archive::folder::DocumentFolder;
use crate::archive::text::{Unchecked, read};
use crate::archive::{Problem, ProblemKind, StoredText};
use crate::document::{DocumentId, Head, Revision};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{CONFLICTS, DOCUMENT, HISTORY, body_file};
use crate::tree::names::Decoded;

/// The folder of a document, or of one of its branches.
#[derive(Debug)]
struct Files {
    folder: DocumentFolder,
    is_branch: bool,
}

/// What is kept of a document beside its winner, and what is wrong with it.
#[derive(Default)]
struct Others {
    history: Option<StoredText>,
    conflicts: Vec<StoredDocument>,
    problems: Vec<Problem>,
}

impl DocumentFiles for Files {
    fn open(
        &self,
        attachment: &StoredAttachment,
    ) -> Result<Option<Box<dyn StoredFile>>, MirrorError> {
        let file = self.folder.open(attachment)?;
        Ok(file.map(|file| Box::new(file) as Box<dyn StoredFile>))
    }

    fn open_body(&self, deleted: bool) -> Result<Option<Box<dyn StoredFile>>, MirrorError> {
        let file = self.folder.folder.open_file(body_file(deleted))?;
        Ok(file.map(|file| Box::new(file) as Box<dyn StoredFile>))
    }

    fn extras(&self, document: &StoredDocument) -> Result<Vec<Problem>, MirrorError> {
        self.folder.extras(document, |name, kind| {
            name == body_file(document.deleted)
                || (name == HISTORY && kind.is_file())
                || (name == CONFLICTS && kind.is_dir() && !self.is_branch)
        })
    }
}

impl TreeCollection {
    /// Reads the entry under a name.
    pub fn read(&self, name: &str) -> Result<Option<Entry>, MirrorError> {
        let path = format!("{}/{name}", self.encoded);
        let folder = match self.folder.open(name) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(None),
            Err(MirrorError::InTheWay { what, .. }) => {
                return Ok(Some(Entry::Problem(Problem::extra(path, what))));
            }
            Err(error) => return Err(error),
        };
        let decoded = self.spelling().decode(self.unnumbered(name));
        if decoded == Decoded::Foreign {
            let what = "a folder whose name cannot be that of a document";
            return Ok(Some(Entry::Problem(Problem::extra(path, what))));
        }
        let folder = DocumentFolder::of(folder)?;
        for deleted in [false, true] {
            if let Some(text) = read(&folder.folder, &path, body_file(deleted))? {
                let files = Files { folder, is_branch: false };
                return self.document(path, files, decoded, text, deleted).map(Some);
            }
        }
        if self.folder.open(name)?.is_none() {
            return Ok(None);
        }
        Ok(Some(missing(&path)))
    }

    fn document(
        &self,
        path: String,
        files: Files,
        decoded: Decoded,
        text: Unchecked,
        deleted: bool,
    ) -> Result<Entry, MirrorError> {
        let body = match text.whole() {
            Ok(body) => body,
            Err(problem) => return Ok(Entry::Problem(problem)),
        };
        let problem = |reason| {
            Ok(Entry::Problem(Problem::new(ProblemKind::Altered, body.path.clone(), reason)))
        };
        let head = match Head::read(&body.text) {
            Ok(head) => head,
            Err(error) => return problem(format!("it is not JSON: {error}")),
        };
        let id: DocumentId = match (decoded, head.id.as_deref()) {
            (Decoded::Exact(id), None) if !self.numbered || id != NAMELESS => id.into(),
            (Decoded::Exact(id), Some(own)) if id == own => id.into(),
            (Decoded::Hashed, Some(own))
                if self.unnumbered(&path).ends_with(self.spelling().encode(own).as_str()) =>
            {
                own.into()
            }
            (_, own) => {
                let own = own.map_or("none".to_owned(), |own| format!("{own:?}"));
                return problem(format!(
                    "its `_id` is {own}, which does not match the name of its folder"
                ));
            }
        };
        let encode = |name: &str| self.spelling().encode(name).as_str().to_owned();
        let attachments = files.folder.attachments(head.stubs(), encode)?;
        let Others { history, conflicts, problems } = match files.is_branch {
            true => Others::default(),
            false => self.others(&files.folder, &path, &id)?,
        };
        let revision = head.revision.as_deref().map(Revision::from);
        Ok(Entry::Document(Box::new(StoredDocument {
            id,
            revision,
            deleted,
            body,
            history,
            conflicts,
            problems,
            attachments,
            path,
            caveat: "",
            files: Box::new(files),
        })))
    }

    /// Reads the history and the branches of a document.
    fn others(
        &self,
        folder: &DocumentFolder,
        path: &str,
        id: &DocumentId,
    ) -> Result<Others, MirrorError> {
        let mut others = Others::default();
        if folder.has(HISTORY) {
            match read(&folder.folder, path, HISTORY)?.map(Unchecked::json) {
                Some(Ok(history)) => others.history = Some(history),
                Some(Err(problem)) => others.problems.push(problem),
                None => {}
            }
        }
        if !folder.has(CONFLICTS) {
            return Ok(others);
        }
        let Some(conflicts) = folder.folder.open_folder(CONFLICTS)? else { return Ok(others) };
        let mut names = conflicts.names()?;
        names.sort_unstable();
        for name in names {
            let path = format!("{path}/{CONFLICTS}/{name}");
            match self.branch(&conflicts, &name, path, id)? {
                Entry::Document(branch) => others.conflicts.push(*branch),
                Entry::Problem(problem) => others.problems.push(problem),
            }
        }
        Ok(others)
    }

    fn branch(
        &self,
        conflicts: &Folder,
        name: &str,
        path: String,
        id: &DocumentId,
    ) -> Result<Entry, MirrorError> {
        let Some(folder) = conflicts.open_folder(name)? else {
            let what = "a folder or file that does not belong to a branch";
            return Ok(Entry::Problem(Problem::extra(path, what)));
        };
        let Some(text) = read(&folder, &path, DOCUMENT)? else { return Ok(missing(&path)) };
        let decoded = Decoded::Exact(id.as_str().to_owned());
        let files = Files { folder: DocumentFolder::of(folder)?, is_branch: true };
        let entry = self.document(path, files, decoded, text, false)?;
        let is_at =
            |revision: &Revision| self.spelling().encode(revision.as_str()).as_str() == name;
        Ok(match entry {
            Entry::Document(branch) if !branch.revision.as_ref().is_some_and(is_at) => {
                let path = format!("{}/{DOCUMENT}", branch.path);
                let reason = "its `_rev` does not match the name of its folder";
                Entry::Problem(Problem::new(ProblemKind::Altered, path, reason))
            }
            entry => entry,
        })
    }
}

/// A folder without a body.
fn missing(path: &str) -> Entry {
    let path = format!("{path}/{DOCUMENT}");
    Entry::Problem(Problem::new(ProblemKind::Missing, path, "it is missing"))
}

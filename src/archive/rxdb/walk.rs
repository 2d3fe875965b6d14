//! Finds the folder of every document, however deep, in constant memory.
//!
//! It must not read documents.

use std::collections::HashSet;

use rustix::fs::FileType;

use crate::archive::{Problem, ProblemKind};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::layout::{ATTACHMENTS, DOCUMENT, RXDB_META, is_neighbour};

/// The deepest nesting that is read: each open folder takes two of the files that a process may have
/// open.
const MAX_DEPTH: usize = 100;

type Names = Box<dyn Iterator<Item = Result<Result<String, String>, MirrorError>>>;

/// Yields the path of each document's folder, and the entries that belong to no document. A folder
/// that leads to no document is yielded too: it may be what is left of one.
pub(crate) struct Walk {
    /// The folders from the top down to the present one.
    frames: Vec<Frame>,
    /// The plugin leaves an empty folder for each collection.
    collections: HashSet<String>,
}

struct Frame {
    folder: Folder,
    names: Names,
    /// Empty for the top folder.
    path: String,
    is_document: bool,
    leads_on: bool,
}

impl Walk {
    pub(super) fn new(root: &Folder, collections: HashSet<String>) -> Result<Self, MirrorError> {
        let folder = Folder::open_path(root.path())?;
        let top = Frame::new(folder, String::new())?;
        Ok(Self { frames: vec![top], collections })
    }

    /// Inspects one name of the innermost folder.
    fn look(&mut self, name: &str) -> Result<Option<Result<String, Problem>>, MirrorError> {
        let depth = self.frames.len();
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        if depth == 1 && (name == RXDB_META || is_neighbour(name)) {
            return Ok(None);
        }
        let path = frame.path_of(name);
        match (name, frame.folder.kind(name)?) {
            (_, None) => Ok(None),
            // The document itself reports these.
            (ATTACHMENTS, Some(_)) if frame.is_document => Ok(None),
            (_, Some(FileType::Directory)) => {
                let Some(folder) = frame.folder.open(name)? else { return Ok(None) };
                let inner = Frame::new(folder, path.clone())?;
                // The attachments of a document whose `document.json` is gone lead to no document.
                if depth > 1 && name == ATTACHMENTS && !inner.is_document {
                    return Ok(None);
                }
                frame.leads_on = true;
                if depth >= MAX_DEPTH {
                    return Ok(Some(Err(Problem::extra(path, "a folder that is nested too deep"))));
                }
                let given = inner.is_document.then_some(Ok(path));
                self.frames.push(inner);
                Ok(given)
            }
            (_, Some(_)) if frame.is_document => Ok(None),
            (_, Some(FileType::Symlink)) => Ok(Some(Err(Problem::extra(path, "a symbolic link")))),
            (_, Some(_)) => {
                Ok(Some(Err(Problem::extra(path, "a file that does not belong to a document"))))
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Result<Result<String, Problem>, MirrorError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let top = self.frames.len() == 1;
            let frame = self.frames.last_mut()?;
            match frame.names.next() {
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(Err(_))) if frame.is_document => {}
                Some(Ok(Err(name))) => {
                    let path = frame.path_of(&name);
                    let what = "a file or folder whose name is not valid UTF-8";
                    return Some(Ok(Err(Problem::extra(path, what))));
                }
                Some(Ok(Ok(name))) => {
                    let path = frame.path_of(&name);
                    match self.look(&name) {
                        Ok(None) => {}
                        Ok(Some(given)) => return Some(Ok(given)),
                        // If one folder cannot be opened, the others are still read.
                        Err(error) => {
                            let reason = error.to_string();
                            let problem = Problem::new(ProblemKind::Altered, path, reason);
                            return Some(Ok(Err(problem)));
                        }
                    }
                }
                None => {
                    let ended = self.frames.pop()?;
                    let is_collections = self.collections.contains(&ended.path);
                    if !top && !ended.is_document && !ended.leads_on && !is_collections {
                        return Some(Ok(Ok(ended.path)));
                    }
                }
            }
        }
    }
}

impl Frame {
    fn new(folder: Folder, path: String) -> Result<Self, MirrorError> {
        let names: Names = Box::new(folder.each_name()?);
        let is_document = !path.is_empty() && folder.kind(DOCUMENT)?.is_some();
        Ok(Self { folder, names, path, is_document, leads_on: false })
    }

    fn path_of(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(dir: &std::path::Path) -> (Vec<String>, Vec<Problem>) {
        let root = Folder::open_path(dir).unwrap();
        let walk = Walk::new(&root, HashSet::from(["shelf".to_owned()])).unwrap();
        let (mut paths, mut problems) = (Vec::new(), Vec::new());
        for found in walk {
            match found.unwrap() {
                Ok(path) => paths.push(path),
                Err(problem) => problems.push(problem),
            }
        }
        paths.sort();
        (paths, problems)
    }

    #[test]
    fn documents_are_found_within_documents_and_folders_that_lead_nowhere_are_given() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["a", "a/b/c", "a/b/c/attachments", "attachments", ".git/x"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join(DOCUMENT), "").unwrap();
        }
        for empty in ["shelf", "begun", "half/attachments"] {
            std::fs::create_dir_all(dir.path().join(empty)).unwrap();
        }
        let (paths, problems) = walked(dir.path());
        assert_eq!(paths, ["a", "a/b/c", "attachments", "begun", "half"]);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn folders_beyond_any_depth_are_a_problem_and_no_burden() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/".repeat(500))).unwrap();
        let (paths, problems) = walked(dir.path());
        assert!(paths.is_empty(), "{paths:?}");
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}

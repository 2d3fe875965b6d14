//! Folders that RxDB's backup plugin wrote, read as a mirror of one collection.
//!
//! The plugin writes documents directly under the directory, each in a folder named after the
//! document, without escapes: the id `a/b` is two folders deep. `docs/operations.md` describes how
//! such a tree is read.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::document::{Ways, attachments};
use super::{Entry, Problem, ProblemKind, StoredDocument};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::checksum::Unnoted;
use crate::tree::layout::{DOCUMENT, RXDB_META as META};
use crate::tree::names::Codec;

mod body;
mod walk;

/// Why its bodies are not those of the source.
pub(super) const REWRITTEN: &str = "RxDB's backup plugin changes bodies";

/// A document's folder also is a part of the path to documents with longer ids.
const WAYS: Ways = Ways {
    notes: false,
    nests: true,
    caveat: " (RxDB's backup plugin writes all attachments as text, which damages binary ones)",
};

pub(crate) use walk::Walk;

/// A directory that the plugin wrote.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    /// The name of its only collection.
    pub(super) name: String,
    /// The collections that the plugin wrote here. Documents do not record which one they belong to.
    collections: HashSet<String>,
    /// What is wrong with the plugin's metadata file.
    pub(super) problem: Option<Problem>,
}

/// The content of `backup_meta.json`.
#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(rename = "collectionStates", borrow)]
    states: std::collections::BTreeMap<String, &'a RawValue>,
}

impl Backup {
    /// The metadata of the directory; `None` if the plugin wrote nothing here.
    pub(super) fn recognise(path: &Path, root: &Folder) -> Result<Option<Self>, MirrorError> {
        let Some(text) = root.read_file(META)? else { return Ok(None) };
        let (collections, problem) = match serde_json::from_slice::<Meta<'_>>(&text) {
            Ok(meta) => (meta.states.into_keys().collect::<Vec<_>>(), None),
            Err(error) => {
                let reason = format!("it is not what RxDB's backup plugin writes: {error}");
                let problem = Problem::new(ProblemKind::Altered, META.to_owned(), reason);
                (Vec::new(), Some(problem))
            }
        };
        let name = match &collections[..] {
            [only] => only.clone(),
            _ => name_of_directory(path),
        };
        if collections.len() > 1 {
            tracing::warn!(
                "{} holds the documents of {}, and RxDB's backup plugin does not record which \
                 collection a document belongs to: they are read as one collection, `{name}`",
                path.display(),
                collections.join(" and ")
            );
        }
        Ok(Some(Self { name, collections: collections.into_iter().collect(), problem }))
    }

    /// The folder of every document beneath `root`, and the entries that belong to no document.
    pub(crate) fn walk(&self, root: &Folder) -> Result<Walk, MirrorError> {
        Walk::new(root, self.collections.clone())
    }
}

/// The folder of an id, relative to the plugin's directory; `None` if the plugin would write outside
/// its directory.
pub(super) fn folder_of(id: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in id.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Reads the document in the folder `name`, which may be several folders deep; `None` if it has been
/// removed meanwhile.
pub(super) fn entry(root: &Folder, name: &str) -> Result<Option<Entry>, MirrorError> {
    let problem = |problem| Ok(Some(Entry::Problem(problem)));
    let folder = match beneath(root, name) {
        Ok(Some(folder)) => folder,
        Ok(None) => return Ok(None),
        Err(MirrorError::InTheWay { what, .. }) => {
            return problem(Problem::extra(name.to_owned(), what));
        }
        Err(error) => return Err(error),
    };
    let path = format!("{name}/{DOCUMENT}");
    let Some(text) = folder.read_file(DOCUMENT)? else {
        let (kind, reason) = match folder.kind(DOCUMENT)? {
            Some(_) => (ProblemKind::Altered, "it is not a regular file"),
            None if beneath(root, name)?.is_none() => return Ok(None),
            None => (ProblemKind::Missing, "it is missing"),
        };
        return problem(Problem::new(kind, path, reason));
    };
    let entries = folder.entries()?;
    let read = match body::read(&text, name) {
        Ok(read) => read,
        Err((kind, reason)) => return problem(Problem::new(kind, path, reason)),
    };
    let attachments = attachments(&folder, read.stubs, file_of)?;
    Ok(Some(Entry::Document(Box::new(StoredDocument {
        id: read.id,
        revision: read.revision,
        body: read.body,
        attachments,
        path: name.to_owned(),
        checksum: Err(Unnoted::Unsupported),
        folder,
        entries,
        written: Some(Bytes::from(text)),
        ways: WAYS,
        deleted: false,
        history: None,
        conflicts: Vec::new(),
        problems: Vec::new(),
    }))))
}

/// The file of an attachment, which has the same name. The plugin fails for a name with a slash, or
/// writes it elsewhere; such a file is never found.
fn file_of(name: &str) -> String {
    match name {
        "" | "." | ".." => Codec::Native.encode(name).to_string(),
        name if name.contains('/') => Codec::Native.encode(name).to_string(),
        name => name.to_owned(),
    }
}

/// Opens a folder that is several folders deep, one after the other, so that no link is followed.
fn beneath(root: &Folder, path: &str) -> Result<Option<Folder>, MirrorError> {
    let mut folder: Option<Folder> = None;
    for part in path.split('/') {
        if matches!(part, "" | "." | "..") {
            return Ok(None);
        }
        folder = match folder.as_ref().unwrap_or(root).open(part)? {
            Some(next) => Some(next),
            None => return Ok(None),
        };
    }
    Ok(folder)
}

fn name_of_directory(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "backup".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_path_as_it_is_for_the_plugin() {
        for (id, folder) in [
            ("a", Some("a")),
            ("a/b", Some("a/b")),
            ("a//./b/", Some("a/b")),
            ("a/../b", Some("b")),
            ("%41 ", Some("%41 ")),
            (".", None),
            ("", None),
            ("a/..", None),
            ("../a", None),
            ("a/../../a", None),
        ] {
            assert_eq!(folder_of(id).as_deref(), folder, "{id}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("root/link")).unwrap();
        let root = Folder::open_path(&dir.path().join("root")).unwrap();
        assert!(beneath(&root, "a/b").unwrap().is_some());
        for path in ["../root", "a/../a", "/a", "a/./b", "", "none/b"] {
            assert!(beneath(&root, path).unwrap().is_none(), "{path}");
        }
        assert!(beneath(&root, "link/b").is_err());
    }
}

//! Folders that RxDB's backup plugin wrote, read as one collection.
//!
//! The plugin writes documents directly under the directory, each in a folder named after the
//! document, without escapes: the id `a/b` is two folders deep. `docs/operations.md` describes how
//! such a tree is read.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::document::{DocumentFiles, Plain, StoredFile};
use super::folder::{DocumentFolder, beneath};
use super::locate::{Identity, LocateError, Located, parts};
use super::{
    Archive, Collections, EachName, Entry, EntryVersion, Problem, ProblemKind, StoredAttachment,
    StoredCollection, StoredDocument, StoredText,
};
use crate::document::{CollectionName, DocumentId};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::checksum::Unnoted;
use crate::tree::layout::{ATTACHMENTS, DOCUMENT, RXDB_META as META};
use crate::tree::names::Codec;

mod body;
mod path;
mod walk;

use path::folder_of;
use walk::Walk;

/// A directory that the plugin wrote.
#[derive(Clone, Debug)]
struct Backup {
    folder: Arc<Folder>,
    /// The name of its only collection.
    name: CollectionName,
    /// The collections that the plugin wrote here. Documents do not record which one they belong to.
    collections: HashSet<String>,
    /// What is wrong with the plugin's metadata file.
    problem: Option<Problem>,
}

/// The content of `backup_meta.json`.
#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(rename = "collectionStates", borrow)]
    states: std::collections::BTreeMap<String, &'a RawValue>,
}

/// The plugin's directory; `None` if it wrote nothing here.
pub(super) fn recognise(root: &Folder) -> Result<Option<Arc<dyn Archive>>, MirrorError> {
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
        _ => name_of_directory(root.path()),
    };
    if collections.len() > 1 {
        tracing::warn!(
            "{} holds the documents of {}, and RxDB's backup plugin does not record which \
             collection a document belongs to: they are read as one collection, `{name}`",
            root.path().display(),
            collections.join(" and ")
        );
    }
    let folder = Arc::new(Folder::open_path(root.path())?);
    let (name, collections) = (name.into(), collections.into_iter().collect());
    Ok(Some(Arc::new(Backup { folder, name, collections, problem })))
}

impl Archive for Backup {
    fn collections(&self) -> Result<Collections, MirrorError> {
        Ok((vec![Arc::new(self.clone())], self.problem.iter().cloned().collect()))
    }

    /// The document whose folder is the path or, else, nearest above it: folders may lie in one
    /// another.
    fn identify(&self, path: &Path) -> Result<Identity, LocateError> {
        let parts = parts(path)?;
        for length in (1..=parts.len()).rev() {
            let name = parts[..length].join("/");
            if let Some(Entry::Document(document)) = self.entry(&name)? {
                let (collection, id) = (self.name.clone(), document.id);
                return Ok(Identity { collection, id, found: Located::Document });
            }
        }
        Err(LocateError::no_document(path, "not in the folder of a document"))
    }

    fn rewritten(&self) -> Option<&'static str> {
        Some("RxDB's backup plugin changes bodies")
    }

    fn has_names(&self) -> bool {
        false
    }
}

impl StoredCollection for Backup {
    fn name(&self) -> &CollectionName {
        &self.name
    }

    fn path(&self) -> &str {
        "."
    }

    fn path_of(&self, name: &str) -> String {
        name.to_owned()
    }

    fn name_of(&self, id: &DocumentId) -> String {
        folder_of(id.as_str()).unwrap_or_default()
    }

    /// The plugin gives several ids the same folder.
    fn id_of(&self, _name: &str) -> Option<DocumentId> {
        None
    }

    fn each_name(&self) -> Result<EachName<'_>, MirrorError> {
        Ok(Box::new(Walk::new(&self.folder, self.collections.clone())?))
    }

    /// The name may be several folders deep.
    fn entry(&self, name: &str) -> Result<Option<Entry>, MirrorError> {
        let problem = |problem| Ok(Some(Entry::Problem(problem)));
        let folder = match beneath(&self.folder, name) {
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
                None if beneath(&self.folder, name)?.is_none() => return Ok(None),
                None => (ProblemKind::Missing, "it is missing"),
            };
            return problem(Problem::new(kind, path, reason));
        };
        let folder = DocumentFolder::of(folder)?;
        let read = match body::read(&text, name) {
            Ok(read) => read,
            Err((kind, reason)) => return problem(Problem::new(kind, path, reason)),
        };
        Ok(Some(Entry::Document(Box::new(StoredDocument {
            id: read.id,
            revision: read.revision,
            body: StoredText {
                text: read.body,
                path,
                checksum: Err(Unnoted::Unsupported),
                written: Some(Bytes::from(text)),
            },
            attachments: folder.attachments(read.stubs, file_of)?,
            path: name.to_owned(),
            deleted: false,
            history: None,
            conflicts: Vec::new(),
            problems: Vec::new(),
            caveat: " (RxDB's backup plugin writes all attachments as text, which damages binary ones)",
            files: Box::new(Files(folder)),
        }))))
    }

    fn version(&self, name: &str) -> Result<EntryVersion, MirrorError> {
        EntryVersion::of_folder(&self.folder, name)
    }
}

/// The folder of a document.
#[derive(Debug)]
struct Files(DocumentFolder);

impl DocumentFiles for Files {
    fn open(
        &self,
        attachment: &StoredAttachment,
    ) -> Result<Option<Box<dyn StoredFile>>, MirrorError> {
        Ok(self.0.open(attachment)?.map(|file| Box::new(Plain(file)) as Box<dyn StoredFile>))
    }

    fn open_body(&self, _deleted: bool) -> Result<Option<Box<dyn StoredFile>>, MirrorError> {
        let file = self.0.folder.open_file(DOCUMENT)?;
        Ok(file.map(|file| Box::new(Plain(file)) as Box<dyn StoredFile>))
    }

    /// A document's folder also is a part of the path to documents with longer ids.
    fn extras(&self, document: &StoredDocument) -> Result<Vec<Problem>, MirrorError> {
        self.0.extras(document, |name, kind| {
            name == DOCUMENT || (kind.is_dir() && name != ATTACHMENTS)
        })
    }
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

fn name_of_directory(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "backup".to_owned())
}

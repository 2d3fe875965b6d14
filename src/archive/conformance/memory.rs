//! An archive in memory, for tests of what reads archives.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::archive::document::{DocumentFiles, Plain, StoredFile};
use crate::archive::locate::{Identity, LocateError, Located, parts};
use crate::archive::text::Unchecked;
use crate::archive::{
    Archive, Collections, EachName, Entry, EntryVersion, Problem, ProblemKind, StoredAttachment,
    StoredCollection, StoredDocument, StoredText,
};
use crate::document::{CollectionName, DocumentId, Head};
use crate::tree::MirrorError;
use crate::tree::layout::{ATTACHMENTS, DOCUMENT, SECURITY};
use crate::tree::names::{Codec, Decoded};

/// An archive in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryArchive(pub Vec<Arc<MemoryCollection>>);

/// A collection in memory. Its documents may be changed while it is read.
#[derive(Debug)]
pub(crate) struct MemoryCollection {
    name: CollectionName,
    pub documents: Mutex<BTreeMap<DocumentId, Held>>,
    pub security: Option<Bytes>,
}

/// What it holds of a document.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Held {
    /// The bytes in the place of the body, with the newline that ends it.
    pub body: Option<Bytes>,
    pub attachments: BTreeMap<String, Bytes>,
}

impl MemoryCollection {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), documents: Mutex::default(), security: None }
    }

    /// Adds a document with the attachments that its body names.
    pub fn put(&self, id: &str, body: &str, attachments: &[(&str, &str)]) {
        let bytes = |(name, bytes): &(&str, &str)| {
            ((*name).to_owned(), Bytes::copy_from_slice(bytes.as_bytes()))
        };
        let attachments = attachments.iter().map(bytes).collect();
        let held = Held { body: Some(format!("{body}\n").into()), attachments };
        self.documents.lock().unwrap().insert(id.into(), held);
    }
}

impl Archive for MemoryArchive {
    fn collections(&self) -> Result<Collections, MirrorError> {
        let all = self.0.iter().map(|one| Arc::clone(one) as Arc<dyn StoredCollection>);
        Ok((all.collect(), Vec::new()))
    }

    fn identify(&self, path: &Path) -> Result<Identity, LocateError> {
        let foreign = || LocateError::no_document(path, "not in a document");
        let parts = parts(path)?;
        let [collection, name, ..] = parts[..] else { return Err(foreign()) };
        let found = self.0.iter().find(|one| one.path() == collection).ok_or_else(foreign)?;
        let id = found.id_of(name).ok_or_else(foreign)?;
        let entry = found.entry(name)?;
        Ok(Identity { collection: found.name.clone(), found: Located::of(entry, &id), id })
    }
}

impl StoredCollection for MemoryCollection {
    fn name(&self) -> &CollectionName {
        &self.name
    }

    fn path(&self) -> &str {
        self.name.as_str()
    }

    fn name_of(&self, id: &DocumentId) -> String {
        Codec::Native.encode(id.as_str()).to_string()
    }

    fn id_of(&self, name: &str) -> Option<DocumentId> {
        match Codec::Native.decode(name) {
            Decoded::Exact(id) => Some(id.into()),
            _ => None,
        }
    }

    fn each_name(&self) -> Result<EachName<'_>, MirrorError> {
        let documents = self.documents.lock().unwrap();
        let names: Vec<_> = documents.keys().map(|id| Ok(Ok(self.name_of(id)))).collect();
        Ok(Box::new(names.into_iter()))
    }

    fn entry(&self, name: &str) -> Result<Option<Entry>, MirrorError> {
        let documents = self.documents.lock().unwrap();
        let id = self.id_of(name);
        let Some((id, held)) = id.as_ref().and_then(|id| documents.get_key_value(id)) else {
            return Ok(None);
        };
        let path = format!("{}/{DOCUMENT}", self.path_of(name));
        let problem = |problem| Ok(Some(Entry::Problem(problem)));
        let Some(text) = &held.body else {
            return problem(Problem::new(ProblemKind::Missing, path, "it is missing"));
        };
        let body = match Unchecked::new(text.to_vec(), path.clone()).json() {
            Ok(body) => body,
            Err(wrong) => return problem(wrong),
        };
        let Ok(head) = Head::read(&body.text) else {
            return problem(Problem::new(ProblemKind::Altered, path, "it is not an object"));
        };
        let attachment = |(name, stub): (String, _)| StoredAttachment {
            size: held.attachments.get(&name).map(|bytes| bytes.len() as u64),
            encoded: name.clone(),
            name,
            stub,
        };
        let revision = head.revision.as_deref().map(Into::into);
        let attachments = head.stubs().into_iter().map(attachment).collect();
        Ok(Some(Entry::Document(Box::new(StoredDocument {
            id: id.clone(),
            revision,
            deleted: false,
            body,
            history: None,
            conflicts: Vec::new(),
            problems: Vec::new(),
            attachments,
            path: self.path_of(name),
            caveat: "",
            files: Box::new(held.clone()),
        }))))
    }

    fn version(&self, name: &str) -> Result<EntryVersion, MirrorError> {
        let documents = self.documents.lock().unwrap();
        Ok(EntryVersion::of(self.id_of(name).and_then(|id| documents.get(&id).cloned())))
    }

    fn security(&self) -> Result<Option<Result<StoredText, Problem>>, MirrorError> {
        let path = format!("{}/{SECURITY}", self.path());
        let text = self.security.as_ref().map(|text| [&text[..], b"\n"].concat());
        Ok(text.map(|text| Unchecked::new(text, path).json()))
    }
}

impl DocumentFiles for Held {
    fn open(
        &self,
        attachment: &StoredAttachment,
    ) -> Result<Option<Box<dyn StoredFile>>, MirrorError> {
        let bytes = self.attachments.get(&attachment.name);
        Ok(bytes.map(|bytes| Box::new(Plain(Cursor::new(bytes.clone()))) as Box<dyn StoredFile>))
    }

    fn open_body(&self, _deleted: bool) -> Result<Option<Box<dyn StoredFile>>, MirrorError> {
        let bytes = self.body.as_ref().map(|text| text.to_vec());
        Ok(bytes.map(|bytes| Box::new(Plain(Cursor::new(bytes))) as Box<dyn StoredFile>))
    }

    fn extras(&self, document: &StoredDocument) -> Result<Vec<Problem>, MirrorError> {
        let named = |name: &&String| !document.attachments.iter().any(|one| one.name == **name);
        let extra = |name: &String| {
            let path = format!("{}/{ATTACHMENTS}/{name}", document.path);
            Problem::extra(path, "a file that the body does not name")
        };
        Ok(self.attachments.keys().filter(named).map(extra).collect())
    }
}

//! One collection's folder.

use std::sync::Arc;

use super::newcomers::Newcomers;
use super::{Mirror, blame, inventory};
use crate::document::{CollectionName, FolderIdentity, Kept, Properties};
use crate::tree::beneath::{Folder, write_all};
use crate::tree::record::{Record, record_name};
use crate::tree::{MirrorError, layout, names, unless_disk};

/// A collection of a mirror, its folder held open.
#[derive(Clone, Debug)]
pub struct Collection {
    pub(super) mirror: Arc<Mirror>,
    pub(super) folder: Arc<Folder>,
    /// The encoded name of the folder.
    pub(super) encoded: Arc<str>,
    name: CollectionName,
    created: bool,
    identity: FolderIdentity,
    /// Whether attachments are mirrored, or only their stubs.
    pub(super) attachments: bool,
    /// Which revisions are kept in addition to the winners.
    pub(super) kept: Kept,
    /// Set if the folder was empty when it was opened.
    pub(super) newcomers: Option<Arc<Newcomers>>,
    pub(super) inventory: Arc<inventory::Writer>,
}

impl Mirror {
    /// Opens the folder of a collection, and creates it if needed.
    pub fn collection(self: &Arc<Self>, name: &CollectionName) -> Result<Collection, MirrorError> {
        Collection::open(self, name)
    }

    /// Removes what opening a new collection created, if it is still empty: the name of its source
    /// may be mistyped.
    pub fn forget_empty(&self, name: &CollectionName) -> Result<(), MirrorError> {
        let encoded = self.encode(name.as_str());
        self.epoch.check_lanes()?;
        match self.root.remove_empty(encoded.as_str())? {
            true => {
                self.epoch.remove(&self.inventories, &layout::inventory_file(encoded.as_str()))?;
                self.remove_portable(encoded.as_str())?;
                self.epoch.remove(&self.collections, &record_name(encoded.as_str()))
            }
            false => Ok(()),
        }
    }

    /// Removes the checkpoint in `.plainfold/checkpoints` of a collection.
    fn remove_portable(&self, encoded: &str) -> Result<(), MirrorError> {
        match self.ours.open_folder(layout::CHECKPOINTS)? {
            Some(folder) => self.epoch.remove(&folder, &record_name(encoded)),
            None => Ok(()),
        }
    }
}

impl Mirror {
    /// The collections that the mirror has followed, each with the source that it followed.
    pub fn followed(&self) -> Result<Vec<(CollectionName, String)>, MirrorError> {
        let mut followed = Vec::new();
        for file in self.collections.names()? {
            let Some(encoded) = file.strip_suffix(".json") else { continue };
            if let Some(record) = Record::read(&self.collections, encoded)?
                && !record.source.is_empty()
            {
                followed.push((record.name.as_str().into(), record.source));
            }
        }
        Ok(followed)
    }
}

impl Collection {
    pub(super) fn open(mirror: &Arc<Mirror>, name: &CollectionName) -> Result<Self, MirrorError> {
        Self::open_all(mirror, name).map_err(|error| blame::of_collection(mirror, error))
    }

    fn open_all(mirror: &Arc<Mirror>, name: &CollectionName) -> Result<Self, MirrorError> {
        let encoded: Arc<str> = mirror.encode(name.as_str()).as_str().into();
        let record = Record::read(&mirror.collections, &encoded)?;
        let keeping = mirror.wanted.kept_of(&mirror.options, record.as_ref());
        if keeping.loses_revisions {
            return Err(MirrorError::Discards {
                path: mirror.path().to_owned(),
                option: "a recorded feed, which holds winning revisions only,".to_owned(),
                what: format!("the losing revisions and the histories of `{}`", name),
            });
        }
        let (folder, created) = mirror.epoch.open_or_create(&mirror.root, &encoded)?;
        blame::check(mirror, &folder, &encoded)?;
        if created {
            mirror.root.sync()?;
        }
        let identity = folder.identity()?;
        let mut collection = Self {
            mirror: Arc::clone(mirror),
            folder: Arc::new(folder),
            encoded,
            name: name.clone(),
            created,
            identity,
            attachments: keeping.attachments,
            kept: keeping.kept,
            newcomers: None,
            inventory: Arc::default(),
        };
        if collection.is_empty()? {
            collection.newcomers = Some(Arc::new(Newcomers::new()));
        }
        if record.is_none() {
            collection.write_record(String::new())?;
        }
        Ok(collection)
    }

    /// Its name, as the source spells it.
    pub fn name(&self) -> &CollectionName {
        &self.name
    }

    /// Whether its folder was created just now and is empty.
    pub fn is_new(&self) -> bool {
        self.created
    }

    /// The identity of its folder, which no copy shares.
    pub fn identity(&self) -> FolderIdentity {
        self.identity
    }

    /// The source that this collection follows, as `follow` recorded it.
    pub fn followed(&self) -> Result<Option<String>, MirrorError> {
        Ok(self.record()?.map(|record| record.source).filter(|source| !source.is_empty()))
    }

    /// Records durably which source this collection follows, and whether with attachments.
    pub fn follow(&self, source: &str) -> Result<(), MirrorError> {
        self.follow_from(source).map_err(|error| self.blame_end(error))
    }

    fn follow_from(&self, source: &str) -> Result<(), MirrorError> {
        if let Some(record) = self.record()?
            && record.source == source
            && record.attachments == Some(self.attachments)
            && record.kept == self.kept
        {
            return Ok(());
        }
        self.write_record(source.to_owned())
    }

    /// The same with only the parts that the last run recorded as mirrored.
    pub fn as_recorded(self) -> Result<Self, MirrorError> {
        let record = self.record()?;
        let attachments = record.as_ref().and_then(|record| record.attachments).unwrap_or(true);
        let kept = record.map(|record| record.kept).unwrap_or_default();
        Ok(Self { attachments, kept, ..self })
    }

    /// Which revisions are kept in addition to the winners.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Whether its attachments are mirrored.
    pub fn mirrors_attachments(&self) -> bool {
        self.attachments
    }

    /// The folder name of a document.
    pub fn document_name(&self, id: &str) -> names::Name {
        self.mirror.encode(id)
    }

    fn write_record(&self, source: String) -> Result<(), MirrorError> {
        let attachments = Some(self.attachments);
        let (name, kept) = (self.name.to_string(), self.kept);
        // A collection in another place has its own record.
        let properties = self
            .record()?
            .filter(|record| record.source == source || record.source.is_empty())
            .and_then(|record| record.properties);
        let record = Record { name, source, attachments, kept, properties };
        self.mirror.epoch.write(&self.mirror.collections, &record_name(&self.encoded), &record)
    }

    /// Records durably how the collection was created at its source, if that has changed.
    pub fn note_properties(&self, properties: Properties) -> Result<(), MirrorError> {
        let Some(record) = self.record()? else { return Ok(()) };
        if record.properties == Some(properties) {
            return Ok(());
        }
        let record = Record { properties: Some(properties), ..record };
        self.mirror.epoch.write(&self.mirror.collections, &record_name(&self.encoded), &record)
    }

    /// The checkpoint in `.plainfold/checkpoints`, as a text; `None` if it does not exist.
    pub fn portable(&self) -> Result<Option<Vec<u8>>, MirrorError> {
        match self.mirror.ours.open_folder(layout::CHECKPOINTS)? {
            Some(folder) => folder.read_file(&record_name(&self.encoded)),
            None => Ok(None),
        }
    }

    /// Removes it.
    pub fn remove_portable(&self) -> Result<(), MirrorError> {
        self.mirror.remove_portable(&self.encoded)
    }

    /// Writes that text, if it has changed. It is not synced: a reader checks it against the tree.
    pub fn write_portable(&self, text: &str) -> Result<(), MirrorError> {
        let (epoch, name) = (&self.mirror.epoch, record_name(&self.encoded));
        let (folder, _) = epoch.open_or_rebuild(&self.mirror.ours, layout::CHECKPOINTS)?;
        if unless_disk(folder.read_file(&name))?.is_some_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        epoch.replace(&folder, &name, |mut file| {
            write_all(&mut file, [text.as_bytes(), b""])
                .map_err(|error| MirrorError::io("write", folder.path().join(&name), error))
        })
    }

    fn record(&self) -> Result<Option<Record>, MirrorError> {
        Record::read(&self.mirror.collections, &self.encoded)
    }
}

impl Collection {
    /// Refuses to write into a folder that has been replaced: everything written there would be
    /// lost.
    pub fn check_place(&self) -> Result<(), MirrorError> {
        let mirror = &self.mirror;
        match self.folder.is_at(&mirror.root, &self.encoded) {
            true => Ok(()),
            false => blame::check(mirror, &self.folder, &self.encoded),
        }
    }

    /// The same error, marked if it concerns this collection alone.
    pub fn blame_end(&self, error: MirrorError) -> MirrorError {
        match self.blame(error) {
            Ok(error) if error.is_of_collection() => error,
            Ok(error) => MirrorError::OneCollection(Box::new(error)),
            Err(error) => error,
        }
    }

    /// The error, if it concerns one document alone. Otherwise fails with the error that ends the
    /// work on the collection, or all work.
    pub fn blame(&self, error: MirrorError) -> Result<MirrorError, MirrorError> {
        if !error.may_be_of_document() {
            return Err(error);
        }
        self.mirror.epoch.check()?;
        if !blame::is_usable(&self.mirror)? {
            return Err(error);
        }
        blame::check(&self.mirror, &self.folder, &self.encoded)?;
        Ok(error)
    }
}

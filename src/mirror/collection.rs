//! One collection's folder, and the record of the source that it follows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::newcomers::Newcomers;
use super::{Mirror, blame, inventory};
use crate::document::{CollectionName, FolderIdentity, Kept, Properties};
use crate::tree::MirrorError;
use crate::tree::beneath::Folder;
use crate::tree::{layout, names};

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

/// What `.plainfold/collections/<folder>.json` says of a collection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its name as the source spells it, which a shortened folder name does not show.
    pub name: String,
    /// The source that it follows, without credentials; empty until that is known.
    #[serde(default)]
    pub source: String,
    /// Whether its attachments are mirrored; `None` in a mirror of an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<bool>,
    /// Which revisions are kept in addition to the winners.
    #[serde(default)]
    pub kept: Kept,
    /// How it was created at its source, if the source says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
}

impl Mirror {
    /// Removes what opening a new collection created, if it is still empty: the name of its source
    /// may be mistyped.
    pub fn forget_empty(&self, name: &CollectionName) -> Result<(), MirrorError> {
        let encoded = self.encode(name.as_str());
        self.epoch.check_lanes()?;
        match self.root.remove_empty(encoded.as_str())? {
            true => {
                self.epoch.remove(&self.inventories, &layout::inventory_file(encoded.as_str()))?;
                self.epoch.remove(&self.collections, &record_name(encoded.as_str()))
            }
            false => Ok(()),
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

    fn record(&self) -> Result<Option<Record>, MirrorError> {
        Record::read(&self.mirror.collections, &self.encoded)
    }
}

impl Record {
    /// Reads the record of the collection with this folder. An unreadable record counts as missing:
    /// the next run writes it again.
    pub fn read(records: &Folder, encoded: &str) -> Result<Option<Self>, MirrorError> {
        let name = record_name(encoded);
        let Some(text) = records.read_file(&name)? else { return Ok(None) };
        Ok(serde_json::from_slice(&text).ok())
    }

    /// All readable records, by the names of their files.
    pub fn all(records: &Folder) -> Result<Vec<Self>, MirrorError> {
        let mut names = records.names()?;
        names.sort_unstable();
        let folders = names.iter().filter_map(|name| name.strip_suffix(".json"));
        folders.filter_map(|encoded| Self::read(records, encoded).transpose()).collect()
    }

    /// Whether its attachments are mirrored.
    pub fn holds_attachments(&self) -> bool {
        self.attachments.unwrap_or(true)
    }
}

pub(crate) fn record_name(encoded: &str) -> String {
    format!("{encoded}.json")
}

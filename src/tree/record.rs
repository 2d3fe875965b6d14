//! The record of a collection: its name and the source that it follows.

use serde::{Deserialize, Serialize};

use super::MirrorError;
use super::beneath::Folder;
use crate::document::{Kept, Properties};

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

/// The name of the record of the collection with this folder.
pub(crate) fn record_name(encoded: &str) -> String {
    format!("{encoded}.json")
}

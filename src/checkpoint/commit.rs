//! What a commit makes durable, and how the state stores it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::document::{
    CollectionName, DocumentId, FolderIdentity, Kept, Position, Revision, Tally,
};

/// The checkpoint of one collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last position whose effects are durable in the mirror; `None` before the first, and until
    /// a scan has finished.
    pub position: Option<Position>,
    /// The reason for the full listing in progress, if any. An interrupted listing starts again.
    pub scanning: Option<String>,
    /// Whether attachments were mirrored up to this point.
    pub attachments: bool,
    /// Which revisions were kept up to this point in addition to the winners.
    #[serde(default)]
    pub kept: Kept,
    /// The time of the commit.
    pub at: Option<Timestamp>,
    /// The time when the last committed batch began to be written, set while a run may have
    /// published more than it has committed. A run that ends normally clears it.
    #[serde(default)]
    pub open_since: Option<Timestamp>,
    /// The token with which the last run that ended normally closed the inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<String>,
    /// The number of documents and tombstones in the mirror; `None` if unknown. After a run that did
    /// not end normally it is unreliable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tally: Option<Tally>,
    /// The time since which the source no longer has the collection, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vanished: Option<Timestamp>,
    /// The folder that this was committed for; `None` in a state of an older version. A copy of the
    /// mirror has another folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderIdentity>,
    /// The time of the last commit of a change; `None` if there was none since an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Timestamp>,
}

impl Checkpoint {
    /// Whether a run has read anything from the source.
    pub fn was_followed(&self) -> bool {
        self.position.is_some() || self.scanning.is_some()
    }
}

/// A document, or a row of a feed, that could not be mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The document, if its id is known.
    pub document: Option<DocumentId>,
    /// The revision that could not be mirrored, if known.
    pub revision: Option<Revision>,
    /// The place in the feed, in words.
    pub place: String,
    /// The problem, and the remedy.
    pub reason: String,
    /// The position in the feed after it, if the source gave one.
    pub position: Option<Position>,
    /// The number of attempts; 0 while it is fetched for the first time.
    pub attempts: u32,
    /// The time of the first failure.
    pub since: Timestamp,
    /// The time of the last failure.
    pub at: Timestamp,
}

impl Failure {
    /// Whether it has not failed yet: it is being fetched, or was when the last run ended.
    pub fn is_in_flight(&self) -> bool {
        self.attempts == 0
    }

    /// What sorts failures as they came: rows that failed at the same moment by their places.
    pub fn turn(&self) -> (Timestamp, usize, &str) {
        // The number at the end of a place has no leading zeros.
        (self.since, self.place.len(), &self.place)
    }

    /// The key that distinguishes it from the other failures of its collection.
    pub(super) fn key(&self) -> Vec<u8> {
        match &self.document {
            Some(id) => [b"d", id.as_str().as_bytes()].concat(),
            None => [b"p", self.place.as_bytes()].concat(),
        }
    }
}

/// A document that the source no longer holds, and the mirror still does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The document.
    pub document: DocumentId,
    /// The revision that deleted it; if it was only missing from a listing, the revision in the
    /// mirror.
    pub revision: Revision,
    /// The position of the deletion in the feed, if the feed gave one.
    pub position: Option<Position>,
    /// Whether it was missing from a listing, so that there is no tombstone.
    pub unlisted: bool,
    /// The time since which it is held back.
    pub since: Timestamp,
}

/// Everything that becomes durable in one commit.
#[derive(Debug)]
pub struct Commit {
    /// The collection's checkpoint after the commit.
    pub checkpoint: Checkpoint,
    /// Documents that failed.
    pub failed: Vec<Failure>,
    /// Documents that are now mirrored or gone, and may have failed before.
    pub mended: Vec<DocumentId>,
    /// Removes all earlier failures of the collection: everything is being read again.
    pub forget_failures: bool,
    /// Deletions that are held back.
    pub held: Vec<HeldBack>,
    /// Documents whose deletion is no longer held back, if it was.
    pub unheld: Vec<DocumentId>,
}

impl Commit {
    /// A commit of a checkpoint alone.
    pub fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            failed: Vec::new(),
            mended: Vec::new(),
            forget_failures: false,
            held: Vec::new(),
            unheld: Vec::new(),
        }
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, sled::Error> {
    serde_json::to_vec(value).map_err(|error| sled::Error::Unsupported(error.to_string()))
}

/// Collection names contain any character, so each key starts with the length of the name.
pub(super) fn prefix(name: &CollectionName) -> Vec<u8> {
    let mut prefix = (name.as_str().len() as u64).to_be_bytes().to_vec();
    prefix.extend_from_slice(name.as_str().as_bytes());
    prefix
}

pub(super) fn failure_key(name: &CollectionName, key: &[u8]) -> Vec<u8> {
    let mut whole = prefix(name);
    whole.extend_from_slice(key);
    whole
}

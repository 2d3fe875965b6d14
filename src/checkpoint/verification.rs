//! What is known of the bytes of a collection: how far they have been verified, and what was found.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::commit::encode;
use super::{Checkpoints, StateError};
use crate::document::CollectionName;

/// What verifications have found of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verification {
    /// When the last complete verification ended.
    pub at: Option<Timestamp>,
    /// When that one had begun.
    pub from: Option<Timestamp>,
    /// When the present one began, if one is under way.
    pub begun: Option<Timestamp>,
    /// The last name that the present one has read.
    pub after: Option<String>,
    /// The number of damaged documents.
    pub damaged: u64,
    /// The names of some of their folders, each with its first problem.
    pub names: Vec<(String, String)>,
}

impl Checkpoints {
    /// What is known of the bytes of a collection. An unreadable record counts as missing.
    pub fn verification(&self, name: &CollectionName) -> Result<Verification, StateError> {
        let text = self.read(|trees| trees.verifications.get(name.as_str()))?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    /// Notes it. It becomes durable with a later commit, or when the state is closed, or not at all: then some
    /// documents are verified once more.
    pub fn note_verification(
        &self,
        name: &CollectionName,
        verification: &Verification,
    ) -> Result<(), StateError> {
        self.check_room(&*self.store()?)?;
        let text = encode(verification).map_err(|error| self.failed(error))?;
        let name = name.as_str().to_owned();
        self.write(move |trees| trees.verifications.insert(name, text)).map(drop)
    }
}

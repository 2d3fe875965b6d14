//! Cursors as values, and those of a state in memory: they are few, so asking for them never waits for the
//! disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::StateError;
use super::journal::JournalRange;
use super::store::StateStore;
use crate::document::{CollectionName, CursorName};

/// The most cursors of a mirror. Each is a label of a metric.
pub const MOST_CURSORS: usize = 100;

/// The events that a subscriber wants; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CursorFilter {
    /// Only events of this collection.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub collection: Option<CollectionName>,
    /// Only events of documents whose ids match this glob.
    #[serde(default)]
    pub id: Option<String>,
}

/// A cursor as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub acknowledged: u64,
    #[serde(flatten)]
    pub filter: CursorFilter,
    pub created_at: Timestamp,
    pub acknowledged_at: Option<Timestamp>,
}

/// How far a subscriber is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CursorStatus {
    /// The name of the cursor.
    pub cursor: CursorName,
    /// The number of the last event that was acknowledged, or after which the cursor began.
    pub acknowledged: u64,
    /// How many numbers of events come after it, whatever its filter.
    pub behind: u64,
    /// The numbers after it that the journal no longer holds, if any.
    pub expired: Option<JournalRange>,
    /// Which events its subscriber wants.
    #[serde(flatten)]
    pub filter: CursorFilter,
    /// When it was created.
    pub created_at: Timestamp,
    /// When an event was last acknowledged.
    pub acknowledged_at: Option<Timestamp>,
}

/// Where a new cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorStart {
    /// With the next event.
    Now,
    /// With the oldest event in the journal.
    Oldest,
    /// After the event with this number.
    After(u64),
}

/// Why a cursor was not created or moved.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no such cursor.
    #[error("there is no cursor `{0}`")]
    Unknown(CursorName),
    /// There are too many.
    #[error(
        "the mirror has {MOST_CURSORS} cursors, and can have no more: remove one that nobody uses"
    )]
    TooMany,
    /// It exists with another filter.
    #[error(
        "the cursor `{0}` exists with another filter: take another name, or remove the cursor first"
    )]
    Differs(CursorName),
    /// The mirror has not emitted that event.
    #[error("the mirror has emitted no event {event}: the last one is {last}")]
    Beyond {
        /// The number.
        event: u64,
        /// The last number.
        last: u64,
    },
}

/// All cursors of a state.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    held: Mutex<BTreeMap<CursorName, Cursor>>,
    /// Held while one is changed, until that is durable.
    writing: Mutex<()>,
}

impl Cursors {
    /// Those in the store.
    pub fn load(&self, store: &StateStore) {
        let read = store.read(|trees| {
            let mut found = BTreeMap::new();
            for entry in &trees.cursors {
                let (key, value) = entry?;
                let name = str::from_utf8(&key).ok().and_then(|name| name.parse().ok());
                let cursor = serde_json::from_slice::<Cursor>(&value).ok();
                found.extend(name.zip(cursor));
            }
            Ok(found)
        });
        // A store that cannot be read fails all that reads it.
        *self.held() = read.ok().and_then(Result::ok).unwrap_or_default();
    }

    /// All, for a moment.
    pub fn held(&self) -> MutexGuard<'_, BTreeMap<CursorName, Cursor>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of them.
    pub fn get(&self, name: &CursorName) -> Option<Cursor> {
        self.held().get(name).cloned()
    }

    /// Held while one is changed, until that is durable.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

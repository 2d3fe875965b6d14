//! Cursors: which events a subscriber with a name has acknowledged.
//!
//! They are few, and also in memory, so that asking for them never waits for the disk. A cursor keeps no
//! event in the journal.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::commit::encode;
use super::store::StateStore;
use super::{Checkpoints, JournalRange, StateError};
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
struct Cursor {
    acknowledged: u64,
    #[serde(flatten)]
    filter: CursorFilter,
    created_at: Timestamp,
    acknowledged_at: Option<Timestamp>,
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
    /// Held by whoever changes one, until that is durable.
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
        // A store that cannot be read fails whoever reads anything else in it.
        *self.held() = read.ok().and_then(Result::ok).unwrap_or_default();
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<CursorName, Cursor>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: &CursorName) -> Option<Cursor> {
        self.held().get(name).cloned()
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkpoints {
    /// All cursors, by name. Reads no disk.
    pub fn cursors(&self) -> Vec<CursorStatus> {
        let held = self.cursors.held().clone();
        held.into_iter().map(|(name, cursor)| self.cursor_status(name, cursor)).collect()
    }

    /// One cursor. Reads no disk.
    pub fn cursor(&self, name: &CursorName) -> Option<CursorStatus> {
        let cursor = self.cursors.get(name)?;
        Some(self.cursor_status(name.clone(), cursor))
    }

    /// Creates a cursor durably, and says whether it did. If it exists with this filter, it stays where it is.
    pub fn create_cursor(
        &self,
        name: &CursorName,
        start: CursorStart,
        filter: CursorFilter,
    ) -> Result<(CursorStatus, bool), CursorError> {
        let _changing = self.cursors.changing();
        if let Some(cursor) = self.cursors.get(name) {
            return match cursor.filter == filter {
                true => Ok((self.cursor_status(name.clone(), cursor), false)),
                false => Err(CursorError::Differs(name.clone())),
            };
        }
        if self.cursors.held().len() >= MOST_CURSORS {
            return Err(CursorError::TooMany);
        }
        let last = self.last_number();
        let acknowledged = match start {
            CursorStart::Now => last,
            CursorStart::Oldest => self.before_journal(),
            CursorStart::After(event) if event > last => {
                return Err(CursorError::Beyond { event, last });
            }
            CursorStart::After(event) => event,
        };
        let created_at = Timestamp::now();
        let cursor = Cursor { acknowledged, filter, created_at, acknowledged_at: None };
        Ok((self.write_cursor(name, cursor)?, true))
    }

    /// Records durably that all events up to this one are acknowledged. A cursor never goes back.
    pub fn acknowledge(&self, name: &CursorName, event: u64) -> Result<CursorStatus, CursorError> {
        let _changing = self.cursors.changing();
        let cursor = self.cursors.get(name).ok_or_else(|| CursorError::Unknown(name.clone()))?;
        let last = self.last_number();
        if event > last {
            return Err(CursorError::Beyond { event, last });
        }
        if event <= cursor.acknowledged {
            return Ok(self.cursor_status(name.clone(), cursor));
        }
        let acknowledged_at = Some(Timestamp::now());
        Ok(self.write_cursor(name, Cursor { acknowledged: event, acknowledged_at, ..cursor })?)
    }

    /// Removes a cursor durably. Returns what it was.
    pub fn remove_cursor(&self, name: &CursorName) -> Result<CursorStatus, CursorError> {
        let _changing = self.cursors.changing();
        let cursor = self.cursors.get(name).ok_or_else(|| CursorError::Unknown(name.clone()))?;
        let key = name.as_str().to_owned();
        self.write(move |trees| trees.cursors.remove(key))?;
        self.flush()?;
        self.cursors.held().remove(name);
        Ok(self.cursor_status(name.clone(), cursor))
    }

    fn write_cursor(&self, name: &CursorName, cursor: Cursor) -> Result<CursorStatus, StateError> {
        self.check_room(&*self.store()?)?;
        let text = encode(&cursor).map_err(|error| self.failed(error))?;
        let key = name.as_str().to_owned();
        self.write(move |trees| trees.cursors.insert(key, text))?;
        self.flush()?;
        self.cursors.held().insert(name.clone(), cursor.clone());
        Ok(self.cursor_status(name.clone(), cursor))
    }

    fn cursor_status(&self, name: CursorName, cursor: Cursor) -> CursorStatus {
        let Cursor { acknowledged, filter, created_at, acknowledged_at } = cursor;
        let last = self.last_number();
        let left = self.before_journal();
        let expired = JournalRange { first: acknowledged + 1, last: left };
        CursorStatus {
            cursor: name,
            acknowledged,
            behind: last.saturating_sub(acknowledged),
            expired: Some(expired).filter(|gap| gap.first <= gap.last),
            filter,
            created_at,
            acknowledged_at,
        }
    }

    /// The number up to which the journal holds no event any more. Reads no disk.
    pub fn before_journal(&self) -> u64 {
        match self.first.load(Ordering::Acquire) {
            0 => self.last_number(),
            first => first - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{commit_events, open};
    use super::super::{Bounds, Copied};
    use super::*;

    fn name(text: &str) -> CursorName {
        text.parse().unwrap()
    }

    fn all() -> CursorFilter {
        CursorFilter::default()
    }

    #[test]
    fn a_cursor_is_there_after_a_restart_and_in_a_copy_and_never_goes_back_or_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (indexer, only) = (name("indexer"), name("only"));
        let filter = CursorFilter { collection: Some("books".into()), id: Some("a*".to_owned()) };
        {
            let state = open(&path);
            commit_events(&state, 5);
            let (made, is_new) = state.create_cursor(&indexer, CursorStart::Oldest, all()).unwrap();
            assert_eq!((made.acknowledged, made.behind, is_new), (0, 5, true));
            let (made, _) = state.create_cursor(&only, CursorStart::Now, filter.clone()).unwrap();
            assert_eq!((made.acknowledged, made.behind), (5, 0));
            assert_eq!(state.acknowledge(&indexer, 3).unwrap().behind, 2);
            assert_eq!(state.acknowledge(&indexer, 2).unwrap().acknowledged, 3);
            let beyond = state.acknowledge(&indexer, 6).unwrap_err();
            assert!(matches!(beyond, CursorError::Beyond { event: 6, last: 5 }), "{beyond}");
            let (same, is_new) =
                state.create_cursor(&indexer, CursorStart::After(1), all()).unwrap();
            assert_eq!((same.acknowledged, is_new), (3, false));
            let other = state.create_cursor(&indexer, CursorStart::Now, filter.clone());
            assert!(matches!(other, Err(CursorError::Differs(_))));
            let beyond = state.create_cursor(&name("x"), CursorStart::After(6), all());
            assert!(matches!(beyond, Err(CursorError::Beyond { .. })));
        }
        let copied = Copied::open(&path).unwrap();
        let cursors = copied.state.cursors();
        assert_eq!((cursors[0].acknowledged, &cursors[1].filter), (3, &filter));
        drop(copied);
        let state = open(&path);
        assert_eq!(state.cursors().len(), 2);
        assert_eq!(state.cursor(&indexer).unwrap().acknowledged, 3);
        assert_eq!(state.remove_cursor(&indexer).unwrap().acknowledged, 3);
        assert!(matches!(state.remove_cursor(&indexer), Err(CursorError::Unknown(_))));
        assert!(matches!(state.acknowledge(&indexer, 1), Err(CursorError::Unknown(_))));
        // sled has failed, and is opened again.
        drop(state.failed(sled::Error::Unsupported("a fault".into())));
        state.recover().unwrap();
        assert_eq!(state.cursors().len(), 1);
    }

    #[test]
    fn a_cursor_says_which_events_have_left_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let bounds = Bounds { events: 100, ..Bounds::DEFAULT };
        let state = Checkpoints::open(&path, bounds).unwrap().state;
        let late = name("late");
        commit_events(&state, 10);
        state.create_cursor(&late, CursorStart::After(10), all()).unwrap();
        for _ in 0..9 {
            commit_events(&state, 10);
        }
        let status = state.cursor(&late).unwrap();
        assert_eq!((status.behind, status.expired), (90, None));
        for _ in 0..10 {
            commit_events(&state, 10);
        }
        let status = state.cursor(&late).unwrap();
        let gap = JournalRange { first: 11, last: 100 };
        assert_eq!((status.behind, status.expired), (190, Some(gap)));
        let (oldest, _) = state.create_cursor(&name("new"), CursorStart::Oldest, all()).unwrap();
        assert_eq!((oldest.acknowledged, oldest.expired), (100, None));
        assert_eq!(state.acknowledge(&late, 150).unwrap().expired, None);
    }

    #[test]
    fn there_are_so_many_cursors_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(&dir.path().join("state"));
        for number in 0..MOST_CURSORS {
            let name = name(&format!("c{number}"));
            state.create_cursor(&name, CursorStart::Now, all()).unwrap();
        }
        let more = state.create_cursor(&name("more"), CursorStart::Now, all());
        assert!(matches!(more, Err(CursorError::TooMany)));
        assert!(!state.create_cursor(&name("c5"), CursorStart::Now, all()).unwrap().1);
    }
}

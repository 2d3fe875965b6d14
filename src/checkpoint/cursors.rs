//! Cursors: which events a subscriber with a name has acknowledged. A cursor keeps no event in the journal.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::commit::encode;
use super::cursor::{Cursor, CursorError, CursorFilter, CursorStart, CursorStatus, MOST_CURSORS};
use super::{Checkpoints, JournalRange, StateError};
use crate::document::CursorName;

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

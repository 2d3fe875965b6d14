//! What is known of how old a copy is: when the source was heard, when a commit was durable, how far behind
//! the source says the copy is. All in moments of the machine, so that everything gets older by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::clock::Moment;
use crate::document::Position;
use crate::source::Behind;

/// What this process knows of how old the copy of a collection is.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// When the source was last heard.
    pub heard: Option<Moment>,
    /// When something of the collection was last committed.
    pub committed: Option<Moment>,
    /// The same of an earlier process.
    pub committed_at: Option<Timestamp>,
    /// The time of the last commit of a change.
    pub changed_at: Option<Timestamp>,
    /// When the mirror was last known to hold everything that the source held.
    pub current: Option<Moment>,
    /// What the source last said of the distance to its end.
    pub stated: Option<Stated>,
    /// The position of the checkpoint.
    pub position: Option<Position>,
}

/// How far a position is behind the source's end, by the source's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// How far.
    pub behind: Behind,
    /// When it was said.
    pub at: Moment,
    /// The number of rows that had come by then.
    pub rows: u64,
}

impl Evidence {
    /// The mirror holds everything that the source held at a moment.
    pub fn be_current(&mut self, at: Moment) {
        self.current = self.current.max(Some(at));
    }

    /// The source was heard at a moment.
    pub fn hear(&mut self, at: Moment) {
        self.heard = self.heard.max(Some(at));
    }
}

/// The end of the source, as it passes through a pipeline behind the rows before it.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// Everything that the source held then is before this.
    pub at: Moment,
    /// The number of rows that had come by then; `None` if more of them are known.
    rows: Option<u64>,
}

impl Reached {
    /// More rows have come.
    pub fn passed(self) -> Self {
        Self { rows: None, ..self }
    }

    /// What the source has said by being at its end, if it counts like this.
    pub fn stated(self, nothing: Option<Behind>) -> Option<Stated> {
        Some(Stated { behind: nothing?, at: self.at, rows: self.rows? })
    }
}

/// Hears the source for a pipeline. Cheap enough for each row and each piece of an attachment.
#[derive(Clone, Debug, Default)]
pub struct Ear(Arc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// Milliseconds of the last moment; 0 before the first.
    last: AtomicU64,
    /// How many rows have come.
    rows: AtomicU64,
    /// After this many rows, everything has come that the source held then.
    goal: Mutex<Option<(u64, Moment)>>,
}

impl Ear {
    /// Something came from the source.
    pub fn hear(&self) {
        self.0.last.fetch_max(Moment::now().millis(), Ordering::Relaxed);
    }

    /// A row came.
    pub fn hear_row(&self) {
        self.hear();
        self.0.rows.fetch_add(1, Ordering::Relaxed);
    }

    /// When something came last.
    pub fn last(&self) -> Option<Moment> {
        Some(self.0.last.load(Ordering::Relaxed)).filter(|last| *last > 0).map(Moment::at)
    }

    /// How many rows have come.
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::Relaxed)
    }

    /// The source is at its end now.
    pub fn at_end(&self) -> Reached {
        Reached { at: Moment::now(), rows: Some(self.rows()) }
    }

    /// After this many rows in all, everything has come that the source held at a moment.
    pub fn expect(&self, rows: u64, at: Moment) {
        *self.0.goal.lock().unwrap_or_else(PoisonError::into_inner) = Some((rows, at));
    }

    /// The feed is opened again, and may bring rows twice.
    pub fn expect_nothing(&self) {
        *self.0.goal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The end that was expected, once it has been passed.
    pub fn passes(&self) -> Option<Reached> {
        let mut goal = self.0.goal.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, at) = goal.take_if(|(rows, _)| *rows <= self.rows())?;
        Some(Reached { at, rows: None })
    }

    /// What this has heard, put into what else is known.
    pub fn completes(&self, mut evidence: Evidence) -> Evidence {
        evidence.heard = evidence.heard.max(self.last());
        // What came since may be newer than what is in the mirror.
        let rows = self.rows();
        evidence.stated = evidence.stated.and_then(|stated| match stated.behind {
            _ if stated.rows == rows => Some(stated),
            Behind::Changes(0) => {
                Some(Stated { behind: Behind::Changes(rows.saturating_sub(stated.rows)), ..stated })
            }
            Behind::Bytes(0) => None,
            _ => Some(stated),
        });
        evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_came_later_is_missing() {
        let ear = Ear::default();
        ear.hear_row();
        let nothing = Some(Behind::Changes(0));
        let known = Evidence { stated: ear.at_end().stated(nothing), ..Evidence::default() };
        assert!(ear.completes(known.clone()).stated.is_some());
        ear.hear_row();
        let behind = |known: &Evidence| ear.completes(known.clone()).stated.map(|one| one.behind);
        assert_eq!(behind(&known), Some(Behind::Changes(1)));
        let bytes = known.stated.map(|one| Stated { behind: Behind::Bytes(0), ..one });
        assert_eq!(behind(&Evidence { stated: bytes, ..known.clone() }), None);
        assert!(ear.at_end().passed().stated(nothing).is_none());
        let late = Evidence {
            stated: known.stated.map(|one| Stated { behind: Behind::Changes(7), ..one }),
            ..known
        };
        assert_eq!(behind(&late), Some(Behind::Changes(7)), "seven were missing then");
    }

    #[test]
    fn an_end_that_was_stated_is_passed_after_as_many_rows() {
        let (ear, at) = (Ear::default(), Moment::at(5));
        ear.expect(2, at);
        ear.hear_row();
        assert!(ear.passes().is_none());
        ear.hear_row();
        assert_eq!(ear.passes().map(|end| end.at), Some(at));
        assert!(ear.passes().is_none(), "it is passed once");
    }

    #[test]
    fn what_is_heard_never_goes_back() {
        let mut known = Evidence::default();
        known.hear(Moment::at(9));
        known.hear(Moment::at(3));
        known.be_current(Moment::at(7));
        known.be_current(Moment::at(2));
        assert_eq!((known.heard, known.current), (Some(Moment::at(9)), Some(Moment::at(7))));
        assert_eq!(Ear::default().completes(known).heard, Some(Moment::at(9)));
    }
}

//! What is known of a database from one reading of its feed to the next.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::live::Live;
use crate::client::couchdb::Database;
use crate::document::Kept;
use crate::source::couchdb::lookup::TooLarge;
use crate::source::couchdb::options::Timings;

/// A database, and what its readings have shown.
#[derive(Debug)]
pub(in crate::source::couchdb) struct KnownDatabase {
    pub database: Database,
    /// What is read beside the winning revisions.
    pub kept: Kept,
    pub timings: Timings,
    /// The documents that are known to be too large.
    pub large: TooLarge,
    /// Whether damage on the network is suspected.
    pub(super) trust: Trust,
    /// Where the feed breaks off.
    pub(super) stuck: Stuck,
    /// Whether the live feed arrives as it is sent.
    pub(super) live: Live,
    /// The number of documents that the database counted last; `u64::MAX` before it was asked.
    counted: AtomicU64,
}

impl KnownDatabase {
    /// A database of which nothing is known.
    pub fn new(database: Database, kept: Kept, timings: Timings) -> Self {
        let (large, trust, stuck, live) = Default::default();
        let counted = AtomicU64::new(u64::MAX);
        Self { database, kept, timings, large, trust, stuck, live, counted }
    }

    /// The number of documents that the database counted last.
    pub fn counted(&self) -> Option<u64> {
        Some(self.counted.load(Ordering::Relaxed)).filter(|count| *count != u64::MAX)
    }

    /// The database has counted its documents.
    pub(super) fn note_count(&self, count: u64) {
        self.counted.store(count, Ordering::Relaxed);
    }
}

/// Whether damage on the network is suspected. A row that is not JSON may have been damaged in transit, and
/// others with it. A document may fail because the server is about to fail.
#[derive(Debug, Default)]
pub(super) struct Trust(AtomicBool);

impl Trust {
    /// Whether the feed is to be read again to find out: once, until it has been read to its end.
    pub fn doubts(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// The feed has been read to its end.
    pub fn renew(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Where the feed was opened last, and how often.
#[derive(Debug, Default)]
pub(super) struct Stuck(Mutex<Option<Opened>>);

#[derive(Clone, Debug)]
struct Opened {
    place: Option<Arc<str>>,
    /// How often it was opened there before.
    tried: u32,
    /// How often it has been opened since it was at its end.
    times: u32,
}

impl Stuck {
    /// How often the feed was opened here and broke off, without having got ahead.
    pub fn tried(&self, since: Option<&str>) -> u32 {
        match self.opened() {
            Some(Opened { place, tried, .. }) if place.as_deref() == since => tried + 1,
            // A feed that was stuck once may be stuck again.
            Some(Opened { tried, .. }) => tried.min(1),
            None => 0,
        }
    }

    /// How many rows may stand between two with positions: fewer after each break, because these rows are
    /// read again.
    pub fn interval(&self, most: u64) -> u64 {
        let times = self.opened().map_or(0, |opened| opened.times);
        (most >> times.saturating_mul(2).min(63)).max(1)
    }

    /// It has been opened here.
    pub fn note(&self, since: Option<&str>, tried: u32) {
        let times = self.opened().map_or(0, |opened| opened.times) + 1;
        let opened = Opened { place: since.map(Arc::from), tried, times };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
    }

    fn opened(&self) -> Option<Opened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has been read to its end.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_was_stuck_and_got_ahead_goes_in_small_steps_to_its_end() {
        let stuck = Stuck::default();
        assert_eq!(stuck.tried(None), 0);
        for tried in 0..3 {
            assert_eq!(stuck.tried(Some("1")), tried);
            stuck.note(Some("1"), tried);
        }
        assert_eq!(stuck.tried(Some("2")), 1, "it remembers that it was stuck");
        assert!(stuck.interval(1000) < 1000 && stuck.interval(1) == 1);
        stuck.clear();
        assert_eq!((stuck.tried(Some("2")), stuck.interval(1000)), (0, 1000));
    }
}

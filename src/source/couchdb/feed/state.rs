//! What one reading of a feed knows, and how far it has come.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::known::KnownDatabase;
use super::live::Heard;
use crate::document::{Anchor, Position};
use crate::source::couchdb::bound::Bound;
use crate::source::couchdb::origin::{Origin, Recent};
use crate::source::couchdb::reader::Reader;
use crate::source::{FeedEvent, Mode, Progress, Since};

/// In a catch-up only one row in this many has a position, which makes CouchDB 1.5 times as fast. The rows
/// since the last position are read again if the connection breaks.
pub(super) const MOST_UNPLACED_ROWS: u64 = 1000;

/// How far the reading of a feed has come.
pub(super) enum State {
    /// Nothing has been requested yet.
    Opening(Since),
    /// A normal feed is open and is read to its end.
    CatchingUp(Box<CatchUp>),
    /// Everything up to `Feed::token` has been read, and no feed is open.
    AtEnd,
    /// A continuous feed is open.
    Following(Box<Reader>),
    /// The stream has ended.
    Over,
}

/// A normal feed that is being read.
pub(super) struct CatchUp {
    pub reader: Reader,
    /// The position whose own row must come first, if the feed was opened just before it.
    pub recognise: Option<Position>,
    /// `Some` if it is read because a proxy would hold back a continuous feed: whether it brought a row.
    pub poll: Option<bool>,
}

/// One reading of the feed of a database.
pub(super) struct Feed {
    pub source: Arc<KnownDatabase>,
    pub mode: Mode,
    pub origin: Origin,
    /// Whether the feed is read as a full listing.
    pub scan: bool,
    /// The last position that the feed gave.
    pub token: Option<Arc<str>>,
    /// The last change that the feed brought.
    pub last: Option<Anchor>,
    /// The last changes.
    pub recent: Recent,
    /// The number of changes when they were last noted within the feed.
    pub noted: u64,
    /// How far a feed from the beginning is.
    pub progress: Option<Progress>,
    /// Whether rows have come since we were last caught up.
    pub fresh: bool,
    /// How many rows of a catch-up stand between two that tell their place.
    pub interval: u64,
    /// When the database was last asked whether it is still the same.
    pub checked: Instant,
    /// The database's `update_seq` in its last answer.
    pub told: Option<Box<str>>,
    /// Whether the counts are to be read again, because something was written meanwhile.
    pub check_again: bool,
    /// How much a catch-up may bring.
    pub bound: Bound,
    /// Whether the last document that was read apart took too long.
    pub hurried: bool,
    /// The position from which the feed was last opened.
    pub opened_at: Option<Arc<str>>,
    /// What a continuous feed has brought.
    pub heard: Heard,
    /// Of a feed without bodies: how many rows of it are still read.
    pub bare: Option<u32>,
    /// Events that are yielded before anything else is done.
    pub ready: VecDeque<FeedEvent>,
    pub state: State,
}

impl Feed {
    /// A reading that has not begun.
    pub fn new(source: Arc<KnownDatabase>, since: Since, mode: Mode) -> Self {
        Self {
            source,
            mode,
            origin: Origin::counting(),
            scan: false,
            token: None,
            last: None,
            recent: Recent::default(),
            noted: 0,
            progress: None,
            fresh: false,
            interval: MOST_UNPLACED_ROWS,
            checked: Instant::now(),
            told: None,
            check_again: false,
            bound: Bound::default(),
            hurried: false,
            opened_at: None,
            heard: Heard::default(),
            bare: None,
            ready: VecDeque::new(),
            state: State::Opening(since),
        }
    }

    /// Lets positions within the feed note the last changes, if that many have come since they last did.
    pub fn note(&mut self, rows: u64) {
        if self.recent.newest() >= self.noted.saturating_add(rows) {
            self.noted = self.recent.newest();
            self.origin.remember(&self.recent);
        }
    }
}

//! How many rows a feed may bring before it is one without an end.
//!
//! A normal feed brings each document once. One that repeats itself for ever would never be caught
//! up with. It must not know what is in a row but its place.

use super::origin::Origin;
use super::row::Row;
use crate::client::couchdb::DatabaseInfo;

/// So many rows more than expected may come: documents are written meanwhile, and a cluster may
/// rewind.
const SLACK: u64 = 10_000;

/// What one opening of a normal feed may bring.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// How many rows, where the database told.
    most: Option<u64>,
    /// Rows so far.
    rows: u64,
    /// The highest place so far, where places are numbers.
    highest: u64,
    /// Rows whose place was no higher.
    repeated: u64,
}

impl Bound {
    /// What a database that says this of itself may bring.
    pub fn of(info: &DatabaseInfo, origin: &Origin) -> Self {
        let documents = info.changes();
        // Some servers do not tell how many there are.
        let told = documents > 0 && !origin.counts();
        let most = told.then(|| documents.saturating_mul(2).saturating_add(SLACK));
        Self { most, ..Self::default() }
    }

    /// Counts a row. Says what is wrong, once there are too many.
    pub fn passed_by(&mut self, row: &Row, counts: bool) -> Option<String> {
        self.rows += 1;
        let place = row.position().and_then(|position| position.token().parse().ok());
        match place.filter(|place| *place > self.highest) {
            Some(place) => self.highest = place,
            None => self.repeated += u64::from(counts),
        }
        let many = self.most.is_some_and(|most| self.rows > most);
        (many || self.repeated > SLACK).then(|| {
            let rows = self.rows;
            format!(
                "its feed repeats itself: it brought {rows} rows, more than it can have changes. \
                 Look at the server, and at proxies before it"
            )
        })
    }
}

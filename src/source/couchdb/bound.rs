//! The number of rows after which a normal feed counts as endless.
//!
//! A normal feed brings each document once. A catch-up with a feed that repeats itself without end
//! would never end.

use super::origin::Origin;
use super::row::Row;
use crate::client::couchdb::DatabaseInfo;

/// This many rows more than expected may come: documents are written meanwhile, and a cluster may rewind.
const SLACK: u64 = 10_000;

/// What one opening of a normal feed may bring.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// The expected number of rows, if the database gave one.
    most: Option<u64>,
    /// Rows so far.
    rows: u64,
    /// The highest place so far, where places are numbers.
    highest: u64,
    /// Rows whose place was no higher.
    repeated: u64,
}

impl Bound {
    /// The bound for a database with these properties.
    pub fn of(info: &DatabaseInfo, origin: &Origin) -> Self {
        let documents = info.changes();
        // Some servers do not give the number of documents.
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

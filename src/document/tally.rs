//! Numbers of documents and tombstones, or differences of such numbers.
//!
//! Pure.

use std::ops::{AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// Counts of documents and of tombstones; negative where fewer are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Documents that are not deleted.
    pub documents: i64,
    /// Tombstones of deleted documents.
    pub tombstones: i64,
}

impl Tally {
    /// One document, or one tombstone.
    pub fn one(deleted: bool) -> Self {
        Self { documents: i64::from(!deleted), tombstones: i64::from(deleted) }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.documents += more.documents;
        self.tombstones += more.tombstones;
    }
}

impl Sub for Tally {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            documents: self.documents - other.documents,
            tombstones: self.tombstones - other.tombstones,
        }
    }
}

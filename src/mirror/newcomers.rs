//! The documents that a collection certainly does not hold, if it was empty when it was opened.
//!
//! Looking for a missing folder costs more than creating it: the directory is locked against the
//! renames of another thread. In the first catch-up nearly every document is new, so a Bloom filter
//! remembers the names that were seen. It errs on one side only: a name that it wrongly reports as
//! seen is looked up in the tree, as in every other collection.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// 2 MiB, of which only the pages are allocated that a name has touched: a server may have thousands of
/// small databases. With a million names in it, it wrongly reports two in a thousand new names as seen;
/// with ten million it helps little, and does no harm.
const WORDS: usize = 256 * 1024;

/// The words of a page.
const PAGE: usize = 256;

type Page = Box<[u64; PAGE]>;

/// Bits per name.
const BITS: u64 = 4;

/// The names that a collection has seen since it was opened empty.
#[derive(Debug)]
pub(super) struct Newcomers {
    pages: Mutex<Vec<Option<Page>>>,
    hasher: RandomState,
}

impl Newcomers {
    /// A filter for an empty collection.
    pub fn new() -> Self {
        Self { pages: Mutex::new(vec![None; WORDS / PAGE]), hasher: RandomState::new() }
    }

    /// Whether this name is certainly seen for the first time. Marks it as seen.
    pub fn welcome(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let (start, stride) = (hash >> 32, hash | 1);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = true;
        for step in 0..BITS {
            let bit = start.wrapping_add(stride.wrapping_mul(step)) % (WORDS as u64 * 64);
            let at = (bit / 64) as usize;
            let page = pages[at / PAGE].get_or_insert_with(|| Box::new([0; PAGE]));
            let word = &mut page[at % PAGE];
            known &= *word >> (bit % 64) & 1 == 1;
            *word |= 1 << (bit % 64);
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_new_twice() {
        let newcomers = Newcomers::new();
        for number in 0..10_000 {
            newcomers.welcome(&format!("doc-{number}"));
        }
        assert!((0..10_000).all(|number| !newcomers.welcome(&format!("doc-{number}"))));
    }

    #[test]
    fn nearly_every_one_of_a_million_names_is_seen_to_be_new() {
        let newcomers = Newcomers::new();
        let doubtful =
            (0..1_000_000).filter(|number| !newcomers.welcome(&format!("{number}"))).count();
        assert!(doubtful < 2_000, "{doubtful}");
    }
}

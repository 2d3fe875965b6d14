//! Which documents a collection that was empty when it was opened surely does not hold.
//!
//! To look for a folder that is not there costs more than to make it: the directory is locked
//! against the renames that another thread does in it. In the first catch-up nearly every document
//! is new, so a Bloom filter remembers the names that came by. It errs on one side only: a name
//! that it takes for known is looked for in the tree, as all names are in other collections. It must
//! not know the file system, nor what is planned for a name.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// 2 MiB, of which the system gives only what is touched. With a million names in it, two in a
/// thousand new ones are taken for known; with ten million it is of little use, and does no harm.
const WORDS: usize = 256 * 1024;

/// Bits a name.
const BITS: u64 = 4;

/// The names that a collection has met since it was opened, empty.
#[derive(Debug)]
pub(super) struct Newcomers {
    words: Mutex<Vec<u64>>,
    hasher: RandomState,
}

impl Newcomers {
    /// Of a collection that holds nothing.
    pub fn new() -> Self {
        Self { words: Mutex::new(vec![0; WORDS]), hasher: RandomState::new() }
    }

    /// Whether this name surely comes by for the first time. From now on it does not.
    pub fn welcome(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let (start, stride) = (hash >> 32, hash | 1);
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = true;
        for step in 0..BITS {
            let bit = start.wrapping_add(stride.wrapping_mul(step)) % (WORDS as u64 * 64);
            let word = &mut words[(bit / 64) as usize];
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

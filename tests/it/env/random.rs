//! Chance that can be repeated: a seed that is printed, and set by `PLAINFOLD_TEST_SEED`.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64: small, and good enough to choose moments and documents.
pub struct Random(u64);

impl Random {
    /// Seeded from the environment, or from the clock. The seed is printed, so that the output of
    /// a failed test says how to repeat it.
    pub fn from_environment() -> Self {
        let seed = match std::env::var("PLAINFOLD_TEST_SEED") {
            Ok(text) => text.parse().expect("PLAINFOLD_TEST_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64,
        };
        eprintln!("PLAINFOLD_TEST_SEED={seed} repeats this run");
        Self(seed)
    }

    /// The same numbers every time.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Bytes that no compressor makes smaller.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

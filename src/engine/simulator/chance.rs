//! The simulator's random numbers, which depend on the seed alone.
//! Does not know what they decide.

use std::time::Duration;

use super::MS;

/// A generator of random numbers (splitmix64).
#[derive(Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit.max(1)
    }

    /// True `of` times out of `all`.
    pub fn chance(&mut self, of: u64, all: u64) -> bool {
        self.below(all) < of
    }

    /// A duration from `from` to below `to` milliseconds.
    pub fn ms(&mut self, from: u64, to: u64) -> Duration {
        MS * (from + self.below(to - from)) as u32
    }
}

//! Random numbers that can be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A sequence of numbers that a seed determines. The seed is printed, so that a failed run can be
/// repeated.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The variable that sets the seed; without it the clock does.
    pub const SEED: &str = "SANDBOXED_DB_TESTS_SEED";

    /// Prints the seed; libtest shows it when the test fails.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a failed test shows it")]
    pub fn new() -> Self {
        let given = std::env::var(Self::SEED).ok().map(|seed| seed.parse().expect("a seed is a number"));
        let now =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()));
        let seed = given.unwrap_or_else(now);
        eprintln!("{}={seed}", Self::SEED);
        Self(seed)
    }

    /// Returns a time below `limit`.
    #[must_use]
    pub fn below(&mut self, limit: Duration) -> Duration {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((bits ^ (bits >> 31)) >> 32).unwrap_or(0);
        limit.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }

    /// Returns a time in part `part` of `parts` equal ones of `limit`: few moments meet all phases
    /// too.
    #[must_use]
    pub fn within(&mut self, limit: Duration, part: u32, parts: u32) -> Duration {
        limit / parts * part + self.below(limit / parts)
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

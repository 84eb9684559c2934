//! Random numbers that can be had again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Numbers that follow from a seed, which is told, so that a failed run can be repeated with it.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// The seed is taken from this variable, and else from the clock.
    pub const SEED: &str = "SANDBOXED_DB_TESTS_SEED";

    /// Tells the seed; libtest shows it when the test fails.
    ///
    /// # Panics
    /// When the seed given is no number.
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

    /// Some time that is shorter than `limit`.
    #[must_use]
    pub fn within(&mut self, limit: Duration) -> Duration {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((bits ^ (bits >> 31)) >> 32).unwrap_or(0);
        limit.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}

//! How many sandboxes to prewarm: pure functions of the requests and their times.

use std::time::{Duration, Instant};

/// How long a prewarmed sandbox waits for a request while tests run.
const LIFE: Duration = Duration::from_secs(3);
/// The same while no test has a sandbox: the next test follows within milliseconds.
const QUIET: Duration = Duration::from_millis(100);
/// With rarer requests a start is a small part of the time.
const LONGEST_GAP: Duration = Duration::from_millis(1500);
/// The assumed duration of a start before one is measured.
const START: Duration = Duration::from_millis(25);

/// How often sandboxes of one plan are requested, and how long one takes to start.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    asks: u32,
    last: Instant,
    /// The time between two requests; the last ones count most.
    gap: Duration,
    start: Duration,
}

impl Demand {
    pub(super) fn new(now: Instant) -> Self {
        Self { asks: 0, last: now, gap: Duration::ZERO, start: START }
    }

    pub(super) fn asked(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last).min(2 * LONGEST_GAP);
        match self.asks {
            0 => {}
            1 => self.gap = gap,
            _ => self.gap = (3 * self.gap + gap) / 4,
        }
        self.asks = self.asks.saturating_add(1);
        self.last = now;
    }

    /// Notes the duration of a start.
    pub(super) fn started(&mut self, took: Duration) {
        self.start = (3 * self.start + took) / 4;
    }

    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// Returns how many are to be ready: as many as are requested during a start. None before the
    /// second request, so that a process with a single sandbox has no more to do than without a
    /// pool.
    pub(super) fn wants(&self, now: Instant, most: usize) -> usize {
        if self.asks < 2 || self.gap > LONGEST_GAP || self.is_over(now, None) {
            return 0;
        }
        let during = self.start.as_nanos().div_ceil(self.gap.as_nanos().max(1));
        usize::try_from(during).unwrap_or(usize::MAX).clamp(1, most.max(1))
    }

    /// Returns `true` if no more requests are expected. `quiet`: the time since which no test has
    /// had a sandbox.
    pub(super) fn is_over(&self, now: Instant, quiet: Option<Instant>) -> bool {
        let since = |time: Instant| now.saturating_duration_since(time);
        since(self.last) > LIFE || quiet.is_some_and(|quiet| since(quiet.max(self.last)) > QUIET)
    }
}

/// The credit for prewarming: each sandbox that ends unused costs one, each that is taken earns a
/// part of one. So the waste is a small part of the use, and a suite that never requests the same
/// plan twice stops paying after the first.
#[derive(Debug, Clone)]
pub(super) struct Credit {
    /// In sixteenths of a sandbox.
    sixteenths: usize,
    most: usize,
}

const ONE: usize = 16;
const TAKEN: usize = 4;
/// Earned by a request that found none, since demand may change.
const MISSED: usize = 1;

impl Default for Credit {
    fn default() -> Self {
        Self { sixteenths: ONE, most: 1 }
    }
}

impl Credit {
    pub(super) fn limit(&mut self, most: usize) {
        self.most = most;
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn answered(&mut self, by_a_prewarmed: bool) {
        let earned = if by_a_prewarmed { TAKEN } else { MISSED };
        self.sixteenths = self.sixteenths.saturating_add(earned).min(self.most.saturating_mul(ONE));
    }

    pub(super) fn lost(&mut self) {
        self.sixteenths = self.sixteenths.saturating_sub(ONE);
    }

    /// Returns how many sandboxes the credit allows.
    fn prewarmed(&self) -> usize {
        self.sixteenths / ONE
    }
}

/// The work of a process for starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) processors: usize,
    /// Starts in progress, requested or not.
    pub(super) starting: usize,
    /// Prewarmed sandboxes without a claim, ready or in the making.
    pub(super) prewarmed: usize,
}

impl Load {
    pub(super) fn allows_one(self, credit: &Credit) -> bool {
        self.starting < self.processors && self.is_good_for_one(credit)
    }

    /// Returns `true` if the credit allows one more, whatever the processors do.
    pub(super) fn is_good_for_one(self, credit: &Credit) -> bool {
        self.prewarmed < credit.prewarmed().min(credit.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Returns a demand after some requests with a gap between them, and the time of the last one.
    fn asked(asks: u32, gap: Duration) -> (Demand, Instant) {
        let mut now = Instant::now();
        let mut demand = Demand::new(now);
        for ask in 0..asks {
            now += if ask == 0 { Duration::ZERO } else { gap };
            demand.asked(now);
        }
        (demand, now)
    }

    #[test]
    fn nothing_is_wanted_before_the_second_request() {
        let (demand, now) = asked(1, ms(10));
        assert_eq!(demand.wants(now, 8), 0);
        let (demand, now) = asked(2, ms(100));
        assert_eq!(demand.wants(now, 8), 1);
    }

    #[test]
    fn as_many_are_wanted_as_are_requested_during_a_start() {
        for (gap, most, wanted) in [(100, 8, 1), (25, 8, 1), (10, 8, 3), (5, 8, 5), (1, 8, 8), (0, 2, 2)] {
            let (demand, now) = asked(20, ms(gap));
            assert_eq!(demand.wants(now, most), wanted, "{gap} ms, at most {most}");
        }
        let (mut demand, now) = asked(20, ms(100));
        (0..20).for_each(|_| demand.started(ms(450)));
        assert!((4..=5).contains(&demand.wants(now, 8)));
    }

    #[test]
    fn rare_requests_want_nothing_until_they_are_frequent() {
        let (mut demand, mut now) = asked(3, ms(60_000));
        assert_eq!(demand.wants(now, 8), 0);
        for _ in 0..6 {
            now += ms(50);
            demand.asked(now);
        }
        assert!(demand.wants(now, 8) > 0);
    }

    #[test]
    fn demand_ends_soon_after_the_last_sandbox() {
        let (demand, now) = asked(10, ms(10));
        assert!(!demand.is_over(now + ms(2_900), None));
        assert!(demand.is_over(now + ms(3_100), None));
        assert_eq!(demand.wants(now + ms(3_100), 8), 0);
        assert!(!demand.is_over(now + ms(80), Some(now)));
        assert!(demand.is_over(now + ms(150), Some(now)));
        // It was quiet long before the request.
        assert!(!demand.is_over(now + ms(80), Some(now - ms(5))));
    }

    #[test]
    fn waste_is_a_part_of_use() {
        // Half of the sandboxes are taken, or none.
        for takes_every in [2, usize::MAX] {
            let (mut credit, mut taken, mut lost, mut missed) = (Credit::default(), 0, 0, 0);
            credit.limit(8);
            for round in 1..10_000 {
                let load = Load { processors: 2, starting: 0, prewarmed: 0 };
                if !load.allows_one(&credit) {
                    credit.answered(false);
                    missed += 1;
                } else if round % takes_every == 0 {
                    credit.answered(true);
                    taken += 1;
                } else {
                    credit.lost();
                    lost += 1;
                }
            }
            assert!(lost <= 1 + taken / 4 + missed / 16, "{lost} lost, {taken} taken, {missed} missed");
        }
    }

    #[test]
    fn processors_bound_and_credit_limit_prewarming() {
        let mut credit = Credit::default();
        credit.limit(2);
        let load = |starting, prewarmed| Load { processors: 2, starting, prewarmed };
        assert!(load(1, 0).allows_one(&credit) && !load(2, 0).allows_one(&credit));
        assert!(!load(0, 1).allows_one(&credit), "the credit is good for one");
        (0..100).for_each(|_| credit.answered(true));
        assert!(load(1, 1).allows_one(&credit) && !load(0, 2).allows_one(&credit));
        credit.limit(0);
        assert!(!load(0, 0).allows_one(&credit));
    }
}

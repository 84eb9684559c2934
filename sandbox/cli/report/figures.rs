//! The figures of a run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::phase::Phase;
use super::timeline::{Bar, Status, Timeline};

/// The length of the lists of slowest starts and tests.
pub(super) const SLOWEST: usize = 10;

/// The figures of a run, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) sandboxes: usize,
    pub(super) processes: usize,
    pub(super) failed: usize,
    pub(super) unfinished: usize,
    pub(super) layers_built: usize,
    /// From the first request to the last end.
    pub(super) span_us: u64,
    pub(super) most_alive: usize,
    /// From the request until the test can begin.
    pub(super) start: Option<Quantiles>,
    /// The phases that at least one sandbox reached.
    pub(super) phases: BTreeMap<Phase, Quantiles>,
}

/// Quantiles of times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Quantiles {
    pub(super) count: usize,
    pub(super) median_us: u64,
    pub(super) p90_us: u64,
    pub(super) p99_us: u64,
    pub(super) longest_us: u64,
    pub(super) total_us: u64,
}

impl Quantiles {
    /// Computes quantiles by the nearest rank, so that each is a measured time.
    pub(super) fn of(times: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        let longest_us = *times.last()?;
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self {
            count: times.len(),
            median_us: at(50),
            p90_us: at(90),
            p99_us: at(99),
            longest_us,
            total_us: times.iter().fold(0, |sum, time| sum.saturating_add(*time)),
        })
    }
}

impl Figures {
    pub(super) fn of(run: &Timeline<'_>, most_alive: usize) -> Self {
        let phases = Phase::ALL.into_iter().filter_map(|phase| {
            Some((phase, Quantiles::of(run.bars.iter().filter_map(|bar| bar.length(phase)))?))
        });
        Self {
            sandboxes: run.bars.len(),
            processes: run.processes(),
            failed: run.count(Status::Failed),
            unfinished: run.count(Status::Unfinished),
            layers_built: run.bars.iter().filter(|bar| bar.record.layer_built).count(),
            span_us: run.span,
            most_alive,
            start: Quantiles::of(run.bars.iter().filter_map(Bar::start)),
            phases: phases.collect(),
        }
    }
}

/// Returns the bars with the largest times, the largest first.
pub(super) fn slowest<'r, 'a>(
    run: &'r Timeline<'a>,
    time: impl Fn(&Bar<'_>) -> Option<u64>,
) -> Vec<(&'r Bar<'a>, u64)> {
    let mut bars: Vec<_> = run.bars.iter().filter_map(|bar| Some((bar, time(bar)?))).collect();
    bars.sort_by_key(|(bar, time)| (std::cmp::Reverse(*time), bar.begin));
    bars.truncate(SLOWEST);
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_times() {
        assert_eq!(Quantiles::of([]), None);
        let one = Quantiles::of([7]).unwrap();
        assert_eq!((one.median_us, one.p90_us, one.p99_us, one.longest_us, one.total_us), (7, 7, 7, 7, 7));
        let many = Quantiles::of((1..=1000).rev()).unwrap();
        assert_eq!((many.median_us, many.p90_us, many.p99_us, many.longest_us), (500, 900, 990, 1000));
    }
}

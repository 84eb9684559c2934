//! The number of sandboxes in each phase over time.

use std::cmp::Reverse;

use super::phase::Phase;
use super::timeline::Timeline;

/// The number of sandboxes in each phase at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census([usize; Phase::ALL.len()]);

impl Census {
    pub(super) fn of(self, phase: Phase) -> usize {
        self.0[phase as usize]
    }

    /// Counts the sandboxes that exist: those beyond the phases that wait for a layer or a slot.
    pub(super) fn alive(self) -> usize {
        self.0[Phase::Launch as usize..].iter().sum()
    }

    pub(super) fn all(self) -> usize {
        self.0.iter().sum()
    }
}

/// Returns the fullest moment of each of `columns` equal parts of the run.
pub(super) fn take(run: &Timeline<'_>, columns: usize) -> Vec<Census> {
    let segments = run.bars.iter().flat_map(|bar| &bar.segments);
    // At one time, sandboxes leave a phase before others enter one.
    let mut events: Vec<_> = segments
        .flat_map(|segment| {
            [(segment.begin, Reverse(false), segment.phase), (segment.end, Reverse(true), segment.phase)]
        })
        .collect();
    events.sort_unstable();
    let mut now = Census::default();
    let mut fullest = vec![Census::default(); columns];
    let mut column = 0;
    for moment in events.chunk_by(|a, b| a.0 == b.0) {
        let scaled = u128::from(moment[0].0) * columns as u128;
        let target = (scaled / u128::from(run.span)) as usize;
        // A state that ends exactly where a part begins is not a state of that part.
        let on_the_edge = scaled.is_multiple_of(u128::from(run.span));
        while column < target.min(columns - 1) {
            column += 1;
            if column < target || !on_the_edge {
                fullest[column] = now;
            }
        }
        for (_, Reverse(leaves), phase) in moment {
            let count = &mut now.0[*phase as usize];
            *count = if *leaves { *count - 1 } else { *count + 1 };
        }
        let fullness = |census: Census| (census.alive(), census.all());
        if fullness(now) > fullness(fullest[column]) {
            fullest[column] = now;
        }
    }
    fullest
}

#[cfg(test)]
mod tests {
    use super::super::timeline::tests::{record, timeline};
    use super::*;

    #[test]
    fn the_fullest_moment_of_each_part_counts() {
        let (first, second) = (record(0, 7), record(3_000, 7));
        let run = timeline(&[&first, &second]);
        // Each part is a millisecond long, as is each phase.
        for (part, census) in take(&run, 10).into_iter().enumerate() {
            for (number, phase) in Phase::ALL.into_iter().enumerate() {
                let expected = usize::from(part == number) + usize::from(part == number + 3);
                assert_eq!(census.of(phase), expected, "{phase:?} in part {part}");
            }
        }
    }

    #[test]
    fn consecutive_sandboxes_never_count_together() {
        let records = [0, 7_000, 14_000].map(|asked| record(asked, 7));
        let run = timeline(&records.each_ref());
        assert!(take(&run, 1000).iter().all(|census| census.all() <= 1));
    }
}

//! Packs intervals into lanes, so that no two of one lane overlap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Returns the lane of each interval and the number of lanes.
///
/// Intervals are pairs of begin and end, ordered by begin. Each takes the topmost free lane, so
/// that there are only as many lanes as intervals overlap.
pub(super) fn pack(intervals: impl IntoIterator<Item = (u64, u64)>) -> (Vec<usize>, usize) {
    let mut free = BinaryHeap::new();
    let mut taken = BinaryHeap::<Reverse<(u64, usize)>>::new();
    let mut count = 0;
    let lane_of = |(begin, end): (u64, u64)| {
        while let Some(Reverse((until, lane))) = taken.peek().copied()
            && until <= begin
        {
            taken.pop();
            free.push(Reverse(lane));
        }
        let lane = free.pop().map_or_else(
            || {
                count += 1;
                count - 1
            },
            |Reverse(lane)| lane,
        );
        // An empty interval occupies its lane, too.
        taken.push(Reverse((end.max(begin + 1), lane)));
        lane
    };
    let lanes = intervals.into_iter().map(lane_of).collect();
    (lanes, count)
}

/// Packs the intervals of each machine into lanes below those of the machine before.
///
/// Returns the lane of each interval, and the first lane of each machine, then their number.
pub(super) fn pack_machines(
    intervals: impl Iterator<Item = (usize, (u64, u64))> + Clone,
    machines: usize,
) -> (Vec<usize>, Vec<usize>) {
    let mut firsts = vec![0];
    let mut lanes: Vec<_> = intervals.clone().map(|_| 0).collect();
    for machine in 0..machines {
        let own = intervals.clone().enumerate().filter(|(_, (of, _))| *of == machine);
        let (packed, count) = pack(own.clone().map(|(_, (_, interval))| interval));
        let first = firsts[machine];
        own.zip(packed).for_each(|((index, _), lane)| lanes[index] = first + lane);
        firsts.push(first + count);
    }
    (lanes, firsts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_interval_takes_the_topmost_free_lane() {
        let (lanes, count) = pack([(0, 10), (1, 3), (2, 8), (3, 5), (9, 12), (10, 11)]);
        assert_eq!((lanes, count), (vec![0, 1, 2, 1, 1, 0], 3));
    }

    #[test]
    fn the_lanes_of_machines_follow_each_other() {
        let intervals = [(1, (0, 10)), (0, (0, 5)), (1, (2, 4)), (0, (6, 8)), (2, (0, 1))];
        assert_eq!(pack_machines(intervals.into_iter(), 3), (vec![1, 0, 2, 0, 3], vec![0, 1, 3, 4]));
    }

    proptest! {
        #[test]
        fn lanes_never_overlap_and_are_as_few_as_possible(
            mut intervals in prop::collection::vec((0_u64..100, 0_u64..30), 0..60)
        ) {
            intervals.sort_unstable();
            let intervals: Vec<_> = intervals.iter().map(|(begin, length)| (*begin, begin + length.max(&1))).collect();
            let (lanes, count) = pack(intervals.iter().copied());
            for (a, (begin, end)) in intervals.iter().enumerate() {
                for b in 0..a {
                    prop_assert!(lanes[a] != lanes[b] || intervals[b].1 <= *begin || intervals[b].0 >= *end);
                }
            }
            let most = (0..130).map(|time| intervals.iter().filter(|(begin, end)| *begin <= time && time < *end).count());
            prop_assert_eq!(count, most.max().unwrap_or(0));
        }
    }
}

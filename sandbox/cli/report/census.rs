//! How many sandboxes lived at which time.

use super::phase::Phase;
use super::run::{Bar, Run};

/// How many are in which state at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) running: usize,
    pub(super) starting: usize,
    /// For their layer, or for others to end: they do not live yet.
    pub(super) waiting: usize,
}

impl Census {
    pub(super) fn alive(self) -> usize {
        self.running + self.starting
    }

    pub(super) fn all(self) -> usize {
        self.alive() + self.waiting
    }

    fn place(&mut self, state: State) -> &mut usize {
        match state {
            State::Waiting => &mut self.waiting,
            State::Starting => &mut self.starting,
            State::Running => &mut self.running,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Starting,
    Running,
}

/// The fullest moment of each of so many equal parts of the run.
pub(super) fn take(run: &Run<'_>, columns: usize) -> Vec<Census> {
    let mut events: Vec<_> = run.bars.iter().flat_map(changes).collect();
    // At the same moment those that end make room first.
    events.sort_by_key(|(time, joins, _)| (*time, *joins));
    let mut now = Census::default();
    let mut fullest = vec![Census::default(); columns];
    let mut column = 0;
    let keep = |fullest: &mut Census, now: Census| {
        if (now.alive(), now.all()) > (fullest.alive(), fullest.all()) {
            *fullest = now;
        }
    };
    for (time, joins, state) in events {
        let target = (u128::from(time) * columns as u128 / u128::from(run.span)) as usize;
        while column < target.min(columns - 1) {
            column += 1;
            fullest[column] = now;
        }
        if joins {
            *now.place(state) += 1;
        } else {
            *now.place(state) -= 1;
        }
        keep(&mut fullest[column], now);
    }
    fullest
}

/// When a sandbox joins a state and when it leaves it.
fn changes(bar: &Bar<'_>) -> Vec<(u64, bool, State)> {
    let begin_of = |phase| bar.segments.iter().find(|segment| segment.phase >= phase).map(|s| s.begin);
    let starts = begin_of(Phase::Launch).unwrap_or(bar.end);
    let runs = begin_of(Phase::Test).unwrap_or(bar.end);
    let states = [
        (State::Waiting, bar.begin, starts),
        (State::Starting, starts, runs),
        (State::Running, runs, bar.end),
    ];
    let lasting = states.into_iter().filter(|(_, begin, end)| begin < end);
    lasting.flat_map(|(state, begin, end)| [(begin, true, state), (end, false, state)]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::record;
    use super::*;

    #[test]
    fn the_fullest_moment_of_each_part_counts() {
        let (first, second) = (record(0, 7), record(3_000, 7));
        let run = Run::new(&[&first, &second]);
        // A millisecond each.
        let census: Vec<_> = take(&run, 10).iter().map(|c| (c.waiting, c.starting, c.running)).collect();
        let alone = [(1, 0, 0), (1, 0, 0), (0, 1, 0)];
        let both = [(1, 1, 0), (1, 1, 0), (0, 1, 1), (0, 1, 1)];
        assert_eq!(census, [&alone[..], &both, &[(0, 1, 0), (0, 0, 1), (0, 0, 1)]].concat());
    }

    #[test]
    fn those_that_follow_each_other_never_live_together() {
        let records = [0, 7_000, 14_000].map(|asked| record(asked, 7));
        let run = Run::new(&records.each_ref());
        assert!(take(&run, 1000).iter().all(|census| census.all() <= 1));
    }
}

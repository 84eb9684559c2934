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

/// In the order of time, and at one time those that leave first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    time: u64,
    joins: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Waiting,
    Starting,
    Running,
}

/// The fullest moment of each of so many equal parts of the run.
pub(super) fn take(run: &Run<'_>, columns: usize) -> Vec<Census> {
    let mut events: Vec<_> = run.bars.iter().flat_map(changes).collect();
    events.sort_unstable();
    let mut now = Census::default();
    let mut fullest = vec![Census::default(); columns];
    let mut column = 0;
    for moment in events.chunk_by(|a, b| a.time == b.time) {
        let scaled = u128::from(moment[0].time) * columns as u128;
        let target = (scaled / u128::from(run.span)) as usize;
        // What changes just when a part begins was never so in that part.
        let on_the_edge = scaled.is_multiple_of(u128::from(run.span));
        while column < target.min(columns - 1) {
            column += 1;
            if column < target || !on_the_edge {
                fullest[column] = now;
            }
        }
        // Those that leave come first.
        for event in moment {
            match event.joins {
                true => *now.place(event.state) += 1,
                false => *now.place(event.state) -= 1,
            }
        }
        let fuller = |census: Census| (census.alive(), census.all());
        if fuller(now) > fuller(fullest[column]) {
            fullest[column] = now;
        }
    }
    fullest
}

/// When a sandbox joins a state and when it leaves it.
fn changes(bar: &Bar<'_>) -> Vec<Event> {
    let begin_of = |phase| bar.segments.iter().find(|segment| segment.phase >= phase).map(|s| s.begin);
    let starts = begin_of(Phase::Launch).unwrap_or(bar.end);
    let runs = begin_of(Phase::Test).unwrap_or(bar.end);
    let states = [
        (State::Waiting, bar.begin, starts),
        (State::Starting, starts, runs),
        (State::Running, runs, bar.end),
    ];
    let lasting = states.into_iter().filter(|(_, begin, end)| begin < end);
    let both = |(state, begin, end)| {
        [Event { time: begin, joins: true, state }, Event { time: end, joins: false, state }]
    };
    lasting.flat_map(both).collect()
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

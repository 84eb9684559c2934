//! One run of tests, laid out in time: what a report draws and counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sandboxed_db::report::{Outcome, Record};

use super::phase::Phase;

/// A file may hold anything, also times that run backwards, or into a future that nobody computes with: a century.
const LONGEST: u64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;

/// The sandboxes of a run, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) bars: Vec<Bar<'a>>,
    /// Its length in microseconds, at least one.
    pub(super) span: u64,
}

/// A sandbox as a bar. Times are in microseconds since the run began.
#[derive(Debug)]
pub(super) struct Bar<'a> {
    pub(super) record: &'a Record,
    pub(super) begin: u64,
    pub(super) end: u64,
    /// Without gaps, from `begin` to `end`.
    pub(super) segments: Vec<Segment>,
    /// The phase that it was in at last, if only for a moment.
    pub(super) last: Phase,
    pub(super) fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) phase: Phase,
    pub(super) begin: u64,
    pub(super) end: u64,
}

impl Segment {
    pub(super) fn length(self) -> u64 {
        self.end - self.begin
    }
}

/// What became of a sandbox and its test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Passed,
    Failed,
    /// It ended, and nobody judged it.
    Unknown,
    /// Its process was killed, ended without dropping it, or still runs.
    Unfinished,
}

impl Fate {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unknown => "ended",
            Self::Unfinished => "unfinished",
        }
    }
}

/// The records of a file, run by run, the latest last.
///
/// A test may start programs of its own that use sandboxes, and these may not know whose run they are part of. So runs that
/// went on at the same time are one.
pub(super) fn split(records: &[Record]) -> Vec<Vec<&Record>> {
    let mut by_name = BTreeMap::<&str, Vec<&Record>>::new();
    for record in records {
        by_name.entry(&record.run).or_default().push(record);
    }
    let begin = |run: &[&Record]| run.iter().map(|record| record.asked_at_us).min();
    let end = |run: &[&Record]| run.iter().map(|record| last_time(record)).max();
    let mut runs: Vec<_> = by_name.into_values().collect();
    runs.sort_by_key(|run| begin(run));
    let mut apart = Vec::<Vec<&Record>>::new();
    for run in runs {
        match apart.last_mut() {
            Some(last) if begin(&run) <= end(last) => last.extend(run),
            _ => apart.push(run),
        }
    }
    apart
}

impl<'a> Run<'a> {
    pub(super) fn new(records: &[&'a Record]) -> Self {
        let begin = records.iter().map(|record| record.asked_at_us).min().unwrap_or_default();
        // When a process was last heard of: so long at least lived what it never told the end of.
        let mut heard = HashMap::<(&str, u32), u64>::new();
        for record in records {
            let last = heard.entry((&record.run, record.process)).or_default();
            *last = last_time(record).max(*last);
        }
        let mut bars: Vec<_> = records
            .iter()
            .map(|record| Bar::new(record, begin, heard[&(record.run.as_str(), record.process)]))
            .collect();
        bars.sort_by_key(|bar| bar.begin);
        let span = bars.iter().map(|bar| bar.end).max().unwrap_or_default().max(1);
        Self { bars, span }
    }

    pub(super) fn count(&self, fate: Fate) -> usize {
        self.bars.iter().filter(|bar| bar.fate == fate).count()
    }

    pub(super) fn processes(&self) -> usize {
        let processes: BTreeSet<_> =
            self.bars.iter().map(|bar| (&bar.record.run, bar.record.process)).collect();
        processes.len()
    }
}

impl<'a> Bar<'a> {
    fn new(record: &'a Record, origin: u64, heard: u64) -> Self {
        let fate = match (record.outcome, record.gone_at_us) {
            (Outcome::Failed, _) => Fate::Failed,
            (_, None) => Fate::Unfinished,
            (Outcome::Passed, _) => Fate::Passed,
            _ => Fate::Unknown,
        };
        let end = record.gone_at_us.unwrap_or_else(|| heard.max(last_time(record)));
        let relative = |time: u64| (time.max(record.asked_at_us) - origin).min(LONGEST);
        let (begin, end) = (relative(record.asked_at_us), relative(end));
        let mut segments = Vec::new();
        let mut reached = begin;
        let mut last = Phase::Layer;
        for (phase, until) in ends(record) {
            last = phase;
            let is_last = until.is_none();
            let until = until.map_or(end, |until| relative(until).clamp(reached, end));
            if until > reached {
                segments.push(Segment { phase, begin: reached, end: until });
                reached = until;
            }
            if is_last {
                break;
            }
        }
        Self { record, begin, end, segments, last, fate }
    }

    /// What it is called in tables and pictures.
    pub(super) fn name(&self) -> &'a str {
        let record = self.record;
        record.test.as_deref().or(record.thread.as_deref()).unwrap_or(&record.program)
    }

    /// How long a phase took, if it came to that.
    pub(super) fn length(&self, phase: Phase) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.phase == phase);
        segment.copied().map(Segment::length)
    }

    /// From the request to a server that is ready and parameters that are made, if it came to that.
    pub(super) fn start(&self) -> Option<u64> {
        let record = self.record;
        let ready = record.connected_at_us.max(record.ready_at_us)?;
        Some(ready.saturating_sub(record.asked_at_us).min(LONGEST))
    }
}

/// Which phases a sandbox went through and when each ended. The first without an end is the one that it was in at last.
fn ends(record: &Record) -> [(Phase, Option<u64>); 7] {
    [
        (Phase::Layer, record.layer_at_us),
        (Phase::Queue, record.admitted_at_us),
        (Phase::Launch, record.executed_at_us),
        (Phase::Server, record.ready_at_us),
        // Most sandboxes are only taken as they are.
        (Phase::Connect, record.connected_at_us.or(record.ready_at_us)),
        (Phase::Test, record.ended_at_us),
        (Phase::End, record.gone_at_us),
    ]
}

fn last_time(record: &Record) -> u64 {
    let times = [
        record.layer_at_us,
        record.admitted_at_us,
        record.executed_at_us,
        record.ready_at_us,
        record.connected_at_us,
        record.ended_at_us,
        record.gone_at_us,
    ];
    times.into_iter().flatten().fold(record.asked_at_us, u64::max)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record in which each phase took a millisecond, as far as it came.
    pub(in super::super) fn record(asked: u64, phases: u64) -> Record {
        let mut record = Record::default();
        record.id = format!("{asked}-{phases}");
        record.asked_at_us = asked;
        let time = |number: u64| (number <= phases).then_some(asked + number * 1000);
        record.layer_at_us = time(1);
        record.admitted_at_us = time(2);
        record.executed_at_us = time(3);
        record.ready_at_us = time(4);
        record.connected_at_us = time(5);
        record.ended_at_us = time(6);
        record.gone_at_us = time(7);
        record
    }

    fn phases(bar: &Bar<'_>) -> Vec<(Phase, u64)> {
        bar.segments.iter().map(|segment| (segment.phase, segment.length())).collect()
    }

    #[test]
    fn a_bar_has_all_phases_without_gaps() {
        let (first, second) = (record(5_000, 7), record(6_000, 7));
        let run = Run::new(&[&second, &first]);
        assert_eq!(run.span, 8_000);
        assert_eq!((run.bars[0].begin, run.bars[1].begin), (0, 1_000));
        assert_eq!(phases(&run.bars[1]), Phase::ALL.map(|phase| (phase, 1_000)));
        assert!(run.bars[1].segments.windows(2).all(|pair| pair[0].end == pair[1].begin));
        assert_eq!(run.bars[1].start(), Some(5_000));
    }

    #[test]
    fn a_phase_that_never_was_takes_no_time() {
        let mut record = record(0, 7);
        record.connected_at_us = None;
        let run = Run::new(&[&record]);
        assert_eq!(run.bars[0].length(Phase::Connect), None);
        assert_eq!(run.bars[0].length(Phase::Test), Some(2_000));
    }

    #[test]
    fn a_start_that_fails_ends_in_its_phase() {
        let mut record = record(0, 2);
        record.outcome = Outcome::Failed;
        (record.ended_at_us, record.gone_at_us) = (Some(9_000), Some(9_000));
        let run = Run::new(&[&record]);
        let bar = &run.bars[0];
        assert_eq!((bar.fate, bar.last, bar.end, bar.start()), (Fate::Failed, Phase::Launch, 9_000, None));
        assert_eq!(bar.length(Phase::Launch), Some(7_000));
    }

    #[test]
    fn what_has_no_end_lived_as_long_as_its_process_was_heard_of() {
        let (killed, mut sibling, mut stranger) = (record(0, 5), record(20_000, 7), record(50_000, 7));
        (sibling.process, stranger.process) = (0, 1);
        let run = Run::new(&[&killed, &sibling, &stranger]);
        let bar = &run.bars[0];
        assert_eq!((bar.fate, bar.last, bar.end), (Fate::Unfinished, Phase::Test, 27_000));
        assert_eq!(run.count(Fate::Unfinished), 1);
    }

    #[test]
    fn times_that_cannot_be_are_borne() {
        let mut late = record(1, 7);
        late.gone_at_us = Some(u64::MAX);
        assert_eq!(Run::new(&[&record(0, 7), &late]).span, LONGEST);
        let mut record = record(5_000, 7);
        (record.ready_at_us, record.gone_at_us) = (Some(1), Some(2));
        let run = Run::new(&[&record]);
        assert!(run.bars[0].segments.iter().all(|segment| segment.begin < segment.end));
        assert_eq!((run.bars[0].begin, run.bars[0].end, run.span), (0, 0, 1));
    }

    #[test]
    fn runs_are_told_apart_unless_they_went_on_at_the_same_time() {
        let mut records = [record(0, 7), record(100_000, 7), record(5_000, 7), record(40_000, 7)];
        for (record, run) in records.iter_mut().zip(["b", "c", "part of b", "b"]) {
            record.run = run.to_owned();
        }
        let [first, second, third, fourth] = records.each_ref();
        assert_eq!(split(&records), [vec![first, fourth, third], vec![second]]);
        assert!(split(&[]).is_empty());
    }
}

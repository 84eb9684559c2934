//! One run of tests, laid out in time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use sandboxed_db::report::{Outcome, Record};

use super::phase::Phase;
use crate::units::printable;

/// The maximum length of a run, a century: a file may hold any number as a time.
const LONGEST: u64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;

/// The part of a run that one machine recorded.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    /// Empty for the only machine.
    pub(super) name: String,
    pub(super) records: Vec<&'a Record>,
}

/// The sandboxes of a run, in the order of their requests.
#[derive(Debug)]
pub(super) struct Timeline<'a> {
    pub(super) bars: Vec<Bar<'a>>,
    /// The names of the machines, at least one.
    pub(super) machines: Vec<String>,
    /// The length of the run in microseconds, at least one.
    pub(super) span: u64,
    /// The first request, in microseconds since 1970-01-01 UTC.
    origin: u64,
}

/// A sandbox. Times are in microseconds since the begin of the run.
#[derive(Debug)]
pub(super) struct Bar<'a> {
    pub(super) record: &'a Record,
    /// Index of the machine.
    pub(super) machine: usize,
    pub(super) begin: u64,
    pub(super) end: u64,
    /// The phases from `begin` to `end`, without gaps.
    pub(super) segments: Vec<Segment>,
    /// The last phase that it reached.
    pub(super) last: Phase,
    pub(super) status: Status,
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

/// How a sandbox and its test ended, those of most interest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Failed,
    /// The test process was killed, ended without dropping the sandbox, or still runs.
    Unfinished,
    /// The sandbox ended; the outcome of its test is not known.
    Ended,
    Passed,
}

impl Status {
    pub(super) const ALL: [Self; 4] = [Self::Failed, Self::Unfinished, Self::Ended, Self::Passed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Ended => "ended",
            Self::Unfinished => "unfinished",
        }
    }
}

/// Splits the records of a file by run, the latest run last.
///
/// Runs that overlap count as one: a test may start programs that use sandboxes but do not know the
/// run's name.
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

impl<'a> Timeline<'a> {
    /// Lays out the parts of all machines, by their clocks.
    pub(super) fn new(machines: &[Machine<'a>]) -> Self {
        let all = || machines.iter().flat_map(|machine| &machine.records);
        let begin = all().map(|record| record.asked_at_us).min().unwrap_or_default();
        let mut bars = Vec::new();
        for (index, machine) in machines.iter().enumerate() {
            // A sandbox without a recorded end lived at least until the last record of its process.
            let mut last_seen = HashMap::<(&str, u32), u64>::new();
            for record in &machine.records {
                let last = last_seen.entry((&record.run, record.process)).or_default();
                *last = last_time(record).max(*last);
            }
            bars.extend(machine.records.iter().map(|record| {
                let last_seen = last_seen[&(record.run.as_str(), record.process)];
                Bar { machine: index, ..Bar::new(record, begin, last_seen) }
            }));
        }
        bars.sort_by_key(|bar| bar.begin);
        let span = bars.iter().map(|bar| bar.end).max().unwrap_or_default().max(1);
        let machines = machines.iter().map(|machine| machine.name.clone()).collect();
        Self { bars, machines, span, origin: begin }
    }

    /// Returns when the run began, such as `2026-11-28 14:25:01 UTC`.
    pub(super) fn date(&self) -> String {
        let date = UNIX_EPOCH + Duration::from_micros(self.origin);
        // A file may hold a time beyond the year 9999.
        let mut text = String::new();
        match write!(text, "{}", humantime::format_rfc3339_seconds(date)) {
            Ok(()) => text.replace('T', " ").replace('Z', " UTC"),
            Err(_) => "unknown".to_owned(),
        }
    }

    /// Returns the commands that started the run.
    pub(super) fn commands(&self) -> BTreeSet<String> {
        self.bars.iter().filter_map(|bar| Some(printable(bar.record.command.as_deref()?))).collect()
    }

    pub(super) fn count(&self, status: Status) -> usize {
        self.bars.iter().filter(|bar| bar.status == status).count()
    }

    pub(super) fn processes(&self) -> usize {
        let process = |bar: &'_ Bar<'a>| (bar.machine, &bar.record.run, bar.record.process);
        let processes: BTreeSet<_> = self.bars.iter().map(process).collect();
        processes.len()
    }
}

impl<'a> Bar<'a> {
    fn new(record: &'a Record, origin: u64, last_seen: u64) -> Self {
        let status = match (record.outcome, record.gone_at_us) {
            (Outcome::Failed, _) => Status::Failed,
            (_, None) => Status::Unfinished,
            (Outcome::Passed, _) => Status::Passed,
            _ => Status::Ended,
        };
        let end = record.gone_at_us.unwrap_or_else(|| last_seen.max(last_time(record)));
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
        Self { record, machine: 0, begin, end, segments, last, status }
    }

    /// Returns its name in tables and pictures.
    pub(super) fn name(&self) -> &'a str {
        let record = self.record;
        record.test.as_deref().or(record.thread.as_deref()).unwrap_or(&record.program)
    }

    /// Returns the class of a phase in pictures. A failure marks the test, or the phase in which
    /// the start failed.
    pub(super) fn class(&self, phase: Phase) -> &'static str {
        let failed_at = self.last.min(Phase::Test);
        match (self.status, phase) {
            (Status::Failed, phase) if phase == failed_at => "failed",
            (Status::Unfinished, Phase::Test) => "unfinished",
            _ => phase.name(),
        }
    }

    /// Returns the reason why the test failed or has no outcome.
    pub(super) fn failure(&self) -> Option<String> {
        match (&self.record.error, &self.record.failure, self.status) {
            (Some(error), ..) => Some(format!("could not {error}")),
            (_, Some(failure), _) => Some(failure.clone()),
            (_, _, Status::Unfinished) => Some(format!("last seen in the phase `{}`", self.last.name())),
            (_, _, Status::Failed) => Some("no message: the test runs without `#[sandboxed_db]`".to_owned()),
            _ => None,
        }
    }

    /// Returns the length of a phase that it went through.
    pub(super) fn length(&self, phase: Phase) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.phase == phase);
        segment.copied().map(Segment::length)
    }

    /// Returns the time from the request to a ready server and the test's parameters.
    pub(super) fn start(&self) -> Option<u64> {
        let record = self.record;
        let ready = record.connected_at_us.max(record.ready_at_us)?;
        Some(ready.saturating_sub(record.asked_at_us).min(LONGEST))
    }
}

/// Returns the phases and their ends. The first phase without an end is the last that the sandbox
/// reached.
fn ends(record: &Record) -> [(Phase, Option<u64>); 7] {
    [
        (Phase::Layer, record.layer_at_us),
        (Phase::Queue, record.admitted_at_us),
        (Phase::Launch, record.executed_at_us),
        (Phase::Server, record.ready_at_us),
        // Many tests take the sandbox only, so that this phase takes no time.
        (Phase::Connect, record.connected_at_us.or(record.ready_at_us)),
        (Phase::Test, record.ended_at_us),
        (Phase::End, record.gone_at_us),
    ]
}

fn last_time(record: &Record) -> u64 {
    let times = [
        record.layer_at_us, record.admitted_at_us, record.executed_at_us, record.ready_at_us,
        record.connected_at_us, record.ended_at_us, record.gone_at_us,
    ];
    times.into_iter().flatten().fold(record.asked_at_us, u64::max)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a record of the first `phases` phases, each a millisecond long.
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

    /// Returns the timeline of one machine.
    pub(in super::super) fn timeline<'a>(records: &[&'a Record]) -> Timeline<'a> {
        Timeline::new(&[Machine { name: String::new(), records: records.to_vec() }])
    }

    fn phases(bar: &Bar<'_>) -> Vec<(Phase, u64)> {
        bar.segments.iter().map(|segment| (segment.phase, segment.length())).collect()
    }

    #[test]
    fn a_bar_has_all_phases_without_gaps() {
        let (first, second) = (record(5_000, 7), record(6_000, 7));
        let run = timeline(&[&second, &first]);
        assert_eq!(run.span, 8_000);
        assert_eq!((run.bars[0].begin, run.bars[1].begin), (0, 1_000));
        assert_eq!(phases(&run.bars[1]), Phase::ALL.map(|phase| (phase, 1_000)));
        assert!(run.bars[1].segments.windows(2).all(|pair| pair[0].end == pair[1].begin));
        assert_eq!(run.bars[1].start(), Some(5_000));
    }

    #[test]
    fn a_skipped_phase_takes_no_time() {
        let mut record = record(0, 7);
        record.connected_at_us = None;
        let run = timeline(&[&record]);
        assert_eq!(run.bars[0].length(Phase::Connect), None);
        assert_eq!(run.bars[0].length(Phase::Test), Some(2_000));
    }

    #[test]
    fn a_start_that_fails_ends_in_its_phase() {
        let mut record = record(0, 2);
        record.outcome = Outcome::Failed;
        (record.ended_at_us, record.gone_at_us) = (Some(9_000), Some(9_000));
        let run = timeline(&[&record]);
        let bar = &run.bars[0];
        assert_eq!(
            (bar.status, bar.last, bar.end, bar.start()),
            (Status::Failed, Phase::Launch, 9_000, None)
        );
        assert_eq!(bar.length(Phase::Launch), Some(7_000));
    }

    #[test]
    fn an_unfinished_sandbox_lasts_until_its_process_was_last_seen() {
        let (killed, mut sibling, mut stranger) = (record(0, 5), record(20_000, 7), record(50_000, 7));
        (sibling.process, stranger.process) = (0, 1);
        let run = timeline(&[&killed, &sibling, &stranger]);
        let bar = &run.bars[0];
        assert_eq!((bar.status, bar.last, bar.end), (Status::Unfinished, Phase::Test, 27_000));
        assert_eq!(run.count(Status::Unfinished), 1);
    }

    #[test]
    fn machines_share_the_time_and_nothing_else() {
        // Processes of two machines may have one number.
        let (killed, mut other) = (record(0, 5), record(20_000, 7));
        other.test = Some("other".to_owned());
        let machine = |name: &str, record| Machine { name: name.to_owned(), records: vec![record] };
        let run = Timeline::new(&[machine("a", &other), machine("b", &killed)]);
        let bars: Vec<_> = run.bars.iter().map(|bar| (bar.machine, bar.begin, bar.end)).collect();
        assert_eq!(bars, [(1, 0, 5_000), (0, 20_000, 27_000)]);
        assert_eq!((run.machines, run.span), (vec!["a".to_owned(), "b".to_owned()], 27_000));
    }

    #[test]
    fn impossible_times_are_clamped() {
        let mut late = record(1, 7);
        late.gone_at_us = Some(u64::MAX);
        assert_eq!(timeline(&[&record(0, 7), &late]).span, LONGEST);
        let mut record = record(5_000, 7);
        (record.ready_at_us, record.gone_at_us) = (Some(1), Some(2));
        let run = timeline(&[&record]);
        assert!(run.bars[0].segments.iter().all(|segment| segment.begin < segment.end));
        assert_eq!((run.bars[0].begin, run.bars[0].end, run.span), (0, 0, 1));
    }

    #[test]
    fn runs_are_separate_unless_they_overlap() {
        let mut records = [record(0, 7), record(100_000, 7), record(5_000, 7), record(40_000, 7)];
        for (record, run) in records.iter_mut().zip(["b", "c", "part of b", "b"]) {
            record.run = run.to_owned();
        }
        let [first, second, third, fourth] = records.each_ref();
        assert_eq!(split(&records), [vec![first, fourth, third], vec![second]]);
        assert!(split(&[]).is_empty());
    }
}

//! Writes a run as a trace for Perfetto and `chrome://tracing`.
//!
//! # References
//! Trace Event Format, <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::census::Census;
use super::lanes;
use super::phase::Phase;
use super::timeline::{Bar, Timeline};
use crate::units::printable;

/// The process of the counters, which belong to the whole run. No user process has this id.
const RUN: u32 = 0;
/// More than the kernel has process ids: those of each machine get a range.
const MOST_PROCESSES: u32 = 5_000_000;

/// The file: an object with the events, in microseconds since the begin of the run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trace {
    trace_events: Vec<Event>,
    display_time_unit: &'static str,
    other_data: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct Event {
    name: String,
    /// The type: `X` for a span, `C` for a counter, `M` for a name.
    ph: &'static str,
    cat: &'static str,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    pid: u32,
    /// The lane within the process: spans of one lane never overlap unless they nest.
    tid: usize,
    args: Value,
}

/// Converts a run: a process for each test process, a span for each sandbox with its phases in it,
/// and a counter of the sandboxes in each phase.
pub(super) fn of(run: &Timeline<'_>, census: &[Census]) -> Trace {
    let mut processes = BTreeMap::<u32, Vec<&Bar<'_>>>::new();
    for bar in &run.bars {
        let range = MOST_PROCESSES.wrapping_mul(bar.machine as u32);
        processes.entry(range.wrapping_add(bar.record.process)).or_default().push(bar);
    }
    let mut events = vec![named("process_name", RUN, 0, "run")];
    events.extend(counters(run, census));
    for (pid, bars) in processes {
        let programs: BTreeSet<_> = bars
            .iter()
            .map(|bar| match run.machines[bar.machine].as_str() {
                "" => printable(&bar.record.program),
                machine => printable(&format!("{machine}: {}", bar.record.program)),
            })
            .collect();
        events.push(named("process_name", pid, 0, &programs.into_iter().collect::<Vec<_>>().join(", ")));
        let (lanes, count) = lanes::pack(bars.iter().map(|bar| (bar.begin, bar.end)));
        events.extend((1..=count).map(|lane| named("thread_name", pid, lane, &format!("lane {lane}"))));
        events.extend(bars.into_iter().zip(lanes).flat_map(|(bar, lane)| spans(bar, pid, lane + 1)));
    }
    let commands = run.commands().into_iter().collect::<Vec<_>>().join(" · ");
    let other_data = [("begin", run.date()), ("command", commands)].into();
    Trace { trace_events: events, display_time_unit: "ms", other_data }
}

fn named(name: &str, pid: u32, tid: usize, value: &str) -> Event {
    let args = json!({ "name": value });
    Event { name: name.to_owned(), ph: "M", cat: "__metadata", ts: 0, dur: None, pid, tid, args }
}

fn spans(bar: &Bar<'_>, pid: u32, tid: usize) -> Vec<Event> {
    let record = bar.record;
    let span = |name: String, cat, begin, end: u64, args| Event {
        name,
        ph: "X",
        cat,
        ts: begin,
        dur: Some(end - begin),
        pid,
        tid,
        args,
    };
    let mut args = json!({ "outcome": bar.status.name(), "layer": record.layer, "sandbox": record.pid });
    let further = [
        ("reason", bar.failure().map(Value::from)),
        ("reopen", record.reopen.clone().map(Value::from)),
        ("disk_bytes", record.disk_bytes.map(Value::from)),
        ("memory_peak_bytes", record.memory_peak_bytes.map(Value::from)),
    ];
    for (name, value) in further {
        if let Some(value) = value {
            args[name] = value;
        }
    }
    let mut events = vec![span(printable(bar.name()), "sandbox", bar.begin, bar.end, args)];
    events.extend(bar.segments.iter().map(|segment| {
        let built = segment.phase == Phase::Layer && record.layer_built;
        let args = if built { json!({ "built": true }) } else { json!({}) };
        span(segment.phase.name().to_owned(), "phase", segment.begin, segment.end, args)
    }));
    events
}

/// Returns the counter, which has a value for each change.
fn counters(run: &Timeline<'_>, census: &[Census]) -> Vec<Event> {
    let (mut last, columns) = (None, census.len() as u128);
    let changes = census.iter().enumerate().filter(|(_, census)| last.replace(**census) != Some(**census));
    let events = changes.map(|(column, census)| {
        let counts = Phase::ALL.map(|phase| (phase.name().to_owned(), Value::from(census.of(phase))));
        Event {
            name: "sandboxes".to_owned(),
            ph: "C",
            cat: "run",
            ts: (column as u128 * u128::from(run.span) / columns) as u64,
            dur: None,
            pid: RUN,
            tid: 0,
            args: Value::Object(counts.into_iter().collect()),
        }
    });
    events.collect()
}

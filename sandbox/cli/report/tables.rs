//! The tables of a report, in a terminal or a page.

use std::collections::BTreeSet;

use super::figures::{Figures, Quantiles, SLOWEST, slowest};
use super::phase::Phase;
use super::timeline::{Bar, Status, Timeline};
use crate::table::Table;
use crate::units::{counted, duration, printable};

/// The length of the lists of failed and unfinished tests.
const LISTED: usize = 30;

/// A table with a title.
#[derive(Debug)]
pub(super) struct TitledTable {
    pub(super) title: String,
    pub(super) table: Table,
}

impl TitledTable {
    pub(super) fn text(&self) -> String {
        format!("{}\n{}", self.title, self.table.text("  "))
    }
}

/// Summarises a run in one line.
pub(super) fn headline(figures: &Figures) -> String {
    let sandboxes = counted(figures.sandboxes, "sandbox", "sandboxes");
    let mut text = format!("{sandboxes} in {}", duration(figures.span_us));
    if figures.failed > 0 {
        text.push_str(&format!(", {} failed", figures.failed));
    }
    if figures.unfinished > 0 {
        text.push_str(&format!(", {} unfinished", figures.unfinished));
    }
    text
}

/// Returns further facts about a run in one line.
pub(super) fn details(run: &Timeline<'_>, figures: &Figures) -> String {
    let mut servers: Vec<_> = run.bars.iter().filter_map(|bar| server(bar)).collect();
    servers.sort_unstable();
    servers.dedup();
    let mut parts = vec![servers.join(", ")];
    if run.machines.len() > 1 {
        parts.push(counted(run.machines.len(), "machine", "machines"));
    }
    parts.push(counted(figures.processes, "process", "processes"));
    parts.push(format!("at most {} alive", figures.most_alive));
    if let Some(start) = figures.start {
        parts.push(format!(
            "ready in {} (median), {} (99 %)",
            duration(start.median_us),
            duration(start.p99_us)
        ));
    }
    if figures.layers_built > 0 {
        parts.push(format!("{} built", counted(figures.layers_built, "layer", "layers")));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" · ")
}

/// Returns the engine and its version, such as `postgres 15.18`.
fn server(bar: &Bar<'_>) -> Option<String> {
    let version = crate::layers::version(bar.record.engine_version.as_deref()?);
    Some(printable(&format!("{} {version}", bar.record.engine)))
}

/// Returns the table of phases.
pub(super) fn phases(figures: &Figures) -> TitledTable {
    let row = |name: &str, times: &Quantiles| {
        let times = [times.median_us, times.p90_us, times.p99_us, times.longest_us, times.total_us];
        [name.to_owned()].into_iter().chain(times.map(duration)).collect()
    };
    let mut rows: Vec<Vec<String>> =
        figures.phases.iter().map(|(phase, times)| row(phase.name(), times)).collect();
    if let Some(start) = &figures.start {
        let before_the_test = figures.phases.iter().filter(|(phase, _)| **phase < Phase::Test).count();
        rows.insert(before_the_test, row("start", start));
    }
    let table = Table::new(["", "median", "90 %", "99 %", "longest", "sum"], 1..6, rows);
    TitledTable { title: "Phases".to_owned(), table }
}

/// Returns the table of machines; without rows for one machine.
fn machines(run: &Timeline<'_>) -> TitledTable {
    let of = |machine: usize| run.bars.iter().filter(move |bar| bar.machine == machine);
    let rows = run.machines.iter().enumerate().filter(|_| run.machines.len() > 1).map(|(index, name)| {
        let begin = of(index).map(|bar| bar.begin).min().unwrap_or_default();
        let end = of(index).map(|bar| bar.end).max().unwrap_or_default();
        let failed = of(index).filter(|bar| bar.status == Status::Failed).count();
        let built = of(index).filter(|bar| bar.record.layer_built).count();
        let counts = [of(index).count(), failed, built].map(|count| count.to_string());
        [printable(name), duration(begin), duration(end)].into_iter().chain(counts).collect()
    });
    let columns = ["machine", "first at", "last at", "sandboxes", "failed", "built layers"];
    TitledTable { title: "Machines".to_owned(), table: Table::new(columns, 1..6, rows) }
}

/// Returns the lists: failed and unfinished tests, the slowest starts, the slowest tests.
pub(super) fn lists(run: &Timeline<'_>) -> Vec<TitledTable> {
    let mut tables = vec![machines(run)];
    let machine = |bar: &Bar<'_>| printable(&run.machines[bar.machine]);
    for (status, title) in [(Status::Failed, "Failed"), (Status::Unfinished, "Unfinished")] {
        let bars: Vec<_> = run.bars.iter().filter(|bar| bar.status == status).collect();
        let rows = bars.iter().take(LISTED).map(|bar| {
            let reason = bar.failure().map_or_else(String::new, |reason| printable(&reason));
            let reopen = bar.record.reopen.as_deref().map_or_else(String::new, printable);
            vec![
                duration(bar.begin),
                duration(bar.end - bar.begin),
                printable(bar.name()),
                machine(bar),
                program(bar),
                reopen,
                reason,
            ]
        });
        tables.push(TitledTable {
            title: match bars.len().saturating_sub(LISTED) {
                0 => title.to_owned(),
                more => format!("{title} (the first {LISTED}, and {more} more)"),
            },
            table: Table::new(
                ["at", "after", "test", "machine", "program", "its data", "reason"],
                0..2,
                rows,
            ),
        });
    }
    let rows = slowest(run, |bar| bar.start()).into_iter().map(|(bar, time)| {
        vec![duration(time), printable(bar.name()), machine(bar), program(bar), longest_phases(bar)]
    });
    tables.push(TitledTable {
        title: format!("Slowest {SLOWEST} starts"),
        table: Table::new(["start", "test", "machine", "program", "longest phases"], 0..1, rows),
    });
    let rows = slowest(run, |bar| bar.length(Phase::Test)).into_iter().map(|(bar, time)| {
        let status = bar.status.name().to_owned();
        vec![duration(time), printable(bar.name()), machine(bar), program(bar), status]
    });
    tables.push(TitledTable {
        title: format!("Slowest {SLOWEST} tests"),
        table: Table::new(["time", "test", "machine", "program", "outcome"], 0..1, rows),
    });
    tables.retain(|TitledTable { table, .. }| !table.rows.is_empty());
    let programs: BTreeSet<_> = run.bars.iter().map(program).collect();
    for TitledTable { table, .. } in &mut tables {
        if programs.len() == 1 {
            table.drop_column("program");
        }
        table.drop_empty_columns();
    }
    tables
}

/// Returns the program under the name that nextest uses.
pub(super) fn program(bar: &Bar<'_>) -> String {
    let record = bar.record;
    match &record.package {
        Some(package) if *package != record.program => printable(&format!("{package}::{}", record.program)),
        _ => printable(&record.program),
    }
}

/// Returns the two longest phases of a start.
fn longest_phases(bar: &Bar<'_>) -> String {
    let mut phases: Vec<_> = bar.segments.iter().filter(|segment| segment.phase < Phase::Test).collect();
    phases.sort_by_key(|segment| std::cmp::Reverse(segment.length()));
    let phases = phases.iter().take(2).map(|segment| {
        let built = if segment.phase == Phase::Layer && bar.record.layer_built { " built" } else { "" };
        format!("{}{built} {}", segment.phase.name(), duration(segment.length()))
    });
    phases.collect::<Vec<_>>().join(", ")
}

//! `sandboxed-db report`: a run of tests as figures, tables and pictures.

mod bands;
mod bars;
mod cells;
mod census;
mod figures;
mod geometry;
mod histogram;
mod lanes;
mod page;
mod phase;
mod picture;
mod tables;
mod timeline;
mod trace;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use sandboxed_db::report::{Record, Report};
use serde::Serialize;

use self::census::Census;
use self::figures::Figures;
use self::timeline::{Machine, Timeline};
use crate::Format;
use crate::failure::Failure;
use crate::units::counted;

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// The file that the tests wrote [default: SANDBOXED_DB_REPORT].
    ///
    /// Several files are the records of one run on several machines. The report shows the machines
    /// below each other, with the names of their files.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write a self-contained page of HTML.
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// Write the timeline as SVG.
    #[arg(long, value_name = "OUT")]
    svg: Option<PathBuf>,
    /// Write a trace for ui.perfetto.dev and chrome://tracing.
    #[arg(long, value_name = "OUT")]
    trace: Option<PathBuf>,
    /// Report all runs in the file, not only the latest.
    #[arg(long)]
    all: bool,
}

/// The output of `--json`: figures and records.
#[derive(Debug, Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    figures: &'a Figures,
    /// The number of lines that are not records.
    skipped_lines: usize,
    records: Vec<JsonRecord<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonRecord<'a> {
    #[serde(flatten)]
    record: &'a Record,
    /// The machine, if there are several.
    #[serde(skip_serializing_if = "str::is_empty")]
    machine: &'a str,
}

impl ReportArguments {
    pub(super) fn perform(self, format: Format) -> Result<(), Box<dyn Error>> {
        let variable = || std::env::var_os("SANDBOXED_DB_REPORT").filter(|file| !file.is_empty());
        let mut files = self.files;
        if files.is_empty() {
            files.extend(variable().map(PathBuf::from));
        }
        if files.is_empty() {
            return Err(Failure::new("report a run").because("neither an argument nor SANDBOXED_DB_REPORT names a file").hint(
                "record a run by `SANDBOXED_DB_REPORT=run.jsonl cargo test`, then `sandboxed-db report run.jsonl`",
            ).into());
        }
        let reports = files.iter().map(|file| Report::read(file)).collect::<Result<Vec<_>, _>>()?;
        let (mut machines, mut notes) = (Vec::new(), Vec::new());
        for (report, name) in reports.iter().zip(names(&files)) {
            let (records, left_out) = choose(&report.records, self.all);
            let of = if name.is_empty() { String::new() } else { format!("{name}: ") };
            notes.extend(left_out.into_iter().map(|note| format!("{of}{note}")));
            machines.push(Machine { name, records });
        }
        let skipped: usize = reports.iter().map(|report| report.skipped).sum();
        if skipped > 0 {
            notes.push(format!(
                "left out: {}",
                counted(skipped, "line that is not a record", "lines that are not records")
            ));
        }
        if machines.iter().all(|machine| machine.records.is_empty()) {
            let file = &files[0];
            let notes: String = notes.iter().map(|note| format!(" ({note})")).collect();
            return Err(Failure::new("report a run")
                .because(format!("`{}` holds no record of a sandbox{notes}", file.display()))
                .hint("set SANDBOXED_DB_REPORT for a run of tests that use sandboxes")
                .into());
        }
        let run = Timeline::new(&machines);
        let census = census::take(&run, picture::COLUMNS);
        let most_alive = census.iter().map(|census| census.alive()).max().unwrap_or_default();
        let figures = Figures::of(&run, most_alive);
        if let Some(out) = &self.html {
            write(out, &page::draw(&run, &census, &figures, &notes).into_string())?;
        }
        if let Some(out) = &self.svg {
            let (title, subtitle) = (tables::headline(&figures), tables::details(&run, &figures));
            write(out, &picture::draw(&run, &census, Some((&title, &subtitle))).into_string())?;
        }
        if let Some(out) = &self.trace {
            write(out, &serde_json::to_string(&trace::of(&run, &census))?)?;
        }
        let records = machines.iter().flat_map(|machine| {
            machine.records.iter().map(|&record| JsonRecord { record, machine: &machine.name })
        });
        let value = Json { figures: &figures, skipped_lines: skipped, records: records.collect() };
        super::print(format, &value, || text(&run, &census, &figures, &notes))?;
        Ok(())
    }
}

/// Returns the names of the machines that wrote several files: the parts in which these differ.
fn names(files: &[PathBuf]) -> Vec<String> {
    if let [_] = files {
        return vec![String::new()];
    }
    let stem = |file: &Path| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stems: Vec<_> = files.iter().map(|file| stem(file)).collect();
    // `shard-1/run.jsonl` and `shard-2/run.jsonl`.
    let differ = stems.iter().collect::<BTreeSet<_>>().len() == stems.len();
    let directory = |file: &PathBuf| file.parent().map(stem).filter(|name| !name.is_empty());
    let names = files.iter().zip(&stems).map(|(file, stem)| match directory(file) {
        Some(directory) if !differ => directory,
        _ => stem.clone(),
    });
    names.collect()
}

/// Selects the records to report, and describes those left out.
fn choose(records: &[Record], all: bool) -> (Vec<&Record>, Vec<String>) {
    let mut runs = timeline::split(records);
    let latest = runs.pop().unwrap_or_default();
    if all || runs.is_empty() {
        return (records.iter().collect(), Vec::new());
    }
    let earlier = counted(runs.len(), "earlier run", "earlier runs");
    (latest, vec![format!("left out: {earlier} in the file; `--all` reports all runs")])
}

fn write(path: &Path, contents: &str) -> Result<(), Failure> {
    let failed = |error| Failure::new(format!("write the report to `{}`", path.display())).because(error);
    fs::write(path, contents).map_err(failed)
}

fn text(run: &Timeline<'_>, census: &[Census], figures: &Figures, notes: &[String]) -> String {
    let mut text = tables::headline(figures) + "\n" + &run.date();
    run.commands().iter().for_each(|command| text.push_str(&format!(" · {command}")));
    text.push_str(&format!("\n{}\n\n", tables::details(run, figures)));
    text.push_str(&format!("{}\n\n", sparkline(census)));
    let mut all = vec![tables::phases(figures)];
    all.extend(tables::lists(run));
    text.push_str(&all.iter().map(tables::TitledTable::text).collect::<Vec<_>>().join("\n"));
    for note in notes {
        text.push_str(&format!("\n{note}\n"));
    }
    text
}

/// Draws the number of live sandboxes in one line of a terminal.
fn sparkline(census: &[Census]) -> String {
    const STEPS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const WIDTH: usize = 71;
    let highest = |census: &[Census]| census.iter().map(|census| census.alive()).max().unwrap_or_default();
    let most = highest(census).max(1);
    let parts = census.chunks(census.len().div_ceil(WIDTH));
    let line: String = parts.map(|part| STEPS[(highest(part) * (STEPS.len() - 1)).div_ceil(most)]).collect();
    line.trim_end().to_owned()
}

//! Prints the results as tables.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::contestant::Contestant;
use super::meter::Accounting;
use super::report::{Cell, Report, Scenario};
use super::server::Settings;

/// The number of text columns; all others hold numbers.
const TEXTS: usize = 1;

impl Report {
    #[expect(clippy::print_stdout, reason = "the output of the program")]
    pub(crate) fn print(&self) {
        println!("{}\n{}", self.machine.line(), self.machine.command);
        println!("{}\n{}", settings(self.settings), accounting(self.machine.accounting));
        for scenario in self.scenarios() {
            println!("\n{}, {} at a time", scenario.name(), scenario.at_once);
            println!("{}", self.figures(scenario));
            for cell in self.cells.iter().filter(|cell| cell.scenario == scenario) {
                if let Some(failure) = &cell.first_failure {
                    println!("{} failed {} times, first: {failure}", cell.contestant.name(), cell.failed);
                }
            }
        }
        println!("\nleftovers after SIGKILL of the test process\n{}", self.leftovers());
        for skipped in &self.skipped {
            println!("not measured: {skipped}");
        }
        println!("\npromises\n{}", self.promises());
    }

    fn figures(&self, scenario: Scenario) -> Table {
        let mut table = table(&[
            "each, in ms and MB", "answered", "p95", "p99", "removed", "p99", "per second", "processor",
            "memory", "disk", "tests", "failed", "ratio",
        ]);
        let ours = self.cell(scenario, Contestant::Sandboxed).map(|cell| cell.answered.median);
        for cell in self.cells.iter().filter(|cell| cell.scenario == scenario) {
            let Cell { answered, gone, .. } = cell;
            let memory = self
                .memory
                .iter()
                .find(|memory| memory.workload == scenario.workload && memory.contestant == cell.contestant);
            table.add_row(vec![
                cell.contestant.name().to_owned(),
                milliseconds(answered.median),
                milliseconds(answered.p95),
                milliseconds(answered.p99),
                milliseconds(gone.median),
                milliseconds(gone.p99),
                format!("{:.1}", cell.per_second),
                milliseconds(cell.processor_ms),
                memory.map(|memory| format!("{:.1}", memory.mb)).unwrap_or_default(),
                format!("{:.1}", cell.disk_mb),
                cell.tests.to_string(),
                cell.failed.to_string(),
                ours.map(|ours| format!("{:.1}×", answered.median / ours)).unwrap_or_default(),
            ]);
        }
        table
    }

    fn leftovers(&self) -> Table {
        let mut table = table(&["contestant", "live", "processes", "databases", "files", "MB"]);
        for killed in &self.killed {
            let left = &killed.leftovers;
            table.add_row(vec![
                format!("{}: {}", killed.contestant.name(), killed.workload.name()),
                killed.live.to_string(),
                left.processes.to_string(),
                left.databases.to_string(),
                left.files.to_string(),
                format!("{:.0}", left.megabytes),
            ]);
        }
        table
    }

    fn promises(&self) -> Table {
        let mut table = table(&["", "required", "measured", ""]);
        for promise in &self.promises {
            let verdict = if promise.kept { "kept" } else { "MISSED" };
            table.add_row(vec![&*promise.name, &promise.required, &promise.measured, verdict]);
        }
        table
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(TEXTS) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Formats milliseconds with one decimal up to 100.
fn milliseconds(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn settings(settings: Settings) -> String {
    match settings {
        Settings::Fastest => {
            let named: Vec<String> =
                settings.configuration().iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!(
                "peers with their fastest settings: data in memory (tmpfs), initdb --no-sync, {}",
                named.join(" ")
            )
        }
        Settings::AsInstalled => "peers as installed: data on disk, PostgreSQL's defaults".to_owned(),
    }
}

fn accounting(accounting: Accounting) -> String {
    match accounting {
        Accounting::Groups => {
            "processor time: control group of each contestant and its servers; memory and disk: whole machine"
                .to_owned()
        }
        Accounting::Machine { idle } => {
            format!(
                "processor time, memory and disk: whole machine, which used {idle:.2} processors when idle"
            )
        }
    }
}

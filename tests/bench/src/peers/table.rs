//! The report for people.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::account::Accounting;
use super::contestant::Contestant;
use super::report::{Cell, Report, Scene};
use super::server::Settings;

/// Columns of text; all others hold numbers.
const TEXTS: usize = 1;

impl Report {
    #[expect(clippy::print_stdout, reason = "a program for people")]
    pub(crate) fn print(&self) {
        println!("{}\n{}", self.machine.line(), self.machine.command);
        println!("{}\n{}", settings(self.settings), accounting(self.machine.accounting));
        for scene in self.scenes() {
            println!("\n{}, {} at a time", scene.name(), scene.at_once);
            println!("{}", self.figures(scene));
            for cell in self.cells.iter().filter(|cell| cell.scene == scene) {
                if let Some(failure) = &cell.first_failure {
                    println!("{} failed {} times, first: {failure}", cell.contestant.name(), cell.failed);
                }
            }
        }
        println!(
            "\nleft after SIGKILL of the test process, databases of the shared server apart\n{}",
            self.left()
        );
        for skipped in &self.skipped {
            println!("not measured: {skipped}");
        }
        println!("\npromises, by the ratios of this run\n{}", self.promises());
    }

    fn figures(&self, scene: Scene) -> Table {
        let mut table = table(&[
            "ms, MB: each",
            "answered",
            "p95",
            "p99",
            "gone",
            "p99",
            "a second",
            "processor",
            "memory",
            "disk",
            "tests",
            "failed",
            "slower",
        ]);
        let ours = self.cell(scene, Contestant::Sandboxed).map(|cell| cell.answered.median);
        for cell in self.cells.iter().filter(|cell| cell.scene == scene) {
            let Cell { answered, gone, .. } = cell;
            let memory = self
                .memory
                .iter()
                .find(|memory| memory.workload == scene.workload && memory.contestant == cell.contestant);
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

    fn left(&self) -> Table {
        let mut table = table(&["alive when killed", "how many", "processes", "databases", "files", "MB"]);
        for killed in &self.killed {
            let left = &killed.left;
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
            table.add_row(vec![&*promise.what, &promise.required, &promise.measured, verdict]);
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

/// With as many digits as tell something.
fn milliseconds(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn settings(settings: Settings) -> String {
    match settings {
        Settings::Fastest => {
            let named: Vec<String> =
                settings.configuration().iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("peers at their fastest: data in memory (tmpfs), initdb --no-sync, {}", named.join(" "))
        }
        Settings::AsInstalled => "peers as installed: data on disk, PostgreSQL's own settings".to_owned(),
    }
}

fn accounting(accounting: Accounting) -> String {
    match accounting {
        Accounting::Groups => {
            "processor time: of a control group for each contestant, with its servers; memory and disk: of the whole machine".to_owned()
        }
        Accounting::Machine { idle } => {
            format!("processor time, memory and disk: of the whole machine, which used {idle:.2} processors when idle")
        }
    }
}

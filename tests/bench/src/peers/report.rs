//! The results of a run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contestant::Contestant;
use super::leftovers::Leftovers;
use super::machine::Machine;
use super::promises::Promise;
use super::server::Settings;
use super::worker::Reply;
use super::workload::{Access, Workload};

/// The results, as `--json` writes them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// The settings of the peers.
    pub(crate) settings: Settings,
    pub(crate) cells: Vec<Cell>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) killed: Vec<Killed>,
    /// Omitted measurements and their reasons.
    pub(crate) skipped: Vec<String>,
    pub(crate) promises: Vec<Promise>,
}

/// A kind of test and its concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) workload: Workload,
    /// The table that each test reads.
    #[serde(rename = "use")]
    pub(crate) access: Access,
    pub(crate) at_once: usize,
}

/// The figures of one contestant in one scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cell {
    #[serde(flatten)]
    pub(crate) scenario: Scenario,
    pub(crate) contestant: Contestant,
    /// The number of databases created.
    pub(crate) tests: usize,
    pub(crate) failed: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_failure: Option<String>,
    /// From the request for a database to the answer of the first query, in milliseconds.
    pub(crate) answered: Quantiles,
    /// From the request to the end of the teardown.
    pub(crate) gone: Quantiles,
    pub(crate) per_second: f64,
    /// Processor time of client and servers for each test.
    pub(crate) processor_ms: f64,
    /// Writes of the whole machine for each test.
    pub(crate) disk_mb: f64,
}

/// Quantiles in milliseconds; zero without tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

/// The memory of each live database with an open connection.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) workload: Workload,
    pub(crate) contestant: Contestant,
    pub(crate) live: usize,
    pub(crate) mb: f64,
}

/// A test process that was killed with live databases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Killed {
    pub(crate) workload: Workload,
    pub(crate) contestant: Contestant,
    pub(crate) live: usize,
    #[serde(flatten)]
    pub(crate) leftovers: Leftovers,
}

/// The sum of blocks of tests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    reply: Reply,
    processor: Duration,
    disk: f64,
}

impl Tally {
    pub(crate) fn add(&mut self, block: Reply, processor: Duration) {
        self.reply.tests.extend(block.tests);
        self.reply.failures.extend(block.failures);
        self.reply.took += block.took;
        self.processor += processor;
    }

    /// Counts a block that the test process did not report.
    pub(crate) fn lost(&mut self, reason: String) {
        self.reply.failures.push(reason);
    }

    /// Sets the bytes that disks wrote for each test so far.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.disk = bytes as f64 / 1e6 / self.reply.tests.len().max(1) as f64;
    }

    pub(crate) fn cell(self, scenario: Scenario, contestant: Contestant) -> Cell {
        let Self { reply, processor, disk } = self;
        let tests = reply.tests.len();
        Cell {
            scenario,
            contestant,
            tests,
            failed: reply.failures.len(),
            first_failure: reply.failures.into_iter().next(),
            answered: Quantiles::of(reply.tests.iter().map(|test| test.answered)),
            gone: Quantiles::of(reply.tests.iter().map(|test| test.gone)),
            per_second: if tests == 0 { 0.0 } else { tests as f64 / reply.took.as_secs_f64() },
            processor_ms: processor.as_secs_f64() * 1e3 / tests.max(1) as f64,
            disk_mb: disk,
        }
    }
}

impl Quantiles {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        // The nearest rank.
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { median: at(50), p95: at(95), p99: at(99) }
    }
}

impl Report {
    pub(crate) fn cell(&self, scenario: Scenario, contestant: Contestant) -> Option<&Cell> {
        let mut cells = self.cells.iter().filter(|cell| cell.tests > 0);
        cells.find(|cell| cell.scenario == scenario && cell.contestant == contestant)
    }

    /// Returns the measured scenarios in their order.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut scenarios: Vec<Scenario> = Vec::new();
        for cell in &self.cells {
            if !scenarios.contains(&cell.scenario) {
                scenarios.push(cell.scenario);
            }
        }
        scenarios
    }
}

impl Scenario {
    /// Returns the name of the workload and, where there is a choice, of the table that is read.
    pub(crate) fn name(self) -> String {
        let Self { workload, access, .. } = self;
        match access {
            _ if workload.uses().len() == 1 => workload.name().to_owned(),
            Access::Small => format!("{}, little of it read", workload.name()),
            Access::Large => format!("{}, the large table read", workload.name()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::meter::Accounting;
    use super::super::worker::Times;
    use super::*;

    /// Returns a report of cells with the time of each test in milliseconds.
    pub(crate) fn report(cells: &[(Scenario, Contestant, f64)]) -> Report {
        let cell = |&(scenario, contestant, took): &(Scenario, Contestant, f64)| {
            let took = Duration::from_secs_f64(took / 1e3);
            let mut tally = Tally::default();
            let tests = vec![Times { answered: took, gone: took }];
            tally.add(Reply { tests, took, failures: Vec::new() }, took);
            tally.cell(scenario, contestant)
        };
        Report {
            machine: Machine::this("15.0", Accounting::Groups).unwrap(),
            settings: Settings::Fastest,
            cells: cells.iter().map(cell).collect(),
            memory: Vec::new(),
            killed: Vec::new(),
            skipped: Vec::new(),
            promises: Vec::new(),
        }
    }

    #[test]
    fn quantiles_are_by_the_nearest_rank() {
        let of = |count: u64| Quantiles::of((1..=count).rev().map(Duration::from_millis));
        assert_eq!(of(1), Quantiles { median: 1.0, p95: 1.0, p99: 1.0 });
        assert_eq!(of(10), Quantiles { median: 5.0, p95: 10.0, p99: 10.0 });
        assert_eq!(of(200), Quantiles { median: 100.0, p95: 190.0, p99: 198.0 });
        assert_eq!(of(0), Quantiles::default());
    }
}

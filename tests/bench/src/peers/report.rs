//! What a run found.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contestant::Contestant;
use super::killed::Left;
use super::machine::Machine;
use super::promises::Promise;
use super::server::Settings;
use super::worker::Reply;
use super::workload::{Use, Workload};

/// All of it, as `--json` writes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Of the peers.
    pub(crate) settings: Settings,
    pub(crate) cells: Vec<Cell>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) killed: Vec<Killed>,
    /// What was not measured, and why.
    pub(crate) skipped: Vec<String>,
    pub(crate) promises: Vec<Promise>,
}

/// What many tests share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scene {
    pub(crate) workload: Workload,
    /// What each test looks at.
    #[serde(rename = "use")]
    pub(crate) what: Use,
    pub(crate) at_once: usize,
}

/// One contestant in one scene.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cell {
    #[serde(flatten)]
    pub(crate) scene: Scene,
    pub(crate) contestant: Contestant,
    /// How many databases were made.
    pub(crate) tests: usize,
    pub(crate) failed: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) first_failure: Option<String>,
    /// From the request for a database to the answer of the first query, in milliseconds.
    pub(crate) answered: Quantiles,
    /// To the end of teardown.
    pub(crate) gone: Quantiles,
    pub(crate) per_second: f64,
    /// Each, of client and servers.
    pub(crate) processor_ms: f64,
    /// Each, by the whole machine.
    pub(crate) disk_mb: f64,
}

/// In milliseconds; of no tests, zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

/// What each of some databases holds that live at once, with a connection open.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) workload: Workload,
    pub(crate) contestant: Contestant,
    pub(crate) live: usize,
    pub(crate) mb: f64,
}

/// A test process killed with some databases alive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Killed {
    pub(crate) workload: Workload,
    pub(crate) contestant: Contestant,
    pub(crate) live: usize,
    #[serde(flatten)]
    pub(crate) left: Left,
}

/// Blocks of tests, added up.
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

    /// The test process could not say how a block went.
    pub(crate) fn lost(&mut self, reason: String) {
        self.reply.failures.push(reason);
    }

    /// Bytes that disks wrote meanwhile, for each test so far.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.disk = bytes as f64 / 1e6 / self.reply.tests.len().max(1) as f64;
    }

    pub(crate) fn cell(self, scene: Scene, contestant: Contestant) -> Cell {
        let Self { reply, processor, disk } = self;
        let tests = reply.tests.len();
        Cell {
            scene,
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
        // The least value that so many of a hundred do not exceed.
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { median: at(50), p95: at(95), p99: at(99) }
    }
}

impl Report {
    pub(crate) fn cell(&self, scene: Scene, contestant: Contestant) -> Option<&Cell> {
        let mut cells = self.cells.iter().filter(|cell| cell.tests > 0);
        cells.find(|cell| cell.scene == scene && cell.contestant == contestant)
    }

    /// Those of which there are figures, in the order in which they were made.
    pub(crate) fn scenes(&self) -> Vec<Scene> {
        let mut scenes: Vec<Scene> = Vec::new();
        for cell in &self.cells {
            if !scenes.contains(&cell.scene) {
                scenes.push(cell.scene);
            }
        }
        scenes
    }
}

impl Scene {
    /// The workload, and what is done with it where there is a choice.
    pub(crate) fn name(self) -> String {
        let Self { workload, what, .. } = self;
        match what {
            _ if workload.uses().len() == 1 => workload.name().to_owned(),
            Use::Small => format!("{}, of which the test reads little", workload.name()),
            Use::Large => format!("{}, the large table read", workload.name()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::account::Accounting;
    use super::super::worker::Times;
    use super::*;

    /// A report of some cells: how long each test took, in milliseconds.
    pub(crate) fn report(cells: &[(Scene, Contestant, f64)]) -> Report {
        let cell = |&(scene, contestant, took): &(Scene, Contestant, f64)| {
            let took = Duration::from_secs_f64(took / 1e3);
            let mut tally = Tally::default();
            let tests = vec![Times { answered: took, gone: took }];
            tally.add(Reply { tests, took, failures: Vec::new() }, took);
            tally.cell(scene, contestant)
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
    fn a_quantile_is_the_least_value_that_so_many_do_not_exceed() {
        let of = |count: u64| Quantiles::of((1..=count).rev().map(Duration::from_millis));
        assert_eq!(of(1), Quantiles { median: 1.0, p95: 1.0, p99: 1.0 });
        assert_eq!(of(10), Quantiles { median: 5.0, p95: 10.0, p99: 10.0 });
        assert_eq!(of(200), Quantiles { median: 100.0, p95: 190.0, p99: 198.0 });
        assert_eq!(of(0), Quantiles::default());
    }
}

//! The promises of this project's speed, and whether this run keeps them.

use serde::{Deserialize, Serialize};

use super::contestant::{Contestant, Family};
use super::report::{Cell, Report, Scenario};
use super::workload::{Access, Workload};

/// A promise and its measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Promise {
    pub(crate) name: String,
    pub(crate) required: String,
    pub(crate) measured: String,
    pub(crate) kept: bool,
}

/// A promised ratio to rivals.
struct Ratio {
    workload: Workload,
    access: Access,
    rivals: Rivals,
    times: f64,
    /// `true` if the promise holds for the rate, too.
    throughput: bool,
}

/// The rivals whose best figure counts.
#[derive(Clone, Copy)]
enum Rivals {
    All,
    Only(Contestant),
    Family(Family),
}

const RATIOS: [Ratio; 6] = [
    Ratio { throughput: true, ..ratio(Workload::Empty, Access::Small, Rivals::All, 1.5) },
    ratio(Workload::Empty, Access::Small, Rivals::Family(Family::Servers), 50.0),
    ratio(Workload::Migrations, Access::Small, Rivals::Only(Contestant::SqlxTest), 10.0),
    ratio(Workload::Large, Access::Large, Rivals::All, 2.0),
    ratio(Workload::Large, Access::Small, Rivals::All, 10.0),
    ratio(Workload::Container, Access::Small, Rivals::All, 1.0),
];

/// Returns a promise of latency.
const fn ratio(workload: Workload, access: Access, rivals: Rivals, times: f64) -> Ratio {
    Ratio { workload, access, rivals, times, throughput: false }
}

/// The limit for one test at a time, from the request to the first answer, in milliseconds.
const COLD_MS: f64 = 6.5;
/// The limit of processor time for a test with one query, in milliseconds.
const PROCESSOR_MS: f64 = 8.0;
/// The limit for the teardown of a container without a server, in milliseconds.
const TEARDOWN_MS: f64 = 1.0;

/// Judges the promises that this run measured.
pub(crate) fn judge(report: &Report) -> Vec<Promise> {
    let mut promises = Vec::new();
    for scenario in report.scenarios() {
        let Some(ours) = report.cell(scenario, Contestant::Sandboxed) else { continue };
        for ratio in RATIOS
            .iter()
            .filter(|ratio| ratio.workload == scenario.workload && ratio.access == scenario.access)
        {
            promises.extend(ratio.latency(report, scenario, ours));
            promises.extend(ratio.throughput(report, scenario, ours));
        }
        if scenario.at_once == 1 {
            promises.extend(absolutes(scenario, ours));
        }
    }
    promises
}

fn absolutes(scenario: Scenario, ours: &Cell) -> Vec<Promise> {
    let below = |what: &str, limit: f64, measured: f64| Promise {
        name: format!("{}: {what}", scenario.name()),
        required: format!("{limit} ms"),
        measured: format!("{measured:.1} ms"),
        kept: measured <= limit,
    };
    match scenario.workload {
        Workload::Empty => vec![
            below("start to first answer, median", COLD_MS, ours.answered.median),
            below("processor time, each", PROCESSOR_MS, ours.processor_ms),
        ],
        Workload::Container => {
            vec![below("teardown, between medians", TEARDOWN_MS, ours.gone.median - ours.answered.median)]
        }
        _ => Vec::new(),
    }
}

impl Ratio {
    fn latency(&self, report: &Report, scenario: Scenario, ours: &Cell) -> Option<Promise> {
        let rivals = self.rivals(report, scenario);
        let best = rivals.into_iter().min_by(|a, b| a.answered.median.total_cmp(&b.answered.median))?;
        Some(self.promise(scenario, "latency", best, best.answered.median / ours.answered.median))
    }

    fn throughput(&self, report: &Report, scenario: Scenario, ours: &Cell) -> Option<Promise> {
        if !self.throughput {
            return None;
        }
        let rivals = self.rivals(report, scenario);
        let best = rivals.into_iter().max_by(|a, b| a.per_second.total_cmp(&b.per_second))?;
        Some(self.promise(scenario, "databases a second", best, ours.per_second / best.per_second))
    }

    fn rivals<'a>(&self, report: &'a Report, scenario: Scenario) -> Vec<&'a Cell> {
        let takes_part = |contestant: Contestant| match self.rivals {
            Rivals::All => contestant.family() != Family::Sandboxes,
            Rivals::Only(only) => contestant == only,
            Rivals::Family(family) => contestant.family() == family,
        };
        let contestants = Contestant::ALL.into_iter().filter(|&contestant| takes_part(contestant));
        contestants.filter_map(|contestant| report.cell(scenario, contestant)).collect()
    }

    fn promise(&self, scenario: Scenario, what: &str, best: &Cell, measured: f64) -> Promise {
        Promise {
            name: format!(
                "{}, {} at a time: {what} beside {}",
                scenario.name(),
                scenario.at_once,
                best.contestant.name()
            ),
            required: format!("{}×", self.times),
            measured: format!("{measured:.1}×"),
            kept: measured >= self.times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn a_ratio_is_to_the_fastest_rival_of_the_scenario() {
        let at_once = |at_once| Scenario { workload: Workload::Empty, access: Access::Small, at_once };
        let report = report(&[
            (at_once(1), Contestant::Sandboxed, 5.0),
            (at_once(1), Contestant::TemplateFileCopy, 10.0),
            (at_once(1), Contestant::SqlxTest, 15.0),
            (at_once(1), Contestant::PgTemp, 100.0),
            (at_once(8), Contestant::TemplateFileCopy, 1.0),
        ]);
        let promises = judge(&report);
        let found = |what: &str| promises.iter().find(|promise| promise.name.contains(what)).unwrap();
        let template = found("latency beside TEMPLATE");
        assert_eq!((&*template.measured, template.kept), ("2.0×", true));
        let servers = found("latency beside pgtemp");
        assert_eq!((&*servers.measured, servers.kept), ("20.0×", false));
        let cold = found("start to first answer");
        assert_eq!((&*cold.measured, cold.kept), ("5.0 ms", true));
        // No cell of this library has eight concurrent tests.
        assert!(!promises.iter().any(|promise| promise.name.contains("8 at a time")));
    }
}

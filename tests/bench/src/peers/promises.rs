//! What the project promises of its speed, and whether this run bears it out.

use serde::{Deserialize, Serialize};

use super::contestant::{Contestant, Family};
use super::report::{Cell, Report, Scene};
use super::workload::{Use, Workload};

/// A promise, and what was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Promise {
    pub(crate) what: String,
    pub(crate) required: String,
    pub(crate) measured: String,
    pub(crate) kept: bool,
}

/// Beside whom, and how many times faster.
struct Ratio {
    workload: Workload,
    what: Use,
    rivals: Rivals,
    times: f64,
    /// Whether more in a second are promised, too.
    throughput: bool,
}

/// Whose best figure counts.
#[derive(Clone, Copy)]
enum Rivals {
    All,
    Only(Contestant),
    Family(Family),
}

const RATIOS: [Ratio; 6] = [
    Ratio { workload: Workload::Empty, what: Use::Small, rivals: Rivals::All, times: 1.5, throughput: true },
    Ratio {
        workload: Workload::Empty,
        what: Use::Small,
        rivals: Rivals::Family(Family::Servers),
        times: 25.0,
        throughput: false,
    },
    Ratio {
        workload: Workload::Migrations,
        what: Use::Small,
        rivals: Rivals::Only(Contestant::SqlxTest),
        times: 5.0,
        throughput: false,
    },
    Ratio { workload: Workload::Large, what: Use::Large, rivals: Rivals::All, times: 2.0, throughput: false },
    Ratio {
        workload: Workload::Large,
        what: Use::Small,
        rivals: Rivals::All,
        times: 10.0,
        throughput: false,
    },
    Ratio {
        workload: Workload::Container,
        what: Use::Small,
        rivals: Rivals::All,
        times: 1.0,
        throughput: false,
    },
];

/// One at a time, from the request to the first answer, in milliseconds.
const COLD_MS: f64 = 15.0;
/// Each, with one query, in milliseconds.
const PROCESSOR_MS: f64 = 18.0;
/// Of a container without a server, as the test sees it, in milliseconds.
const TEARDOWN_MS: f64 = 1.0;

/// Judges whatever was measured.
pub(crate) fn judge(report: &Report) -> Vec<Promise> {
    let mut promises = Vec::new();
    for scene in report.scenes() {
        let Some(ours) = report.cell(scene, Contestant::Sandboxed) else { continue };
        for ratio in
            RATIOS.iter().filter(|ratio| ratio.workload == scene.workload && ratio.what == scene.what)
        {
            promises.extend(ratio.latency(report, scene, ours));
            promises.extend(ratio.throughput(report, scene, ours));
        }
        if scene.at_once == 1 {
            promises.extend(absolutes(scene, ours));
        }
    }
    promises
}

fn absolutes(scene: Scene, ours: &Cell) -> Vec<Promise> {
    let below = |what: &str, limit: f64, measured: f64| Promise {
        what: format!("{}: {what}", scene.name()),
        required: format!("{limit} ms"),
        measured: format!("{measured:.1} ms"),
        kept: measured <= limit,
    };
    match scene.workload {
        Workload::Empty => vec![
            below("asked to first answer, median", COLD_MS, ours.answered.median),
            below("processor time each", PROCESSOR_MS, ours.processor_ms),
        ],
        Workload::Container => {
            vec![below("teardown, between medians", TEARDOWN_MS, ours.gone.median - ours.answered.median)]
        }
        _ => Vec::new(),
    }
}

impl Ratio {
    fn latency(&self, report: &Report, scene: Scene, ours: &Cell) -> Option<Promise> {
        let rivals = self.rivals(report, scene);
        let best = rivals.into_iter().min_by(|a, b| a.answered.median.total_cmp(&b.answered.median))?;
        Some(self.promise(scene, "latency", best, best.answered.median / ours.answered.median))
    }

    fn throughput(&self, report: &Report, scene: Scene, ours: &Cell) -> Option<Promise> {
        if !self.throughput {
            return None;
        }
        let rivals = self.rivals(report, scene);
        let best = rivals.into_iter().max_by(|a, b| a.per_second.total_cmp(&b.per_second))?;
        Some(self.promise(scene, "databases a second", best, ours.per_second / best.per_second))
    }

    fn rivals<'a>(&self, report: &'a Report, scene: Scene) -> Vec<&'a Cell> {
        let takes_part = |contestant: Contestant| match self.rivals {
            Rivals::All => contestant.family() != Family::Sandboxes,
            Rivals::Only(only) => contestant == only,
            Rivals::Family(family) => contestant.family() == family,
        };
        let contestants = Contestant::ALL.into_iter().filter(|&contestant| takes_part(contestant));
        contestants.filter_map(|contestant| report.cell(scene, contestant)).collect()
    }

    fn promise(&self, scene: Scene, what: &str, best: &Cell, measured: f64) -> Promise {
        Promise {
            what: format!(
                "{}, {} at a time: {what} beside {}",
                scene.name(),
                scene.at_once,
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
    fn a_ratio_is_taken_beside_the_fastest_rival_of_the_same_scene() {
        let at_once = |at_once| Scene { workload: Workload::Empty, what: Use::Small, at_once };
        let report = report(&[
            (at_once(1), Contestant::Sandboxed, 10.0),
            (at_once(1), Contestant::TemplateFileCopy, 20.0),
            (at_once(1), Contestant::SqlxTest, 30.0),
            (at_once(1), Contestant::PgTemp, 200.0),
            (at_once(8), Contestant::TemplateFileCopy, 1.0),
        ]);
        let promises = judge(&report);
        let found = |what: &str| promises.iter().find(|promise| promise.what.contains(what)).unwrap();
        let template = found("latency beside TEMPLATE");
        assert_eq!((&*template.measured, template.kept), ("2.0×", true));
        let servers = found("latency beside pgtemp");
        assert_eq!((&*servers.measured, servers.kept), ("20.0×", false));
        let cold = found("asked to first answer");
        assert_eq!((&*cold.measured, cold.kept), ("10.0 ms", true));
        // This library was not measured there.
        assert!(!promises.iter().any(|promise| promise.what.contains("8 at a time")));
    }
}

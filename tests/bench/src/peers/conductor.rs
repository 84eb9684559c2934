//! Runs the contestants in turn.

use std::path::PathBuf;
use std::time::Duration;

use super::contestant::{Assignment, Contestant, Family};
use super::directories::RunDirectories;
use super::leftovers::{Before, adopt_orphans};
use super::machine::Machine;
use super::meter::{Accounting, Meter, written_to_disks};
use super::process::TestProcess;
use super::promises;
use super::report::{Killed, Memory, Report, Scenario, Tally};
use super::server::{Server, Settings};
use super::worker::{Block, Request};
use super::workload::{Access, Workload};
use crate::Result;
use crate::figures::{held_memory, memory};

/// The number of live databases when their process is killed.
const KILLED_WITH: usize = 8;
/// The limit of a shared server: two connections for each of 256 tests, and some.
const MAX_CONNECTIONS: u32 = 600;
/// The number of concurrent tests up to which contestants load a large database for each test.
const REPLAYED_AT_MOST: usize = 8;

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) settings: Settings,
    /// The user that runs the servers if this process is root.
    pub(crate) user: String,
    /// A directory on a file system whose files can share blocks.
    pub(crate) reflinks: Option<PathBuf>,
}

/// The size of a run.
struct Extent {
    workloads: &'static [Workload],
    at_once: &'static [usize],
    /// The number of blocks; half of it from 64 concurrent tests on, a quarter from 256.
    rounds: usize,
    /// The time after which a block starts no further test.
    budget: Duration,
    /// The number of live databases whose memory is measured; sqlx allows 20 connections for all
    /// tests together.
    live: usize,
}

const QUICK: Extent = Extent {
    workloads: &[Workload::Container, Workload::Empty, Workload::Migrations, Workload::Large],
    at_once: &[1, 8],
    rounds: 2,
    budget: Duration::from_millis(500),
    live: 8,
};
const FULL: Extent = Extent {
    workloads: &[Workload::Container, Workload::Empty, Workload::Migrations, Workload::Large, Workload::Huge],
    at_once: &[1, 8, 64, 256],
    rounds: 4,
    budget: Duration::from_secs(2),
    live: 16,
};

/// A contestant with its process and its shared server.
struct Entrant {
    assignment: Assignment,
    // Dropped in this order: the client, its server, the meter of both.
    process: TestProcess,
    server: Option<Server>,
    meter: Meter,
}

/// Measures all contestants in all scenarios. The report names contestants that failed, with the
/// reason.
pub(crate) fn measure(options: &Options) -> Result<Report> {
    let extent = if options.quick { QUICK } else { FULL };
    allow_descriptors()?;
    adopt_orphans()?;
    let place = RunDirectories::new(&options.user, options.reflinks.as_deref())?;
    let accounting = Accounting::available()?;
    let mut report = Report {
        machine: Machine::this(place.postgres.version(), accounting)?,
        settings: options.settings,
        cells: Vec::new(),
        memory: Vec::new(),
        killed: Vec::new(),
        skipped: Vec::new(),
        promises: Vec::new(),
    };
    for &workload in extent.workloads {
        let mut entrants = enter(&place, workload, options.settings, accounting, &mut report)?;
        for &access in workload.uses() {
            for &at_once in extent.at_once {
                run(&mut entrants, Scenario { workload, access, at_once }, &extent, &mut report)?;
            }
        }
        if workload != Workload::Huge {
            weigh(&mut entrants, extent.live, &mut report)?;
        }
        if matches!(workload, Workload::Container | Workload::Empty) {
            for entrant in entrants {
                report.killed.push(kill(entrant)?);
            }
        }
    }
    report.promises = promises::judge(&report);
    Ok(report)
}

/// Raises the limit of descriptors: a sandbox takes four, a client and a server some more.
pub(crate) fn allow_descriptors() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Starts the contestants of a workload.
fn enter(
    place: &RunDirectories,
    workload: Workload,
    settings: Settings,
    accounting: Accounting,
    report: &mut Report,
) -> Result<Vec<Entrant>> {
    let files = workload.write(place.disk())?;
    let mut entrants = Vec::new();
    for (number, contestant) in Contestant::ALL.into_iter().enumerate() {
        if let Err(reason) = contestant.joins(workload, place) {
            let reason = reason.map(|reason| format!("{}, {}: {reason}", workload.name(), contestant.name()));
            report.skipped.extend(reason);
            continue;
        }
        print(&format!("{}: preparing {}", workload.name(), contestant.name()));
        let meter = accounting.open(number)?;
        let own = place.directory(contestant, settings, &format!("{workload:?}-{contestant:?}"))?;
        let server = match contestant.family() {
            Family::Databases => {
                let command = |program: &str| place.command(place.postgres.program(program));
                let server = Server::start(
                    &command,
                    place.directory(contestant, settings, &format!("{workload:?}-{number}"))?,
                    (settings, contestant.configuration()),
                    MAX_CONNECTIONS,
                )?;
                // Children that exist already do hardly any work.
                meter.enter(server.id())?;
                Some(server)
            }
            _ => None,
        };
        let assignment = Assignment {
            contestant,
            workload,
            files: files.clone(),
            place: own,
            settings,
            programs: place.postgres.bin().to_owned(),
            server: server.as_ref().map(|server| server.url("postgres")),
        };
        match TestProcess::start(place, &assignment, &meter) {
            Ok(process) => entrants.push(Entrant { assignment, process, server, meter }),
            Err(error) => report.skipped.push(format!(
                "{}, {}: could not start: {error}",
                workload.name(),
                contestant.name()
            )),
        }
    }
    Ok(entrants)
}

/// Runs rounds of blocks, one by each entrant.
fn run(entrants: &mut [Entrant], scenario: Scenario, extent: &Extent, report: &mut Report) -> Result<()> {
    let Scenario { workload, access, at_once } = scenario;
    let mut able = Vec::new();
    for entrant in entrants.iter_mut() {
        match obstacle(entrant.assignment.contestant, scenario)? {
            None => able.push(entrant),
            Some(reason) => {
                let name = entrant.assignment.contestant.name();
                report.skipped.push(format!("{}, {at_once} at a time, {name}: {reason}", scenario.name()));
            }
        }
    }
    let block = Block {
        query: workload.query(access).to_owned(),
        at_once,
        count: (2 * at_once).max(10),
        budget: extent.budget,
    };
    let rounds = match at_once {
        ..64 => extent.rounds,
        64..256 => extent.rounds / 2,
        _ => extent.rounds / 4,
    };
    let mut tallies: Vec<Tally> = able.iter().map(|_| Tally::default()).collect();
    print(&format!("{}, {at_once} at a time", scenario.name()));
    // Warms connections and pools that tests share.
    for entrant in able.iter_mut().filter(|entrant| entrant.assignment.contestant.family() != Family::Servers)
    {
        entrant.process.request(&Request::Block(Block { count: at_once.min(8), ..block.clone() }))?;
    }
    for round in 0..rounds {
        for turn in 0..able.len() {
            // Rotates, so that no entrant always follows the same one.
            let index = (turn + round) % able.len();
            let (entrant, tally) = (&mut able[index], &mut tallies[index]);
            let request = Request::Block(block.clone());
            let disks = if round == 0 { Some(written_to_disks()?) } else { None };
            let (reply, processor) = entrant.meter.during(|| entrant.process.request(&request))?;
            match reply {
                Ok(block) => tally.add(block, processor),
                Err(error) => tally.lost(error.to_string()),
            }
            if let Some(before) = disks {
                tally.wrote(written_to_disks()?.saturating_sub(before));
            }
        }
    }
    for (entrant, tally) in able.iter().zip(tallies) {
        report.cells.push(tally.cell(scenario, entrant.assignment.contestant));
    }
    Ok(())
}

/// Returns the reason why a contestant cannot run a scenario.
fn obstacle(contestant: Contestant, scenario: Scenario) -> Result<Option<String>> {
    let Scenario { workload, access, at_once } = scenario;
    if contestant.replays() && workload == Workload::Large && at_once > REPLAYED_AT_MOST {
        return Ok(Some("the tool loads the whole data set for each test".to_owned()));
    }
    let needed = contestant.memory(workload, access == Access::Large) * at_once as u64;
    let available = memory(&["MemAvailable:"])? / 4 * 3;
    Ok((needed > available)
        .then(|| format!("out of memory: {} GB needed, {} GB available", needed >> 30, available >> 30)))
}

/// Measures the memory of each live database.
fn weigh(entrants: &mut [Entrant], live: usize, report: &mut Report) -> Result<()> {
    for Entrant { assignment, process, .. } in entrants {
        let Assignment { contestant, workload, .. } = *assignment;
        let live = if contestant.replays() && workload == Workload::Large { live.min(4) } else { live };
        print(&format!("{}: memory, {}", workload.name(), contestant.name()));
        let before = held_memory()?;
        let query = workload.query(Access::Small).to_owned();
        let held = process.request(&Request::Hold { query, count: live })?;
        let after = held_memory()?;
        process.request(&Request::Release)?;
        let made = live - held.failures.len();
        if made > 0 {
            let mb = after.saturating_sub(before) as f64 / made as f64 / f64::from(1 << 20);
            report.memory.push(Memory { workload, contestant, live: made, mb });
        }
    }
    Ok(())
}

/// Kills the test process in the middle of its tests.
fn kill(entrant: Entrant) -> Result<Killed> {
    let Entrant { assignment, mut process, server, meter } = entrant;
    print(&format!("{}: killed, {}", assignment.workload.name(), assignment.contestant.name()));
    let url = assignment.server.as_deref();
    // The data of a shared server is beside that of its contestant.
    let place = assignment.place.parent().ok_or("the directory of a contestant has a parent")?;
    let before = Before::now(place, url, process.id())?;
    let query = assignment.workload.query(Access::Small).to_owned();
    let held = process.request(&Request::Hold { query, count: KILLED_WITH })?;
    process.kill()?;
    let leftovers = before.leftovers(place, url)?;
    drop((server, meter));
    Ok(Killed {
        workload: assignment.workload,
        contestant: assignment.contestant,
        live: KILLED_WITH - held.failures.len(),
        leftovers,
    })
}

#[expect(clippy::print_stderr, reason = "progress of a run that takes minutes")]
fn print(line: &str) {
    eprintln!("{line}");
}

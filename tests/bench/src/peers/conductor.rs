//! Who plays when, and how often.

use std::time::Duration;

use super::account::{Account, Accounting, written_to_disks};
use super::contestant::{Contestant, Family, Part};
use super::killed::{self, Before};
use super::machine::Machine;
use super::place::Place;
use super::process::TestProcess;
use super::promises;
use super::report::{Killed, Memory, Report, Scene, Tally};
use super::server::{Server, Settings};
use super::worker::{Block, Order};
use super::workload::{Use, Workload};
use crate::Outcome;
use crate::figures::{held_memory, memory};

/// How many databases live when their process is killed.
const KILLED_WITH: usize = 8;
/// Of a server that tests share: for the most at once, with an administrator's connection each, and some.
const MAX_CONNECTIONS: u32 = 600;
/// With so many at once, who makes all anew for each test is no longer asked to load a large database.
const REPLAYED_AT_MOST: usize = 8;

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) settings: Settings,
    /// Who runs the servers if this process is root.
    pub(crate) user: String,
}

/// How much is measured.
struct Extent {
    workloads: &'static [Workload],
    at_once: &'static [usize],
    /// How many blocks each gets; halved from 64 at once on, and halved again from 256.
    rounds: usize,
    /// How long a block of tests goes on, if more are to be had.
    budget: Duration,
    /// How many live at once for their memory to be measured; sqlx allows 20 connections to all tests together.
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

/// A contestant with its process, and its server if it shares one.
struct Entrant {
    part: Part,
    // In the order in which they end: who is served, who serves, what counts both.
    process: TestProcess,
    server: Option<Server>,
    account: Account,
}

/// Measures all contestants in all scenes. One that fails, or cannot begin, is in the report with its reason.
pub(crate) fn measure(options: &Options) -> Outcome<Report> {
    let extent = if options.quick { QUICK } else { FULL };
    allow_descriptors()?;
    killed::adopt_orphans()?;
    let place = Place::new(&options.user)?;
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
        for &what in workload.uses() {
            for &at_once in extent.at_once {
                play(&mut entrants, Scene { workload, what, at_once }, &extent, &mut report)?;
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

/// Four descriptors for a sandbox, some more for a client; and files of servers.
fn allow_descriptors() -> Outcome<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Starts the processes of all who take part in a workload.
fn enter(
    place: &Place,
    workload: Workload,
    settings: Settings,
    accounting: Accounting,
    report: &mut Report,
) -> Outcome<Vec<Entrant>> {
    let files = workload.write(place.disk())?;
    let mut entrants = Vec::new();
    for (number, contestant) in Contestant::ALL.into_iter().enumerate() {
        if let Err(reason) = contestant.joins(workload, place.postgres.major()) {
            let said = reason.map(|reason| format!("{}, {}: {reason}", workload.name(), contestant.name()));
            report.skipped.extend(said);
            continue;
        }
        say(&format!("{}: {} prepares", workload.name(), contestant.name()));
        let account = accounting.open(number)?;
        let own = place.directory(settings, &format!("{workload:?}-{contestant:?}"))?;
        let server = match contestant.family() {
            Family::Databases => {
                let command = |program: &str| place.command(place.postgres.program(program));
                let server = Server::start(
                    &command,
                    place.directory(settings, &format!("{workload:?}-{number}"))?,
                    settings,
                    MAX_CONNECTIONS,
                )?;
                // Its children so far do next to nothing later.
                account.enter(server.id())?;
                Some(server)
            }
            _ => None,
        };
        let part = Part {
            contestant,
            workload,
            files: files.clone(),
            place: own,
            settings,
            programs: place.postgres.bin().to_owned(),
            server: server.as_ref().map(|server| server.url("postgres")),
        };
        match TestProcess::start(place, &part, &account) {
            Ok(process) => entrants.push(Entrant { part, process, server, account }),
            Err(error) => report.skipped.push(format!(
                "{}, {}: cannot begin: {error}",
                workload.name(),
                contestant.name()
            )),
        }
    }
    Ok(entrants)
}

/// Rounds of blocks, one by each entrant that can.
fn play(entrants: &mut [Entrant], scene: Scene, extent: &Extent, report: &mut Report) -> Outcome<()> {
    let Scene { workload, what, at_once } = scene;
    let mut able = Vec::new();
    for entrant in entrants.iter_mut() {
        match obstacle(entrant.part.contestant, scene)? {
            None => able.push(entrant),
            Some(reason) => {
                let name = entrant.part.contestant.name();
                report.skipped.push(format!("{}, {at_once} at a time, {name}: {reason}", scene.name()));
            }
        }
    }
    let block = Block {
        query: workload.query(what).to_owned(),
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
    say(&format!("{}, {at_once} at a time", scene.name()));
    // Connections, pools, whatever is kept from one test to the next.
    for entrant in able.iter_mut().filter(|entrant| entrant.part.contestant.family() != Family::Servers) {
        entrant.process.order(&Order::Block(Block { count: at_once.min(8), ..block.clone() }))?;
    }
    for round in 0..rounds {
        for turn in 0..able.len() {
            // Another begins each time, so that nobody always comes after the same.
            let index = (turn + round) % able.len();
            let (entrant, tally) = (&mut able[index], &mut tallies[index]);
            let order = Order::Block(block.clone());
            let disks = if round == 0 { Some(written_to_disks()?) } else { None };
            let (reply, processor) = entrant.account.during(|| entrant.process.order(&order))?;
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
        report.cells.push(tally.cell(scene, entrant.part.contestant));
    }
    Ok(())
}

/// Why a contestant is not asked.
fn obstacle(contestant: Contestant, scene: Scene) -> Outcome<Option<String>> {
    let Scene { workload, what, at_once } = scene;
    if contestant.replays() && workload == Workload::Large && at_once > REPLAYED_AT_MOST {
        return Ok(Some("would take minutes, since each test loads all of it".to_owned()));
    }
    let needed = contestant.room(workload, what == Use::Large) * at_once as u64;
    let available = memory(&["MemAvailable:"])? / 4 * 3;
    Ok((needed > available)
        .then(|| format!("would need {} GB of memory, and {} are to be had", needed >> 30, available >> 30)))
}

/// How much memory each database holds.
fn weigh(entrants: &mut [Entrant], live: usize, report: &mut Report) -> Outcome<()> {
    for Entrant { part, process, .. } in entrants {
        let Part { contestant, workload, .. } = *part;
        let live = if contestant.replays() && workload == Workload::Large { live.min(4) } else { live };
        say(&format!("{}: memory, {}", workload.name(), contestant.name()));
        let before = held_memory()?;
        let query = workload.query(Use::Small).to_owned();
        let held = process.order(&Order::Hold { query, count: live })?;
        let after = held_memory()?;
        process.order(&Order::Release)?;
        let made = live - held.failures.len();
        if made > 0 {
            let mb = after.saturating_sub(before) as f64 / made as f64 / f64::from(1 << 20);
            report.memory.push(Memory { workload, contestant, live: made, mb });
        }
    }
    Ok(())
}

/// Ends its process in the middle of tests.
fn kill(entrant: Entrant) -> Outcome<Killed> {
    let Entrant { part, mut process, server, account } = entrant;
    say(&format!("{}: killed, {}", part.workload.name(), part.contestant.name()));
    let url = part.server.as_deref();
    // A shared server's data are beside its contestant's own.
    let place = part.place.parent().ok_or("a contestant's directory is in the run's")?;
    let before = Before::now(place, url, process.id())?;
    let query = part.workload.query(Use::Small).to_owned();
    let held = process.order(&Order::Hold { query, count: KILLED_WITH })?;
    process.kill()?;
    let left = before.left(place, url)?;
    drop((server, account));
    Ok(Killed {
        workload: part.workload,
        contestant: part.contestant,
        live: KILLED_WITH - held.failures.len(),
        left,
    })
}

#[expect(clippy::print_stderr, reason = "a run takes many minutes")]
fn say(what: &str) {
    eprintln!("{what}");
}

//! Measures tests with and without prewarmed sandboxes: handover, first answer, rate. The
//! environment of a process turns the pool off, so each kind runs in its own process.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Snapshot};

use crate::Result;
use crate::figures::{Figures, Unit, by_another_process, concurrently};
use crate::peers::Accounting;

pub(crate) const VARIABLE: &str = "SANDBOXED_DB_POOL";

/// The time for which a test waits or computes.
const WORK: Duration = Duration::from_millis(50);

/// Runs this program again without a pool, in a control group if one can be created.
pub(crate) fn without() -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(VARIABLE, "0");
    match Accounting::available()?.open(0)?.around(|| command.status())?? {
        status if status.success() => Ok(()),
        status => Err(format!("could not measure: the process ended with {status}").into()),
    }
}

/// Measures without the pool and with it.
pub(crate) fn compare(quick: bool) -> Result<Figures> {
    let mut figures = Figures::default();
    for pool in ["0", ""] {
        figures.extend(by_another_process(|command| {
            command.arg("--pooled").args(quick.then_some("--quick")).env(VARIABLE, pool);
        })?);
    }
    Ok(figures)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Short,
    Waiting,
    Busy,
}

pub(crate) fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    let rounds = if quick { 40 } else { 300 };
    let snapshot = Snapshot::new(Postgres::new());
    drop(snapshot.start()?);
    for kind in [Kind::Waiting, Kind::Busy, Kind::Short] {
        for at_a_time in [1, 8] {
            tests(figures, &snapshot, rounds, kind, at_a_time)?;
        }
    }
    Ok(())
}

fn tests(
    figures: &mut Figures,
    snapshot: &Snapshot,
    rounds: usize,
    kind: Kind,
    at_a_time: usize,
) -> Result<()> {
    let (times, took) = concurrently(rounds, at_a_time, || {
        let begin = Instant::now();
        let db = snapshot.start()?;
        let handed_over = begin.elapsed();
        let mut client = Client::connect(db.url(), NoTls)?;
        client.query_one("select 1", &[])?;
        let answered = begin.elapsed();
        match kind {
            Kind::Short => {}
            Kind::Waiting => thread::sleep(WORK),
            Kind::Busy => {
                let begin = Instant::now();
                while begin.elapsed() < WORK {
                    std::hint::spin_loop();
                }
            }
        }
        Ok((handed_over, answered))
    })?;
    let (handed_over, answered) = times.into_iter().unzip();
    let per_second = rounds as f64 / took.as_secs_f64();
    let with = if std::env::var(VARIABLE).is_ok_and(|most| most == "0") { "no pool" } else { "pool" };
    let kind = match kind {
        Kind::Short => "short",
        Kind::Waiting => "waiting",
        Kind::Busy => "busy",
    };
    let what = format!("{with}, {kind} tests, {at_a_time} at a time");
    figures.distribution(&format!("{what}: handed over"), handed_over);
    figures.distribution(&format!("{what}: first answer"), answered);
    figures.push(what, per_second, Unit::PerSecond);
    Ok(())
}

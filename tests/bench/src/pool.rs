//! Measures tests with and without prewarmed sandboxes: handover, first answer, rate. The
//! environment of a process turns the pool off, so each kind runs in its own process.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Snapshot};

use crate::Result;
use crate::figures::{Figure, Figures, Results, Unit};

pub(crate) const VARIABLE: &str = "SANDBOXED_DB_POOL";

/// The time for which a test waits or computes.
const WORK: Duration = Duration::from_millis(50);

/// Executes this program again without a pool.
pub(crate) fn without() -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    Err(command.args(std::env::args_os().skip(1)).env(VARIABLE, "0").exec().into())
}

/// Measures without the pool and with it.
pub(crate) fn compare(quick: bool) -> Result<Figures> {
    let mut figures = Figures::default();
    for pool in ["0", ""] {
        let place = tempfile::tempdir()?;
        let json = place.path().join("figures.json");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--pooled", "--json"]).arg(&json).args(quick.then_some("--quick"));
        let status = command.env(VARIABLE, pool).status()?;
        if !status.success() {
            return Err(format!("the process that measures the pool ended with {status}").into());
        }
        figures.extend(serde_json::from_slice::<Results>(&fs::read(json)?)?.figures);
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
    let next = AtomicUsize::new(0);
    let (handed_over, answered) = (Mutex::new(vec![]), Mutex::new(vec![]));
    let work = || -> Result<()> {
        while next.fetch_add(1, Ordering::Relaxed) < rounds {
            let begin = Instant::now();
            let db = snapshot.start()?;
            handed_over.lock().expect("no worker panics").push(begin.elapsed());
            let mut client = Client::connect(db.url(), NoTls)?;
            client.query_one("select 1", &[])?;
            answered.lock().expect("no worker panics").push(begin.elapsed());
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
        }
        Ok(())
    };
    let begin = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let per_second = rounds as f64 / begin.elapsed().as_secs_f64();
    let with = if std::env::var(VARIABLE).is_ok_and(|most| most == "0") { "no pool" } else { "pool" };
    let kind = match kind {
        Kind::Short => "short",
        Kind::Waiting => "waiting",
        Kind::Busy => "busy",
    };
    let what = format!("{with}, {kind} tests, {at_a_time} at a time");
    figures.distribution(&format!("{what}: handed over"), handed_over.into_inner()?);
    figures.distribution(&format!("{what}: first answer"), answered.into_inner()?);
    figures.push(Figure::of(what, per_second, Unit::PerSecond));
    Ok(())
}

//! Measures starts and memory with thousands of live sandboxes.

use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandboxed_db::{Postgres, Sandbox, Snapshot};

use crate::Result;
use crate::figures::{Figure, Figures, Unit, held_memory, median};

/// The number of starts in one median.
const BLOCK: usize = 50;

pub(crate) fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    raise_descriptors()?;
    let marks: &[usize] = if quick { &[100, 300] } else { &[1000, 2000, 3000] };
    let snapshot = Snapshot::new(Postgres::new());
    for _ in 0..20 {
        drop(snapshot.start()?);
    }
    thread::sleep(Duration::from_secs(2));
    let before = held_memory()?;
    let mut alive = Vec::new();
    let mut first = None;
    for &mark in marks {
        let took = start(&snapshot, mark, &mut alive)?;
        let last = median(&took[took.len() - BLOCK..]);
        if first.is_none() {
            first = Some(median(&took[..BLOCK]));
            figures.push(milliseconds(format!("first {BLOCK} alive: start"), first.unwrap_or_default()));
        }
        figures.push(milliseconds(format!("{BLOCK} more, {mark} alive: start"), last));
        let ratio = last.as_secs_f64() / first.unwrap_or_default().as_secs_f64();
        figures.push(Figure::of(format!("{mark} alive: start, ratio to the first"), ratio, Unit::Count));
        let held = held_memory()?.saturating_sub(before) as f64 / f64::from(1 << 20);
        figures.push(Figure::of(format!("{mark} alive: memory of all"), held, Unit::Megabytes));
    }
    // Every tenth server must still answer.
    let mut answers = Vec::new();
    for db in alive.iter().step_by(10) {
        let begin = Instant::now();
        Client::connect(db.url(), NoTls)?.query_one("select 1", &[])?;
        answers.push(begin.elapsed());
    }
    figures.push(milliseconds(format!("{} alive: first query of one", alive.len()), median(&answers)));
    let count = alive.len();
    let mut ends = Vec::new();
    for db in alive.drain(..) {
        let begin = Instant::now();
        drop(db);
        ends.push(begin.elapsed());
    }
    figures
        .push(milliseconds(format!("{count} alive: teardown of the first {BLOCK}"), median(&ends[..BLOCK])));
    figures.push(milliseconds("a few alive: teardown".to_owned(), median(&ends[count - BLOCK..])));
    Ok(())
}

/// Starts sandboxes until `until` are alive. Returns the time of each start.
fn start(snapshot: &Snapshot, until: usize, alive: &mut Vec<Sandbox>) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    while alive.len() < until {
        let begin = Instant::now();
        alive.push(snapshot.start()?);
        took.push(begin.elapsed());
    }
    Ok(took)
}

fn milliseconds(name: String, value: Duration) -> Figure {
    Figure::of(name, value.as_secs_f64() * 1e3, Unit::Milliseconds)
}

/// Raises the limit of descriptors, since this process holds some for each live sandbox.
fn raise_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

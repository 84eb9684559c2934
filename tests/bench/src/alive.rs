//! Measures starts and memory with thousands of live sandboxes.

use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use sandboxed_db::{Postgres, Sandbox, Snapshot};

use crate::Result;
use crate::figures::{Figures, Unit, held_memory, median};
use crate::peers::allow_descriptors;

/// The number of starts in one median.
const BLOCK: usize = 50;

pub(crate) fn measure(figures: &mut Figures, quick: bool) -> Result<()> {
    allow_descriptors()?;
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
            figures.time(format!("first {BLOCK} alive: start"), first.unwrap_or_default());
        }
        figures.time(format!("{BLOCK} more, {mark} alive: start"), last);
        let ratio = last.as_secs_f64() / first.unwrap_or_default().as_secs_f64();
        figures.push(format!("{mark} alive: start, ratio to the first"), ratio, Unit::Count);
        let held = held_memory()?.saturating_sub(before) as f64;
        figures.memory(format!("{mark} alive: memory of all"), held);
    }
    // Every tenth server must still answer.
    let mut answers = Vec::new();
    for db in alive.iter().step_by(10) {
        let begin = Instant::now();
        Client::connect(db.url(), NoTls)?.query_one("select 1", &[])?;
        answers.push(begin.elapsed());
    }
    figures.time(format!("{} alive: first query of one", alive.len()), median(&answers));
    let count = alive.len();
    let mut ends = Vec::new();
    for db in alive.drain(..) {
        let begin = Instant::now();
        drop(db);
        ends.push(begin.elapsed());
    }
    figures.time(format!("{count} alive: teardown of the first {BLOCK}"), median(&ends[..BLOCK]));
    figures.time("a few alive: teardown", median(&ends[count - BLOCK..]));
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

//! The threads of the pool: the keeper, which decides and ends, and makers, each of which starts one spare.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::shelf::{Maker, Spare};
use super::{Guard, MADE, Pool, WORK, memory, pool};
use crate::admission;
use crate::engine::Engine;
use crate::sandbox::Prepared;

/// How often it is looked whether somebody waits for a spare's place, or nobody for the spare.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a keeper without spares waits for those in the making, which say when they are made.
const LONG: Duration = Duration::from_secs(60);
/// How long a kind of sandbox is left alone that could not be started.
const AVOIDED: Duration = Duration::from_secs(10);
/// How long nothing is started ahead where there was no room.
const CLOSED: Duration = Duration::from_millis(200);

/// What starts further sandboxes as this one.
pub(super) fn maker<E: Engine>(prepared: Prepared<E>) -> Maker {
    Arc::new(move |slot| Ok(Spare { server: prepared.start()?, slot }))
}

/// Has the keeper look, if there is something to do; also has there be one.
pub(super) fn rouse(pool: &mut Pool) {
    if pool.lacking(Instant::now()).is_none() {
        return;
    }
    if pool.kept {
        WORK.notify_one();
    } else {
        // Without threads there are no spares.
        pool.kept = thread::Builder::new().name("sandboxed-db".to_owned()).spawn(keep).is_ok();
    }
}

fn keep() {
    let mut guard = pool();
    while let Some(held) = guard.as_mut() {
        let now = Instant::now();
        let spares = held.lines.iter().any(|line| !line.spares.is_empty());
        let waited_for = admission::are_waited_for();
        let ending = held.superfluous(now, waited_for);
        if !ending.is_empty() {
            drop(guard);
            // An engine of the user's own may panic, and without a keeper spares would not end.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(ending)));
            guard = pool();
            continue;
        }
        if !waited_for && let Some(index) = held.lacking(now) {
            make(held, index);
            continue;
        }
        let making = held.lines.iter().any(|line| line.making > 0);
        if !spares && !making {
            held.kept = false;
            return;
        }
        let pause = if spares { PAUSE } else { LONG };
        guard = WORK.wait_timeout(guard, pause).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Starts a spare of that line on a thread of its own.
fn make(pool: &mut Pool, index: usize) {
    let line = &mut pool.lines[index];
    let (number, maker) = (line.number, line.maker.clone());
    line.making += 1;
    let work = move || {
        let outcome = match admission::spare().filter(|_| memory::is_left()) {
            // An engine of the user's own may panic.
            Some(slot) => catch_unwind(AssertUnwindSafe(|| maker(slot))).ok().and_then(Result::ok),
            None => return made(number, None, Some(CLOSED)),
        };
        made(number, outcome, None);
    };
    if thread::Builder::new().name("sandboxed-db".to_owned()).spawn(work).is_err() {
        pool.lines[index].making -= 1;
        pool.closed = Some(Instant::now() + CLOSED);
    }
}

/// Puts a spare to the others; or leaves its kind alone, or all for a while where there was no room.
fn made(number: u64, spare: Option<Spare>, closed: Option<Duration>) {
    let now = Instant::now();
    let mut guard: Guard = pool();
    if let Some(pool) = guard.as_mut() {
        let line = pool.lines.iter_mut().find(|line| line.number == number);
        if let Some(line) = line {
            line.making -= 1;
            match spare {
                Some(spare) => {
                    line.demand.started(now.saturating_duration_since(spare.server.executed));
                    line.spares.push_back(spare);
                }
                None if closed.is_none() => line.avoided = Some(now + AVOIDED),
                None => {}
            }
        }
        pool.closed = closed.map(|closed| now + closed);
    }
    drop(guard);
    MADE.notify_all();
    WORK.notify_one();
}

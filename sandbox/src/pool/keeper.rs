//! The threads of the pool: the keeper, which decides and ends, and makers, each of which starts
//! one prewarmed sandbox.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::shelf::{Maker, Prewarmed};
use super::{Guard, MADE, Pool, WORK, memory, pool};
use crate::admission;
use crate::engine::Engine;
use crate::sandbox::Prepared;

/// The interval at which the keeper looks for waiting requests and for superfluous sandboxes.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest wait for sandboxes in the making, whose makers notify the keeper.
const LONG: Duration = Duration::from_secs(60);
/// The pause for a plan after a failed start.
const AVOIDED: Duration = Duration::from_secs(10);
/// The pause for all plans after there was no slot or no memory.
const CLOSED: Duration = Duration::from_millis(200);

/// Returns a function that starts sandboxes of this plan.
pub(super) fn maker<E: Engine>(prepared: Prepared<E>) -> Maker {
    Arc::new(move |slot| Ok(Prewarmed { server: prepared.start()?, slot }))
}

/// Wakes or starts the keeper if there is something to do.
pub(super) fn rouse(pool: &mut Pool) {
    if pool.lacking(Instant::now()).is_none() {
        return;
    }
    if pool.kept {
        WORK.notify_one();
    } else {
        // Without a thread nothing is prewarmed.
        pool.kept = thread::Builder::new().name("sandboxed-db".to_owned()).spawn(keep).is_ok();
    }
}

fn keep() {
    let mut guard = pool();
    while let Some(held) = guard.as_mut() {
        let now = Instant::now();
        let prewarmed = held.shelves.iter().any(|shelf| !shelf.prewarmed.is_empty());
        let waited_for = admission::are_waited_for();
        let ending = held.superfluous(now, waited_for);
        if !ending.is_empty() {
            drop(guard);
            // A user's engine may panic, and without a keeper the sandboxes would not end.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(ending)));
            guard = pool();
            continue;
        }
        if !waited_for && let Some(index) = held.lacking(now) {
            make(held, index);
            continue;
        }
        let making = held.shelves.iter().any(|shelf| shelf.making > 0);
        if !prewarmed && !making {
            held.kept = false;
            return;
        }
        let pause = if prewarmed { PAUSE } else { LONG };
        guard = WORK.wait_timeout(guard, pause).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Starts a sandbox for a shelf on a new thread.
fn make(pool: &mut Pool, index: usize) {
    let shelf = &mut pool.shelves[index];
    let (number, maker, idle_memory) = (shelf.number, shelf.maker.clone(), shelf.idle_memory);
    shelf.making += 1;
    let work = move || {
        let outcome = match admission::spare(idle_memory).filter(|_| memory::is_left()) {
            // A user's engine may panic.
            Some(slot) => catch_unwind(AssertUnwindSafe(|| maker(slot))).ok().and_then(Result::ok),
            None => return made(number, None, Some(CLOSED)),
        };
        made(number, outcome, None);
    };
    if thread::Builder::new().name("sandboxed-db".to_owned()).spawn(work).is_err() {
        pool.shelves[index].making -= 1;
        pool.closed = Some(Instant::now() + CLOSED);
    }
}

/// Puts a new sandbox on its shelf, or begins a pause: of the plan after a failed start, of all if
/// `closed`.
fn made(number: u64, prewarmed: Option<Prewarmed>, closed: Option<Duration>) {
    let now = Instant::now();
    let mut guard: Guard = pool();
    if let Some(pool) = guard.as_mut() {
        let shelf = pool.shelves.iter_mut().find(|shelf| shelf.number == number);
        if let Some(shelf) = shelf {
            shelf.making -= 1;
            match prewarmed {
                Some(prewarmed) => {
                    shelf.demand.started(now.saturating_duration_since(prewarmed.server.executed));
                    shelf.prewarmed.push_back(prewarmed);
                }
                None if closed.is_none() => shelf.avoided = Some(now + AVOIDED),
                None => {}
            }
        }
        pool.closed = closed.map(|closed| now + closed);
    }
    drop(guard);
    MADE.notify_all();
    WORK.notify_one();
}

//! The pool: prewarmed sandboxes of the snapshots in use, started while tests run.
//!
//! A request for a sandbox gets a prewarmed one that was started from the very same plan, or waits
//! for one in the making. Threads of the pool make them while the processors have no requested
//! starts to do. One more thread, the keeper, lives as long as there are prewarmed sandboxes, and
//! ends those that are not requested any more, or whose slot a request waits for. The pool belongs
//! to one process and ends with it: a prewarmed sandbox is tied to its process as every sandbox is.
//!
//! A start that fails here is no test's error: the next request starts a sandbox itself and reports
//! why.

mod keeper;
mod memory;
mod plan_key;
mod policy;
mod shelf;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::environment;
use crate::error::Result;
use crate::layer::Layer;
use crate::sandbox::{Prepared, quiet_since};

use plan_key::PlanKey;
use policy::{Credit, Load};
pub(crate) use shelf::Prewarmed;
use shelf::Shelf;

/// The longest wait for a prewarmed sandbox in the making.
const PATIENCE: Duration = Duration::from_secs(1);
/// The plans that are remembered, the last requested ones.
const MOST_SHELVES: usize = 64;

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
/// Notified when there may be something to do for the keeper.
static WORK: Condvar = Condvar::new();
/// Notified when a sandbox was made, or could not be.
static MADE: Condvar = Condvar::new();

/// The prewarmed sandboxes of this process, and the demand for them.
#[derive(Debug)]
struct Pool {
    shelves: Vec<Shelf>,
    credit: Credit,
    processors: usize,
    /// `true` if the keeper runs.
    kept: bool,
    /// Requested starts in progress.
    starting: usize,
    /// The end of a pause for lack of slots or memory.
    closed: Option<Instant>,
}

/// Takes a prewarmed sandbox for `holder`, if known.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for an invalid
/// `SANDBOXED_DB_POOL`.
pub(crate) fn ask<E: Engine>(
    prepared: &Prepared<E>,
    layer: &Arc<Layer>,
    holder: Option<ThreadId>,
) -> Result<Option<Prewarmed>> {
    let most = most()?;
    // In process mode a start copies the data, which is too much to do in vain.
    if most == 0 || prepared.plan().process_mode.is_some() || !is_own() {
        return Ok(None);
    }
    let Some(key) = PlanKey::of(prepared, layer) else { return Ok(None) };
    let begin = Instant::now();
    let mut guard = pool();
    let pool = guard.get_or_insert_with(Pool::new);
    pool.credit.limit(most);
    let number = pool.asked(key, begin, || (keeper::maker(prepared.clone()), prepared.idle_memory()));
    let taken = loop {
        let (next, taken) = take(guard, number, begin + PATIENCE);
        guard = next;
        match taken {
            // Its server may have died.
            Some(prewarmed) if !prewarmed.serves() => {
                guard.iter_mut().for_each(|pool| pool.credit.lost());
                drop(guard);
                drop(prewarmed);
                guard = self::pool();
            }
            taken => break taken,
        }
    };
    if let Some(pool) = &mut *guard {
        pool.credit.answered(taken.is_some());
        keeper::rouse(pool);
    }
    drop(guard);
    Ok(taken.inspect(|prewarmed| prewarmed.slot.give_to(holder)))
}

/// Takes a sandbox from a shelf, or waits for one in the making that has no claim.
fn take(mut guard: Guard, number: u64, deadline: Instant) -> (Guard, Option<Prewarmed>) {
    if !guard.as_mut().is_some_and(|pool| pool.claim(number)) {
        return (guard, None);
    }
    loop {
        let now = Instant::now();
        let redeemed = guard.as_mut().map(|pool| pool.redeem(number, now >= deadline));
        if let Some(Poll::Ready(prewarmed)) = redeemed {
            return (guard, prewarmed);
        }
        let left = deadline.saturating_duration_since(now);
        guard = MADE.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

type Guard = MutexGuard<'static, Option<Pool>>;

fn pool() -> Guard {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns `true` if this process has the pool. A forked copy has none of its threads, and may find
/// its lock held for ever.
fn is_own() -> bool {
    static OWNER: OnceLock<u32> = OnceLock::new();
    *OWNER.get_or_init(std::process::id) == std::process::id()
}

impl Pool {
    fn new() -> Self {
        Self {
            shelves: Vec::new(),
            credit: Credit::default(),
            processors: processors(),
            kept: false,
            starting: 0,
            closed: None,
        }
    }

    /// Notes a request, and returns the number of the shelf.
    fn asked(&mut self, key: PlanKey, now: Instant, maker: impl FnOnce() -> (shelf::Maker, u64)) -> u64 {
        let index = match self.shelves.iter().position(|shelf| shelf.key == key) {
            Some(index) => index,
            None => {
                if self.shelves.len() >= MOST_SHELVES {
                    self.forget_one();
                }
                self.shelves.push(Shelf::new(key, maker(), now));
                self.shelves.len() - 1
            }
        };
        let shelf = &mut self.shelves[index];
        shelf.demand.asked(now);
        shelf.number
    }

    fn shelf(&mut self, number: u64) -> Option<&mut Shelf> {
        self.shelves.iter_mut().find(|shelf| shelf.number == number)
    }

    /// Claims a sandbox that is ready or in the making, if one has no claim.
    fn claim(&mut self, number: u64) -> bool {
        let shelf = self.shelf(number).filter(|shelf| shelf.to_claim() > 0);
        shelf.map(|shelf| shelf.claimed += 1).is_some()
    }

    /// Takes a sandbox for a claim. Takes the claim back if it is late, or if too few starts
    /// succeed.
    fn redeem(&mut self, number: u64, late: bool) -> Poll<Option<Prewarmed>> {
        let Some(shelf) = self.shelf(number) else { return Poll::Ready(None) };
        let hopeless = shelf.making + shelf.prewarmed.len() < shelf.claimed;
        let prewarmed = shelf.prewarmed.pop_front();
        if prewarmed.is_none() && !hopeless && !late {
            return Poll::Pending;
        }
        shelf.claimed -= 1;
        Poll::Ready(prewarmed)
    }

    /// Forgets the empty shelf whose last request is the oldest.
    fn forget_one(&mut self) {
        let idle = self.shelves.iter().enumerate().filter(|(_, shelf)| shelf.is_empty());
        let oldest = idle.min_by_key(|(_, shelf)| shelf.demand.last()).map(|(index, _)| index);
        if let Some(index) = oldest {
            self.shelves.swap_remove(index);
        }
    }

    fn load(&self) -> Load {
        Load {
            processors: self.processors,
            starting: self.starting + self.shelves.iter().map(|shelf| shelf.making).sum::<usize>(),
            prewarmed: self.shelves.iter().map(Shelf::to_claim).sum(),
        }
    }

    /// Returns the shelf to fill next: the last requested one that lacks a sandbox, if one may be
    /// made.
    fn lacking(&self, now: Instant) -> Option<usize> {
        let closed = self.closed.is_some_and(|until| now < until);
        if closed || !self.load().allows_one(&self.credit) {
            return None;
        }
        let lacking =
            self.shelves.iter().enumerate().filter(|(_, shelf)| shelf.lacks(now, self.credit.most()));
        lacking.max_by_key(|(_, shelf)| shelf.demand.last()).map(|(index, _)| index)
    }

    /// Takes out the sandboxes that are to end: all, if a request waits for a slot.
    fn superfluous(&mut self, now: Instant, waited_for: bool) -> Vec<Prewarmed> {
        let quiet = quiet_since();
        let most = self.credit.most();
        let lacking = self.shelves.iter().any(|shelf| shelf.lacks(now, most));
        // A suite has moved on to another snapshot.
        let contended = lacking && !self.load().is_good_for_one(&self.credit);
        let mut ending = Vec::new();
        for shelf in &mut self.shelves {
            let over = waited_for
                || shelf.demand.is_over(now, quiet)
                || contended && shelf.demand.is_over(now, Some(shelf.demand.last()));
            while over && shelf.prewarmed.len() > shelf.claimed {
                ending.extend(shelf.prewarmed.pop_front());
            }
        }
        ending.iter().for_each(|_| self.credit.lost());
        ending
    }
}

/// Held during a requested start.
#[derive(Debug)]
pub(crate) struct Starting(());

impl Starting {
    pub(crate) fn begin() -> Option<Self> {
        with(|pool| pool.starting += 1).map(Self)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        with(|pool| {
            pool.starting -= 1;
            keeper::rouse(pool);
        });
    }
}

/// Works on the pool if this process has one.
fn with(work: impl FnOnce(&mut Pool)) -> Option<()> {
    if !is_own() {
        return None;
    }
    pool().as_mut().map(work)
}

/// Returns how many prewarmed sandboxes this process may have.
pub(crate) fn most() -> Result<usize> {
    let most = environment::POOL.number()?;
    Ok(most.map_or_else(processors, |most| usize::try_from(most).unwrap_or(usize::MAX)))
}

fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

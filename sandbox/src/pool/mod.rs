//! The warm pool: sandboxes of the snapshots in use, started ahead while tests run.
//!
//! Who asks for a sandbox is given a *spare*, if there is one that was started from the very same plan, or the next that is
//! in the making. Spares are made by threads of their own while processors have nothing to start for anybody who waits. One
//! thread more, the keeper, lives as long as there are spares and ends those that nobody asks for any more, or whose place
//! somebody waits for. It all belongs to one process, and ends with it: a spare is tied to its process as every sandbox is.
//!
//! A start that fails here is nobody's error: who asks then starts a sandbox for itself, and sees why.

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
use shelf::Shelf;
pub(crate) use shelf::Spare;

/// How long a spare in the making is waited for, before a sandbox is started beside it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many descriptions are remembered; those asked for last.
const MOST_LINES: usize = 64;

static POOL: Mutex<Option<Pool>> = Mutex::new(None);
/// There may be something to do for the keeper.
static WORK: Condvar = Condvar::new();
/// A spare was made, or could not be.
static MADE: Condvar = Condvar::new();

/// What this process has started ahead, and for whom.
#[derive(Debug)]
struct Pool {
    lines: Vec<Shelf>,
    credit: Credit,
    processors: usize,
    /// Whether there is a keeper.
    kept: bool,
    /// Starts in progress for those who found no spare.
    starting: usize,
    /// Until when no spare is made, since there was no room for one.
    closed: Option<Instant>,
}

/// Asks for a sandbox that was started ahead, for `holder` if that is known.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for a variable that is no number.
pub(crate) fn ask<E: Engine>(
    prepared: &Prepared<E>,
    layer: &Arc<Layer>,
    holder: Option<ThreadId>,
) -> Result<Option<Spare>> {
    let most = most()?;
    // To start one where there is no container is to copy the data: nobody's to do in vain.
    if most == 0 || prepared.plan().process_mode.is_some() || !is_own() {
        return Ok(None);
    }
    let Some(identity) = PlanKey::of(prepared, layer) else { return Ok(None) };
    let begin = Instant::now();
    let mut guard = pool();
    let pool = guard.get_or_insert_with(Pool::new);
    pool.credit.limit(most);
    let number = pool.asked(identity, begin, || keeper::maker(prepared.clone()));
    let taken = loop {
        let (next, taken) = take(guard, number, begin + PATIENCE);
        guard = next;
        match taken {
            // It may have died since.
            Some(spare) if !spare.serves() => {
                guard.iter_mut().for_each(|pool| pool.credit.lost());
                drop(guard);
                drop(spare);
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
    Ok(taken.inspect(|spare| spare.slot.give_to(holder)))
}

/// Takes a spare of that line, or waits for one in the making that nobody else waits for.
fn take(mut guard: Guard, number: u64, deadline: Instant) -> (Guard, Option<Spare>) {
    if !guard.as_mut().is_some_and(|pool| pool.claim(number)) {
        return (guard, None);
    }
    loop {
        let now = Instant::now();
        let redeemed = guard.as_mut().map(|pool| pool.redeem(number, now >= deadline));
        if let Some(Poll::Ready(spare)) = redeemed {
            return (guard, spare);
        }
        let left = deadline.saturating_duration_since(now);
        guard = MADE.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

type Guard = MutexGuard<'static, Option<Pool>>;

fn pool() -> Guard {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this is the process that has the pool. A copy that it forks has none of the threads, and might find the lock
/// taken for ever.
fn is_own() -> bool {
    static OWNER: OnceLock<u32> = OnceLock::new();
    *OWNER.get_or_init(std::process::id) == std::process::id()
}

impl Pool {
    fn new() -> Self {
        Self {
            lines: Vec::new(),
            credit: Credit::default(),
            processors: processors(),
            kept: false,
            starting: 0,
            closed: None,
        }
    }

    /// Notes that a sandbox of that kind is asked for, and returns the number of its line.
    fn asked(&mut self, identity: PlanKey, now: Instant, maker: impl FnOnce() -> shelf::Maker) -> u64 {
        let index = match self.lines.iter().position(|line| line.identity == identity) {
            Some(index) => index,
            None => {
                if self.lines.len() >= MOST_LINES {
                    self.forget_one();
                }
                self.lines.push(Shelf::new(identity, maker(), now));
                self.lines.len() - 1
            }
        };
        let line = &mut self.lines[index];
        line.demand.asked(now);
        line.number
    }

    fn line(&mut self, number: u64) -> Option<&mut Shelf> {
        self.lines.iter_mut().find(|line| line.number == number)
    }

    /// Claims a spare, or one in the making, if nobody else has.
    fn claim(&mut self, number: u64) -> bool {
        let line = self.line(number).filter(|line| line.to_claim() > 0);
        line.map(|line| line.claimed += 1).is_some()
    }

    /// Takes a spare for a claim, or takes the claim back: if it is late, or those in the making came to nothing.
    fn redeem(&mut self, number: u64, late: bool) -> Poll<Option<Spare>> {
        let Some(line) = self.line(number) else { return Poll::Ready(None) };
        let hopeless = line.making + line.spares.len() < line.claimed;
        let spare = line.spares.pop_front();
        if spare.is_none() && !hopeless && !late {
            return Poll::Pending;
        }
        line.claimed -= 1;
        Poll::Ready(spare)
    }

    /// Forgets what nobody has asked for longest, unless it is in use.
    fn forget_one(&mut self) {
        let idle = self.lines.iter().enumerate().filter(|(_, line)| line.is_empty());
        let oldest = idle.min_by_key(|(_, line)| line.demand.last()).map(|(index, _)| index);
        if let Some(index) = oldest {
            self.lines.swap_remove(index);
        }
    }

    fn load(&self) -> Load {
        Load {
            processors: self.processors,
            starting: self.starting + self.lines.iter().map(|line| line.making).sum::<usize>(),
            spares: self.lines.iter().map(Shelf::to_claim).sum(),
        }
    }

    /// Who is asked for most, and lacks a spare; none where none may be made.
    fn lacking(&self, now: Instant) -> Option<usize> {
        let closed = self.closed.is_some_and(|until| now < until);
        if closed || !self.load().allows_one(&self.credit) {
            return None;
        }
        let lacking = self.lines.iter().enumerate().filter(|(_, line)| line.lacks(now, self.credit.most()));
        lacking.max_by_key(|(_, line)| line.demand.last()).map(|(index, _)| index)
    }

    /// Takes out the spares that are to end: all, if somebody waits for a place.
    fn superfluous(&mut self, now: Instant, waited_for: bool) -> Vec<Spare> {
        let quiet = quiet_since();
        let most = self.credit.most();
        let lacking = self.lines.iter().any(|line| line.lacks(now, most));
        // A suite goes over to another description.
        let contended = lacking && !self.load().is_good_for_one(&self.credit);
        let mut ending = Vec::new();
        for line in &mut self.lines {
            let over = waited_for
                || line.demand.is_over(now, quiet)
                || contended && line.demand.is_over(now, Some(line.demand.last()));
            while over && line.spares.len() > line.claimed {
                ending.extend(line.spares.pop_front());
            }
        }
        ending.iter().for_each(|_| self.credit.lost());
        ending
    }
}

/// Held while a sandbox is started for somebody who waits for it.
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

/// Works on the pool, if this process has one.
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

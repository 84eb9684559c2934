//! Slots: the right to have a live sandbox, over all processes of the user that share a cache.
//!
//! A slot is a locked byte of one file, so the kernel frees it however its process ends. Waiting
//! threads form two queues: one within each process, and one of the processes, whose entries are
//! locked bytes as well. So are marks on slots whose holder waits for another slot: if all slots
//! have one, none will ever be free.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::cache;
use crate::environment::MAX;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::sys::lock::{locked_by_others, try_lock, unlock};

/// Bytes of memory that an idle PostgreSQL server holds.
const SMALLEST_SERVER: u64 = 6_500_000;
/// With more sandboxes the kernel's own work becomes noticeable.
const MOST_PER_CORE: u64 = 2048;
/// The longest wait for a slot.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long all holders must wait before it counts as a deadlock: a sandbox may be in other hands
/// than its holder's.
const STUCK: Duration = Duration::from_secs(2);
/// A shorter wait is not reported.
const SILENCE: Duration = Duration::from_secs(1);
/// The interval between looks at the slots of other processes.
const PAUSE: Duration = Duration::from_millis(5);
/// The first byte of the marks on slots whose holder waits.
const STALLED: u64 = 1 << 40;
/// The first byte of the queue of processes.
const TICKETS: u64 = 1 << 41;
const END: u64 = 1 << 42;

/// The right to have one live sandbox.
#[derive(Debug)]
pub(crate) struct Slot {
    /// `None` if the cache can hold no locks, so that nothing is bounded.
    number: Option<u64>,
}

/// The slots of this process, and its waiting threads.
#[derive(Debug, Default)]
struct Slots {
    /// A process that is forked from this one holds none of its slots.
    owner: u32,
    file: Option<File>,
    held: BTreeMap<u64, Option<ThreadId>>,
    /// The queue: a number for each wait, and the future holder.
    waiting: VecDeque<(u64, Option<ThreadId>)>,
    next: u64,
}

static SLOTS: Mutex<Option<Slots>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// Waits for a slot, in the order of the requests. `holder` is the thread that will own the
/// sandbox, if known: an asynchronous task that waits does not keep its thread from dropping
/// another's sandbox.
pub(crate) fn admit(holder: Option<ThreadId>) -> Result<Slot> {
    let bound = bound()?;
    let mut guard = slots();
    let slots = guard.get_or_insert_default();
    if slots.file.is_none() {
        slots.file = open();
    }
    if slots.file.is_none() {
        return Ok(Slot { number: None });
    }
    let unbounded = |errno: Errno| {
        tracing::debug!(%errno, "the cache holds no locks: the number of sandboxes is not bounded");
        Ok(Slot { number: None })
    };
    match if slots.are_waited_for() { Ok(None) } else { slots.take(bound) } {
        Ok(Some(number)) => return Ok(slots.hold(number, holder)),
        Ok(None) => {}
        Err(errno) => return unbounded(errno),
    }
    let number = slots.next;
    slots.next += 1;
    slots.waiting.push_back((number, holder));
    slots.mark(holder, true);
    let (mut guard, outcome) = wait(guard, bound, number);
    let slots = guard.get_or_insert_default();
    slots.waiting.retain(|(other, _)| *other != number);
    slots.mark(holder, false);
    CHANGED.notify_all();
    match outcome? {
        Ok(number) => Ok(slots.hold(number, holder)),
        Err(errno) => unbounded(errno),
    }
}

/// Returns a slot for a prewarmed sandbox, if one is free and nothing waits for it. The pool gives
/// it back as soon as something [waits](are_waited_for).
pub(crate) fn spare() -> Option<Slot> {
    let bound = bound().ok()?;
    let mut guard = slots();
    let slots = guard.get_or_insert_default();
    if slots.file.is_none() {
        slots.file = open();
    }
    if slots.file.is_none() {
        return Some(Slot { number: None });
    }
    if slots.are_waited_for() {
        return None;
    }
    slots.take(bound).ok()?.map(|number| slots.hold(number, None))
}

/// Returns `true` if this process or another waits for a slot.
pub(crate) fn are_waited_for() -> bool {
    slots().as_ref().is_some_and(Slots::are_waited_for)
}

type Guard = MutexGuard<'static, Option<Slots>>;

fn slots() -> Guard {
    let mut guard = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let owner = std::process::id();
    if guard.as_ref().is_none_or(|slots| slots.owner != owner) {
        *guard = Some(Slots { owner, ..Slots::default() });
    }
    guard
}

/// Waits until the thread is the first of its process, the process the first of all, and a slot is
/// free.
fn wait(mut guard: Guard, bound: u64, number: u64) -> (Guard, Result<Result<u64, Errno>>) {
    let begin = Instant::now();
    // Processes differ, so that only one of them gives up.
    let stuck_for = STUCK + Duration::from_millis(100) * (std::process::id() % 16);
    let mut moved = begin;
    let mut ticket = None;
    let mut progress = None;
    let outcome = loop {
        let slots = guard.get_or_insert_default();
        if !slots.are_stuck(bound) {
            moved = Instant::now();
        } else if moved.elapsed() > stuck_for {
            break Err(stuck(bound));
        }
        if slots.waiting.front().is_some_and(|(first, _)| *first == number) {
            match slots.try_in_turn(bound, &mut ticket) {
                Ok(None) => {}
                Ok(Some(slot)) => break Ok(Ok(slot)),
                Err(errno) => break Ok(Err(errno)),
            }
        }
        if begin.elapsed() > PATIENCE {
            break Err(too_long(bound, slots.held.len()));
        }
        if begin.elapsed() > SILENCE {
            progress.get_or_insert_with(|| {
                Progress::start(&format!("waiting for one of {bound} slots ({})", MAX.name))
            });
        }
        guard = CHANGED.wait_timeout(guard, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
    };
    let slots = guard.get_or_insert_default();
    if let (Some(file), Some(ticket)) = (&slots.file, ticket) {
        // The next thread of this process queues behind other processes.
        let _ = unlock(file, ticket);
    }
    (guard, outcome)
}

impl Slot {
    /// Makes a thread the holder, if it is known.
    pub(crate) fn give_to(&self, holder: Option<ThreadId>) {
        let Some(number) = self.number else { return };
        if let Some(held) = slots().get_or_insert_default().held.get_mut(&number) {
            *held = holder;
        }
    }
}

impl Slots {
    fn are_waited_for(&self) -> bool {
        let others = |file| locked_by_others(file, TICKETS..END) != Ok(None);
        !self.waiting.is_empty() || self.file.as_ref().is_some_and(others)
    }

    /// Takes a free slot.
    fn take(&self, bound: u64) -> Result<Option<u64>, Errno> {
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        let mut from = 0;
        while from < bound {
            if self.held.contains_key(&from) {
                from += 1;
                continue;
            }
            match locked_by_others(file, from..bound)? {
                Some(Range { start, end }) if start <= from => from = end,
                _ if try_lock(file, from)? => return Ok(Some(from)),
                // Another process was faster.
                _ => from += 1,
            }
        }
        Ok(None)
    }

    /// Takes a free slot if no other process has waited longer.
    fn try_in_turn(&self, bound: u64, ticket: &mut Option<u64>) -> Result<Option<u64>, Errno> {
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        let own = match *ticket {
            Some(own) => own,
            None => *ticket.insert(draw_ticket(file)?),
        };
        match locked_by_others(file, TICKETS..own)? {
            None => self.take(bound),
            Some(_) => Ok(None),
        }
    }

    fn hold(&mut self, number: u64, holder: Option<ThreadId>) -> Slot {
        self.held.insert(number, holder);
        Slot { number: Some(number) }
    }

    /// Marks the slots of a holder that waits, or removes the marks.
    fn mark(&self, holder: Option<ThreadId>, waits: bool) {
        let held = self.held.iter().filter(|(_, other)| holder.is_some() && **other == holder);
        for (number, _) in held {
            let mark = |file| match waits {
                true => try_lock(file, STALLED + number).map(drop),
                false => unlock(file, STALLED + number),
            };
            // A slot without its mark counts as one that may become free.
            let _ = self.file.as_ref().map(mark);
        }
    }

    /// Returns `true` if each slot is held by a thread that waits for another one.
    fn are_stuck(&self, bound: u64) -> bool {
        let Some(file) = &self.file else { return false };
        let waits = |holder: Option<ThreadId>| {
            holder.is_some() && self.waiting.iter().any(|(_, waiting)| *waiting == holder)
        };
        let mut number = 0;
        while number < bound {
            number = match self.held.get(&number) {
                Some(holder) if waits(*holder) => number + 1,
                Some(_) => return false,
                None => match locked_by_others(file, STALLED + number..STALLED + bound) {
                    Ok(Some(stalled)) if stalled.start <= STALLED + number => stalled.end - STALLED,
                    _ => return false,
                },
            };
        }
        true
    }
}

/// Takes the last position in the queue of processes.
fn draw_ticket(file: &File) -> Result<u64, Errno> {
    let mut last = TICKETS;
    loop {
        match locked_by_others(file, last..END)? {
            Some(taken) => last = taken.end,
            None if try_lock(file, last)? => return Ok(last),
            None => {}
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut guard = slots();
        let slots = guard.get_or_insert_default();
        if slots.held.remove(&number).is_none() {
            return;
        }
        if let Some(file) = &slots.file {
            let _ = unlock(file, STALLED + number).and_then(|()| unlock(file, number));
        }
        CHANGED.notify_all();
    }
}

/// Opens the file whose bytes are the slots. `None` if there can be none, as in a read-only cache.
fn open() -> Option<File> {
    let directory = cache::directory().ok()?;
    cache::create(&directory).ok()?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(directory.join("live")).ok()
}

/// Returns the number of slots: that of the environment, or else as many as memory and processors
/// allow.
fn bound() -> Result<u64> {
    if let Some(bound) = MAX.number()? {
        // Higher numbers are no bytes of the file.
        return Ok(bound.min(STALLED - 1));
    }
    let memory = rustix::system::sysinfo();
    let bytes = memory.totalram.saturating_mul(memory.mem_unit.into());
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    Ok((bytes / 10 * 8 / SMALLEST_SERVER).clamp(4, cores * MOST_PER_CORE))
}

fn in_use(bound: u64) -> Error {
    let all = match bound {
        1 => "the only slot".to_owned(),
        bound => format!("all {bound} slots"),
    };
    let are = if bound == 1 { "is" } else { "are" };
    Error::new(ErrorKind::Timeout, format!("start a sandbox: {all} ({}) {are} in use", MAX.name))
}

fn stuck(bound: u64) -> Error {
    in_use(bound)
        .caused_by("each is held by a test that waits for another slot")
        .with_hint(format!("raise {}, or let each test use fewer sandboxes at a time", MAX.name))
}

fn too_long(bound: u64, own: usize) -> Error {
    in_use(bound)
        .caused_by(format!("none became free within {PATIENCE:?}; this process holds {own}"))
        .with_hint(format!("raise {}, or end the processes that hold them", MAX.name))
}

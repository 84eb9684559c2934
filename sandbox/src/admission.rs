//! Slots: the right to have a live sandbox, over all processes of the user that share a cache.
//!
//! A slot is locked bytes of one file, so the kernel frees it however its process ends: one byte,
//! or as many as the server is times larger than the smallest one. They are neighbours, locked at
//! once: nobody holds a part of a slot and waits for the rest. Waiting threads form two queues: one
//! within each process, and one of the processes, whose entries are locked bytes as well. So are
//! marks on slots whose holder waits for another slot: if all slots have one, none will ever be
//! free.

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

/// The bytes of memory that one byte of the file stands for. No server is counted as smaller, since
/// its container takes memory of the kernel.
const UNIT: u64 = 6_500_000;
/// With more sandboxes the kernel's own work becomes noticeable.
const MOST_PER_CORE: u64 = 2048;
/// The longest wait for a slot.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long all holders must wait before it counts as a deadlock: a sandbox may be in other hands
/// than its holder's.
const STUCK: Duration = Duration::from_secs(2);
/// The time by which the next process in the queue waits longer.
const STEP: Duration = Duration::from_millis(100);
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
    /// The first byte; `None` if the cache can hold no locks, so that nothing is bounded.
    number: Option<u64>,
}

/// The bytes of the file that bound the sandboxes, and the size of one slot.
#[derive(Debug, Clone, Copy)]
struct Bound {
    /// The number of bytes.
    all: u64,
    /// The number of bytes of the requested slot.
    size: u64,
}

impl Bound {
    /// Returns the number of slots of the requested size.
    fn slots(self) -> u64 {
        self.all / self.size
    }
}

/// A slot of this process.
#[derive(Debug)]
struct Held {
    size: u64,
    holder: Option<ThreadId>,
}

/// The slots of this process, and its waiting threads.
#[derive(Debug, Default)]
struct Slots {
    /// A process that is forked from this one holds none of its slots.
    owner: u32,
    file: Option<File>,
    /// By their first bytes.
    held: BTreeMap<u64, Held>,
    /// The queue: a number for each wait, and the future holder.
    waiting: VecDeque<(u64, Option<ThreadId>)>,
    next: u64,
}

static SLOTS: Mutex<Option<Slots>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// Waits for a slot, in the order of the requests. `holder` is the thread that will own the
/// sandbox, if known: an asynchronous task that waits does not keep its thread from dropping
/// another's sandbox. `idle_memory` is what the idle server holds, in bytes.
pub(crate) fn admit(holder: Option<ThreadId>, idle_memory: u64) -> Result<Slot> {
    let bound = bound(idle_memory)?;
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
        Ok(Some(number)) => return Ok(slots.hold(number, bound.size, holder)),
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
        Ok(number) => Ok(slots.hold(number, bound.size, holder)),
        Err(errno) => unbounded(errno),
    }
}

/// Returns a slot for a prewarmed sandbox, if one is free and nothing waits for it. The pool gives
/// it back as soon as something [waits](are_waited_for).
pub(crate) fn spare(idle_memory: u64) -> Option<Slot> {
    let bound = bound(idle_memory).ok()?;
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
    slots.take(bound).ok()?.map(|number| slots.hold(number, bound.size, None))
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
fn wait(mut guard: Guard, bound: Bound, number: u64) -> (Guard, Result<Result<u64, Errno>>) {
    let begin = Instant::now();
    let mut moved = begin;
    let mut ticket = None;
    let mut progress = None;
    let outcome = loop {
        let slots = guard.get_or_insert_default();
        if !slots.are_stuck(bound) {
            moved = Instant::now();
        } else if moved.elapsed() > stuck_for(ticket) {
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
                Progress::start(&format!("waiting for one of {} slots ({})", bound.slots(), MAX.name))
            });
        }
        guard = CHANGED.wait_timeout(guard, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
    };
    let slots = guard.get_or_insert_default();
    if let (Some(file), Some(ticket)) = (&slots.file, ticket) {
        // The next thread of this process queues behind other processes.
        let _ = unlock(file, ticket..ticket + 1);
    }
    (guard, outcome)
}

/// How long a thread waits until it gives up. Processes have different places in their queue, so
/// that only one of them gives up.
fn stuck_for(ticket: Option<u64>) -> Duration {
    const LAST: u64 = 16;
    let place = ticket.map_or(LAST, |ticket| (ticket - TICKETS).min(LAST));
    STUCK + STEP * u32::try_from(place).unwrap_or(u32::MAX)
}

impl Slot {
    /// Makes a thread the holder, if it is known.
    pub(crate) fn give_to(&self, holder: Option<ThreadId>) {
        let Some(number) = self.number else { return };
        if let Some(held) = slots().get_or_insert_default().held.get_mut(&number) {
            held.holder = holder;
        }
    }
}

impl Slots {
    fn are_waited_for(&self) -> bool {
        let others = |file| locked_by_others(file, TICKETS..END) != Ok(None);
        !self.waiting.is_empty() || self.file.as_ref().is_some_and(others)
    }

    /// Takes a free slot.
    fn take(&self, Bound { all, size }: Bound) -> Result<Option<u64>, Errno> {
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        let mut from = 0;
        while from + size <= all {
            let slot = from..from + size;
            from = match self.held_in(&slot) {
                Some(end) => end,
                None => match locked_by_others(file, slot.clone())? {
                    Some(locked) => locked.end,
                    None if try_lock(file, slot.clone())? => return Ok(Some(slot.start)),
                    // Another process was faster.
                    None => from + 1,
                },
            };
        }
        Ok(None)
    }

    /// Returns the end of a slot of this process that has bytes in the range.
    fn held_in(&self, range: &Range<u64>) -> Option<u64> {
        let (number, held) = self.held.range(..range.end).next_back()?;
        Some(number + held.size).filter(|end| *end > range.start)
    }

    /// Takes a free slot if no other process has waited longer.
    fn try_in_turn(&self, bound: Bound, ticket: &mut Option<u64>) -> Result<Option<u64>, Errno> {
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

    fn hold(&mut self, number: u64, size: u64, holder: Option<ThreadId>) -> Slot {
        self.held.insert(number, Held { size, holder });
        Slot { number: Some(number) }
    }

    /// Marks the slots of a holder that waits, or removes the marks.
    fn mark(&self, holder: Option<ThreadId>, waits: bool) {
        let held = self.held.iter().filter(|(_, other)| holder.is_some() && other.holder == holder);
        for (number, Held { size, .. }) in held {
            let bytes = STALLED + number..STALLED + number + size;
            let mark = |file| match waits {
                true => try_lock(file, bytes).map(drop),
                false => unlock(file, bytes),
            };
            // A slot without its mark counts as one that may become free.
            let _ = self.file.as_ref().map(mark);
        }
    }

    /// Returns `true` if there is no room for a slot, and each slot is held by a thread that waits
    /// for another one.
    fn are_stuck(&self, Bound { all, size }: Bound) -> bool {
        let Some(file) = &self.file else { return false };
        let waits = |holder: Option<ThreadId>| {
            holder.is_some() && self.waiting.iter().any(|(_, waiting)| *waiting == holder)
        };
        let (mut number, mut room) = (0, 0);
        while number < all {
            let next = number..number + 1;
            let held = self.held.get(&number);
            number = match held {
                Some(Held { size, holder }) if waits(*holder) => number + size,
                Some(_) => return false,
                None => match locked_by_others(file, next) {
                    Ok(None) => {
                        room += 1;
                        if room == size {
                            return false;
                        }
                        number += 1;
                        continue;
                    }
                    Ok(Some(locked)) => {
                        match locked_by_others(file, STALLED + number..STALLED + locked.end.min(all)) {
                            Ok(Some(stalled)) if stalled.start <= STALLED + number => stalled.end - STALLED,
                            _ => return false,
                        }
                    }
                    Err(_) => return false,
                },
            };
            room = 0;
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
            None if try_lock(file, last..last + 1)? => return Ok(last),
            None => {}
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut guard = slots();
        let slots = guard.get_or_insert_default();
        let Some(Held { size, .. }) = slots.held.remove(&number) else { return };
        if let Some(file) = &slots.file {
            let _ = unlock(file, STALLED + number..STALLED + number + size)
                .and_then(|()| unlock(file, number..number + size));
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

/// Returns the bound: that of the environment, which counts sandboxes of any size, or else as many
/// as memory and processors allow.
fn bound(idle_memory: u64) -> Result<Bound> {
    if let Some(bound) = MAX.number()? {
        // Higher numbers are no bytes of the file.
        return Ok(Bound { all: bound.min(STALLED - 1), size: 1 });
    }
    let memory = rustix::system::sysinfo();
    let bytes = memory.totalram.saturating_mul(memory.mem_unit.into());
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let all = (bytes / 10 * 8 / UNIT).clamp(4, cores * MOST_PER_CORE);
    // One fits, however large it is.
    Ok(Bound { all, size: idle_memory.div_ceil(UNIT).clamp(1, all) })
}

fn in_use(bound: Bound) -> Error {
    let bound = bound.slots();
    let all = match bound {
        1 => "the only slot".to_owned(),
        bound => format!("all {bound} slots"),
    };
    let are = if bound == 1 { "is" } else { "are" };
    Error::new(ErrorKind::Timeout, format!("start a sandbox: {all} ({}) {are} in use", MAX.name))
}

fn stuck(bound: Bound) -> Error {
    in_use(bound)
        .caused_by("each is held by a test that waits for another slot")
        .with_hint(format!("raise {}, or let each test use fewer sandboxes at a time", MAX.name))
}

fn too_long(bound: Bound, own: usize) -> Error {
    in_use(bound)
        .caused_by(format!("none became free within {PATIENCE:?}; this process holds {own}"))
        .with_hint(format!("raise {}, or end the processes that hold them", MAX.name))
}

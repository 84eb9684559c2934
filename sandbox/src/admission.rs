//! How many sandboxes may live at once, over all processes of the user that share a cache.
//!
//! A place is a locked byte of one file, so that it is given back however its process ends. Who waits stands in two
//! queues: that of its process's threads, whose first stands in that of the processes, which are locked bytes as well. So
//! are places whose holder waits for a further one: when all are such, nobody will ever give one back.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::cache;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::sys::lock::{locked_by_others, try_lock, unlock};

const VARIABLE: &str = "SANDBOXED_DB_MAX";
/// What an idle PostgreSQL server holds of memory.
const SMALLEST_SERVER: u64 = 6_500_000;
/// Beyond that the kernel's own work is felt.
const MOST_PER_CORE: u64 = 2048;
/// How long a place is waited for.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long nothing may move before it is said that nothing will: a sandbox may be in other hands than its holder's.
const STUCK: Duration = Duration::from_secs(2);
/// A wait so short is not worth a word.
const SILENCE: Duration = Duration::from_secs(1);
/// How often another process's places are looked at.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes from here on are the places whose holders wait.
const STALLED: u64 = 1 << 40;
/// Bytes from here on are the processes that wait, in their order.
const TICKETS: u64 = 1 << 41;
const END: u64 = 1 << 42;

/// The right to one living sandbox.
#[derive(Debug)]
pub(crate) struct Admission {
    /// None where the cache can hold no locks, and thus no bound.
    place: Option<u64>,
}

/// What this process holds and who of its threads wait.
#[derive(Debug, Default)]
struct Hall {
    /// A process that is forked from this one holds nothing of it.
    owner: u32,
    file: Option<File>,
    places: BTreeMap<u64, Option<ThreadId>>,
    /// In their order: a number of its own, and for whom.
    waiting: VecDeque<(u64, Option<ThreadId>)>,
    next: u64,
}

static HALL: Mutex<Option<Hall>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// Waits for a place, in the order of asking. `holder` is the thread that will own the sandbox, if that is known: a task
/// that waits does not keep its thread from giving another's sandbox back.
pub(crate) fn admit(holder: Option<ThreadId>) -> Result<Admission> {
    let bound = bound()?;
    let mut guard = hall();
    let hall = guard.get_or_insert_default();
    if hall.file.is_none() {
        hall.file = open();
    }
    if hall.file.is_none() {
        return Ok(Admission { place: None });
    }
    let free = |errno: Errno| {
        tracing::debug!(%errno, "the cache holds no locks: the number of sandboxes is not bounded");
        Ok(Admission { place: None })
    };
    match if hall.is_waited_for() { Ok(None) } else { hall.take(bound) } {
        Ok(Some(place)) => return Ok(hall.admission(place, holder)),
        Ok(None) => {}
        Err(errno) => return free(errno),
    }
    let number = hall.next;
    hall.next += 1;
    hall.waiting.push_back((number, holder));
    hall.stall(holder, true);
    let (mut guard, outcome) = wait(guard, bound, number);
    let hall = guard.get_or_insert_default();
    hall.waiting.retain(|(other, _)| *other != number);
    hall.stall(holder, false);
    CHANGED.notify_all();
    match outcome? {
        Ok(place) => Ok(hall.admission(place, holder)),
        Err(errno) => free(errno),
    }
}

/// A place for a sandbox that nobody has asked for, if one is free and nobody waits for it. Whoever has it gives it back as
/// soon as somebody [waits](is_waited_for).
pub(crate) fn ahead() -> Option<Admission> {
    let bound = bound().ok()?;
    let mut guard = hall();
    let hall = guard.get_or_insert_default();
    if hall.file.is_none() {
        hall.file = open();
    }
    if hall.file.is_none() {
        return Some(Admission { place: None });
    }
    if hall.is_waited_for() {
        return None;
    }
    hall.take(bound).ok()?.map(|place| hall.admission(place, None))
}

/// Whether somebody, in this process or another, waits for a place.
pub(crate) fn is_waited_for() -> bool {
    hall().as_ref().is_some_and(Hall::is_waited_for)
}

type Guard = MutexGuard<'static, Option<Hall>>;

fn hall() -> Guard {
    let mut guard = HALL.lock().unwrap_or_else(PoisonError::into_inner);
    let owner = std::process::id();
    if guard.as_ref().is_none_or(|hall| hall.owner != owner) {
        *guard = Some(Hall { owner, ..Hall::default() });
    }
    guard
}

/// Waits until the thread is the first of its process, and the process the first of all, and a place is free.
fn wait(mut guard: Guard, bound: u64, number: u64) -> (Guard, Result<Result<u64, Errno>>) {
    let begin = Instant::now();
    // It is enough that one gives up.
    let stuck_for = STUCK + Duration::from_millis(100) * (std::process::id() % 16);
    let mut moved = begin;
    let mut ticket = None;
    let mut progress = None;
    let outcome = loop {
        let hall = guard.get_or_insert_default();
        if !hall.is_stuck(bound) {
            moved = Instant::now();
        } else if moved.elapsed() > stuck_for {
            break Err(stuck(bound));
        }
        if hall.waiting.front().is_some_and(|(first, _)| *first == number) {
            match hall.try_in_turn(bound, &mut ticket) {
                Ok(None) => {}
                Ok(Some(place)) => break Ok(Ok(place)),
                Err(errno) => break Ok(Err(errno)),
            }
        }
        if begin.elapsed() > PATIENCE {
            break Err(too_long(bound, hall.places.len()));
        }
        if begin.elapsed() > SILENCE {
            progress.get_or_insert_with(|| {
                Progress::start(&format!("waiting for one of {bound} sandboxes to end ({VARIABLE})"))
            });
        }
        guard = CHANGED.wait_timeout(guard, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
    };
    let hall = guard.get_or_insert_default();
    if let (Some(file), Some(ticket)) = (&hall.file, ticket) {
        // The next of this process stands behind those of others.
        let _ = unlock(file, ticket);
    }
    (guard, outcome)
}

impl Admission {
    /// It is that thread's from now on, if that is known.
    pub(crate) fn give_to(&self, holder: Option<ThreadId>) {
        let Some(place) = self.place else { return };
        if let Some(held) = hall().get_or_insert_default().places.get_mut(&place) {
            *held = holder;
        }
    }
}

impl Hall {
    fn is_waited_for(&self) -> bool {
        let others = |file| locked_by_others(file, TICKETS..END) != Ok(None);
        !self.waiting.is_empty() || self.file.as_ref().is_some_and(others)
    }

    /// Takes a place that is free.
    fn take(&self, bound: u64) -> Result<Option<u64>, Errno> {
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        let mut from = 0;
        while from < bound {
            if self.places.contains_key(&from) {
                from += 1;
                continue;
            }
            match locked_by_others(file, from..bound)? {
                Some(Range { start, end }) if start <= from => from = end,
                _ if try_lock(file, from)? => return Ok(Some(from)),
                // Somebody was faster since.
                _ => from += 1,
            }
        }
        Ok(None)
    }

    /// Takes a place if no other process has waited longer.
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

    fn admission(&mut self, place: u64, holder: Option<ThreadId>) -> Admission {
        self.places.insert(place, holder);
        Admission { place: Some(place) }
    }

    /// Marks the places of a holder that waits, or takes the marks away.
    fn stall(&self, holder: Option<ThreadId>, waits: bool) {
        let held = self.places.iter().filter(|(_, other)| holder.is_some() && **other == holder);
        for (place, _) in held {
            let mark = |file| match waits {
                true => try_lock(file, STALLED + place).map(drop),
                false => unlock(file, STALLED + place),
            };
            // Without its mark a place counts as one that may be given back.
            let _ = self.file.as_ref().map(mark);
        }
    }

    /// Whether every place is held by somebody who waits for another.
    fn is_stuck(&self, bound: u64) -> bool {
        let Some(file) = &self.file else { return false };
        let waits = |holder: Option<ThreadId>| {
            holder.is_some() && self.waiting.iter().any(|(_, waiting)| *waiting == holder)
        };
        let mut place = 0;
        while place < bound {
            place = match self.places.get(&place) {
                Some(holder) if waits(*holder) => place + 1,
                Some(_) => return false,
                None => match locked_by_others(file, STALLED + place..STALLED + bound) {
                    Ok(Some(stalled)) if stalled.start <= STALLED + place => stalled.end - STALLED,
                    _ => return false,
                },
            };
        }
        true
    }
}

/// A place in the queue of processes, behind all others.
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

impl Drop for Admission {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut guard = hall();
        let hall = guard.get_or_insert_default();
        if hall.places.remove(&place).is_none() {
            return;
        }
        if let Some(file) = &hall.file {
            let _ = unlock(file, STALLED + place).and_then(|()| unlock(file, place));
        }
        CHANGED.notify_all();
    }
}

/// The file whose bytes are places. None where there can be none, as in a cache that is read-only.
fn open() -> Option<File> {
    let directory = cache::directory().ok()?;
    cache::create(&directory).ok()?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(directory.join("live")).ok()
}

/// How many may live at once: what the variable says, else what memory and processors bear.
fn bound() -> Result<u64> {
    let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else {
        let memory = rustix::system::sysinfo();
        let bytes = memory.totalram.saturating_mul(memory.mem_unit.into());
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        return Ok((bytes / 10 * 8 / SMALLEST_SERVER).clamp(4, cores * MOST_PER_CORE));
    };
    parse(&value)
}

fn parse(value: &OsStr) -> Result<u64> {
    // Beyond that it is no bound, and no byte.
    let parsed = value.to_str().and_then(|text| text.trim().parse().ok()).filter(|bound| *bound > 0);
    parsed.map(|bound: u64| bound.min(STALLED - 1)).ok_or_else(|| {
        let value = value.to_string_lossy();
        Error::new(ErrorKind::InvalidConfig, format!("take `{value}` from {VARIABLE}"))
            .with_hint("it is how many sandboxes may live at once: a whole number from 1 on")
    })
}

fn stuck(bound: u64) -> Error {
    Error::new(ErrorKind::Launch, format!("start a sandbox while all {bound} that may live at once do"))
        .caused_by("every one is held by a test that waits for another")
        .with_hint(format!("raise {VARIABLE}, or have each test use fewer sandboxes at a time"))
}

fn too_long(bound: u64, own: usize) -> Error {
    Error::new(ErrorKind::Launch, format!("start a sandbox: none of {bound} ended within {PATIENCE:?}"))
        .caused_by(format!("{own} of them are this process's"))
        .with_hint(format!("raise {VARIABLE}, or end what holds them"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_variable_holds_is_a_bound_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(bound) = parse(OsStr::from_bytes(&bytes)) {
                assert!((1..STALLED).contains(&bound));
            }
        }

        #[test]
        fn a_number_is_a_bound(number in 1_u64..) {
            assert_eq!(parse(OsStr::new(&number.to_string())).unwrap(), number.min(STALLED - 1));
        }
    }
}

//! A stopped process with its threads, and what the kernel knows of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::status::{Limit, changed_limits};
use super::thread::{FrozenThread, ThreadState};
use super::{restless, status};
use crate::launch::image::format::PAGE;
use crate::launch::image::kernel::{FAREWELL, Layout, find_instructions, page_of, read_auxiliary};
use crate::launch::image::refused;
use crate::machine::maps::Mapping;
use crate::machine::process::{stat_fields, threads};
use crate::sys::call_list::Exit;
use crate::sys::seize::share_files;

/// `mov $15, %rax; syscall`: rt_sigreturn(2), by which the C library returns from a handler.
const RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// The number of signals.
pub(super) const SIGNALS: i32 = 64;

/// The address of free memory of a process, for results of its calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room(pub(super) u64);

#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) first: FrozenThread,
    pub(super) others: Vec<FrozenThread>,
    pub(super) proc: PathBuf,
    memory: File,
    pub(super) mappings: Vec<Mapping>,
    /// The address of the instructions `syscall; ret`.
    pub(super) farewell: u64,
    /// The address of the instructions that return from a signal.
    sigreturn: u64,
}

/// The kernel's state of a process beside memory, descriptors and further threads.
#[derive(Debug)]
pub(super) struct State {
    pub(super) thread: ThreadState,
    pub(super) auxiliary: Vec<u64>,
    pub(super) layout: Layout,
    /// The arguments of rt_sigaction(2) for each signal, in their order.
    pub(super) actions: Vec<[u8; 32]>,
    pub(super) death_signal: u32,
    pub(super) umask: u64,
    pub(super) limits: Vec<Limit>,
    /// `true` if it has excluded itself from large pages.
    pub(super) has_small_pages: bool,
    pub(super) directory: PathBuf,
    /// `true` if it leads a session.
    pub(super) leads: bool,
}

impl Frozen {
    /// Stops a process. `init` is the container's, by whose state it is judged.
    pub(super) fn stop(pid: u32, init: u32) -> io::Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let first = FrozenThread::stop(pid, init)?;
        let others = stop_others(pid, init)?;
        let memory = File::options().read(true).write(true).open(proc.join("mem"))?;
        let mappings = Mapping::parse_all(&fs::read_to_string(proc.join("smaps"))?);
        let mut frozen = Self { first, others, proc, memory, mappings, farewell: 0, sigreturn: 0 };
        for thread in frozen.threads() {
            thread.check_rest(&frozen)?;
            frozen.check_stack(thread)?;
            if !share_files(frozen.pid(), thread.pid())? {
                return Err(refused("one of its threads has separate descriptors or a separate directory"));
            }
        }
        for mapping in frozen.mappings.iter().filter(|mapping| mapping.may('x') && is_libc(mapping)) {
            let bytes = frozen.read(mapping.start, mapping.end)?;
            let find = |instructions: &[u8]| find_instructions(&bytes, mapping.start, instructions);
            if let (Some(farewell), Some(sigreturn)) = (find(&FAREWELL), find(&RETURN)) {
                (frozen.farewell, frozen.sigreturn) = (farewell, sigreturn);
                break;
            }
        }
        if frozen.sigreturn == 0 {
            return Err(refused("its C library is not the GNU one"));
        }
        Ok(frozen)
    }

    pub(super) fn pid(&self) -> Pid {
        self.first.pid()
    }

    /// Refuses a thread whose stack is not that of the kernel or of the C library: memory below the
    /// stack pointer may then hold other data, and frames are written there.
    fn check_stack(&self, thread: &FrozenThread) -> io::Result<()> {
        let registers = thread.registers();
        let at = self.mappings.iter().position(|mapping| mapping.range().contains(&registers.rsp));
        let has_its_own = at.is_some_and(|at| {
            let stack = &self.mappings[at];
            let is_guarded = at
                .checked_sub(1)
                .map(|before| &self.mappings[before])
                .is_some_and(|guard| guard.end == stack.start && guard.permissions.starts_with("---"));
            // The C library keeps a thread's data above its stack.
            stack.name == "[stack]" || is_guarded && stack.range().contains(&registers.fs_base)
        });
        if has_its_own {
            Ok(())
        } else {
            Err(refused("one of its threads has a stack without a guard mapping, or not from the C library"))
        }
    }

    fn threads(&self) -> impl Iterator<Item = &FrozenThread> {
        [&self.first].into_iter().chain(&self.others)
    }

    pub(super) fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (end - start) as usize];
        self.memory.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    /// Reads memory without a file, of which only pages that were touched are looked at.
    pub(super) fn read_touched(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        // Bits of proc_pid_pagemap(5): present, swapped, a guard.
        let [present, swapped, guard]: [u64; 3] = [1 << 63, 1 << 62, 1 << 58];
        let mut bytes = vec![0; (end - start) as usize];
        let mut entries = vec![0; bytes.len() / PAGE as usize * 8];
        File::open(self.proc.join("pagemap"))?.read_exact_at(&mut entries, start / PAGE * 8)?;
        let pages = bytes.chunks_mut(PAGE as usize).zip((start..).step_by(PAGE as usize));
        for (entry, (page, address)) in entries.chunks_exact(8).zip(pages) {
            let entry = u64::from_ne_bytes(entry.try_into().expect("8 bytes"));
            if entry & guard != 0 {
                return Err(refused("it has memory that guards other memory"));
            }
            if entry & (present | swapped) != 0 {
                self.memory.read_exact_at(page, address)?;
            }
        }
        Ok(bytes)
    }

    pub(super) fn write(&self, bytes: &[u8], address: u64) -> io::Result<()> {
        self.memory.write_all_at(bytes, address)
    }

    /// Reads the mappings again.
    pub(super) fn reread(&mut self) -> io::Result<()> {
        self.mappings = Mapping::parse_all(&fs::read_to_string(self.proc.join("smaps"))?);
        Ok(())
    }

    /// Returns free memory below the stack of the first thread, which grows on demand.
    pub(super) fn room(&self) -> Room {
        Room(page_of(self.first.registers().rsp) - 16 * PAGE)
    }

    /// Lets the process make a call that must not fail.
    pub(super) fn call(&self, call: libc::c_long, arguments: &[u64]) -> io::Result<u64> {
        self.first.call(self.farewell, call, arguments)
    }

    pub(super) fn words<const N: usize>(&self, address: u64) -> io::Result<[u64; N]> {
        let bytes = self.read(address, address + 8 * N as u64)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
        }
        Ok(words)
    }

    /// Asks for the kernel's state. Writes to memory below the stack.
    /// `init` is the container's.
    pub(super) fn state(&self, init: u32) -> io::Result<State> {
        let (proc, Room(room)) = (&self.proc, self.room());
        let mut actions = Vec::new();
        for signal in 1..=SIGNALS {
            self.call(libc::SYS_rt_sigaction, &[signal.unsigned_abs().into(), 0, room, 8])?;
            actions.push(self.words::<4>(room)?);
        }
        self.call(libc::SYS_prctl, &[libc::PR_GET_PDEATHSIG as u64, room])?;
        let death_signal = self.words::<1>(room)?[0] as u32;
        for timer in 0..3 {
            self.call(libc::SYS_getitimer, &[timer, room])?;
            if self.words::<4>(room)? != [0; 4] {
                return Err(restless("one of its timers runs"));
            }
        }
        let end_of_heap = self.call(libc::SYS_brk, &[0])?;
        if fs::read_to_string(proc.join("timers")).is_ok_and(|timers| !timers.is_empty()) {
            return Err(refused("it has timers"));
        }
        let stat = fs::read_to_string(proc.join("stat"))?;
        let fields: Vec<_> = stat_fields(&stat).collect();
        let (group, session) = (fields.get(2), fields.get(3));
        let own = self.pid().as_raw_nonzero().to_string();
        let leads = session.is_some_and(|session| *session == own);
        if (group.is_some_and(|group| *group == own)) != leads {
            return Err(refused("it leads a process group"));
        }
        let status = fs::read_to_string(proc.join("status"))?;
        let umask = status::field(&status, "Umask").and_then(|umask| u64::from_str_radix(umask, 8).ok());
        Ok(State {
            thread: self.first.state(self, self.room())?,
            auxiliary: read_auxiliary(proc)?,
            layout: Layout::read(proc, end_of_heap)?,
            actions: actions
                .iter()
                .map(|words| words.map(u64::to_ne_bytes).concat().try_into().expect("32 bytes"))
                .collect(),
            death_signal,
            umask: umask.ok_or_else(|| refused("its status is not readable"))?,
            limits: changed_limits(proc, init)?,
            has_small_pages: self.call(libc::SYS_prctl, &[libc::PR_GET_THP_DISABLE as u64])? != 0,
            directory: fs::read_link(proc.join("cwd"))?,
            leads,
        })
    }

    /// Writes the frame by which a thread continues to free memory below its stack, and before it
    /// the address of the instructions that return from there.
    pub(super) fn prepare(&self, thread: &FrozenThread, state: &ThreadState) -> io::Result<Exit> {
        let frame = thread.frame(state)?;
        let stack = frame.address - 8;
        let is_of_stack = |mapping: &&Mapping| mapping.range().contains(&thread.registers().rsp);
        let begins = self.mappings.iter().find(is_of_stack).map_or(u64::MAX, |mapping| mapping.start);
        if stack < begins {
            return Err(refused("one of its threads has little room left on its stack"));
        }
        self.write(&[&self.sigreturn.to_ne_bytes()[..], &frame.bytes].concat(), stack)?;
        Ok(Exit { farewell: self.farewell, stack })
    }
}

/// Stops all threads of a process but the first one.
fn stop_others(pid: u32, init: u32) -> io::Result<Vec<FrozenThread>> {
    let (mut stopped, mut known) = (Vec::new(), vec![pid]);
    // A thread that still ran may have begun another one.
    loop {
        let new: Vec<_> = threads(pid)?.into_iter().filter(|id| !known.contains(id)).collect();
        if new.is_empty() {
            return Ok(stopped);
        }
        for id in new {
            let ended = |error: io::Error| match error.kind() {
                io::ErrorKind::NotFound => restless("one of its threads has ended meanwhile"),
                _ => error,
            };
            stopped.push(FrozenThread::stop(id, init).map_err(ended)?);
            known.push(id);
        }
    }
}

/// Returns `true` for the GNU C library, by its name.
fn is_libc(mapping: &Mapping) -> bool {
    let name = Path::new(&mapping.name).file_name().unwrap_or_default().to_string_lossy();
    name == "libc.so.6" || name.starts_with("libc-2.")
}

//! A stopped thread, and what the kernel knows of it.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::process::Pid;

use super::frame::{Context, Frame, below};
use super::frozen::{Frozen, Room};
use super::{restless, status};
use crate::launch::image::kernel::Thread;
use crate::launch::image::refused;
use crate::sys::seize::{Registers, Seized};

/// The calls in which a thread may rest. They are made again, with their whole timeouts; a moment
/// at which they were to end may have passed.
const RESTING: [libc::c_long; 13] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    libc::SYS_read,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_rt_sigtimedwait,
];

/// io_pgetevents(2) of asm/unistd_64.h, which libc lacks.
const IO_PGETEVENTS: libc::c_long = 333;
/// Calls in which a thread rests for what the kernel does meanwhile.
const ASYNCHRONOUS: [libc::c_long; 3] = [libc::SYS_io_getevents, IO_PGETEVENTS, libc::SYS_io_uring_enter];

/// The results of interrupted calls: EINTR, ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND,
/// ERESTART_RESTARTBLOCK of linux/errno.h.
const INTERRUPTED: [i64; 5] = [-4, -512, -513, -514, -516];

#[derive(Debug)]
pub(super) struct FrozenThread {
    seized: Seized,
    proc: PathBuf,
    /// The id in its own namespace.
    pub(super) id: u32,
}

/// The kernel's state of a thread.
#[derive(Debug)]
pub(super) struct ThreadState {
    pub(super) name: Vec<u8>,
    pub(super) registrations: Thread,
    /// Address, flags and size.
    pub(super) signal_stack: [u64; 3],
    pub(super) blocked: u64,
}

impl FrozenThread {
    /// Stops a thread. `init` is the container's, by whose state it is judged.
    pub(super) fn stop(id: u32, init: u32) -> io::Result<Self> {
        // Each thread has such a directory, though it is not listed there.
        let proc = PathBuf::from(format!("/proc/{id}"));
        status::check(&proc, init)?;
        let number = Pid::from_raw(id.cast_signed()).ok_or_else(|| refused("it has no id"))?;
        let seized = Seized::stop(number)?;
        let status = fs::read_to_string(proc.join("status"))?;
        let id = status::field(&status, "NSpid");
        let id = id.and_then(|ids| ids.split_ascii_whitespace().last()?.parse().ok());
        let id = id.ok_or_else(|| refused("its id is not known"))?;
        Ok(Self { seized, proc, id })
    }

    pub(super) fn pid(&self) -> Pid {
        self.seized.pid()
    }

    pub(super) fn registers(&self) -> &Registers {
        self.seized.registers()
    }

    /// Lets the thread make a call, by its process's instruction at that address.
    pub(super) fn call(&self, instruction: u64, call: libc::c_long, arguments: &[u64]) -> io::Result<u64> {
        match self.seized.call(instruction, call, arguments)? {
            error @ ..0 => Err(io::Error::from_raw_os_error(error.wrapping_neg() as i32)),
            result => Ok(result.unsigned_abs()),
        }
    }

    /// Lets the thread call a function of one of its libraries. Further arguments are zeroes.
    pub(super) fn enter(&self, process: &Frozen, function: u64, arguments: [u64; 2]) -> io::Result<u64> {
        // Aligned as after a call.
        let frame = (below(self.registers().rsp) & !0xf) - 8;
        process.write(&[0; 8], frame)?;
        Ok(self.seized.enter(function, arguments, frame)?)
    }

    /// Refuses a thread that is not at rest, or rests in a way that cannot be made again.
    pub(super) fn check_rest(&self, process: &Frozen) -> io::Result<()> {
        let registers = self.registers();
        let call = registers.orig_rax.cast_signed();
        if ASYNCHRONOUS.contains(&call) {
            return Err(refused("it uses asynchronous input and output (io_setup, io_uring)"));
        }
        if !RESTING.contains(&call) || !INTERRUPTED.contains(&registers.rax.cast_signed()) {
            return Err(restless(format!("it is amid system call {call}")));
        }
        if call == libc::SYS_futex && !is_plain_wait(registers.rsi as libc::c_int) {
            return Err(refused("it waits for a lock that knows its owner"));
        }
        // A set of signals that is blocked during the call, or the address of one.
        let mask = match call {
            libc::SYS_epoll_pwait => registers.r8,
            libc::SYS_ppoll => registers.r10,
            libc::SYS_pselect6 if registers.r9 != 0 => process.words::<1>(registers.r9)?[0],
            _ => 0,
        };
        if mask != 0 {
            return Err(refused("it rests with another set of blocked signals"));
        }
        const SYSCALL: u64 = u16::from_le_bytes([0x0f, 0x05]) as u64;
        if process.words::<1>(registers.rip - 8)?[0] >> 48 != SYSCALL {
            return Err(refused("it makes system calls in an unknown way"));
        }
        if registers.gs_base != 0 {
            return Err(refused("it has changed registers that are not restored"));
        }
        Ok(())
    }

    /// Asks for the kernel's state. Results of calls are written to `room`.
    pub(super) fn state(&self, process: &Frozen, room: Room) -> io::Result<ThreadState> {
        let call = |call, arguments: &[u64]| self.call(process.farewell, call, arguments);
        call(libc::SYS_sigaltstack, &[0, room.0])?;
        let mut signal_stack = process.words::<3>(room.0)?;
        // The flags have four bytes.
        signal_stack[1] &= u64::from(u32::MAX);
        call(libc::SYS_prctl, &[libc::PR_GET_TID_ADDRESS as u64, room.0])?;
        let id = process.words::<1>(room.0)?[0];
        match call(libc::SYS_get_mempolicy, &[room.0, 0, 0, 0, 0]) {
            Ok(_) if process.words::<1>(room.0)?[0] as i32 == libc::MPOL_DEFAULT => {}
            // This kernel has none.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
            _ => return Err(refused("it keeps a policy for its memory")),
        }
        let area = self.seized.sequences()?;
        let sequences = [area.address, area.length.into(), 0, area.signature.into()];
        let robust = self.seized.robust_list()?;
        let status = fs::read_to_string(self.proc.join("status"))?;
        let blocked = status::field(&status, "SigBlk").and_then(|set| u64::from_str_radix(set, 16).ok());
        Ok(ThreadState {
            name: fs::read(self.proc.join("comm"))?.trim_ascii_end().to_vec(),
            registrations: Thread {
                pointer: self.registers().fs_base,
                id,
                robust: (robust[0] != 0).then_some(robust),
                sequences: (area.address != 0).then_some(sequences),
            },
            signal_stack,
            blocked: blocked.ok_or_else(|| refused("its status is not readable"))?,
        })
    }

    /// Returns the frame by which the thread continues.
    pub(super) fn frame(&self, state: &ThreadState) -> io::Result<Frame> {
        let extended = self.seized.extended_state()?;
        let ThreadState { signal_stack, blocked, .. } = *state;
        Ok(Context { registers: self.registers(), signal_stack, blocked, extended }.frame())
    }
}

/// Returns `true` for an operation of futex(2) that waits for a change of the word only: it looks
/// at the word again when it is repeated.
fn is_plain_wait(operation: libc::c_int) -> bool {
    let plain = operation & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    plain == libc::FUTEX_WAIT || plain == libc::FUTEX_WAIT_BITSET
}

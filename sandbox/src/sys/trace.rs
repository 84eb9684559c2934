//! ptrace(2), as far as it takes to watch a program until it has been linked.

use std::process::{Child, Command};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::last_errno;

/// Why a traced program stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At the beginning or the end of a system call.
    Call,
    /// By a signal that it is about to get, by number.
    Signal(i32),
}

/// A system call and where the program is, as its registers tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    /// The system call's number and arguments; what it returned, once it has.
    pub(crate) call: u64,
    pub(crate) arguments: [u64; 6],
    pub(crate) result: u64,
    pub(crate) instruction: u64,
    pub(crate) stack: u64,
    /// What a program finds at its entry point: the function to be called at its exit.
    pub(crate) at_exit: u64,
    /// Where its thread's own data are.
    pub(crate) thread: u64,
}

/// A child that this process traces, from the program's first instruction on. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Tracee(Pid);

impl Tracee {
    /// Starts a program that stops before its first instruction; `prepare` runs in the child just before it is executed,
    /// under the conditions of [`pre_exec`](std::os::unix::process::CommandExt::pre_exec).
    pub(crate) fn start(
        command: &mut Command,
        prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let child = spawn_traced(command, prepare)?;
        let tracee = Self(Pid::from_child(&child));
        match tracee.wait()? {
            Stop::Signal(libc::SIGTRAP) => {}
            other => {
                return Err(std::io::Error::other(format!("it does not stop at its start, but: {other:?}")));
            }
        }
        // It ends with this process, and stops at system calls can be told from others.
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        tracee.set_options(options)?;
        Ok(tracee)
    }

    /// Lets it run to the beginning or the end of a system call, or until it gets a signal, which it does not get.
    pub(crate) fn run(&self) -> Result<Stop, Errno> {
        // SAFETY: PTRACE_SYSCALL takes integers only: no address, and 0 for no signal.
        let result = unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.raw(), 0_usize, 0_usize) };
        if result == -1 {
            return Err(last_errno());
        }
        self.wait()
    }

    fn wait(&self) -> Result<Stop, Errno> {
        loop {
            match waitpid(Some(self.0), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
                Ok(waited) => {
                    let signal =
                        waited.and_then(|(_, status)| status.stopping_signal()).ok_or(Errno::SRCH)?;
                    const CALL: i32 = libc::SIGTRAP | 0x80;
                    return Ok(if signal == CALL { Stop::Call } else { Stop::Signal(signal) });
                }
            }
        }
    }

    fn set_options(&self, options: libc::c_int) -> Result<(), Errno> {
        // SAFETY: PTRACE_SETOPTIONS takes integers only: an address that is ignored and the options.
        let result =
            unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, self.raw(), 0_usize, options as libc::c_long) };
        if result == -1 { Err(last_errno()) } else { Ok(()) }
    }

    /// Overwrites a word of its memory, whatever the protection.
    pub(crate) fn poke(&self, address: u64, word: u64) -> Result<(), Errno> {
        // SAFETY: PTRACE_POKETEXT takes an address in the other process, which the kernel checks, and a word by value.
        let result = unsafe { libc::ptrace(libc::PTRACE_POKETEXT, self.raw(), address, word) };
        if result == -1 { Err(last_errno()) } else { Ok(()) }
    }

    pub(crate) fn registers(&self) -> Result<Registers, Errno> {
        // SAFETY: `user_regs_struct` consists of integers only, for which all zeroes is a valid value.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: PTRACE_GETREGS ignores the address and fills a `user_regs_struct`, which is what the pointer leads to; it
        // outlives the call.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_GETREGS,
                self.raw(),
                ptr::null_mut::<libc::c_void>(),
                &raw mut registers,
            )
        };
        if result == -1 {
            return Err(last_errno());
        }
        let of = registers;
        Ok(Registers {
            call: of.orig_rax,
            arguments: [of.rdi, of.rsi, of.rdx, of.r10, of.r8, of.r9],
            result: of.rax,
            instruction: of.rip,
            stack: of.rsp,
            at_exit: of.rdx,
            thread: of.fs_base,
        })
    }

    fn raw(&self) -> libc::pid_t {
        self.0.as_raw_nonzero().get()
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        // It may be in the middle of something that it is told of, so more than one report may come.
        while let Ok(Some((_, status))) = waitpid(Some(self.0), WaitOptions::empty()) {
            if status.exited() || status.signaled() {
                break;
            }
        }
    }
}

fn spawn_traced(
    command: &mut Command,
    mut prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) -> std::io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let hook = move || {
        // SAFETY: PTRACE_TRACEME ignores its other arguments.
        let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0_usize, 0_usize) };
        if result == -1 { Err(std::io::Error::last_os_error()) } else { prepare() }
    };
    // SAFETY: the child is a copy of a process with one thread, in which no lock can be held by another, so the hook may do
    // whatever its parent may.
    unsafe { command.pre_exec(hook) };
    command.spawn()
}

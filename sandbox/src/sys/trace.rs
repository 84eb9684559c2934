//! ptrace(2), as far as it takes to watch a program until it has been linked.

use std::ffi::{CStr, CString};
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

/// An argument of a function in a traced program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    Number(u64),
    /// The address of a text, of some tens of bytes.
    Text(&'static CStr),
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

    /// Lets it go on in a function of its own instead, which returns to `back`. What is below `stack` is nobody's. It must
    /// stand still outside of system calls.
    pub(crate) fn enter(
        &self,
        function: u64,
        arguments: [Argument; 3],
        stack: u64,
        back: u64,
    ) -> Result<(), Errno> {
        // Below the stack: texts, room, and what a call pushes, where the stack is aligned as after a call.
        let mut place = stack - 1024;
        let frame = ((stack - 2048) & !0xf) - 8;
        let mut values = [0; 3];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => number,
                Argument::Text(text) => {
                    let begin = place;
                    for part in text.to_bytes_with_nul().chunks(8) {
                        let mut word = [0; 8];
                        word[..part.len()].copy_from_slice(part);
                        self.poke(place, u64::from_ne_bytes(word))?;
                        place += 8;
                    }
                    begin
                }
            };
        }
        self.poke(frame, back)?;
        let mut all = self.all_registers()?;
        [all.rdi, all.rsi, all.rdx] = values;
        (all.rip, all.rsp, all.rax) = (function, frame, 0);
        // SAFETY: PTRACE_SETREGS ignores the address and reads a `user_regs_struct`, which is what the pointer leads to; it
        // outlives the call. What the other process does with it is its own affair.
        let result = unsafe {
            libc::ptrace(libc::PTRACE_SETREGS, self.raw(), ptr::null_mut::<libc::c_void>(), &raw mut all)
        };
        if result == -1 { Err(last_errno()) } else { Ok(()) }
    }

    pub(crate) fn registers(&self) -> Result<Registers, Errno> {
        let of = self.all_registers()?;
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

    fn all_registers(&self) -> Result<libc::user_regs_struct, Errno> {
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
        if result == -1 { Err(last_errno()) } else { Ok(registers) }
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

/// Replaces the calling program; returns only if it cannot.
///
/// # References
/// execve(2)
pub(crate) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers =
        |words: &[CString]| words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the path ends with a NUL, and each vector ends with a null pointer after pointers to texts that end with a NUL.
    // All of them are borrowed beyond the call, and only read.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_errno()
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

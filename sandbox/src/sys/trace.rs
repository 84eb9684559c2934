//! ptrace(2), as far as it takes to watch a program until it is linked.

use std::ffi::{CStr, CString, c_long, c_void};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use nix::sys::ptrace::{self, Options};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::errno;
use super::process::SingleThreaded;

/// The reason why a traced program is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The beginning or the end of a system call.
    Call,
    /// The number of a signal that is about to be delivered.
    Signal(i32),
}

/// A system call and the program's position, from its registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    /// The system call's number, its arguments, and its result once it has ended.
    pub(crate) call: u64,
    pub(crate) arguments: [u64; 6],
    pub(crate) result: u64,
    pub(crate) instruction: u64,
    pub(crate) stack: u64,
    /// At a program's entry point, the function to call at its exit.
    pub(crate) at_exit: u64,
    /// The address of its thread's data.
    pub(crate) thread: u64,
}

/// An argument of a function in a traced program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    Number(u64),
    /// The address of a text, of some tens of bytes.
    Text(&'static CStr),
}

/// A child that this process traces, from the program's first instruction on. It is killed when
/// this is dropped.
#[derive(Debug)]
pub(crate) struct Tracee(Pid);

impl Tracee {
    /// Starts a program that stops before its first instruction. `prepare` runs in the child just
    /// before execve(2).
    pub(crate) fn start(
        _proof: &SingleThreaded,
        command: &mut Command,
        mut prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let hook = move || {
            ptrace::traceme().map_err(errno)?;
            prepare()
        };
        // SAFETY: the child is a copy of a process that `SingleThreaded` proves to have one thread:
        // no other can hold a lock, so the hook may do whatever its parent may.
        unsafe { command.pre_exec(hook) };
        let tracee = Self(Pid::from_child(&command.spawn()?));
        match tracee.wait()? {
            Stop::Signal(libc::SIGTRAP) => {}
            other => {
                return Err(std::io::Error::other(format!("it does not stop at its start, but: {other:?}")));
            }
        }
        // It ends with this process, and stops at system calls can be distinguished from others.
        let options = Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD;
        ptrace::setoptions(tracee.pid(), options).map_err(errno)?;
        Ok(tracee)
    }

    /// Lets it run to the beginning or the end of a system call, or to a signal, which is not
    /// delivered.
    pub(crate) fn run(&self) -> Result<Stop, Errno> {
        ptrace::syscall(self.pid(), None).map_err(errno)?;
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

    /// Overwrites a word of its memory, whatever the protection.
    pub(crate) fn poke(&self, address: u64, word: u64) -> Result<(), Errno> {
        let address = ptr::without_provenance_mut::<c_void>(address as usize);
        ptrace::write(self.pid(), address, word.cast_signed() as c_long).map_err(errno)
    }

    /// Lets it continue in one of its functions, which returns to `back`. Memory below `stack` is
    /// free. The program must be stopped outside of system calls.
    pub(crate) fn enter(
        &self,
        function: u64,
        arguments: [Argument; 3],
        stack: u64,
        back: u64,
    ) -> Result<(), Errno> {
        // Below the stack: texts, a gap, and the return address, with the stack aligned as after a
        // call.
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
        let mut all = ptrace::getregs(self.pid()).map_err(errno)?;
        [all.rdi, all.rsi, all.rdx] = values;
        (all.rip, all.rsp, all.rax) = (function, frame, 0);
        ptrace::setregs(self.pid(), all).map_err(errno)
    }

    pub(crate) fn registers(&self) -> Result<Registers, Errno> {
        let of = ptrace::getregs(self.pid()).map_err(errno)?;
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

    fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.0.as_raw_nonzero().get())
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        // Reports of stops may come before that of the end.
        while let Ok(Some((_, status))) = waitpid(Some(self.0), WaitOptions::empty()) {
            if status.exited() || status.signaled() {
                break;
            }
        }
    }
}

/// Replaces the calling program; returns only if that fails.
///
/// # References
/// execve(2)
pub(crate) fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let Err(error) = nix::unistd::execve(program, arguments, environment);
    errno(error)
}

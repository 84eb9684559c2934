//! ptrace(2), as far as it takes to stop a thread that runs and to ask the kernel about it.

use std::fmt;
use std::ptr;

use nix::sys::ptrace::{self, Options};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use super::{errno, last_errno};

/// The general registers of a stopped thread.
pub(crate) type Registers = libc::user_regs_struct;

/// A thread that this process has stopped. Its process is killed when this one ends, and never runs
/// again but for calls that are made in it.
pub(crate) struct Seized {
    pid: Pid,
    registers: Registers,
}

impl fmt::Debug for Seized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seized").field(&self.pid).finish()
    }
}

/// An area for restartable sequences, rseq(2): address, length and signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SequenceArea {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) signature: u32,
}

impl Seized {
    /// Stops a thread, or a process with one.
    ///
    /// # Errors
    /// `EAGAIN` if it is about to get a signal.
    pub(crate) fn stop(pid: Pid) -> Result<Self, Errno> {
        let number = number(pid);
        ptrace::seize(number, Options::PTRACE_O_EXITKILL).map_err(errno)?;
        ptrace::interrupt(number).map_err(errno)?;
        if stopped(pid)? != (libc::SIGTRAP, libc::PTRACE_EVENT_STOP) {
            return Err(Errno::AGAIN);
        }
        let registers = ptrace::getregs(number).map_err(errno)?;
        Ok(Self { pid, registers })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns the registers as they were when the process was stopped.
    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Returns the extended state: floating point and vectors, as the instruction XSAVE lays them
    /// out.
    ///
    /// # References
    /// ptrace(2), PTRACE_GETREGSET
    pub(crate) fn extended_state(&self) -> Result<Vec<u8>, Errno> {
        const NT_X86_XSTATE: usize = 0x202;
        // More than any processor has.
        let mut state = vec![0_u8; 64 << 10];
        let mut area =
            libc::iovec { iov_base: state.as_mut_ptr().cast::<libc::c_void>(), iov_len: state.len() };
        // SAFETY: the request writes at most `iov_len` bytes to `iov_base`, which is the memory of
        // `state`, and the number of bytes to `area`; it keeps no pointer.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_GETREGSET,
                self.pid.as_raw_nonzero().get(),
                ptr::without_provenance_mut::<libc::c_void>(NT_X86_XSTATE),
                ptr::from_mut(&mut area),
            )
        };
        if result == -1 {
            return Err(last_errno());
        }
        state.truncate(area.iov_len);
        Ok(state)
    }

    /// Lets the process make a system call. `instruction` is the address of one in its memory.
    /// Returns the result, which is a negative errno for a failure.
    pub(crate) fn call(&self, instruction: u64, call: libc::c_long, arguments: &[u64]) -> Result<i64, Errno> {
        let mut registers = self.registers;
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = all;
        registers.rip = instruction;
        registers.rax = call.unsigned_abs();
        // No call is to be made again.
        registers.orig_rax = u64::MAX;
        ptrace::setregs(number(self.pid), registers).map_err(errno)?;
        ptrace::step(number(self.pid), None).map_err(errno)?;
        match stopped(self.pid)? {
            (libc::SIGTRAP, _) => {}
            _ => return Err(Errno::AGAIN),
        }
        let result = ptrace::getregs(number(self.pid)).map_err(errno)?.rax.cast_signed();
        self.put_back()?;
        Ok(result)
    }

    /// Lets the process call a function, whose further arguments are zeroes. `frame` is the address
    /// of a return address in free memory of its stack that leads to the address zero. Returns the
    /// function's value.
    pub(crate) fn enter(&self, function: u64, arguments: [u64; 2], frame: u64) -> Result<u64, Errno> {
        let mut registers = self.registers;
        [registers.rdi, registers.rsi] = arguments;
        [registers.rdx, registers.rcx, registers.r8, registers.r9] = [0; 4];
        (registers.rip, registers.rsp, registers.rax, registers.orig_rax) = (function, frame, 0, u64::MAX);
        ptrace::setregs(number(self.pid), registers).map_err(errno)?;
        ptrace::cont(number(self.pid), None).map_err(errno)?;
        let stop = stopped(self.pid)?;
        let after = ptrace::getregs(number(self.pid)).map_err(errno)?;
        // The return ends in a fault, whose signal is not delivered.
        if stop.0 != libc::SIGSEGV || after.rip != 0 {
            return Err(Errno::AGAIN);
        }
        self.put_back()?;
        Ok(after.rax)
    }

    fn put_back(&self) -> Result<(), Errno> {
        ptrace::setregs(number(self.pid), self.registers).map_err(errno)
    }

    /// Returns the area for restartable sequences; an address of zero stands for none.
    ///
    /// # References
    /// ptrace(2), PTRACE_GET_RSEQ_CONFIGURATION, Linux 5.13
    pub(crate) fn sequences(&self) -> Result<SequenceArea, Errno> {
        const REQUEST: libc::c_uint = 0x420f;
        /// `ptrace_rseq_configuration` of linux/ptrace.h.
        #[derive(Default)]
        #[repr(C)]
        struct Configuration {
            address: u64,
            length: u32,
            signature: u32,
            flags: u32,
            padding: u32,
        }
        let mut found = Configuration::default();
        // SAFETY: the request writes at most as many bytes as its third argument says, which is the
        // size of `found`, and keeps no pointer.
        let length = unsafe {
            libc::ptrace(
                REQUEST,
                self.pid.as_raw_nonzero().get(),
                ptr::without_provenance_mut::<libc::c_void>(size_of::<Configuration>()),
                ptr::from_mut(&mut found),
            )
        };
        if length == -1 {
            return Err(last_errno());
        }
        let Configuration { address, length, signature, .. } = found;
        Ok(SequenceArea { address, length, signature })
    }

    /// Returns the arguments of set_robust_list(2); a null address stands for none.
    pub(crate) fn robust_list(&self) -> Result<[u64; 2], Errno> {
        let (mut head, mut length) = (0_u64, 0_u64);
        // SAFETY: the call writes a pointer and a size, both of eight bytes as these are, and keeps
        // no pointer.
        let result = unsafe {
            libc::syscall(
                libc::SYS_get_robust_list,
                self.pid.as_raw_nonzero().get(),
                ptr::from_mut(&mut head),
                ptr::from_mut(&mut length),
            )
        };
        if result == 0 { Ok([head, length]) } else { Err(last_errno()) }
    }
}

/// Returns `true` if two descriptors of two processes share an open file, kcmp(2).
pub(crate) fn share_open_file(one: (Pid, i32), other: (Pid, i32)) -> Result<bool, Errno> {
    const FILE: libc::c_int = 0;
    are_same(one.0, other.0, FILE, [one.1.into(), other.1.into()])
}

/// Returns `true` if two threads share their descriptors, and their directory and umask, kcmp(2).
pub(crate) fn share_files(one: Pid, other: Pid) -> Result<bool, Errno> {
    const FILES: libc::c_int = 2;
    const FS: libc::c_int = 3;
    Ok(are_same(one, other, FILES, [0; 2])? && are_same(one, other, FS, [0; 2])?)
}

fn are_same(one: Pid, other: Pid, kind: libc::c_int, numbers: [libc::c_long; 2]) -> Result<bool, Errno> {
    // SAFETY: the call takes integers only.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            one.as_raw_nonzero().get(),
            other.as_raw_nonzero().get(),
            kind,
            numbers[0],
            numbers[1],
        )
    };
    if order < 0 { Err(last_errno()) } else { Ok(order == 0) }
}

fn number(pid: Pid) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get())
}

/// Waits until a process is stopped. Returns the signal and the event.
fn stopped(pid: Pid) -> Result<(i32, i32), Errno> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(waited) => {
                let status = waited.map(|(_, status)| status).ok_or(Errno::SRCH)?;
                let signal = status.stopping_signal().ok_or(Errno::SRCH)?;
                return Ok((signal, status.as_raw() >> 16));
            }
        }
    }
}

/// Kills a stopped process.
impl Drop for Seized {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }
}

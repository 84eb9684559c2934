//! Calls that change the calling process: threads, descriptors, signals, its network's loopback.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::{errno, last_errno};
use crate::machine::maps::Mapping;

/// Proof that this process has one thread and will start no other.
///
/// Held by the launcher, which is caught before `main` and never starts a thread. It cannot be sent
/// to one.
#[derive(Debug)]
pub(crate) struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Counts this process's threads.
    pub(crate) fn check() -> io::Result<Self> {
        match fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(PhantomData)),
            n => Err(io::Error::other(format!("{n} threads run before main where one is expected"))),
        }
    }
}

/// The right to close the descriptors of a process that has just begun, by execve(2) or as a child
/// of this folder's calls.
///
/// In the first no Rust object owns a descriptor yet. The second runs one function and ends: the
/// objects of its parent, in the frames above that function, are never reached.
#[derive(Debug)]
pub(crate) struct FreshProcess(PhantomData<*const ()>);

impl FreshProcess {
    /// Only for the function that runs before `main`.
    pub(super) fn executed() -> Self {
        Self(PhantomData)
    }

    /// Runs the function of a child just forked, and ends the child.
    pub(super) fn run(child: impl FnOnce(Self)) -> ! {
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| child(Self(PhantomData))));
        exit_now(i32::from(outcome.is_err()))
    }

    /// Closes every descriptor but standard input, output and error, and those given. A child must
    /// use no other descriptor of its parent afterwards.
    ///
    /// # References
    /// close_range(2), Linux 5.9
    pub(crate) fn keep_only(self, kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut kept: Vec<_> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
        kept.sort_unstable();
        let mut first = 3;
        for end in kept.into_iter().map(Some).chain([None]) {
            let last = end.map_or(libc::c_uint::MAX, |end| end.saturating_sub(1));
            if first <= last {
                // SAFETY: the call takes integers only. A `FreshProcess` is the proof that no
                // object which is still used owns a descriptor in the range: those that are were
                // given, and lie between the ranges.
                if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
                    return Err(last_errno());
                }
            }
            first = first.max(end.unwrap_or(last).saturating_add(1));
        }
        Ok(())
    }
}

/// Forks the calling process. The child runs `child` and ends.
///
/// # References
/// fork(2)
pub(crate) fn fork(_proof: &SingleThreaded, child: impl FnOnce(FreshProcess)) -> Result<Pid, Errno> {
    // SAFETY: fork takes nothing. `SingleThreaded` proves that no other thread can hold a
    // lock which the child would then find locked for ever, so the child may do whatever its parent
    // may.
    match unsafe { libc::fork() } {
        ..0 => Err(last_errno()),
        0 => FreshProcess::run(child),
        pid => Ok(Pid::from_raw(pid).expect("the kernel returns positive pids")),
    }
}

/// Sets every signal to its default action and unblocks it: the test process's settings must not
/// reach a server.
///
/// SIGXFSZ is ignored instead, and so in all programs started from here: a write beyond `ulimit -f`
/// then fails with EFBIG, which programs report.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        let action = if signal == libc::SIGXFSZ { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: neither action installs code. Numbers that may not be changed are refused with
        // EINVAL, harmlessly.
        unsafe { libc::signal(signal, action) };
    }
    let _ = SigSet::empty().thread_set_mask();
}

/// Lets the kernel reap this process's children by itself.
///
/// # References
/// wait(2), "SIGCHLD set to be ignored"
pub(crate) fn reap_children_automatically() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Ends the process at once: no destructors, no exit handlers, which belong to the program this is
/// a copy of.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Makes the kernel send a signal to the program of `command` when the thread ends that starts it.
///
/// # References
/// PR_SET_PDEATHSIG(2const)
pub(crate) fn die_with_parent(command: &mut std::process::Command, signal: Signal) {
    let parent = rustix::process::getpid();
    let arm = move || {
        set_parent_process_death_signal(Some(signal))?;
        // The parent may have ended before.
        if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: in the child, which may be a copy of one thread of many, the hook makes two system
    // calls and nothing else: it takes no lock and allocates no memory.
    unsafe { command.pre_exec(arm) };
}

/// Returns a descriptor that becomes readable when a child ends. The signal is blocked from here
/// on.
///
/// # References
/// signalfd(2)
pub(crate) fn child_signals() -> Result<OwnedFd, Errno> {
    let mask = SigSet::from(nix::sys::signal::Signal::SIGCHLD);
    mask.thread_set_mask().map_err(errno)?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    signals.map(OwnedFd::from).map_err(errno)
}

/// Removes a segment of System V shared memory; processes that have it attached keep it.
///
/// # References
/// shmctl(2), IPC_RMID
pub(crate) fn remove_shared_memory(id: i32) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes an integer and ignores the pointer, which is null.
    match unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Brings the loopback interface of this network namespace up; the kernel then gives it 127.0.0.1
/// and ::1.
///
/// # References
/// netdevice(7)
pub(crate) fn loopback_up() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` with a NUL-terminated name and the flags set; `request`
    // is one and lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Returns `true` if the code of this library lies in the program itself, so that executing the
/// program again runs it. It does not if the library is part of a shared object that another
/// program loaded.
///
/// Both addresses are looked up in the mappings, since overlay file systems show stat(2) another
/// inode than the mapped one.
pub(crate) fn is_in_main_program() -> io::Result<bool> {
    let here = is_in_main_program as *const () as usize;
    // SAFETY: getauxval takes an integer and reads what the kernel passed at the start of the
    // program.
    let program = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    let mappings = Mapping::parse_all(&fs::read_to_string("/proc/self/maps")?);
    let file_at =
        |address: usize| mappings.iter().find(|mapping| mapping.range().contains(&(address as u64)));
    let file_of = |address| file_at(address).map(|mapping| (&mapping.device, mapping.inode));
    Ok(file_of(here).is_some_and(|file| file_of(program) == Some(file)))
}

/// Returns the version of the C library, which its locales depend on; nothing for a library without
/// one.
#[cfg(target_env = "gnu")]
pub(crate) fn libc_version() -> String {
    // SAFETY: the function takes nothing and returns a string that lives as long as the program.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_string_lossy().into_owned()
}

/// Returns the version of the C library, which its locales depend on; nothing for a library without
/// one.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn libc_version() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_holds_the_library_itself() {
        assert!(is_in_main_program().unwrap());
    }
}

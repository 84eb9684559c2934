//! What a process does to itself: threads, descriptors, signals, its network's loopback.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::last_errno;

/// Proof that this process has one thread and will start no other.
///
/// Held by the launcher, which is caught before `main` and never starts a thread. It cannot be sent to one.
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

/// The right to close the descriptors of a process that has just begun, by execve(2) or as a child of this folder's calls.
///
/// In the first no Rust object owns a descriptor yet. The second runs one function and ends: the objects of its parent, in the
/// frames above that function, are never reached.
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

    /// Closes every descriptor but standard input, output and error, and those given. A child must use no other descriptor
    /// of its parent afterwards.
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
                // SAFETY: the call takes integers only. A `FreshProcess` is the proof that no object which is still used
                // owns a descriptor in the range: those that are were given, and lie between the ranges.
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
    // SAFETY: fork takes nothing. `SingleThreaded` proves that no other thread can hold a lock which the child would then find
    // locked for ever, so the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        ..0 => Err(last_errno()),
        0 => FreshProcess::run(child),
        pid => Ok(Pid::from_raw(pid).expect("the kernel returns positive pids")),
    }
}

/// Every signal to its default action, none blocked: what the test process ignores or blocks must not reach a server.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no code. Numbers that may not be changed are refused with EINVAL, harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    set_signal_mask(None);
}

/// Lets the kernel reap this process's children by itself.
///
/// # References
/// wait(2), "SIGCHLD set to be ignored"
pub(crate) fn reap_children_automatically() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Ends the process at once: no destructors, no exit handlers, which belong to the program this is a copy of.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Has the kernel send a signal to the program that `command` starts when the thread that starts it ends.
///
/// # References
/// PR_SET_PDEATHSIG(2const)
pub(crate) fn die_with_parent(command: &mut std::process::Command, signal: Signal) {
    let parent = rustix::process::getpid();
    let arm = move || {
        set_parent_process_death_signal(Some(signal))?;
        // It may have ended before.
        if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: in the child, which may be a copy of one thread of many, the hook makes two system calls and nothing else:
    // it takes no lock and allocates no memory.
    unsafe { command.pre_exec(arm) };
}

/// A descriptor that becomes readable when a child ends. The signal is blocked from here on.
///
/// # References
/// signalfd(2)
pub(crate) fn child_signals() -> Result<OwnedFd, Errno> {
    let mask = set_signal_mask(Some(libc::SIGCHLD));
    // SAFETY: `mask` is an initialised signal set that outlives the call; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd == -1 {
        return Err(last_errno());
    }
    // SAFETY: the call succeeded and returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// Blocks exactly the given signal, or none.
fn set_signal_mask(blocked: Option<i32>) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set it is given, sigaddset and sigprocmask read it, and all three get valid
    // pointers to a live local. The process has one thread, for which sigprocmask is defined.
    unsafe {
        let mut mask = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        if let Some(signal) = blocked {
            libc::sigaddset(&raw mut mask, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        mask
    }
}

/// Brings the loopback interface of this network namespace up; the kernel then gives it 127.0.0.1 and ::1.
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
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` with a NUL-terminated name and the flags set; `request` is one and lives
    // through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Whether the code of this library lies in the program itself, so that executing the program again runs it.
///
/// It does not where the library is part of a shared object that another program loaded. Both addresses are looked up in
/// the same place, since overlay file systems tell stat(2) another inode than the one that is mapped.
pub(crate) fn is_in_main_program() -> io::Result<bool> {
    let here = is_in_main_program as *const () as usize;
    // SAFETY: getauxval takes an integer and reads what the kernel passed at the start of the program.
    let program = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let file_at =
        |address| maps.lines().filter_map(Mapping::parse).find(|mapping| mapping.range.contains(&address));
    Ok(file_at(here).zip(file_at(program)).is_some_and(|(here, program)| here.file == program.file))
}

/// A line of /proc/pid/maps, proc_pid_maps(5).
struct Mapping<'a> {
    range: std::ops::Range<usize>,
    /// Device and inode.
    file: (&'a str, &'a str),
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (device, inode) = (fields.nth(2)?, fields.next()?);
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        Some(Self { range, file: (device, inode) })
    }
}

/// The version of the C library, for what depends on its locales. Empty where it tells none.
#[cfg(target_env = "gnu")]
pub(crate) fn libc_version() -> String {
    // SAFETY: the function takes nothing and returns a string that lives as long as the program.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_string_lossy().into_owned()
}

/// The version of the C library, for what depends on its locales. Empty where it tells none.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn libc_version() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_parsed() {
        let mapping = Mapping::parse("7f1c-8f1c r-xp 00026000 fe:00 1973 /usr/lib/a b.so").unwrap();
        assert_eq!((mapping.range, mapping.file), (0x7f1c..0x8f1c, ("fe:00", "1973")));
        assert!(Mapping::parse("").is_none());
    }

    #[test]
    fn a_test_program_holds_the_library_itself() {
        assert!(is_in_main_program().unwrap());
    }
}

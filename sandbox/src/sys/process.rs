//! What a process does to itself: threads, descriptors, signals, its network's loopback.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::last_errno;

/// The word of its holder that this process has one thread and will start no other.
///
/// Held by the launcher, which is caught before `main` and never starts a thread; it cannot be sent to one.
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

/// Which of the two processes returned from [`fork`].
#[derive(Debug)]
pub(crate) enum Forked {
    /// The caller, with the child's id.
    Parent(Pid),
    /// A copy of the caller, with copies of its descriptors.
    Child,
}

/// Forks the calling process.
///
/// # References
/// fork(2)
pub(crate) fn fork(_proof: &SingleThreaded) -> Result<Forked, Errno> {
    // SAFETY: fork takes nothing. `SingleThreaded` says that no other thread can hold a lock which the child would then find
    // locked for ever, so the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        ..0 => Err(last_errno()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(Pid::from_raw(pid).expect("the kernel returns positive pids"))),
    }
}

/// Closes every descriptor from `first` on.
///
/// # References
/// close_range(2), Linux 5.9
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: the call takes integers only. Its callers run in a child just forked, whose Rust objects that own
    // descriptors at or above `first` are never used or dropped again.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Takes ownership of descriptor `fd` if it is open.
///
/// For the fixed numbers by which a launcher is handed its socket and a child just forked keeps what it needs.
pub(crate) fn take_fd(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD takes no pointer and fails with EBADF for a descriptor that is not open.
    let open = unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1;
    // SAFETY: the descriptor is open, and callers take a number that no other object of this process owns.
    open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Moves descriptor `fd` to the number `to`, which is closed first if open, and marks it close-on-exec.
pub(crate) fn move_fd(fd: OwnedFd, to: RawFd) -> Result<OwnedFd, Errno> {
    if fd.as_raw_fd() == to {
        return Ok(fd);
    }
    // SAFETY: takes integers only; what had the number `to` belongs to the launcher's half of a fork and is not used
    // in this process again.
    if unsafe { libc::dup3(fd.as_raw_fd(), to, libc::O_CLOEXEC) } == -1 {
        return Err(last_errno());
    }
    // SAFETY: dup3 succeeded, so `to` is open and this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(to) })
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

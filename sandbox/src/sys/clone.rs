//! clone3(2): a child in new namespaces.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;

use super::last_errno;
use super::process::{FreshProcess, SingleThreaded};

/// The namespaces of a sandbox.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Flags of clone3 beyond the 32 bits of the constants in libc (linux/sched.h). The first resets
/// caught signals to default actions.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks the calling process into new user, mount, pid, net, ipc, uts and cgroup namespaces. The
/// child, PID 1 of its namespaces, runs `child` and ends; the caller gets its id and pidfd.
///
/// The child starts in the control group `group`, a directory of cgroups version 2, if one is
/// given. Otherwise clone(2) is the fallback where clone3 fails with `ENOSYS`, as some seccomp
/// profiles make it do.
///
/// # References
/// clone(2), user_namespaces(7), pid_namespaces(7)
pub(crate) fn into_namespaces(
    _proof: &SingleThreaded,
    group: Option<BorrowedFd<'_>>,
    child: impl FnOnce(FreshProcess),
) -> Result<(Pid, OwnedFd), Errno> {
    let cloned = match clone3(group) {
        Err(Errno::NOSYS) if group.is_none() => clone(),
        result => result,
    };
    match cloned? {
        Some(parents) => Ok(parents),
        None => FreshProcess::run(child),
    }
}

/// Returns nothing in the child.
fn clone3(group: Option<BorrowedFd<'_>>) -> Result<Option<(Pid, OwnedFd)>, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` consists of integers only, for which all zeroes is a valid value and
    // means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = NAMESPACES as u64 | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    if let Some(group) = group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM and with no stack given, the child runs on its own copy of this
    // memory, as after fork(2) but without glibc's handlers, whose repairs (locks, a cached thread
    // id for raise and abort) the child does not rely on. `args` and `pidfd` outlive the call,
    // `group` is open during it, and the size is that of `args`. `SingleThreaded`, which the caller
    // has, proves that no other thread holds a lock which the child would find locked for ever.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<libc::clone_args>()) };
    cloned(pid, pidfd)
}

/// Clones by clone(2). s390x swaps the first two arguments, and no filter there is known to need
/// this.
fn clone() -> Result<Option<(Pid, OwnedFd)>, Errno> {
    if cfg!(target_arch = "s390x") {
        return Err(Errno::NOSYS);
    }
    let mut pidfd: RawFd = -1;
    let flags = i64::from(NAMESPACES | libc::CLONE_PIDFD | libc::SIGCHLD);
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: as for clone3 above; CLONE_PIDFD makes the kernel write one int through the third
    // argument, which points at `pidfd`. The thread-related arguments that follow it are null and
    // their flags unset.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, ptr::from_mut(&mut pidfd), none, none) };
    cloned(pid, pidfd)
}

fn cloned(pid: libc::c_long, pidfd: RawFd) -> Result<Option<(Pid, OwnedFd)>, Errno> {
    match pid {
        ..0 => Err(last_errno()),
        0 => Ok(None),
        _ => {
            let pid =
                i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the kernel returns positive pids");
            // SAFETY: the call succeeded, so the kernel opened `pidfd` in this process, and no
            // object owns it yet.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some((pid, pidfd)))
        }
    }
}

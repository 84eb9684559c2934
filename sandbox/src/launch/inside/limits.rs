//! What a sandbox may take of the machine, and the limits that a process can set for itself and all its children.
//!
//! Where the launcher has a control group to give (`cgroup.rs`) that holds the whole sandbox to its limits; what is here
//! holds without one, less exactly.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::cgroup::Controllers;
use super::privileges::HostUser;
use crate::launch::limits::Limits;
use crate::launch::protocol::{Failure, LaunchStep};
use crate::machine::release;

/// Limits this process, and all that it starts, in what no control group limits it in. Needs the outer /proc, one that can be
/// written, and the capabilities of a fresh user namespace.
pub(super) fn apply(
    limits: &Limits,
    user: HostUser,
    group: Controllers,
    proc: BorrowedFd<'_>,
) -> Result<(), Failure> {
    lower(Resource::Core, "RLIMIT_CORE", 0)?;
    // The server is told that there is no more, and goes on; that a group's limit is reached it would not survive.
    lower(Resource::Data, "RLIMIT_DATA", limits.memory)?;
    if let Some(pids) = limits.pids.filter(|_| !group.pids) {
        // Counted for each user namespace; before, for all of the user's processes, and root outside is exempt from it.
        if release::is_at_least((5, 14)) {
            lower(Resource::Nproc, "RLIMIT_NPROC", pids.into())?;
        }
        // That of the pid namespace. In an older kernel it is the whole machine's, and root in a namespace may write it.
        if user.uid == 0 && release::is_at_least((6, 14)) {
            // Numbers below 300 are given out only once, so this many more may be alive at first.
            const RESERVED: u32 = 300;
            write_sysctl(proc, "kernel/pid_max", &pids.saturating_add(RESERVED).to_string())?;
        }
    }
    if let Some(cpu) = limits.cpu.filter(|_| !group.cpu) {
        keep_to(cpu).map_err(|errno| Failure::new(LaunchStep::Limits, "the processors", errno))?;
    }
    // Should the machine run out of memory, a test's server goes first, not its compiler or its editor.
    write("/proc/self/oom_score_adj", "1000")?;
    // In a namespace of its own a program would have all capabilities again.
    write_sysctl(proc, "user/max_user_namespaces", "0")
}

/// Limits this process, and all that it starts, in what needs no namespace: the number of processes is counted for the whole
/// user there.
pub(super) fn apply_to_process(limits: &Limits) -> Result<(), Failure> {
    lower(Resource::Core, "RLIMIT_CORE", 0)?;
    lower(Resource::Data, "RLIMIT_DATA", limits.memory)?;
    if let Some(cpu) = limits.cpu {
        keep_to(cpu).map_err(|errno| Failure::new(LaunchStep::Limits, "the processors", errno))?;
    }
    write("/proc/self/oom_score_adj", "1000")
}

fn lower(resource: Resource, name: &str, value: u64) -> Result<(), Failure> {
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(most));
    setrlimit(resource, Rlimit { current: value, maximum: value })
        .map_err(|errno| Failure::new(LaunchStep::Limits, name, errno))
}

/// The namespaces of the writer count, whichever /proc it is. In the outer one the kernel looks at those of all living
/// sandboxes to find the one that is meant.
fn write_sysctl(proc: BorrowedFd<'_>, name: &str, value: &str) -> Result<(), Failure> {
    let opened = openat(proc, format!("sys/{name}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let written =
        opened.map_err(io::Error::from).and_then(|file| File::from(file).write_all(value.as_bytes()));
    allowed(written, &format!("/proc/sys/{name}"))
}

fn write(file: &str, value: &str) -> Result<(), Failure> {
    allowed(fs::write(file, value), file)
}

/// Some containers have a /proc that nobody may write, or that shows a part of the kernel's settings.
fn allowed(written: io::Result<()>, file: &str) -> Result<(), Failure> {
    match written {
        Err(error)
            if !matches!(
                error.raw_os_error(),
                Some(libc::EPERM | libc::EACCES | libc::EROFS | libc::ENOENT)
            ) =>
        {
            Err(Failure::io(LaunchStep::Limits, file, &error))
        }
        _ => Ok(()),
    }
}

/// Keeps to as many processors as `cpu` is, rounded up. Which ones is chance, so that sandboxes spread over all.
fn keep_to(cpu: f64) -> Result<(), Errno> {
    let allowed = sched_getaffinity(None)?;
    let allowed: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&number| allowed.is_set(number)).collect();
    let wanted = (cpu.ceil() as usize).clamp(1, allowed.len());
    let first = RandomState::new().hash_one(0) as usize % allowed.len();
    let mut kept = CpuSet::new();
    allowed.iter().cycle().skip(first).take(wanted).for_each(|&number| kept.set(number));
    sched_setaffinity(None, &kept)
}

//! Limits that a process sets for itself and all its children.
//!
//! A control group (`cgroup.rs`) holds the whole sandbox to its limits; these hold without one,
//! less exactly.

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

/// Limits this process and its children in every resource that no control group limits. Needs the
/// outer /proc, a writable one, and the capabilities of a fresh user namespace.
pub(super) fn apply(
    limits: &Limits,
    user: HostUser,
    group: Controllers,
    proc: BorrowedFd<'_>,
) -> Result<(), Failure> {
    lower(Resource::Core, "RLIMIT_CORE", 0)?;
    // At this limit the server gets an error and continues; it would not survive a group's limit.
    lower(Resource::Data, "RLIMIT_DATA", limits.memory)?;
    if let Some(pids) = limits.pids.filter(|_| !group.pids) {
        // Counted for each user namespace since then; before, for all of the user's processes. Root
        // outside is exempt.
        if release::is_at_least((5, 14)) {
            lower(Resource::Nproc, "RLIMIT_NPROC", pids.into())?;
        }
        // The pid namespace's limit. In an older kernel it is the machine's, which root in a
        // namespace may write.
        if user.uid == 0 && release::is_at_least((6, 14)) {
            // Pids below 300 are used only once, so the first processes may exceed the limit by
            // that.
            const RESERVED: u32 = 300;
            write_sysctl(proc, "kernel/pid_max", &pids.saturating_add(RESERVED).to_string())?;
        }
    }
    if let Some(cpu) = limits.cpu.filter(|_| !group.cpu) {
        keep_to(cpu).map_err(|errno| Failure::new(LaunchStep::Limits, "the processors", errno))?;
    }
    // If the machine runs out of memory, a test's server is killed before compilers and editors.
    write("/proc/self/oom_score_adj", "1000")?;
    // A program in a user namespace below would have all capabilities again.
    write_sysctl(proc, "user/max_user_namespaces", "0")
}

/// Limits this process and its children as far as that needs no namespace: without one, processes
/// are counted for the whole user.
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

/// Writes a sysctl of the writer's namespaces, by either /proc. In the outer one the kernel
/// compares those of all live sandboxes to find the right one.
fn write_sysctl(proc: BorrowedFd<'_>, name: &str, value: &str) -> Result<(), Failure> {
    let opened = openat(proc, format!("sys/{name}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let written =
        opened.map_err(io::Error::from).and_then(|file| File::from(file).write_all(value.as_bytes()));
    allowed(written, &format!("/proc/sys/{name}"))
}

fn write(file: &str, value: &str) -> Result<(), Failure> {
    allowed(fs::write(file, value), file)
}

/// Ignores a refusal: some containers have a read-only /proc, or one that lacks settings.
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

/// Restricts this process to `cpu` processors, rounded up: random ones, so that sandboxes spread
/// over all.
fn keep_to(cpu: f64) -> Result<(), Errno> {
    let allowed = sched_getaffinity(None)?;
    let allowed: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&number| allowed.is_set(number)).collect();
    let wanted = (cpu.ceil() as usize).clamp(1, allowed.len());
    let first = RandomState::new().hash_one(0) as usize % allowed.len();
    let mut kept = CpuSet::new();
    allowed.iter().cycle().skip(first).take(wanted).for_each(|&number| kept.set(number));
    sched_setaffinity(None, &kept)
}

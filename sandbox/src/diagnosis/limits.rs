//! The limit that a sandbox has reached, and its fix.

use std::path::Path;

use super::own_limits;
use crate::cache;
use crate::fix::Fix;
use crate::launch::{Limits, Log, Reached};
use crate::machine::rlimit::{Resource, Rlimit};

/// The lines of a log's end that are searched: a report of a crash after the complaint has
/// hundreds.
pub(crate) const LOG_LINES: usize = 1000;

/// Returns the fix for a full data directory. `in_cache`: it is that of a layer being built.
pub(crate) fn disk(data: &Path, in_cache: bool) -> Option<Fix> {
    let disk = rustix::fs::statvfs(data).ok()?;
    // A server stops writing before the last page is taken.
    let no_bytes = disk.f_bavail.saturating_mul(disk.f_frsize) < 256 << 10;
    // Some file systems have no limit and report zero.
    let no_files = disk.f_files > 0 && disk.f_favail < 16;
    let megabytes = disk.f_blocks.saturating_mul(disk.f_frsize) >> 20;
    match (no_bytes, no_files) {
        (false, false) => None,
        _ if in_cache => Some(cache::full()),
        (true, _) => Some(Fix::none(format!("the sandbox's disk of {megabytes} MB is full: raise `disk`"))),
        (false, true) => Some(Fix::none(format!(
            "the sandbox's disk of {megabytes} MB holds {} files, as many as it may: raise `disk`",
            disk.f_files
        ))),
    }
}

/// Returns the fix for a full file system of the container besides the data directory: /dev/shm, or
/// /tmp with /run and the log.
pub(crate) fn scratch(root: &Path) -> Option<Fix> {
    ["dev/shm", "tmp"].into_iter().find_map(|name| {
        let disk = rustix::fs::statvfs(root.join(name)).ok()?;
        let megabytes = disk.f_blocks.saturating_mul(disk.f_frsize) >> 20;
        let is_full = disk.f_blocks > 0 && (disk.f_bavail == 0 || disk.f_favail == 0);
        is_full.then(|| {
            Fix::none(format!(
                "the sandbox's /{name} of {megabytes} MB is full: write to the data directory, which has its own limit"
            ))
        })
    })
}

/// Returns the bytes written in a data directory that is a file system.
pub(crate) fn disk_used(data: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(data).ok()?;
    Some((disk.f_blocks - disk.f_bfree) * disk.f_frsize)
}

/// Returns the fix for a server, or a program that it started, that got no more processes or
/// memory.
///
/// A control group counts refusals (`reached`). Without one the log names them.
pub(crate) fn processes(
    reached: Option<Reached>,
    log: &Log,
    limits: &Limits,
    in_container: bool,
) -> Option<Fix> {
    if let Some(reached) = reached {
        return Some(own(reached, limits));
    }
    match complaint(&log.tail(LOG_LINES).unwrap_or_default())? {
        Complaint::FileSize => own_limits::check(Resource::FileSize, Resource::FileSize.own()),
        Complaint::Limit(reached) => Some(
            inherited(reached, limits, in_container, Resource::own).unwrap_or_else(|| own(reached, limits)),
        ),
    }
}

/// Returns the fix for a limit of the sandbox.
fn own(reached: Reached, limits: &Limits) -> Fix {
    Fix::none(match reached {
        Reached::Pids => {
            let pids = limits.pids.unwrap_or_default();
            format!("the sandbox has as many processes as it may, {pids}: raise `pids`")
        }
        Reached::Memory => {
            let megabytes = limits.memory >> 20;
            format!(
                "the sandbox's processes may take {megabytes} MB of memory and wanted more: raise `memory`"
            )
        }
    })
}

/// Returns the fix if the limit in force is not the sandbox's but one that this process has given
/// to it.
///
/// A container's own limits replace soft ones, and yield to hard ones that are lower.
fn inherited(
    reached: Reached,
    limits: &Limits,
    in_container: bool,
    limit: impl Fn(Resource) -> Rlimit,
) -> Option<Fix> {
    let candidates: &[(Resource, bool, u64)] = match reached {
        // In process mode nothing but the user's limit holds. The machine's root is exempt from it.
        Reached::Pids if rustix::process::geteuid().is_root() => &[],
        Reached::Pids if in_container => {
            &[(Resource::Processes, true, limits.pids.unwrap_or(u32::MAX).into())]
        }
        Reached::Pids => &[(Resource::Processes, false, u64::MAX)],
        Reached::Memory => {
            &[(Resource::Data, true, limits.memory), (Resource::AddressSpace, false, limits.memory)]
        }
    };
    candidates.iter().find_map(|&(resource, replaced, sandbox)| {
        let limit = limit(resource);
        let in_force = if replaced { limit.hard } else { limit.soft };
        let value = in_force.filter(|value| *value < sandbox)?;
        let sentence = match resource {
            Resource::Processes => {
                format!("this user may have {value} processes and threads, fewer than the sandbox")
            }
            _ => format!("this process may take {} MB of memory, less than the sandbox", value >> 20),
        };
        Some(resource.raise(sentence, limit))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Complaint {
    Limit(Reached),
    FileSize,
}

/// Returns the first complaint of a log; later ones tend to follow from it.
fn complaint(log: &str) -> Option<Complaint> {
    log.lines().find_map(|line| {
        let line = line.to_ascii_lowercase();
        let has = |text: &str| line.contains(text);
        // Servers, shells and most other programs name the call; PostgreSQL's COPY does not.
        let is_fork = has("fork") || has("could not execute command");
        let is_refused = has("resource temporarily unavailable") || has("cannot fork");
        // Redis gives no reason. MariaDB takes a client that gets no thread for one without memory.
        let is_thread = has("can't initialize io thread")
            || has("can't initialize background jobs")
            || has("'unauthenticated'") && has("(out of memory.)");
        if is_fork && is_refused || is_thread {
            Some(Complaint::Limit(Reached::Pids))
        } else if has("out of memory") || has("cannot allocate memory") {
            Some(Complaint::Limit(Reached::Memory))
        } else if has("file too large") {
            Some(Complaint::FileSize)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_differ_by_resource() {
        for (log, expected) in [
            (
                "LOG:  could not fork new process for connection: Resource temporarily unavailable",
                Some(Complaint::Limit(Reached::Pids)),
            ),
            (
                "LOG:  ready\nsh: 1: Cannot fork\nERROR:  out of memory\n",
                Some(Complaint::Limit(Reached::Pids)),
            ),
            (
                "ERROR:  could not execute command \"cat > /tmp/x\": Resource temporarily unavailable",
                Some(Complaint::Limit(Reached::Pids)),
            ),
            ("bash: fork: retry: Resource temporarily unavailable", Some(Complaint::Limit(Reached::Pids))),
            ("# Fatal: Can't initialize IO thread.", Some(Complaint::Limit(Reached::Pids))),
            (
                "[Warning] Aborted connection 7 to db: 'unconnected' user: 'unauthenticated' (Out of memory.)",
                Some(Complaint::Limit(Reached::Pids)),
            ),
            (
                "ERROR:  out of memory\nDETAIL:  Failed on request of size 1073741820",
                Some(Complaint::Limit(Reached::Memory)),
            ),
            (
                "FATAL:  could not map anonymous shared memory: Cannot allocate memory",
                Some(Complaint::Limit(Reached::Memory)),
            ),
            (
                "LOG:  could not fork autovacuum worker process: Cannot allocate memory",
                Some(Complaint::Limit(Reached::Memory)),
            ),
            (
                "ERROR:  out of shared memory\nHINT:  You might need to increase max_locks_per_transaction.",
                None,
            ),
            ("ERROR:  could not open file: Resource temporarily unavailable", None),
            (
                "FATAL:  could not write to file \"pg_wal/xlogtemp.10\": File too large",
                Some(Complaint::FileSize),
            ),
            ("", None),
        ] {
            assert_eq!(complaint(log), expected, "{log}");
        }
    }

    #[test]
    fn a_count_of_the_kernel_needs_no_log() {
        let log = Log::new(tempfile::tempfile().unwrap());
        let limits = Limits { memory: 64 << 20, pids: Some(40), cpu: None };
        assert_eq!(processes(None, &log, &limits, true), None);
        let fix = processes(Some(Reached::Memory), &log, &limits, true).unwrap();
        assert!(fix.sentence.contains("64 MB") && fix.sentence.contains("raise `memory`"), "{fix}");
        let fix = processes(Some(Reached::Pids), &log, &limits, true).unwrap();
        assert!(fix.sentence.contains("may, 40: raise `pids`"), "{fix}");
    }

    #[test]
    fn a_lower_limit_of_this_process_is_the_one_to_raise() {
        let limits = Limits { memory: 64 << 20, pids: Some(512), cpu: None };
        let of = |soft, hard| move |_| Rlimit { soft, hard };
        let small = Some(20 << 20);
        let memory = |soft, hard| inherited(Reached::Memory, &limits, true, of(soft, hard));
        assert_eq!(memory(None, None), None);
        assert!(memory(small, small).unwrap().sentence.starts_with("this process may take 20 MB of memory"));
        assert_eq!(memory(small, None).unwrap().command, "ulimit -v unlimited");
        if !rustix::process::geteuid().is_root() {
            let pids =
                |in_container, soft, hard| inherited(Reached::Pids, &limits, in_container, of(soft, hard));
            assert!(
                pids(true, Some(20), Some(20))
                    .unwrap()
                    .sentence
                    .starts_with("this user may have 20 processes")
            );
            // A container's own limit replaces the soft one.
            assert_eq!(pids(true, Some(20), Some(4096)), None);
            assert_eq!(pids(false, Some(20), Some(4096)).unwrap().command, "ulimit -u 4096");
        }
    }
}

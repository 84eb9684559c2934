//! Which of its limits a sandbox has reached, and what to do about it.

use std::path::Path;

use crate::cache;
use crate::launch::{Limits, Log, Reached};

/// How much of a log's end is searched.
pub(crate) const LOG_LINES: usize = 200;

/// What to do about a data directory that has no room left; `in_cache` is one of a layer in the making.
pub(crate) fn disk(data: &Path, in_cache: bool) -> Option<String> {
    let disk = rustix::fs::statvfs(data).ok()?;
    // A server stops writing before the last page is taken.
    let no_bytes = disk.f_bavail.saturating_mul(disk.f_frsize) < 256 << 10;
    // Some file systems have no limit, which they tell as zero.
    let no_files = disk.f_files > 0 && disk.f_favail < 16;
    let megabytes = disk.f_blocks.saturating_mul(disk.f_frsize) >> 20;
    match (no_bytes, no_files) {
        (false, false) => None,
        _ if in_cache => Some(cache::full().to_string()),
        (true, _) => Some(format!("the sandbox's disk of {megabytes} MB is full: raise `disk`")),
        (false, true) => Some(format!(
            "the sandbox's disk of {megabytes} MB holds {} files, as many as it may: raise `disk`",
            disk.f_files
        )),
    }
}

/// What to do about a full file system of the container besides that of the data directory: /dev/shm, or /tmp with /run and
/// the log.
pub(crate) fn scratch(root: &Path) -> Option<String> {
    ["dev/shm", "tmp"].into_iter().find_map(|name| {
        let disk = rustix::fs::statvfs(root.join(name)).ok()?;
        let megabytes = disk.f_blocks.saturating_mul(disk.f_frsize) >> 20;
        let is_full = disk.f_blocks > 0 && (disk.f_bavail == 0 || disk.f_favail == 0);
        is_full.then(|| {
            format!("the sandbox's /{name} of {megabytes} MB is full: write to the data directory, which has a limit of its own")
        })
    })
}

/// Bytes that are written in a data directory, a file system of its own.
pub(crate) fn disk_used(data: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(data).ok()?;
    Some((disk.f_blocks - disk.f_bfree) * disk.f_frsize)
}

/// What to do about a server, or a program that it started, that got no more processes or memory.
///
/// The kernel counts in a control group; without one there is what they said.
pub(crate) fn processes(reached: Option<Reached>, log: &Log, limits: &Limits) -> Option<String> {
    let reached = reached.or_else(|| complaint(&log.tail(LOG_LINES).unwrap_or_default()))?;
    Some(match reached {
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

/// The first complaint of a log; later ones tend to follow from it.
fn complaint(log: &str) -> Option<Reached> {
    log.lines().find_map(|line| {
        let line = line.to_ascii_lowercase();
        let has = |text: &str| line.contains(text);
        // Servers, shells and most else name the call, in one way or another.
        if has("fork") && (has("resource temporarily unavailable") || has("cannot fork")) {
            Some(Reached::Pids)
        } else if has("out of memory") || has("cannot allocate memory") {
            Some(Reached::Memory)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart() {
        for (log, expected) in [
            (
                "LOG:  could not fork new process for connection: Resource temporarily unavailable",
                Some(Reached::Pids),
            ),
            ("LOG:  ready\nsh: 1: Cannot fork\nERROR:  out of memory\n", Some(Reached::Pids)),
            ("bash: fork: retry: Resource temporarily unavailable", Some(Reached::Pids)),
            ("ERROR:  out of memory\nDETAIL:  Failed on request of size 1073741820", Some(Reached::Memory)),
            ("FATAL:  could not map anonymous shared memory: Cannot allocate memory", Some(Reached::Memory)),
            ("LOG:  could not fork autovacuum worker process: Cannot allocate memory", Some(Reached::Memory)),
            (
                "ERROR:  out of shared memory\nHINT:  You might need to increase max_locks_per_transaction.",
                None,
            ),
            ("ERROR:  could not open file: Resource temporarily unavailable", None),
            ("", None),
        ] {
            assert_eq!(complaint(log), expected, "{log}");
        }
    }

    #[test]
    fn what_the_kernel_counted_needs_no_words() {
        let log = Log::new(tempfile::tempfile().unwrap());
        let limits = Limits { memory: 64 << 20, pids: Some(40), cpu: None };
        assert_eq!(processes(None, &log, &limits), None);
        let hint = processes(Some(Reached::Memory), &log, &limits).unwrap();
        assert!(hint.contains("64 MB") && hint.contains("raise `memory`"), "{hint}");
        let hint = processes(Some(Reached::Pids), &log, &limits).unwrap();
        assert!(hint.contains("may, 40: raise `pids`"), "{hint}");
    }
}

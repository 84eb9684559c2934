//! The counters of a sandbox's control group: the limits it reached, the memory it took.

use std::fs;
use std::path::Path;

/// A limit that a sandbox reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    Memory,
    Pids,
}

/// Returns the limit of a group that was reached, by the kernel's counters.
pub(super) fn reached(group: &Path) -> Option<Reached> {
    let count = |file: &str, name: &str| {
        let text = fs::read_to_string(group.join(file)).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.unwrap_or(0)
    };
    if count("pids.events", "max ") > 0 {
        Some(Reached::Pids)
    } else if count("memory.events", "oom_kill ") > 0 {
        Some(Reached::Memory)
    } else {
        None
    }
}

/// Returns the most memory that the group has taken at a time, in bytes. Linux 5.19 counts it.
pub(super) fn memory_peak(group: &Path) -> Option<u64> {
    fs::read_to_string(group.join("memory.peak")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_was_reached_is_read() {
        let group = tempfile::tempdir().unwrap();
        assert_eq!(reached(group.path()), None);
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        write("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\noom_group_kill 0\n");
        write("pids.events", "max 0\n");
        assert_eq!(reached(group.path()), None);
        write("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 0\n");
        assert_eq!(reached(group.path()), Some(Reached::Memory));
        write("pids.events", "max 7\n");
        assert_eq!(reached(group.path()), Some(Reached::Pids));
    }
}

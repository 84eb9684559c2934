//! Checks that the machine has memory for a prewarmed sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::machine::mountinfo::own_control_group;

/// Bytes for each sandbox: several times those of an idle server, since a busy one takes more.
const EACH: u64 = 64 << 20;
/// The part of the memory that is left free, as a divisor.
const RESERVE: u64 = 10;

/// Returns `true` if memory is left for one more. Unknown counts as enough.
pub(super) fn is_left() -> bool {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| of_machine(&text)).unwrap_or(true);
    static GROUP: OnceLock<Option<PathBuf>> = OnceLock::new();
    machine && GROUP.get_or_init(own_control_group).as_deref().is_none_or(|group| of_groups(group, read))
}

/// Returns `true` if a tenth of the memory stays available, proc_meminfo(5).
fn of_machine(text: &str) -> Option<bool> {
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let (total, available) = (kilobytes("MemTotal:")?, kilobytes("MemAvailable:")?);
    Some(available >= total / RESERVE + (EACH >> 10))
}

/// Returns `true` if no control group of this process, nor one above it, is near its limit. Pages
/// of files that were read once do not count: the kernel drops them first.
fn of_groups(group: &Path, read: impl Fn(&Path) -> Option<String>) -> bool {
    let bytes = |path: PathBuf| read(&path)?.trim().parse::<u64>().ok();
    let droppable = |group: &Path| {
        let stat = read(&group.join("memory.stat"))?;
        stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.parse::<u64>().ok()
    };
    group.ancestors().all(|group| {
        let limit = bytes(group.join("memory.max"));
        let used = bytes(group.join("memory.current"));
        // `max` is no number.
        limit.zip(used).is_none_or(|(limit, used)| {
            let used = used.saturating_sub(droppable(group).unwrap_or(0));
            limit.saturating_sub(used) >= limit / RESERVE + EACH
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_memory_stays_free() {
        let of = |available: u64| {
            of_machine(&format!("MemTotal: 10240000 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n"))
        };
        assert_eq!(of(1_024_000), Some(false));
        assert_eq!(of(1_100_000), Some(true));
        assert_eq!(of_machine("MemTotal: 1 kB"), None);
    }

    #[test]
    fn the_tightest_group_counts() {
        let left = |own: &str, above: &str| {
            let read = |path: &Path| match path.to_str()? {
                "/cg/a/b/memory.max" => Some(format!("{own}\n")),
                "/cg/a/memory.max" => Some(format!("{above}\n")),
                "/cg/a/memory.stat" => Some("anon 1\ninactive_file 100000000\n".to_owned()),
                "/cg/a/b/memory.current" | "/cg/a/memory.current" => Some("500000000\n".to_owned()),
                _ => None,
            };
            of_groups(Path::new("/cg/a/b"), read)
        };
        assert!(left("max", "max") && left("max", "1000000000"));
        assert!(left("max", "600000000") && !left("max", "500000000") && !left("550000000", "max"));
    }
}

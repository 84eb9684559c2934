//! What a sandbox may take of the machine, and by which means it is held to that: read from the kernel, of a container
//! that runs, so that no limit is told which is not in force.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::examination::Examination;
use crate::diagnosis::HostFacts;
use crate::launch::Container;

/// A limit that is in force, or the lack of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitInfo {
    /// What is limited, such as `memory`.
    pub resource: &'static str,
    /// By which means: `cgroup`, `rlimit`, `inherited rlimit`, `pid_max` of the pid
    /// namespace, `tmpfs`; `none` where it is not limited.
    pub means: &'static str,
    /// The limit, in bytes or in numbers. `None` where it is not limited.
    pub value: Option<u64>,
}

/// Each resource with its file in a cgroup v2 and its name in /proc/pid/limits.
const RESOURCES: [(&str, Option<&str>, Option<&str>); 4] = [
    ("memory", Some("memory.max"), Some("Max data size")),
    ("processes", Some("pids.max"), Some("Max processes")),
    ("file size", None, Some("Max file size")),
    ("core files", None, Some("Max core file size")),
];

pub(super) fn examine(
    examination: &mut Examination,
    facts: &HostFacts,
    container: &Container,
) -> Vec<LimitInfo> {
    let init = container.pid();
    let own = read("/proc/self/limits");
    let rlimits = read(&format!("/proc/{init}/limits"));
    let tree = facts.mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.target.as_path());
    let cgroup = tree.and_then(|tree| {
        own_cgroup(tree, &read("/proc/self/cgroup"), &read(&format!("/proc/{init}/cgroup")))
    });
    let mut limits: Vec<_> = RESOURCES
        .iter()
        .map(|&(resource, file, name)| {
            let by_cgroup = cgroup
                .as_deref()
                .zip(file)
                .and_then(|(cgroup, file)| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse().ok());
            let by_rlimit = name.and_then(|name| {
                let value = limit(&rlimits, name)?;
                // All processes have what their parents have; some limits are nobody's decision.
                Some((if limit(&own, name) == Some(value) { "inherited rlimit" } else { "rlimit" }, value))
            });
            match (by_cgroup, by_rlimit) {
                (Some(value), _) => LimitInfo { resource, means: "cgroup", value: Some(value) },
                (None, Some((means, value))) => LimitInfo { resource, means, value: Some(value) },
                (None, None) => LimitInfo { resource, means: "none", value: None },
            }
        })
        .collect();
    // Root is exempt from the rlimit, so its sandboxes are held by the numbers that their pid namespace gives out.
    let pid_max = |path: &str| -> Option<u64> { read(path).trim().parse().ok() };
    let inner = pid_max(&format!("/proc/{init}/root/proc/sys/kernel/pid_max"));
    if let Some(processes) = limits.iter_mut().find(|limit| limit.resource == "processes")
        && processes.means != "cgroup"
        && inner.is_some()
        && inner < pid_max("/proc/sys/kernel/pid_max")
    {
        (processes.means, processes.value) = ("pid_max", inner);
    }
    for (resource, path) in [("/run and /tmp", "run"), ("/dev/shm", "dev/shm")] {
        let size =
            rustix::fs::statvfs(container.root().join(path)).ok().map(|disk| disk.f_blocks * disk.f_frsize);
        limits.push(LimitInfo {
            resource,
            means: if size.is_some() { "tmpfs" } else { "none" },
            value: size,
        });
    }
    let told: Vec<_> = limits.iter().map(tell).collect();
    examination.ok("limits", told.join(", ") + ", data: `disk` by tmpfs");
    limits
}

fn tell(limit: &LimitInfo) -> String {
    match limit.value {
        Some(value) if value >= 1 << 20 => {
            format!("{}: {} MB by {}", limit.resource, value >> 20, limit.means)
        }
        Some(value) => format!("{}: {value} by {}", limit.resource, limit.means),
        None => format!("{}: not limited", limit.resource),
    }
}

/// The directory of the container's control group, cgroups(7) version 2, if it has one to itself.
fn own_cgroup(tree: &Path, outer: &str, inner: &str) -> Option<PathBuf> {
    let path = |text: &str| text.lines().find_map(|line| line.strip_prefix("0::/").map(str::to_owned));
    let own = path(inner).filter(|inner| path(outer).as_ref() != Some(inner))?;
    Some(tree.join(own)).filter(|directory| directory.is_dir())
}

/// The soft limit of that name, proc_pid_limits(5).
fn limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_by_name() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max core file size        0                    0                    bytes     \n\
                    Max processes             unlimited            96366                processes \n";
        assert_eq!(limit(text, "Max core file size"), Some(0));
        assert_eq!(limit(text, "Max processes"), None);
        assert_eq!(limit(text, "Max"), None);
        assert_eq!(limit("", "Max processes"), None);
    }

    #[test]
    fn a_cgroup_counts_only_if_it_is_the_containers_own() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("user.slice/sandbox")).unwrap();
        let own = |outer, inner| own_cgroup(tree.path(), outer, inner);
        let group = tree.path().join("user.slice/sandbox");
        assert_eq!(own("1:cpu:/\n0::/user.slice\n", "0::/user.slice/sandbox\n"), Some(group));
        assert_eq!(own("0::/user.slice\n", "0::/user.slice\n"), None);
        assert_eq!(own("0::/user.slice\n", "0::/no such group\n"), None);
        assert_eq!(own("", "1:cpu:/\n"), None);
    }
}

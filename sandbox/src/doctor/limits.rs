//! The limits of a sandbox and their means, read from the kernel for a running container: only
//! limits that are in force are reported.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::examination::Examination;
use crate::diagnosis::HostFacts;
use crate::launch::Container;
use crate::machine::mountinfo::{Mount, control_group};
use crate::machine::rlimit;

/// A limit that is in force, or the lack of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitInfo {
    /// The limited resource, such as `memory`.
    pub resource: &'static str,
    /// The means: `cgroup`, `rlimit`, `inherited rlimit`, `pid_max` of the pid namespace, `tmpfs`;
    /// `none` without a limit.
    pub means: &'static str,
    /// The limit, in bytes or as a number. `None` without a limit.
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
    let cgroup =
        own_cgroup(&facts.mounts, &read("/proc/self/cgroup"), &read(&format!("/proc/{init}/cgroup")));
    let mut limits: Vec<_> = RESOURCES
        .iter()
        .map(|&(resource, file, name)| {
            let by_cgroup = cgroup
                .as_deref()
                .zip(file)
                .and_then(|(cgroup, file)| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse().ok());
            let by_rlimit = name.and_then(|name| {
                let limit = |limits: &str| rlimit::parse(limits, name)?.soft;
                let value = limit(&rlimits)?;
                // A process has the limits of its parent unless something changes them.
                Some((if limit(&own) == Some(value) { "inherited rlimit" } else { "rlimit" }, value))
            });
            match (by_cgroup, by_rlimit) {
                (Some(value), _) => LimitInfo { resource, means: "cgroup", value: Some(value) },
                (None, Some((means, value))) => LimitInfo { resource, means, value: Some(value) },
                (None, None) => LimitInfo { resource, means: "none", value: None },
            }
        })
        .collect();
    // Root is exempt from the rlimit: the highest number in the pid namespace limits its sandboxes.
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
    let listed: Vec<_> = limits.iter().map(words).collect();
    examination.ok("limits", listed.join(", ") + ", data: `disk` by tmpfs");
    limits
}

fn words(limit: &LimitInfo) -> String {
    match limit.value {
        Some(value) if value >= 1 << 20 => {
            format!("{}: {} MB by {}", limit.resource, value >> 20, limit.means)
        }
        Some(value) => format!("{}: {value} by {}", limit.resource, limit.means),
        None => format!("{}: not limited", limit.resource),
    }
}

/// Returns the directory of the container's control group if it differs from this process's.
fn own_cgroup(mounts: &[Mount], outer: &str, inner: &str) -> Option<PathBuf> {
    let own =
        control_group(mounts, inner).filter(|own| control_group(mounts, outer).as_ref() != Some(own))?;
    own.is_dir().then_some(own)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::mountinfo;

    #[test]
    fn a_cgroup_counts_only_if_it_is_the_containers_own() {
        let tree = tempfile::tempdir().unwrap();
        let group = tree.path().join("user.slice/sandbox");
        fs::create_dir_all(&group).unwrap();
        let mounts =
            mountinfo::parse(&format!("40 25 0:36 / {} rw - cgroup2 cgroup2 rw\n", tree.path().display()));
        let own = |outer, inner| own_cgroup(&mounts, outer, inner);
        assert_eq!(own("1:cpu:/\n0::/user.slice\n", "0::/user.slice/sandbox\n"), Some(group));
        assert_eq!(own("0::/user.slice\n", "0::/user.slice\n"), None);
        assert_eq!(own("0::/user.slice\n", "0::/no such group\n"), None);
        assert_eq!(own("", "1:cpu:/\n"), None);
    }
}

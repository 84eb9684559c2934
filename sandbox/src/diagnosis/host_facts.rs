//! Facts of this machine and this process that decide what a sandbox may do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::mountinfo::{self, Mount};
use crate::machine::rlimit::{self, Resource, Rlimit};
use crate::machine::{os_release, release};

/// CAP_SETFCAP, capabilities(7).
const SETFCAP: u32 = 31;
/// The namespaces of a sandbox, as /proc/self/ns and /proc/sys/user name them.
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// Facts that the doctor, and a launch that has failed, read.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostFacts {
    /// The kernel's release as uname(2) gives it, such as `6.8.0-45-generic`.
    pub(crate) release: String,
    /// AppArmor takes all capabilities from unprivileged user namespaces.
    pub(super) apparmor_restricts: bool,
    /// Debian's switch for unprivileged user namespaces is off.
    pub(super) userns_clone_off: bool,
    /// `user.max_*_namespaces`.
    pub(super) namespace_limits: BTreeMap<String, u64>,
    /// Namespaces that the kernel is built without.
    pub(super) namespaces_missing: Vec<&'static str>,
    pub(super) confinement: Option<Confinement>,
    pub(super) seccomp: bool,
    pub(super) euid: u32,
    pub(super) has_setfcap: bool,
    pub(super) uid_mapped: bool,
    /// A tool has put this process into a user namespace, or forbids it to gain privileges: sudo(8)
    /// cannot change the machine from here.
    pub(super) cannot_become_root: bool,
    pub(super) in_chroot: bool,
    pub(super) has_proc: bool,
    pub(super) has_null: bool,
    /// A part of /proc that is hidden.
    pub(super) proc_hidden: Option<String>,
    pub(super) surroundings: Surroundings,
    pub(super) gvisor: bool,
    /// The text of os-release(5).
    pub(super) distribution: String,
    pub(crate) mounts: Vec<Mount>,
    /// A control group that holds as many processes as it may, and that number.
    pub(super) full_group: Option<(PathBuf, u64)>,
    /// The text of proc_pid_limits(5).
    pub(super) limits: String,
}

/// The profile of a security module that this process is under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Confinement {
    AppArmor(String),
    SeLinux(String),
}

/// The container around this process, which decides where a switch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Surroundings {
    #[default]
    Nothing,
    Docker,
    GitLab,
    GitHub,
    Podman,
    Kubernetes,
    Lxc,
    /// A container whose engine is not known.
    Container,
}

impl HostFacts {
    /// Reads the facts from files below `root`, which is `/` except in tests. An unreadable file
    /// counts as harmless.
    pub(crate) fn read(root: &Path) -> Self {
        let read = |path: &str| {
            fs::read(root.join(path)).ok().map(|text| String::from_utf8_lossy(&text).trim().to_owned())
        };
        let text = |path: &str| read(path).unwrap_or_default();
        let sysctl = |name: &str| read(&format!("proc/sys/{name}"));
        let status = text("proc/self/status");
        let field = |name: &str| {
            let field = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            field.unwrap_or_default().trim()
        };
        let capabilities = u64::from_str_radix(field("CapPrm"), 16).unwrap_or(u64::MAX);
        let euid = field("Uid").split_ascii_whitespace().nth(1).and_then(|uid| uid.parse().ok()).unwrap_or(0);
        let mounts = mountinfo::parse(&text("proc/self/mountinfo"));
        let uid_map = read("proc/self/uid_map");
        let group = mountinfo::control_group(&mounts, &text("proc/self/cgroup"));
        Self {
            release: sysctl("kernel/osrelease").unwrap_or_default(),
            apparmor_restricts: sysctl("kernel/apparmor_restrict_unprivileged_userns").as_deref()
                == Some("1"),
            userns_clone_off: sysctl("kernel/unprivileged_userns_clone").as_deref() == Some("0"),
            namespace_limits: NAMESPACES
                .iter()
                .map(|kind| format!("max_{kind}_namespaces"))
                .filter_map(|name| {
                    let limit = sysctl(&format!("user/{name}"))?.parse().ok()?;
                    Some((format!("user.{name}"), limit))
                })
                .collect(),
            namespaces_missing: match root.join("proc/self/ns").is_dir() {
                true => NAMESPACES
                    .into_iter()
                    // `exists` would follow these links, whose targets are no paths.
                    .filter(|kind| root.join("proc/self/ns").join(kind).symlink_metadata().is_err())
                    .collect(),
                false => Vec::new(),
            },
            confinement: confinement(&text("proc/self/attr/current")),
            seccomp: field("Seccomp") == "2",
            euid,
            has_setfcap: capabilities & 1 << SETFCAP != 0,
            uid_mapped: uid_map.as_ref().is_none_or(|map| is_mapped(map, euid)),
            // Only the first user namespace has all user ids.
            cannot_become_root: euid != 0 && field("NoNewPrivs") == "1"
                || uid_map.as_ref().is_some_and(|map| !is_mapped(map, u32::MAX - 1)),
            in_chroot: !mounts.is_empty() && !mounts.iter().any(|mount| mount.target == Path::new("/")),
            has_proc: root.join("proc/self/exe").symlink_metadata().is_ok(),
            has_null: root.join("dev/null").exists(),
            proc_hidden: hidden_of_proc(&mounts),
            surroundings: surroundings(root, &text("proc/self/environ"), &mounts),
            // gVisor's kernel always reports this build, which no other machine has.
            gvisor: text("proc/version").contains("#1 SMP Sun Jan 10 15:06:54 PST 2016"),
            distribution: os_release::read(root),
            full_group: group.and_then(|group| full_group(root, &group)),
            limits: text("proc/self/limits"),
            mounts,
        }
    }

    /// Returns the major and minor number of the kernel. A kernel of unknown version counts as new.
    pub(crate) fn kernel(&self) -> (u32, u32) {
        release::version(&self.release).unwrap_or((u32::MAX, 0))
    }

    /// Returns a limit of this process; unlimited if the kernel does not list it.
    pub(crate) fn limit(&self, resource: Resource) -> Rlimit {
        rlimit::parse(&self.limits, resource.name()).unwrap_or_default()
    }
}

fn confinement(label: &str) -> Option<Confinement> {
    let label = label.trim_end_matches('\0').trim();
    if let Some(profile) = label.strip_suffix(" (enforce)") {
        return Some(Confinement::AppArmor(profile.to_owned()));
    }
    // user:role:type:level
    let kind = label.split(':').nth(2).filter(|kind| !kind.is_empty() && !kind.starts_with("unconfined"));
    kind.map(|kind| Confinement::SeLinux(kind.to_owned()))
}

/// Returns `true` if a map of user_namespaces(7) contains an id.
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_ascii_whitespace().flat_map(str::parse).collect();
        matches!(numbers[..], [first, _, count] if (first..first.saturating_add(count)).contains(&id.into()))
    })
}

fn hidden_of_proc(mounts: &[Mount]) -> Option<String> {
    let hidden = mounts.iter().map(|mount| &mount.target).find(|target| {
        // The kernel ignores a mount over a directory that is always empty, such as this one.
        target.starts_with("/proc")
            && target.as_path() != Path::new("/proc")
            && !target.ends_with("binfmt_misc")
    });
    hidden.map(|target| target.display().to_string())
}

/// Returns the nearest group, of this process's and those above it, that has room for few
/// processes.
fn full_group(root: &Path, group: &Path) -> Option<(PathBuf, u64)> {
    /// Processes that end between a failed fork and this look.
    const SLACK: u64 = 16;
    group.ancestors().find_map(|group| {
        let number = |file: &str| -> Option<u64> {
            let path = root.join(group.strip_prefix("/").ok()?).join(file);
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let (limit, current) = (number("pids.max")?, number("pids.current")?);
        (current.saturating_add(SLACK) >= limit).then(|| (group.to_owned(), limit))
    })
}

fn surroundings(root: &Path, environ: &str, mounts: &[Mount]) -> Surroundings {
    let has = |path: &str| root.join(path).exists();
    let set = |name: &str| {
        environ.split('\0').any(|variable| {
            variable.split_once('=').is_some_and(|(key, value)| key == name && !value.is_empty())
        })
    };
    let manager = fs::read_to_string(root.join("run/systemd/container")).unwrap_or_default();
    let docker = has(".dockerenv");
    match () {
        () if set("KUBERNETES_SERVICE_HOST") || has("var/run/secrets/kubernetes.io") => {
            Surroundings::Kubernetes
        }
        () if docker && set("GITLAB_CI") => Surroundings::GitLab,
        () if docker && set("GITHUB_ACTIONS") => Surroundings::GitHub,
        () if docker => Surroundings::Docker,
        () if has("run/.containerenv") => Surroundings::Podman,
        () if manager.trim() == "lxc" || has("dev/lxd") || has("dev/incus") => Surroundings::Lxc,
        () if !manager.is_empty()
            || mountinfo::of(mounts, Path::new("/")).is_some_and(|mount| mount.kind == "overlay") =>
        {
            Surroundings::Container
        }
        () => Surroundings::Nothing,
    }
}

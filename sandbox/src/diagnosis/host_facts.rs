//! The facts of a machine and of this process that decide what it may do, read from files below a root.

use std::collections::BTreeMap;
use std::path::Path;

use super::mountinfo::{self, Mount};

/// CAP_SETFCAP, capabilities(7).
const SETFCAP: u32 = 31;
/// The namespaces of a sandbox, as /proc/self/ns and /proc/sys/user name them.
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// What is read of the machine once a launch has failed, and by the doctor.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostFacts {
    /// As uname(2) tells it, such as `6.8.0-45-generic`.
    pub(crate) release: String,
    /// AppArmor takes all capabilities from unprivileged user namespaces.
    pub(super) apparmor_restricts: bool,
    /// Debian's own switch is off.
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
    pub(super) in_chroot: bool,
    /// A part of /proc that is hidden.
    pub(super) proc_hidden: Option<String>,
    pub(super) around: Around,
    pub(super) gvisor: bool,
    /// `ID`, `VERSION_ID` and `VERSION_CODENAME` of os-release(5).
    pub(super) distribution: (String, String, String),
    pub(crate) open_files: Option<u64>,
    pub(crate) processes: Option<u64>,
    pub(crate) mounts: Vec<Mount>,
}

/// The profile of a security module that this process is under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Confinement {
    AppArmor(String),
    SeLinux(String),
}

/// What is around this process: who started it decides where the switch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Around {
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
    /// The facts as files below `root` tell them, which is `/` but in tests. What cannot be read is taken for harmless.
    pub(crate) fn read(root: &Path) -> Self {
        let read = |path: &str| {
            std::fs::read(root.join(path)).ok().map(|text| String::from_utf8_lossy(&text).trim().to_owned())
        };
        let text = |path: &str| read(path).unwrap_or_default();
        let sysctl = |name: &str| read(&format!("proc/sys/{name}"));
        let status = text("proc/self/status");
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
        };
        let capabilities = u64::from_str_radix(field("CapPrm").trim(), 16).unwrap_or(u64::MAX);
        let euid = field("Uid").split_ascii_whitespace().nth(1).and_then(|uid| uid.parse().ok()).unwrap_or(0);
        let mounts = mountinfo::parse(&text("proc/self/mountinfo"));
        let limits = text("proc/self/limits");
        let release = text("etc/os-release");
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
                    // Links to nowhere that a path leads to, so `exists` would deny them.
                    .filter(|kind| root.join("proc/self/ns").join(kind).symlink_metadata().is_err())
                    .collect(),
                false => Vec::new(),
            },
            confinement: confinement(&text("proc/self/attr/current")),
            seccomp: field("Seccomp").trim() == "2",
            euid,
            has_setfcap: capabilities & 1 << SETFCAP != 0,
            uid_mapped: read("proc/self/uid_map").is_none_or(|map| is_mapped(&map, euid)),
            in_chroot: !mounts.is_empty() && !mounts.iter().any(|mount| mount.target == Path::new("/")),
            proc_hidden: hidden_of_proc(&mounts),
            around: around(root, &text("proc/self/environ"), &mounts),
            // Its kernel tells a version that no machine of today has, and always the same.
            gvisor: text("proc/version").contains("#1 SMP Sun Jan 10 15:06:54 PST 2016"),
            distribution: (
                assignment(&release, "ID"),
                assignment(&release, "VERSION_ID"),
                assignment(&release, "VERSION_CODENAME"),
            ),
            open_files: limit(&limits, "Max open files"),
            processes: limit(&limits, "Max processes"),
            mounts,
        }
    }

    /// Major and minor number of the kernel; a kernel whose name tells none is taken for a new one.
    pub(crate) fn kernel(&self) -> (u32, u32) {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => (u32::MAX, 0),
        }
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

/// Whether a map of user_namespaces(7) has an id.
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_ascii_whitespace().flat_map(str::parse).collect();
        matches!(numbers[..], [first, _, count] if (first..first.saturating_add(count)).contains(&id.into()))
    })
}

fn hidden_of_proc(mounts: &[Mount]) -> Option<String> {
    let hidden = mounts.iter().map(|mount| &mount.target).find(|target| {
        // The kernel does not mind what covers a directory that is always empty, as this one is.
        target.starts_with("/proc")
            && target.as_path() != Path::new("/proc")
            && !target.ends_with("binfmt_misc")
    });
    hidden.map(|target| target.display().to_string())
}

fn around(root: &Path, environ: &str, mounts: &[Mount]) -> Around {
    let has = |path: &str| root.join(path).exists();
    let set = |name: &str| {
        environ.split('\0').any(|variable| {
            variable.split_once('=').is_some_and(|(key, value)| key == name && !value.is_empty())
        })
    };
    let manager = std::fs::read_to_string(root.join("run/systemd/container")).unwrap_or_default();
    let docker = has(".dockerenv");
    match () {
        () if set("KUBERNETES_SERVICE_HOST") || has("var/run/secrets/kubernetes.io") => Around::Kubernetes,
        () if docker && set("GITLAB_CI") => Around::GitLab,
        () if docker && set("GITHUB_ACTIONS") => Around::GitHub,
        () if docker => Around::Docker,
        () if has("run/.containerenv") => Around::Podman,
        () if manager.trim() == "lxc" || has("dev/lxd") || has("dev/incus") => Around::Lxc,
        () if !manager.is_empty()
            || mountinfo::of(mounts, Path::new("/")).is_some_and(|mount| mount.kind == "overlay") =>
        {
            Around::Container
        }
        () => Around::Nothing,
    }
}

/// The soft limit of that name, proc_pid_limits(5). `None` where there is none.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn assignment(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim().trim_matches('"').to_owned()
}

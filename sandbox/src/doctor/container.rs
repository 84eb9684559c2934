//! Launches a throw-away container, and checks the result of each step.

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::XattrFlags;

use super::CacheInfo;
use super::deadline::within;
use super::examination::{Examination, fix_of};
use super::limits::{self, LimitInfo};
use crate::diagnosis::{self, HostFacts, fix};
use crate::error::Error;
use crate::fix::Fix;
use crate::launch::plan::{self, Data, INNER_ID};
use crate::launch::{Container, Failure, LaunchStep};

/// Beyond the launch's own deadline.
const LIMIT: Duration = Duration::from_secs(40);
const DATA: &str = "/var/lib/doctor";

/// The checks, the steps of each in the order of a launch, and the sentence for steps that worked.
const STEPS: [(&str, &[LaunchStep], &str); 7] = [
    (
        "launcher",
        &[LaunchStep::Launcher, LaunchStep::Receive],
        "this program is executed again as the launcher",
    ),
    (
        "namespaces",
        &[LaunchStep::Clone, LaunchStep::Descriptors],
        "user, mount, pid, net, ipc, uts and cgroup",
    ),
    ("user id", &[LaunchStep::MapIds], ""),
    (
        "network",
        &[LaunchStep::Loopback, LaunchStep::Hostname, LaunchStep::Limits],
        "a new loopback interface, and no other",
    ),
    (
        "mounts",
        &[LaunchStep::Proc, LaunchStep::PrivateMounts, LaunchStep::HostTree, LaunchStep::Scratch],
        "a tmpfs, and the host's programs read-only",
    ),
    ("overlay", &[LaunchStep::Overlay], ""),
    (
        "root",
        &[
            LaunchStep::Skeleton,
            LaunchStep::Attach,
            LaunchStep::PivotRoot,
            LaunchStep::Capabilities,
            LaunchStep::Filter,
            LaunchStep::Execute,
        ],
        "a new root, entered without a way back",
    ),
];

pub(super) fn examine(
    examination: &mut Examination,
    facts: &HostFacts,
    cache: Option<&CacheInfo>,
) -> Vec<LimitInfo> {
    // Layers are in the cache, so its file system must do as an overlay's lower. The check neither
    // reads nor writes it.
    let lower = cache.map(|cache| cache.directory.clone()).filter(|directory| directory.is_dir());
    let lower = lower.unwrap_or_else(|| PathBuf::from("/usr"));
    let data = Data::Overlay { lower, changes: None, upper_size: 4 << 20 };
    let mut plan = plan::root(vec![PathBuf::from("/usr")], data, DATA.into(), "server");
    plan.limits = plan.limits.settled(0);
    let launched =
        within(LIMIT, "to launch a container", move || Container::launch(&plan).map_err(diagnosis::explain));
    let container = match launched {
        Ok(Ok(container)) => container,
        Ok(Err(error)) => {
            report_steps(examination, Some(&error), cache);
            return Vec::new();
        }
        Err(fix) => {
            examination.fail("launcher", fix);
            return Vec::new();
        }
    };
    report_steps(examination, None, cache);
    if container.has_outer_proc() {
        let refused = Failure::new(LaunchStep::Proc, "/proc", rustix::io::Errno::PERM);
        examination
            .warn("proc", fix(&refused, facts).unwrap_or_else(|| Fix::none("the outer /proc is bound")));
    } else {
        examination.ok("proc", "a new one, which shows no outer process");
    }
    match inspect(&container.root()) {
        Ok(None) => {
            examination.ok("reach", "its files are reached through /proc/PID/root, as its server's socket is")
        }
        Ok(Some(shortcoming)) => examination.warn("tmpfs", Fix::none(shortcoming)),
        Err(fix) => examination.fail("reach", fix),
    }
    isolation(examination, container.pid());
    limits::examine(examination, facts, &container)
}

/// Adds a check for each step up to the first that failed.
fn report_steps(examination: &mut Examination, error: Option<&Error>, cache: Option<&CacheInfo>) {
    let failed = error.map(|error| {
        // An error without a step is the launcher's.
        error
            .source()
            .and_then(|cause| cause.downcast_ref())
            .map_or(LaunchStep::Launcher, |failure: &Failure| failure.step)
    });
    for (name, steps, sentence) in STEPS {
        if failed.is_some_and(|step| steps.contains(&step)) {
            break;
        }
        let sentence = match name {
            "user id" => format!("{INNER_ID} inside is {} outside", rustix::process::geteuid().as_raw()),
            "overlay" => format!(
                "a tmpfs over {}",
                cache.map_or("a directory".to_owned(), |cache| format!("the cache's {}", cache.file_system))
            ),
            _ => sentence.to_owned(),
        };
        examination.ok(name, sentence);
    }
    if let Some((error, step)) = error.zip(failed) {
        let name =
            STEPS.iter().find(|(_, steps, _)| steps.contains(&step)).map_or("launch", |(name, ..)| name);
        examination.fail(name, fix_of(error));
    }
}

/// Does what tests and servers do in the container, from outside. Returns a shortcoming that is
/// tolerable.
fn inspect(root: &Path) -> Result<Option<String>, Fix> {
    let tmp = root.join("tmp");
    tmp.read_dir().map_err(|error| {
        Fix::none(format!(
            "`{}`, through which tests reach their server, cannot be entered: {error}",
            tmp.display()
        ))
    })?;
    // Without user attributes overlayfs cannot mark a directory, and refuses to rename one (EXDEV).
    let marked = rustix::fs::setxattr(&tmp, "user.doctor", b"1", XattrFlags::empty());
    let data = root.join(DATA.trim_start_matches('/'));
    let (one, other) = (data.join("doctor.one"), data.join("doctor.other"));
    let used = fs::create_dir(&one).and_then(|()| match marked {
        Ok(()) => fs::rename(&one, &other).and_then(|()| fs::remove_dir(&other)),
        Err(_) => fs::remove_dir(&one),
    });
    used.map_err(|error| {
        Fix::none(format!("a directory on an overlay cannot be made, renamed and removed: {error}"))
    })?;
    Ok(marked.err().map(|errno| {
        format!(
            "a tmpfs takes no user attributes here ({errno}), so a server cannot rename a directory (as for a replication \
             slot), nor remove one of its layer and make it again; Linux 6.6 with CONFIG_TMPFS_XATTR can"
        )
    }))
}

/// Reports the isolation that the kernel shows for this container.
fn isolation(examination: &mut Examination, init: u32) {
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    let is = |name: &str, value: &str| {
        let field = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        field.is_some_and(|field| field.trim() == value)
    };
    let mut walls = vec!["containers: seven namespaces"];
    walls.extend(is("CapBnd", "0000000000000000").then_some("no capabilities"));
    walls.extend(is("NoNewPrivs", "1").then_some("no new privileges"));
    walls.extend(is("Seccomp", "2").then_some("a seccomp filter"));
    walls.push("a read-only root");
    examination.ok("isolation", walls.join(", "));
}

//! A throw-away container: the steps of a launch, and whether what they made is as it should be.

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::XattrFlags;

use super::CacheInfo;
use super::deadline::within;
use super::examination::{Examination, fix_of};
use super::limits::{self, LimitInfo};
use crate::diagnosis::{HostFacts, explain, fix};
use crate::error::Error;
use crate::fix::Fix;
use crate::launch::plan::{self, Data, INNER_ID};
use crate::launch::{Container, Failure, LaunchStep};

/// Beyond the launch's own deadline.
const LIMIT: Duration = Duration::from_secs(40);
const DATA: &str = "/var/lib/doctor";

/// What is told of the steps that worked, in the order in which init goes them.
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
        "a loopback interface of its own, and no other",
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
        "a root of its own, entered without a way back",
    ),
];

pub(super) fn examine(
    examination: &mut Examination,
    facts: &HostFacts,
    cache: Option<&CacheInfo>,
) -> Vec<LimitInfo> {
    // A layer lies in the cache, so its file system must do as an overlay's lower. Nothing of it is read or written.
    let lower = cache.map(|cache| cache.directory.clone()).filter(|directory| directory.is_dir());
    let lower = lower.unwrap_or_else(|| PathBuf::from("/usr"));
    let data = Data::Overlay { lower, upper_size: 4 << 20 };
    let mut plan = plan::root(vec![PathBuf::from("/usr")], data, DATA.into());
    plan.limits = plan.limits.settled(0);
    let launched = within(LIMIT, "to launch a container", move || Container::launch(&plan).map_err(explain));
    let container = match launched {
        Ok(Ok(container)) => container,
        Ok(Err(error)) => {
            tell_steps(examination, Some(&error), cache);
            return Vec::new();
        }
        Err(fix) => {
            examination.fail("launcher", fix);
            return Vec::new();
        }
    };
    tell_steps(examination, None, cache);
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

/// A line for each step up to the first that failed.
fn tell_steps(examination: &mut Examination, error: Option<&Error>, cache: Option<&CacheInfo>) {
    let failed = error.map(|error| {
        // What is no step's failure is the launcher's.
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

/// Does in the container, from outside, what tests and servers do there. Returns what it can live with.
fn inspect(root: &Path) -> Result<Option<String>, Fix> {
    let tmp = root.join("tmp");
    tmp.read_dir().map_err(|error| {
        Fix::run(
            format!(
                "`{}` cannot be entered ({error}), through which tests reach their server",
                tmp.display()
            ),
            "sudo mount -o remount,hidepid=0 /proc",
        )
    })?;
    // Without user attributes overlayfs cannot mark a directory as its own, and refuses to move one (EXDEV).
    let marked = rustix::fs::setxattr(&tmp, "user.doctor", b"1", XattrFlags::empty());
    let data = root.join(DATA.trim_start_matches('/'));
    let (one, other) = (data.join("doctor.one"), data.join("doctor.other"));
    let used = fs::create_dir(&one).and_then(|()| match marked {
        Ok(()) => fs::rename(&one, &other).and_then(|()| fs::remove_dir(&other)),
        Err(_) => fs::remove_dir(&one),
    });
    used.map_err(|error| {
        Fix::none(format!("a directory on an overlay cannot be made, renamed and removed ({error})"))
    })?;
    Ok(marked.err().map(|errno| {
        format!(
            "a tmpfs takes no user attributes here ({errno}), so a server cannot rename a directory (as it does to make a \
             replication slot), nor remove one of its layer and make it again; Linux 6.6 and newer with CONFIG_TMPFS_XATTR can"
        )
    }))
}

/// What a sandbox is closed in by, as the kernel tells it of this one.
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

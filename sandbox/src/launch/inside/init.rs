//! PID 1 of a container: builds its root, starts the server, reaps, and dies with the test process.
//!
//! When PID 1 dies the kernel kills every process of the pid namespace and frees the mounts, the tmpfs and the network
//! with it: no clean-up code can be forgotten.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::panic;

use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal, setsid, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use super::cgroup::Controllers;
use super::limits;
use super::mounts::{self, Root};
use super::seccomp::Filters;
use super::supervisor::{Grounds, Supervisor, send};
use crate::launch::image;
use crate::launch::plan::{Birth, Command, INNER_ID, Plan};
use crate::launch::protocol::{Event, Failure, Step};
use crate::sys::process::{close_from, exit_now, loopback_up, move_fd, reset_signals, take_fd};

/// The user outside, as whom the test process runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outer {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What an init is given by its launcher, besides the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) filters: Option<&'a Filters>,
    /// What the control group limits that this process is in.
    pub(super) group: Controllers,
}

/// Where servers that speak sd_notify(3) say that they are ready.
const NOTIFY_SOCKET: &str = "/run/notify";

/// The life of an init. Runs in the child just cloned.
pub(super) fn main(
    control: OwnedFd,
    plan: OwnedFd,
    image: Option<OwnedFd>,
    outer: Outer,
    launcher: Given<'_>,
) -> ! {
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let Ok((control, plan, image)) = keep_only(control, plan, image) else { return };
        if let Err(failure) = live(&control, plan, image, outer, launcher) {
            send(&control, &Event::Failed(failure), &[]);
        }
    }));
    exit_now(i32::from(outcome.is_err()))
}

fn live(
    control: &OwnedFd,
    plan: OwnedFd,
    image: Option<OwnedFd>,
    outer: Outer,
    launcher: Given<'_>,
) -> Result<(), Failure> {
    let (birth, server, grounds) = prepare(plan, image.is_some(), outer, launcher)?;
    let mut image = image.map(File::from);
    if let (Birth::Capture, Some(server), Some(image)) = (birth, &server, &mut image) {
        return capture(control, server, image, &grounds, launcher);
    }
    Supervisor::start(control, server, image, &grounds)?.supervise();
    Ok(())
}

/// What a container does that is there for an image only.
fn capture(
    control: &OwnedFd,
    server: &Command,
    image: &mut File,
    grounds: &Grounds,
    launcher: Given<'_>,
) -> Result<(), Failure> {
    let server = grounds.server(server.clone());
    send(control, &Event::Up { outer_proc: grounds.outer_proc, root: None, refused: None }, &[&grounds.log]);
    give_up_last_capability()?;
    // The filter, which forbids to trace, is for the program that is traced.
    let filters = launcher.filters.cloned();
    let filter = move || match &filters {
        Some(filters) => filters.install(false).map_err(io::Error::other),
        None => Ok(()),
    };
    let refused = image::capture(&server, image, filter).err().map(|error| error.to_string());
    send(control, &Event::Captured { refused }, &[]);
    Ok(())
}

/// The descriptors that stay besides standard output and error, up to [`LAST`]; what else there is [`begin`] closes.
pub(super) type Kept = (OwnedFd, OwnedFd, Option<OwnedFd>);

const LAST: i32 = 5;

pub(super) fn keep_only(control: OwnedFd, plan: OwnedFd, image: Option<OwnedFd>) -> Result<Kept, Errno> {
    // The launcher's socket is descriptor 0 here too; keeping it open would hide the test process's death from the launcher.
    drop(take_fd(0));
    let (control, plan) = (move_fd(control, 3)?, move_fd(plan, 4)?);
    match image {
        Some(image) => Ok((control, plan, Some(move_fd(image, LAST)?))),
        None => {
            drop(take_fd(LAST));
            Ok((control, plan, None))
        }
    }
}

/// What a child of the launcher does first, whatever it becomes: it inherits nothing, and reads its plan.
pub(super) fn begin(plan: OwnedFd) -> Result<Plan, Failure> {
    close_from(LAST + 1).map_err(|errno| Failure::new(Step::Descriptors, "", errno))?;
    reset_signals();
    let _ = setsid();
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut bytes = Vec::new();
    File::from(plan).read_to_end(&mut bytes).map_err(|error| Failure::io(Step::Receive, "", &error))?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::io(Step::Receive, "", &error.into()))
}

/// Everything that needs the capabilities of a fresh user namespace; they are given up at the end, and with them the system
/// calls that nothing in a container needs.
///
/// One is kept where there is an image, until the server is restored from it.
fn prepare(
    plan: OwnedFd,
    has_image: bool,
    outer: Outer,
    launcher: Given<'_>,
) -> Result<(Birth, Option<Command>, Grounds), Failure> {
    // The second line of defence; the first is the control socket's end of file.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let plan = begin(plan)?;
    map_ids(outer)?;
    loopback_up().map_err(|errno| Failure::new(Step::Loopback, "lo", errno))?;
    rustix::system::sethostname(b"sandbox")
        .map_err(|errno| Failure::new(Step::Hostname, "sandbox", errno))?;
    let proc = mounts::proc()?;
    limits::apply(&plan.limits, outer, launcher.group, proc.as_fd())?;
    let Root { log, outer_proc } = mounts::build(&plan, proc)?;
    drop_capabilities(if has_image { LAST_CAPABILITY } else { CapabilitySet::empty() })?;
    if let Some(filters) = launcher.filters.filter(|_| plan.birth != Birth::Capture) {
        filters.install(plan.io_uring).map_err(|error| filter_refused(&error))?;
    }
    let grounds = Grounds {
        log,
        outer_proc,
        notify: NOTIFY_SOCKET.to_owned(),
        when_ready: plan.when_ready,
        host: None,
    };
    Ok((plan.birth, plan.server, grounds))
}

/// One id, mapped to the user outside. setgroups(2) must be given up first, user_namespaces(7).
fn map_ids(outer: Outer) -> Result<(), Failure> {
    for (file, line) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{INNER_ID} {} 1", outer.uid)),
        ("/proc/self/gid_map", format!("{INNER_ID} {} 1", outer.gid)),
    ] {
        std::fs::write(file, line).map_err(|error| Failure::io(Step::MapIds, file, &error))?;
    }
    Ok(())
}

/// Lets a process say of itself which program it is, PR_SET_MM_EXE_FILE(2const).
const LAST_CAPABILITY: CapabilitySet = CapabilitySet::CHECKPOINT_RESTORE;

/// Empties all five capability sets but for what is `kept`, and forbids gaining any by execve(2), capabilities(7).
fn drop_capabilities(kept: CapabilitySet) -> Result<(), Failure> {
    let drop_all = || {
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not know yet.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        clear_ambient_capability_set()?;
        set_no_new_privs(true)?;
        hold(kept)
    };
    drop_all().map_err(|errno| Failure::new(Step::Capabilities, "all capabilities", errno))
}

/// Ends what [`prepare`] has left of them.
pub(super) fn give_up_last_capability() -> Result<(), Failure> {
    hold(CapabilitySet::empty()).map_err(|errno| Failure::new(Step::Capabilities, "all capabilities", errno))
}

fn hold(capabilities: CapabilitySet) -> Result<(), Errno> {
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: capabilities, permitted: capabilities, inheritable })
}

fn filter_refused(error: &seccompiler::Error) -> Failure {
    match error {
        seccompiler::Error::Seccomp(cause) | seccompiler::Error::Prctl(cause) => {
            Failure::io(Step::Filter, "", cause)
        }
        other => Failure { step: Step::Filter, object: String::new(), errno: 0, detail: other.to_string() },
    }
}

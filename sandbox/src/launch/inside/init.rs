//! PID 1 of a container: builds the root, starts the server, reaps, and dies with the test process.
//!
//! When PID 1 dies, the kernel kills every process of the pid namespace and frees its mounts, tmpfs
//! and network: no clean-up code can be forgotten.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::CapabilitySet;

use super::cgroup::Controllers;
use super::child::{begin, send};
use super::limits;
use super::mounts::{self, Root};
use super::privileges::{HostUser, RESTORE, drop_capabilities, drop_last_capability, map_ids};
use super::seccomp::{self, Filters};
use super::supervisor::{ServerContext, Supervisor};
use crate::launch::command::Command;
use crate::launch::image::{self, Handles, InheritedMemory};
use crate::launch::plan::NOTIFY_SOCKET;
use crate::launch::protocol::{Event, Failure, Holds, LaunchStep, NoImage, StartMethod, Up};
use crate::sys::process::{FreshProcess, loopback_up};

/// State that the launcher has prepared for all inits.
#[derive(Debug)]
pub(super) struct Inherited<'a> {
    pub(super) user: HostUser,
    pub(super) filters: Option<&'a Filters>,
    /// The limits that the control group of this process enforces.
    pub(super) group: Controllers,
    /// Memory of the checkpoint that is resumed.
    pub(super) memory: Option<InheritedMemory>,
}

/// The life of an init. Runs in the child just cloned.
pub(super) fn main(
    fresh: FreshProcess,
    control: &OwnedFd,
    plan: OwnedFd,
    start: StartMethod<File>,
    inherited: Inherited<'_>,
) {
    if let Err(failure) = live(fresh, control, plan, start, inherited) {
        send(control, &Event::Failed(failure), &[]);
    }
}

fn live(
    fresh: FreshProcess,
    control: &OwnedFd,
    plan: OwnedFd,
    start: StartMethod<File>,
    inherited: Inherited<'_>,
) -> Result<(), Failure> {
    // The second line of defence, if this process is stopped; the first is the control socket's end
    // of file.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let mut plan = begin(fresh, control, plan, start.image())?;
    let server = match (plan.server.take(), start) {
        (Some(command), start) => Some((command, start)),
        (None, StartMethod::Execute) => None,
        (None, _) => return Err(Failure::other(LaunchStep::Receive, "", "an image came without a server")),
    };
    map_ids(inherited.user)?;
    loopback_up().map_err(|errno| Failure::new(LaunchStep::Loopback, "lo", errno))?;
    rustix::system::sethostname(b"sandbox")
        .map_err(|errno| Failure::new(LaunchStep::Hostname, "sandbox", errno))?;
    let proc = mounts::proc()?;
    limits::apply(&plan.limits, inherited.user, inherited.group, proc.as_fd())?;
    let resumes = matches!(server, Some((_, StartMethod::Resume(_))));
    let Root { log, outer_proc, handles } = mounts::build(&plan, proc, resumes)?;
    let handles = Handles { memory: inherited.memory.into(), ..handles };
    drop_capabilities(match server {
        None | Some((_, StartMethod::Execute)) => CapabilitySet::empty(),
        Some(_) => RESTORE,
    })?;
    let (ready, when_ready, env) = (plan.ready, plan.when_ready, plan.env);
    let notify = NOTIFY_SOCKET.to_owned();
    let context = ServerContext { log, notify, ready, when_ready, handles, env, host: None };
    let up = Up { outer_proc, filtered: inherited.filters.is_some(), ..Up::default() };
    if let Some((command, StartMethod::Capture(image))) = server {
        return capture(control, command, image, &context, up, inherited.filters);
    }
    if let Some(filters) = inherited.filters {
        filters.install(plan.io_uring).map_err(|error| filter_refused(&error))?;
    }
    Supervisor::start(control, server, &context, up)?.supervise();
    Ok(())
}

/// The life of a container that exists to make an image.
fn capture(
    control: &OwnedFd,
    server: Command,
    image: File,
    context: &ServerContext,
    up: Up,
    filters: Option<&Filters>,
) -> Result<(), Failure> {
    let server = context.resolve(&context.server(server));
    send(control, &Event::Up(up), &[&context.log]);
    drop_last_capability()?;
    // The filter forbids ptrace(2), so it is installed in the traced program and not here.
    let filters = filters.cloned();
    let filter = move || match &filters {
        Some(filters) => filters.install(false).map_err(io::Error::other),
        None => Ok(()),
    };
    let refused = image::capture(&server, &image, filter).err().map(|error| match error.raw_os_error() {
        // Its linker met a shortage, or it was killed.
        Some(libc::ESRCH) => NoImage::new("it ends before it begins", Holds::Pause),
        _ => error.into(),
    });
    send(control, &Event::Captured(refused), &[]);
    Ok(())
}

fn filter_refused(error: &seccomp::Error) -> Failure {
    match error {
        seccomp::Error::Seccomp(cause) | seccomp::Error::Prctl(cause) => {
            Failure::io(LaunchStep::Filter, "", cause)
        }
        other => Failure::other(LaunchStep::Filter, "", &other.to_string()),
    }
}

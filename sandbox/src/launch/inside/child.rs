//! The first steps of each child of the launcher, init and the supervisor of process mode, and its
//! reports.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{setsid, umask};

use crate::launch::plan::Plan;
use crate::launch::protocol::{Event, Failure, LaunchStep, encode};
use crate::sys::process::{FreshProcess, reset_signals};
use crate::sys::socket;

/// Closes all inherited descriptors but those given, leaves the launcher's session, and reads the
/// plan.
pub(super) fn begin(
    fresh: FreshProcess,
    control: &OwnedFd,
    plan: OwnedFd,
    image: Option<&File>,
) -> Result<Plan, Failure> {
    // Standard input is the launcher's socket: a copy of it would hide the test process's death
    // from the launcher.
    let device = |error: io::Error| Failure::io(LaunchStep::HostTree, "/dev/null", &error);
    let null = File::open("/dev/null").map_err(device)?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| device(errno.into()))?;
    let kept = [Some(control.as_fd()), Some(plan.as_fd()), image.map(AsFd::as_fd)].into_iter().flatten();
    drop(null);
    fresh
        .keep_only(&kept.collect::<Vec<_>>())
        .map_err(|errno| Failure::new(LaunchStep::Descriptors, "", errno))?;
    reset_signals();
    let _ = setsid();
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut bytes = Vec::new();
    let failed = |error: &io::Error| Failure::io(LaunchStep::Receive, "", error);
    File::from(plan).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(&error.into()))
}

/// Sends a report. A report that cannot be sent has no reader left: end of file follows.
pub(super) fn send(control: &OwnedFd, event: &Event, fds: &[&File]) {
    let fds: Vec<_> = fds.iter().map(|file| file.as_fd()).collect();
    let _ = socket::send(control.as_fd(), &encode(event).expect("an event holds no path"), &fds);
}

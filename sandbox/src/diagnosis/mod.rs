//! The cause of a failure and its fix: a refused launch step, a limit of this process, a limit of
//! the sandbox.

#[cfg(test)]
mod answers_tests;
mod host_facts;
#[cfg(test)]
mod host_facts_tests;
mod kernels;
mod launch_step;
pub(crate) mod limits;
mod outer_container;
mod own_limits;
#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use host_facts::HostFacts;
pub(crate) use kernels::shortcoming;
pub(crate) use launch_step::fix;
pub(crate) use own_limits::too_low;

use crate::error::{Error, ErrorKind, Result};
use crate::fix::Fix;
use crate::launch::{Failure, LaunchError, LaunchStep};
use crate::machine::rlimit::Resource;

/// Returns the error of a failed launch, with the cause and the fix for this machine if they are
/// known.
pub(crate) fn explain(error: LaunchError) -> Error {
    match error {
        LaunchError::Failed(failure) => worded(&failure, &HostFacts::read(Path::new("/"))),
        // A launcher that ended without a report, for example.
        LaunchError::Other(error) if error.kind() == ErrorKind::Launch => error.or_fix(own_limit_too_low),
        LaunchError::Other(error) => error,
    }
}

fn worded(failure: &Failure, facts: &HostFacts) -> Error {
    let mut step = format!("launch the sandbox: {}", failure.step);
    if !failure.object.is_empty() {
        step = format!("{step} `{}`", failure.object);
    }
    let error = |kind| Error::new(kind, step).caused_by(failure.clone());
    match (fix(failure, facts), failure.step, failure.errno) {
        (Some(fix), ..) => error(ErrorKind::HostUnsupported).with_fix(fix),
        (None, LaunchStep::Execute, libc::ENOENT | libc::EACCES | libc::ENOEXEC) => error(
            ErrorKind::InvalidConfig,
        )
        .with_hint("the installation is incomplete: install all of the server's and the client's programs"),
        _ => error(ErrorKind::Launch),
    }
}

/// Returns the fix for the first limit of this process that is too low for a server.
pub(crate) fn own_limit_too_low() -> Option<Fix> {
    too_low(&HostFacts::read(Path::new("/")))
}

/// Returns an error if this process may not write the files of a layer: the kernel would kill it
/// for the attempt (SIGXFSZ).
pub(crate) fn check_file_size(step: &str) -> Result<()> {
    match own_limits::check(Resource::FileSize, Resource::FileSize.own()) {
        Some(fix) => Err(Error::new(ErrorKind::HostUnsupported, step).with_fix(fix)),
        None => Ok(()),
    }
}

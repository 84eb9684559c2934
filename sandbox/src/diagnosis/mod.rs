//! Why a machine refuses a container: from the failed step, its errno and a few facts to one sentence and one command.

#[cfg(test)]
mod answers_tests;
mod host_facts;
#[cfg(test)]
mod host_facts_tests;
mod kernels;
mod launch_step;
pub(crate) mod limits;
mod mountinfo;
mod outer_container;
#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use host_facts::HostFacts;
pub(crate) use kernels::shortcoming;
pub(crate) use launch_step::fix;
pub(crate) use mountinfo::of as mount_of;

use crate::error::{Error, ErrorKind};
use crate::launch::{Failure, LaunchError, LaunchStep};

/// Returns the error of a failed launch, with the fix for this machine.
pub(crate) fn explain(error: LaunchError) -> Error {
    match error {
        LaunchError::Failed(failure) => worded(&failure, &HostFacts::read(Path::new("/"))),
        LaunchError::Other(error) => error,
    }
}

fn worded(failure: &Failure, facts: &HostFacts) -> Error {
    let fix = fix(failure, facts);
    let kind = match (&fix, failure.step, failure.errno) {
        (None, LaunchStep::Execute, libc::ENOENT | libc::EACCES | libc::ENOEXEC) => ErrorKind::InvalidConfig,
        (None, _, _) => ErrorKind::Launch,
        (Some(_), _, _) => ErrorKind::HostUnsupported,
    };
    let mut step = failure.step.to_string();
    if !failure.object.is_empty() {
        step = format!("{step} `{}`", failure.object);
    }
    let error = Error::new(kind, format!("launch the sandbox: {step}")).caused_by(failure.clone());
    match fix {
        Some(fix) => error.with_fix(fix),
        None if kind == ErrorKind::InvalidConfig => error
            .with_hint("the installation is not complete: install all of the server's and client's programs"),
        None => error,
    }
}

//! Why a machine refuses a container: from the failed step, its errno and a few facts to one sentence and one command.

#[cfg(test)]
mod answers_tests;
mod around;
mod facts;
#[cfg(test)]
mod facts_tests;
mod kernels;
mod mountinfo;
mod remedies;
#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use facts::Facts;
pub(crate) use kernels::shortcoming;
pub(crate) use mountinfo::of as mount_of;
pub(crate) use remedies::remedy;

use crate::error::{Error, ErrorKind};
use crate::launch::{Failure, Step};

/// The error for a failed launch.
pub(super) fn explain(failure: &Failure) -> Error {
    worded(failure, &Facts::read(Path::new("/")))
}

fn worded(failure: &Failure, facts: &Facts) -> Error {
    let remedy = remedy(failure, facts);
    let kind = match (&remedy, failure.step, failure.errno) {
        (None, Step::Execute, libc::ENOENT | libc::EACCES | libc::ENOEXEC) => ErrorKind::InvalidConfig,
        (None, _, _) => ErrorKind::Launch,
        (Some(_), _, _) => ErrorKind::HostUnsupported,
    };
    let mut step = failure.step.to_string();
    if !failure.object.is_empty() {
        step = format!("{step} `{}`", failure.object);
    }
    let error = Error::new(kind, format!("launch the sandbox: {step}")).caused_by(failure.clone());
    match remedy {
        Some(remedy) => error.with_remedy(remedy),
        None if kind == ErrorKind::InvalidConfig => error
            .with_hint("the installation is not complete: install all of the server's and client's programs"),
        None => error,
    }
}

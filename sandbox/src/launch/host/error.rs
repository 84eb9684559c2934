//! The error of a launch, before a cause and a fix for it are sought.

use std::fmt;

use crate::error::Error;
use crate::launch::protocol::Failure;

/// An error of a container. The floors above turn it into an [`Error`] with a fix for this machine.
#[derive(Debug, Clone)]
pub(crate) enum LaunchError {
    /// A step failed, for a reason that this machine's configuration may explain.
    Failed(Failure),
    Other(Error),
}

impl From<Failure> for LaunchError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for LaunchError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => write!(f, "{} `{}`: {failure}", failure.step, failure.object),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LaunchError {}

/// A result whose error is a [`LaunchError`].
pub(super) type Result<T, E = LaunchError> = std::result::Result<T, E>;

//! Results of tests.

use std::cell::Cell;
use std::fmt::Debug;
use std::process::{ExitCode, Termination};

/// A type that a test can return.
#[diagnostic::on_unimplemented(
    message = "a test cannot return `{Self}`",
    label = "expected `()`, `Result<(), E>` with an `E` that implements `Debug`, or another type that implements `Termination`"
)]
pub trait TestOutcome {
    /// Prints the error, if there is one.
    fn report(self) -> ExitCode;
}

#[diagnostic::do_not_recommend]
impl<T: Termination> TestOutcome for T {
    fn report(self) -> ExitCode {
        Termination::report(self)
    }
}

/// Returns the exit code of a plain test's result.
pub fn returned<T: TestOutcome>(outcome: T) -> ExitCode {
    outcome.report()
}

thread_local!(static ERROR: Cell<Option<String>> = const { Cell::new(None) });

/// Takes the error that the test of this thread returned.
pub(super) fn take_error() -> Option<String> {
    ERROR.take()
}

/// The value that a test returned. Only the compiler can recognise a `Result` under any name: it
/// finds the method of `Returned<Result<_, _>>` before the trait's.
#[derive(Debug)]
pub struct Returned<T>(pub T);

impl<T, E: Debug> Returned<Result<T, E>> {
    /// Notes the error for the report.
    pub fn noted(self) -> Result<T, E> {
        if let Err(error) = &self.0 {
            ERROR.set(Some(format!("{error:?}")));
        }
        self.0
    }
}

/// A value of any other type.
pub trait Noted<T> {
    /// Notes nothing.
    fn noted(self) -> T;
}

impl<T> Noted<T> for Returned<T> {
    fn noted(self) -> T {
        self.0
    }
}

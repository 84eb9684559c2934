//! What a test can return.

use std::process::{ExitCode, Termination};

/// A type that a test can return.
#[diagnostic::on_unimplemented(
    message = "a test cannot return `{Self}`",
    label = "expected `()`, `Result<(), E>` with an `E` that implements `Debug`, or what else implements `Termination`"
)]
pub trait Outcome {
    /// Prints the error, if there is one.
    fn report(self) -> ExitCode;
}

#[diagnostic::do_not_recommend]
impl<T: Termination> Outcome for T {
    fn report(self) -> ExitCode {
        Termination::report(self)
    }
}

/// What became of a test that is no `async fn`.
pub fn returned<T: Outcome>(outcome: T) -> ExitCode {
    outcome.report()
}

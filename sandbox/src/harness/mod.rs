//! What `#[sandboxed_db]` expands into. Not for direct use: it may change with any version.

mod databases;
mod failure;
mod missing;
mod parameter;
mod runtime;
mod single_parameter;
mod test_outcome;

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use crate::engine::{Engine, Postgres};
use crate::error::Error;
use crate::report::with_causes;
use crate::snapshot::Snapshot;
use crate::test_id::Function;

pub use databases::{Databases, Lease, Leases, Witness};
pub use parameter::{Asked, ByTrait, Ready, Unmade};
#[cfg(feature = "tokio")]
pub use runtime::Flavor;
pub use runtime::Waiter;
#[cfg(feature = "tokio")]
pub use single_parameter::AsyncBody;
pub use test_outcome::{Noted, Outcome, Returned, returned};

/// Which test runs, and how its outcome is judged.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    manifest_dir: &'static str,
    module: &'static str,
    name: &'static str,
    should_panic: Option<&'static str>,
}

/// One of the tests that a list of engines or versions makes of a function.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name of the test in its module.
    pub name: &'static str,
    /// Which of the engines.
    pub engine: usize,
    /// Which version of it, if there is a list of them.
    pub version: &'static str,
}

impl Test {
    #[must_use]
    pub const fn new(manifest_dir: &'static str, module: &'static str, name: &'static str) -> Self {
        Self { manifest_dir, module, name, should_panic: None }
    }

    /// The test is marked `#[should_panic]`, with what is expected of the panic's words; by default nothing, that is all.
    #[must_use]
    pub const fn should_panic(mut self, expected: &'static str) -> Self {
        self.should_panic = Some(expected);
        self
    }

    const fn function(self) -> Function {
        Function { module: self.module, name: self.name }
    }

    /// The description that the attribute's arguments extend.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.extend(Snapshot::new(Postgres::new()))
    }

    /// The same, where the attribute names a description to begin with.
    #[must_use]
    pub fn extend<E: Engine>(&self, snapshot: Snapshot<E>) -> Snapshot<E> {
        snapshot.for_package(Path::new(self.manifest_dir))
    }
}

/// The test itself: it makes its parameters, runs and judges what is returned.
///
/// It captures nothing, so that what calls it is compiled once for all tests of a crate; what rstest has filled comes as `F`.
pub type Body<D, F> = fn(&<D as Databases>::Leases, &Waiter, F) -> ExitCode;

/// Runs a test that is no `async fn`.
pub fn run<D: Databases, F>(test: Test, databases: D, filled: F, body: Body<D, F>) -> ExitCode {
    judge(test, databases, |leases| body(leases, &Waiter::default(), filled))
}

/// Runs an asynchronous test on a runtime of its own.
#[cfg(feature = "tokio")]
pub fn run_async<D: Databases, F>(
    test: Test,
    flavor: Flavor,
    databases: D,
    filled: F,
    body: Body<D, F>,
) -> ExitCode {
    // The servers are started before the runtime is, so no task of it waits for them.
    judge(test, databases, |leases| Waiter::of_async(flavor).within(|waiter| body(leases, waiter, filled)))
}

/// Starts what the test asks for, runs it, and tells of its failure before its servers are gone.
fn judge<D: Databases>(test: Test, databases: D, body: impl FnOnce(&D::Leases) -> ExitCode) -> ExitCode {
    let mut witnesses = Vec::new();
    let leases = match databases.start(test, &mut witnesses) {
        Ok(leases) => leases,
        Err(error) => {
            let error = match missing::may_be_skipped(&error) {
                Ok(true) => return skip(test, &error),
                Ok(false) => error,
                Err(unclear) => unclear,
            };
            note_outcome(&witnesses, Some(&format!("could not {}", with_causes(&error))));
            return not_run(test, &format!("{error:?}"));
        }
    };
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(&leases)));
    let failed = match &outcome {
        Ok(code) => *code != ExitCode::SUCCESS,
        Err(payload) => test.should_panic.is_none() || payload.is::<Unmade>(),
    };
    let passed = !failed && outcome.is_err() == test.should_panic.is_some();
    let reason = (!passed).then(|| reason(&outcome));
    note_outcome(&witnesses, reason.as_deref());
    if failed {
        leases.diagnose();
    }
    failure::tell(test, &witnesses, failed);
    drop((leases, witnesses));
    match outcome {
        Ok(code) => code,
        Err(payload) => match payload.downcast::<Unmade>() {
            Ok(unmade) => not_run(test, &unmade.to_string()),
            Err(payload) => panic::resume_unwind(payload),
        },
    }
}

/// Records the outcome of a test for each of its sandboxes: passed, unless there is a reason why it failed.
fn note_outcome(witnesses: &[Witness], failure: Option<&str>) {
    witnesses.iter().for_each(|witness| witness.report.judged(failure));
}

/// Returns the reason why a test failed: the panic's message or the returned error.
fn reason(outcome: &thread::Result<ExitCode>) -> String {
    let error = test_outcome::take_error();
    let payload = match outcome {
        Ok(code) if *code == ExitCode::SUCCESS => return "the test did not panic as expected".to_owned(),
        Ok(_) => return error.unwrap_or_else(|| "the test returned a failure".to_owned()),
        Err(payload) => payload,
    };
    if let Some(unmade) = payload.downcast_ref::<Unmade>() {
        return unmade.to_string();
    }
    let message = payload.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| payload.downcast_ref::<&str>().copied());
    message.unwrap_or("the test panicked without a message").to_owned()
}

/// A test that could not be run fails; one that must panic fails by not panicking.
fn not_run(test: Test, why: &str) -> ExitCode {
    assert!(test.should_panic.is_some(), "{why}");
    failure::print(why);
    ExitCode::SUCCESS
}

/// libtest knows no skipping at run time, so the test passes; one that must panic does, and no hook tells of it.
fn skip(test: Test, why: &Error) -> ExitCode {
    let Test { module, name, .. } = test;
    failure::print(&format!("sandboxed-db: skipped `{module}::{name}`: {why:?}"));
    match test.should_panic {
        None => ExitCode::SUCCESS,
        Some(expected) => panic::resume_unwind(Box::new(expected)),
    }
}

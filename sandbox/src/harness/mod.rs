//! The runtime part of `#[sandboxed_db]`. Not for direct use: it may change with any version.

mod databases;
mod discovery;
mod failure;
#[cfg(feature = "registries")]
mod images;
mod missing;
mod parameter;
mod runtime;
mod session;
mod single_parameter;
mod test_outcome;

use std::panic::{self, AssertUnwindSafe, Location};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

#[cfg(feature = "toml")]
use crate::engine::Described;
use crate::engine::{Engine, Postgres};
use crate::environment::ONLY;
use crate::error::Error;
use crate::report::with_causes;
use crate::snapshot::Snapshot;
use crate::test_id::Function;

pub use crate::machine::search::not_executed;
pub use crate::sandbox::KeepOutcome;
pub use databases::{Databases, Lease, Leases, Witness};
#[cfg(feature = "registries")]
pub use images::{UpdatedImage, update_images};
pub use parameter::{Asked, ByTrait, Ready, Unmade};
#[cfg(feature = "tokio")]
pub use runtime::Flavor;
pub use runtime::Waiter;
pub use session::{Session, SessionEnd};
#[cfg(feature = "tokio")]
pub use single_parameter::AsyncBody;
pub use test_outcome::{Noted, Returned, TestOutcome, returned};

/// The identity of a test, and the outcome that is expected of it.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    manifest_dir: &'static str,
    module: &'static str,
    name: &'static str,
    should_panic: Option<&'static str>,
}

/// One of the tests that a list of engines or versions makes from a function.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name of the test in its module.
    pub name: &'static str,
    /// Index of the engine.
    pub engine: usize,
    /// Version of the engine, if there is a list of versions.
    pub version: &'static str,
}

impl Test {
    #[must_use]
    pub const fn new(manifest_dir: &'static str, module: &'static str, name: &'static str) -> Self {
        Self { manifest_dir, module, name, should_panic: None }
    }

    /// Marks a test with `#[should_panic]` and the expected part of the message, which may be
    /// empty.
    #[must_use]
    pub const fn should_panic(mut self, expected: &'static str) -> Self {
        self.should_panic = Some(expected);
        self
    }

    const fn function(self) -> Function {
        Function { module: self.module, name: self.name }
    }

    /// Returns the description of a fresh server, which the arguments of the attribute extend.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.extend(Snapshot::new(Postgres::new()))
    }

    /// Returns the description of a fresh server of the engine that a file in the package of the
    /// test describes. A mistake in it is the error of the start.
    #[cfg(feature = "toml")]
    #[must_use]
    pub fn described(&self, file: &str) -> Snapshot<Described> {
        let package = self.snapshot().package_directory().to_owned();
        self.extend(Snapshot::new(Described::or_mistake(&package.join(file))))
    }

    /// Returns the description that the arguments extend, from one that the attribute names.
    #[must_use]
    pub fn extend<E: Engine>(&self, snapshot: Snapshot<E>) -> Snapshot<E> {
        snapshot.for_package(Path::new(self.manifest_dir))
    }
}

/// The body of a test, which makes the parameters and calls the function.
///
/// It captures nothing, so that its callers are compiled once for all tests of a crate. Values from
/// cases and fixtures are passed as `F`.
pub type Body<D, F> = fn(&<D as Databases>::Leases, &Waiter, F) -> ExitCode;

/// Runs a plain test.
#[track_caller]
pub fn run<D: Databases, F>(test: Test, databases: D, filled: F, body: Body<D, F>) -> ExitCode {
    judge(test, databases, |leases| body(leases, &Waiter::default(), filled))
}

/// Runs an `async` test on its own runtime.
#[cfg(feature = "tokio")]
#[track_caller]
pub fn run_async<D: Databases, F>(
    test: Test,
    flavor: Flavor,
    databases: D,
    filled: F,
    body: Body<D, F>,
) -> ExitCode {
    // Servers start before the runtime, so that no task waits for them.
    judge(test, databases, |leases| Waiter::of_async(flavor).within(|waiter| body(leases, waiter, filled)))
}

/// Starts the servers of a test, runs it, and reports a failure before the servers are gone.
#[track_caller]
fn judge<D: Databases>(test: Test, databases: D, body: impl FnOnce(&D::Leases) -> ExitCode) -> ExitCode {
    // Other words are refused at the start.
    if matches!(ONLY.word(), Ok(Some("layers"))) {
        let why = format!("its layers are prepared, and {}=layers runs no test", ONLY.name);
        return databases.prepare().map_or_else(|error| not_started(test, &[], error), |()| skip(test, &why));
    }
    let mut witnesses = Vec::new();
    let leases = match databases.start(test, &mut witnesses) {
        Ok(leases) => leases,
        Err(error) => return not_started(test, &witnesses, error),
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
    failure::print_reports(test, &witnesses, failed);
    drop((leases, witnesses));
    match outcome {
        Ok(code) => code,
        Err(payload) => match payload.downcast::<Unmade>() {
            Ok(unmade) => not_run(test, unmade.to_string()),
            Err(payload) => panic::resume_unwind(payload),
        },
    }
}

/// Skips or fails a test whose servers cannot be started.
#[track_caller]
fn not_started(test: Test, witnesses: &[Witness], error: Error) -> ExitCode {
    let error = match missing::may_be_skipped(&error) {
        Ok(true) => return skip(test, &format!("{error:?}")),
        Ok(false) => error,
        Err(unclear) => unclear,
    };
    note_outcome(witnesses, Some(&format!("could not {}", with_causes(&error))));
    not_run(test, format!("{error:?}"))
}

/// Records the outcome of a test for each of its sandboxes: passed, unless there is a reason why it
/// failed.
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

/// Fails a test that could not run; a `#[should_panic]` test fails by not panicking.
///
/// Points at the test. No panic hook runs, since a backtrace would lead into this library.
#[track_caller]
fn not_run(test: Test, why: String) -> ExitCode {
    failure::print(&format!("{}: {why}", Location::caller()));
    match test.should_panic {
        Some(_) => ExitCode::SUCCESS,
        None => panic::resume_unwind(Box::new(why)),
    }
}

/// Passes a test that is skipped, since libtest cannot skip at run time. A `#[should_panic]` test
/// passes by a panic that runs no hook.
fn skip(test: Test, why: &str) -> ExitCode {
    let Test { module, name, .. } = test;
    failure::print(&format!("sandboxed-db: skipped `{module}::{name}`: {why}"));
    match test.should_panic {
        None => ExitCode::SUCCESS,
        Some(expected) => panic::resume_unwind(Box::new(expected)),
    }
}

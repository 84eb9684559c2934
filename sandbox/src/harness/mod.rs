//! What `#[sandboxed_db]` expands into. Not for direct use: it may change with any version.

mod databases;
mod failure;
mod outcome;
mod parameter;
mod runtime;

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;

use crate::engine::{Engine, Postgres};
use crate::origin::Function;
use crate::report;
use crate::snapshot::Snapshot;

pub use databases::{Databases, Lease, Leases, Witness};
pub use outcome::Outcome;
pub use parameter::{Asked, ByItself, ByTrait, Kind, Ready, Unmade};
#[cfg(feature = "tokio")]
pub use runtime::Flavor;
pub use runtime::Waiter;
#[cfg(feature = "postgres")]
pub(crate) use runtime::runs_async_test;

/// Which test runs, and how its outcome is judged.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    manifest_dir: &'static str,
    module: &'static str,
    name: &'static str,
    should_panic: bool,
}

impl Test {
    #[must_use]
    pub const fn new(manifest_dir: &'static str, module: &'static str, name: &'static str) -> Self {
        Self { manifest_dir, module, name, should_panic: false }
    }

    /// The test is marked `#[should_panic]`.
    #[must_use]
    pub const fn should_panic(mut self) -> Self {
        self.should_panic = true;
        self
    }

    const fn function(self) -> Function {
        Function { module: self.module, name: self.name }
    }

    /// The description that the attribute's arguments extend.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        // Where the test is run by cargo or nextest that is their word, since the package may have moved since.
        Snapshot::new(Postgres::new()).with_default_base(Path::new(self.manifest_dir))
    }

    /// The same, where the attribute names a description to begin with.
    #[must_use]
    pub fn extend<E: Engine>(&self, snapshot: Snapshot<E>) -> Snapshot<E> {
        snapshot.with_default_base(Path::new(self.manifest_dir))
    }
}

/// Runs a test that is no `async fn`.
pub fn run<D: Databases, R: Outcome>(
    test: Test,
    databases: D,
    body: impl FnOnce(&D::Leases, &Waiter) -> Result<R, Unmade>,
) -> ExitCode {
    judge(test, databases, |leases| {
        let waiter = Waiter::default();
        body(leases, &waiter)
    })
}

/// Runs an asynchronous test on a runtime of its own.
#[cfg(feature = "tokio")]
pub fn run_async<D: Databases, R: Outcome>(
    test: Test,
    flavor: Flavor,
    databases: D,
    body: impl AsyncFnOnce(&D::Leases) -> Result<R, Unmade>,
) -> ExitCode {
    // The servers are started before the runtime is, so no task of it waits for them.
    judge(test, databases, |leases| flavor.block_on(body(leases)))
}

/// Starts what the test asks for, runs it, and tells of its failure before its servers are gone.
fn judge<D: Databases, R: Outcome>(
    test: Test,
    databases: D,
    body: impl FnOnce(&D::Leases) -> Result<R, Unmade>,
) -> ExitCode {
    let mut witnesses = Vec::new();
    let leases = match databases.start(test, &mut witnesses) {
        Ok(leases) => leases,
        Err(error) => {
            note_outcome(&witnesses, report::Outcome::Failed);
            return not_run(test, &format!("{error:?}"));
        }
    };
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(&leases).map(Outcome::report)));
    let failed = match &outcome {
        Ok(Ok(code)) => *code != ExitCode::SUCCESS,
        Ok(Err(_)) => true,
        Err(_) => !test.should_panic,
    };
    let passed = !failed && outcome.is_err() == test.should_panic;
    note_outcome(&witnesses, if passed { report::Outcome::Passed } else { report::Outcome::Failed });
    if failed {
        leases.diagnose();
    }
    failure::tell(test, &witnesses, failed);
    drop((leases, witnesses));
    match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(unmade)) => not_run(test, &unmade.to_string()),
        Err(payload) => panic::resume_unwind(payload),
    }
}

fn note_outcome(witnesses: &[Witness], outcome: report::Outcome) {
    witnesses.iter().for_each(|witness| witness.report.judged(outcome));
}

/// A test that could not be run fails; one that must panic fails by not panicking.
fn not_run(test: Test, why: &str) -> ExitCode {
    assert!(test.should_panic, "{why}");
    failure::print(why);
    ExitCode::SUCCESS
}

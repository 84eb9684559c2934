//! What `#[sandboxed_db]` expands into. Not for direct use: it may change with any version.

use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use crate::engine::{Engine, Postgres};
use crate::sandbox::{LOG_TAIL, LastWords, PATIENCE, Sandbox};
use crate::snapshot::Snapshot;

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

/// The sandbox of a test, until a parameter takes it.
#[derive(Debug)]
pub struct Lease<E: Engine = Postgres>(Option<Sandbox<E>>);

/// A type that a test can have as its parameter.
#[diagnostic::on_unimplemented(
    message = "a test cannot have a parameter of type `{Self}`",
    label = "expected `Sandbox`, `&Sandbox` or `String` (the URL)"
)]
pub trait Parameter<E: Engine = Postgres> {
    fn from_lease(lease: &mut Lease<E>) -> Self;
}

impl<E: Engine> Parameter<E> for Sandbox<E> {
    fn from_lease(lease: &mut Lease<E>) -> Self {
        lease.0.take().expect("a test has one parameter")
    }
}

impl<E: Engine> Parameter<E> for String {
    fn from_lease(lease: &mut Lease<E>) -> Self {
        lease.0.as_ref().expect("a test has one parameter").url().to_owned()
    }
}

/// A type that a test can return.
#[diagnostic::on_unimplemented(
    message = "a test cannot return `{Self}`",
    label = "expected `()` or `Result<(), E>` with an `E` that implements `Debug`"
)]
pub trait Outcome {
    fn is_failure(&self) -> bool;
    /// What to return from a test that must panic but could not be run.
    fn without_panic() -> Option<Self>
    where
        Self: Sized;
}

impl Outcome for () {
    fn is_failure(&self) -> bool {
        false
    }

    fn without_panic() -> Option<Self> {
        Some(())
    }
}

impl<E: Debug> Outcome for Result<(), E> {
    fn is_failure(&self) -> bool {
        self.is_err()
    }

    fn without_panic() -> Option<Self> {
        None
    }
}

/// Runs a test.
pub fn run<E: Engine, R: Outcome>(
    test: Test,
    snapshot: Snapshot<E>,
    body: impl FnOnce(&mut Lease<E>) -> R,
) -> R {
    let sandbox = match snapshot.start() {
        Ok(sandbox) => sandbox,
        Err(error) => return not_run(test, &error),
    };
    let last_words = sandbox.last_words();
    let pid = sandbox.pid();
    let mut lease = Lease(Some(sandbox));
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| body(&mut lease)));
    if outcome.as_ref().map_or(!test.should_panic, R::is_failure) {
        if let Some(sandbox) = &lease.0 {
            sandbox.diagnose(PATIENCE);
        }
        report(test, pid, &last_words);
    }
    match outcome {
        Ok(outcome) => outcome,
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// Runs an asynchronous test on a runtime of its own.
#[cfg(feature = "tokio")]
pub fn run_async<E: Engine, R: Outcome>(
    test: Test,
    snapshot: Snapshot<E>,
    body: impl AsyncFnOnce(&mut Lease<E>) -> R,
) -> R {
    run(test, snapshot, |lease| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap_or_else(|error| panic!("could not start a tokio runtime: {error}"));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(body(lease))));
        // Tasks that outlive the test must not hold up its end.
        runtime.shutdown_background();
        outcome.unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

/// A test whose sandbox could not be started fails; one that must panic fails by not panicking.
fn not_run<R: Outcome>(test: Test, error: &crate::Error) -> R {
    match R::without_panic().filter(|_| test.should_panic) {
        Some(outcome) => {
            print(&format!("{error:?}"));
            outcome
        }
        None => panic!("{error:?}"),
    }
}

fn report(test: Test, pid: u32, last_words: &LastWords) {
    let Test { module, name, .. } = test;
    let log = last_words.log.tail(LOG_TAIL).unwrap_or_default();
    let mut text = format!("sandboxed-db: the sandbox of `{module}::{name}` was that of pid {pid}");
    if let Some(diagnosis) = last_words.diagnosis.get() {
        text.push_str(&format!("\n  {diagnosis}"));
    }
    if log.trim().is_empty() {
        text.push_str("\n  its server logged nothing");
    } else {
        text.push_str("\n  server log, its end:");
        for line in log.lines() {
            text.push_str(&format!("\n    | {line}"));
        }
    }
    print(&text);
}

#[expect(clippy::print_stderr, reason = "libtest captures it and shows it with the failed test")]
fn print(text: &str) {
    eprintln!("{text}");
}

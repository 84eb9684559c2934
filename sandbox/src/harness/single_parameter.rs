//! Tests with one parameter, taken by value, as most tests are.
//!
//! The function itself is passed on. A closure around it, as in other tests, is one more function
//! to compile for each test of a crate.

use std::process::ExitCode;

use super::{Asked, ByTrait, Test, TestOutcome, Waiter, judge, returned};
use crate::connect::FromSandbox;
use crate::engine::Engine;
use crate::sandbox::Sandbox;
use crate::snapshot::Snapshot;

#[cfg(feature = "tokio")]
pub use with_tokio::AsyncBody;

impl<T> ByTrait<T> {
    /// Runs a plain test.
    #[track_caller]
    pub fn run<E: Engine, O: TestOutcome>(
        &self,
        test: Test,
        database: Snapshot<E>,
        body: fn(T) -> O,
    ) -> ExitCode
    where
        T: FromSandbox<E>,
    {
        judge(test, (database, ()), |leases| {
            let waiter = Waiter::default();
            returned(body(self.make(&leases.0, &waiter).by_value()))
        })
    }

    /// Runs a plain test without arguments, so that no test has code for a description.
    #[track_caller]
    pub fn run_default<O: TestOutcome>(&self, test: Test, body: fn(T) -> O) -> ExitCode
    where
        T: FromSandbox,
    {
        self.run(test, test.discovered(), body)
    }
}

impl<E: Engine> Asked<Sandbox<E>> {
    /// Runs a plain test.
    #[track_caller]
    pub fn run<O: TestOutcome>(
        &self,
        test: Test,
        database: Snapshot<E>,
        body: fn(Sandbox<E>) -> O,
    ) -> ExitCode {
        judge(test, (database, ()), |leases| returned(body(leases.0.take())))
    }
}

impl Asked<Sandbox> {
    /// Runs a plain test without arguments.
    #[track_caller]
    pub fn run_default<O: TestOutcome>(&self, test: Test, body: fn(Sandbox) -> O) -> ExitCode {
        self.run(test, test.discovered(), body)
    }
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::pin::pin;
    use std::process::ExitCode;

    use crate::connect::FromSandbox;
    use crate::engine::Engine;
    use crate::harness::{Asked, ByTrait, Flavor, Test, TestOutcome, Waiter, run_async};
    use crate::sandbox::Sandbox;
    use crate::snapshot::Snapshot;

    /// An `async fn` with one parameter. It hides the type of its future from the function that
    /// runs it.
    pub trait AsyncBody<T> {
        fn run(&self, parameter: T, waiter: &Waiter) -> ExitCode;
    }

    impl<T, F, R, O> AsyncBody<T> for F
    where
        F: Fn(T) -> R,
        R: Future<Output = O>,
        O: TestOutcome,
    {
        fn run(&self, parameter: T, waiter: &Waiter) -> ExitCode {
            waiter.run(pin!(self(parameter)))
        }
    }

    impl<T> ByTrait<T> {
        /// Runs an `async` test on its own runtime.
        #[track_caller]
        pub fn run_async<E: Engine>(
            &self,
            test: Test,
            flavor: Flavor,
            database: Snapshot<E>,
            body: &dyn AsyncBody<T>,
        ) -> ExitCode
        where
            T: FromSandbox<E>,
        {
            run_async(test, flavor, (database, ()), (self, body), |leases, waiter, (asked, body)| {
                body.run(asked.make(&leases.0, waiter).by_value(), waiter)
            })
        }

        /// Runs an `async` test without arguments.
        #[track_caller]
        pub fn run_async_default(&self, test: Test, body: &dyn AsyncBody<T>) -> ExitCode
        where
            T: FromSandbox,
        {
            self.run_async(test, Flavor::CurrentThread, test.discovered(), body)
        }
    }

    impl<E: Engine> Asked<Sandbox<E>> {
        /// Runs an `async` test on its own runtime.
        #[track_caller]
        pub fn run_async(
            &self,
            test: Test,
            flavor: Flavor,
            database: Snapshot<E>,
            body: &dyn AsyncBody<Sandbox<E>>,
        ) -> ExitCode {
            run_async(test, flavor, (database, ()), body, |leases, waiter, body| {
                body.run(leases.0.take(), waiter)
            })
        }
    }

    impl Asked<Sandbox> {
        /// Runs an `async` test without arguments.
        #[track_caller]
        pub fn run_async_default(&self, test: Test, body: &dyn AsyncBody<Sandbox>) -> ExitCode {
            self.run_async(test, Flavor::CurrentThread, test.discovered(), body)
        }
    }
}

//! Tests of one parameter, taken by value: most of all tests.
//!
//! Their function is handed over as it is. A closure around it, as tests of other shapes have, would be one more function for
//! the compiler to check and to compile, of which a crate may have hundreds.

use std::process::ExitCode;

use super::{Asked, ByTrait, Outcome, Test, Waiter, judge, returned};
use crate::connect::FromSandbox;
use crate::engine::Engine;
use crate::sandbox::Sandbox;
use crate::snapshot::Snapshot;

#[cfg(feature = "tokio")]
pub use with_tokio::AsyncBody;

impl<T> ByTrait<T> {
    /// Runs a test that is no `async fn`.
    pub fn run<E: Engine, O: Outcome>(&self, test: Test, database: Snapshot<E>, body: fn(T) -> O) -> ExitCode
    where
        T: FromSandbox<E>,
    {
        judge(test, (database, ()), |leases| {
            let waiter = Waiter::default();
            returned(body(self.make(&leases.0, &waiter).by_value()))
        })
    }

    /// The same, of a test whose attribute says nothing: a description is not made, moved and dropped in each.
    pub fn run_default<O: Outcome>(&self, test: Test, body: fn(T) -> O) -> ExitCode
    where
        T: FromSandbox,
    {
        self.run(test, test.snapshot(), body)
    }
}

impl<E: Engine> Asked<Sandbox<E>> {
    /// Runs a test that is no `async fn`.
    pub fn run<O: Outcome>(&self, test: Test, database: Snapshot<E>, body: fn(Sandbox<E>) -> O) -> ExitCode {
        judge(test, (database, ()), |leases| returned(body(leases.0.take())))
    }
}

impl Asked<Sandbox> {
    /// The same, of a test whose attribute says nothing.
    pub fn run_default<O: Outcome>(&self, test: Test, body: fn(Sandbox) -> O) -> ExitCode {
        self.run(test, test.snapshot(), body)
    }
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::pin::pin;
    use std::process::ExitCode;

    use crate::connect::FromSandbox;
    use crate::engine::Engine;
    use crate::harness::{Asked, ByTrait, Flavor, Outcome, Test, Waiter, run_async};
    use crate::sandbox::Sandbox;
    use crate::snapshot::Snapshot;

    /// An `async fn` of one parameter. Each has a future of its own, so its type must not reach what runs it.
    pub trait AsyncBody<T> {
        fn run(&self, parameter: T, waiter: &Waiter) -> ExitCode;
    }

    impl<T, F, R, O> AsyncBody<T> for F
    where
        F: Fn(T) -> R,
        R: Future<Output = O>,
        O: Outcome,
    {
        fn run(&self, parameter: T, waiter: &Waiter) -> ExitCode {
            waiter.run(pin!(self(parameter)))
        }
    }

    impl<T> ByTrait<T> {
        /// Runs an asynchronous test on a runtime of its own.
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

        /// The same, of a test whose attribute says nothing.
        pub fn run_async_default(&self, test: Test, body: &dyn AsyncBody<T>) -> ExitCode
        where
            T: FromSandbox,
        {
            self.run_async(test, Flavor::CurrentThread, test.snapshot(), body)
        }
    }

    impl<E: Engine> Asked<Sandbox<E>> {
        /// Runs an asynchronous test on a runtime of its own.
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
        /// The same, of a test whose attribute says nothing.
        pub fn run_async_default(&self, test: Test, body: &dyn AsyncBody<Sandbox>) -> ExitCode {
            self.run_async(test, Flavor::CurrentThread, test.snapshot(), body)
        }
    }
}

//! postgres, the blocking client.

use std::error::Error;
use std::thread;

use postgres::{Client, Config, NoTls};

use super::FromSandbox;
use super::blocking::runs_async_test;
use crate::sandbox::Sandbox;

#[diagnostic::do_not_recommend]
impl FromSandbox for Config {
    type Error = postgres::Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        sandbox.url().parse()
    }
}

/// For tests that are not `async`.
#[diagnostic::do_not_recommend]
impl FromSandbox for Client {
    type Error = Box<dyn Error + Send + Sync>;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        if runs_async_test() {
            return Err("`postgres::Client` blocks, which panics in an `async fn`; take a `tokio_postgres::Client`, or \
                        make the test a plain `fn`"
                .into());
        }
        // The client starts a runtime, which panics on a thread that has entered one.
        let connected = thread::scope(|scope| {
            thread::Builder::new()
                .spawn_scoped(scope, || Client::connect(sandbox.url(), NoTls))?
                .join()
                .map_err(|_| -> Self::Error { "the connecting thread panicked".into() })
        })?;
        Ok(connected?)
    }
}

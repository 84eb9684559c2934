//! sqlx.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Error};

use super::FromSandbox;
use crate::sandbox::Sandbox;

impl FromSandbox for PgConnectOptions {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
        sandbox.url().parse()
    }
}

/// For a pool with options of one's own, as `#[sqlx::test]` has it.
impl FromSandbox for (PgPoolOptions, PgConnectOptions) {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
        Ok((PgPoolOptions::new(), PgConnectOptions::from_sandbox(sandbox).await?))
    }
}

/// With sqlx's default options; connected once, so that a server which cannot be reached fails here.
impl FromSandbox for PgPool {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
        let (pool, connection) = <(PgPoolOptions, PgConnectOptions)>::from_sandbox(sandbox).await?;
        pool.connect_with(connection).await
    }
}

impl FromSandbox for PgConnection {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
        PgConnectOptions::from_sandbox(sandbox).await?.connect().await
    }
}

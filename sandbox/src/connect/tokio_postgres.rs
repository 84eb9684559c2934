//! tokio-postgres.

use tokio_postgres::{Client, Config, Error, NoTls};

use super::FromSandbox;
use crate::sandbox::Sandbox;

#[diagnostic::do_not_recommend]
impl FromSandbox for Config {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
        sandbox.url().parse()
    }
}

/// A task drives the connection, and ends with the client or with the test.
#[diagnostic::do_not_recommend]
impl FromSandbox for Client {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
        let (client, connection) = Config::from_sandbox(sandbox).await?.connect(NoTls).await?;
        // The client gets the error with which the connection ends.
        tokio::spawn(connection);
        Ok(client)
    }
}

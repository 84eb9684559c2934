//! tokio-postgres.

use tokio_postgres::{Client, Config, Error, NoTls};

use super::FromSandbox;
use crate::sandbox::Sandbox;

impl FromSandbox for Config {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
        sandbox.url().parse()
    }
}

/// Its connection is driven by a task, which ends with the client or with the test.
impl FromSandbox for Client {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Error> {
        let (client, connection) = Config::from_sandbox(sandbox).await?.connect(NoTls).await?;
        // Why it ended is told to whoever uses the client.
        tokio::spawn(connection);
        Ok(client)
    }
}

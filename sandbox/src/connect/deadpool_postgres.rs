//! deadpool-postgres.

use std::error::Error;

use deadpool_postgres::{Manager, Pool};
use tokio_postgres::{Config, NoTls};

use super::FromSandbox;
use crate::sandbox::Sandbox;

/// The pool connects when a test takes a connection.
#[diagnostic::do_not_recommend]
impl FromSandbox for Pool {
    type Error = Box<dyn Error + Send + Sync>;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        let config: Config = sandbox.url().parse()?;
        Ok(Self::builder(Manager::new(config, NoTls)).build()?)
    }
}

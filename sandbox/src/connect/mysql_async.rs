//! mysql_async.

use mysql_async::{Conn, Error, Opts, Pool, UrlError};

use super::FromSandbox;
use crate::engine::MariaDb;
use crate::sandbox::Sandbox;

#[diagnostic::do_not_recommend]
impl FromSandbox<MariaDb> for Opts {
    type Error = UrlError;

    async fn from_sandbox(sandbox: &Sandbox<MariaDb>) -> Result<Self, UrlError> {
        Self::from_url(sandbox.url())
    }
}

#[diagnostic::do_not_recommend]
impl FromSandbox<MariaDb> for Conn {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox<MariaDb>) -> Result<Self, Error> {
        Self::new(Opts::from_sandbox(sandbox).await?).await
    }
}

/// A pool with the driver's default options. It connects once, so that an unreachable server fails
/// here.
#[diagnostic::do_not_recommend]
impl FromSandbox<MariaDb> for Pool {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox<MariaDb>) -> Result<Self, Error> {
        let pool = Self::new(Opts::from_sandbox(sandbox).await?);
        drop(pool.get_conn().await?);
        Ok(pool)
    }
}

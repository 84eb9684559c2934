//! mysql, the blocking client.

use mysql::{Conn, Error, Opts, OptsBuilder, Pool, PoolConstraints, PoolOpts, UrlError};

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
        Self::new(Opts::from_sandbox(sandbox).await?)
    }
}

/// The pool opens up to a hundred connections, each when it is needed; the driver's default opens
/// ten at once.
#[diagnostic::do_not_recommend]
impl FromSandbox<MariaDb> for Pool {
    type Error = Error;

    async fn from_sandbox(sandbox: &Sandbox<MariaDb>) -> Result<Self, Error> {
        let constraints = const { PoolConstraints::new_const::<1, 100>() };
        let pool = PoolOpts::default().with_constraints(constraints);
        Self::new(OptsBuilder::from_opts(Opts::from_sandbox(sandbox).await?).pool_opts(pool))
    }
}

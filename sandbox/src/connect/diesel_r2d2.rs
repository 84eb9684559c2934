//! Diesel's connection pool.

use diesel::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool, PoolError};

use super::FromSandbox;
use crate::sandbox::Sandbox;

/// The pool opens up to ten connections, each when it is needed; r2d2's default opens all at once.
#[diagnostic::do_not_recommend]
impl FromSandbox for Pool<ConnectionManager<PgConnection>> {
    type Error = PoolError;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, PoolError> {
        Self::builder().min_idle(Some(0)).build(ConnectionManager::new(sandbox.url()))
    }
}

//! Diesel's connection pool.

use diesel::r2d2::{ConnectionManager, Pool, PoolError, R2D2Connection};

use super::FromSandbox;
use crate::sandbox::Sandbox;

/// Returns a pool that opens up to ten connections, each when it is needed; r2d2's default opens
/// all at once.
fn pool<C: R2D2Connection + 'static>(url: &str) -> Result<Pool<ConnectionManager<C>>, PoolError> {
    Pool::builder().min_idle(Some(0)).build(ConnectionManager::new(url))
}

#[cfg(feature = "diesel-r2d2")]
#[diagnostic::do_not_recommend]
impl FromSandbox for Pool<ConnectionManager<diesel::PgConnection>> {
    type Error = PoolError;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, PoolError> {
        pool(sandbox.url())
    }
}

#[cfg(feature = "diesel-mysql-r2d2")]
#[diagnostic::do_not_recommend]
impl FromSandbox<crate::engine::MariaDb> for Pool<ConnectionManager<diesel::MysqlConnection>> {
    type Error = PoolError;

    async fn from_sandbox(sandbox: &Sandbox<crate::engine::MariaDb>) -> Result<Self, PoolError> {
        pool(&super::diesel::mysql_url(sandbox))
    }
}

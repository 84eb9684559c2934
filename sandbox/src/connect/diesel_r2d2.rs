//! diesel's pool of connections.

use diesel::PgConnection;
use diesel::r2d2::{ConnectionManager, Pool, PoolError};

use super::FromSandbox;
use crate::sandbox::Sandbox;

/// It has up to ten connections, each made when it is first needed: r2d2's default makes them all at once.
impl FromSandbox for Pool<ConnectionManager<PgConnection>> {
    type Error = PoolError;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, PoolError> {
        Self::builder().min_idle(Some(0)).build(ConnectionManager::new(sandbox.url()))
    }
}

//! sea-orm.

use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr};

use super::FromSandbox;
use crate::sandbox::Sandbox;

/// A pool with sea-orm's default options, but no log of each statement.
impl FromSandbox for DatabaseConnection {
    type Error = DbErr;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, DbErr> {
        let mut options = ConnectOptions::new(sandbox.url());
        options.sqlx_logging(false);
        Database::connect(options).await
    }
}

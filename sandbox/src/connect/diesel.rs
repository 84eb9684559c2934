//! Diesel.

use diesel::{Connection as _, ConnectionError};

use super::FromSandbox;
use crate::sandbox::Sandbox;

#[cfg(feature = "diesel")]
#[diagnostic::do_not_recommend]
impl FromSandbox for diesel::PgConnection {
    type Error = ConnectionError;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, ConnectionError> {
        Self::establish(sandbox.url())
    }
}

#[cfg(feature = "diesel-mysql")]
#[diagnostic::do_not_recommend]
impl FromSandbox<crate::engine::MariaDb> for diesel::MysqlConnection {
    type Error = ConnectionError;

    async fn from_sandbox(sandbox: &Sandbox<crate::engine::MariaDb>) -> Result<Self, ConnectionError> {
        Self::establish(&mysql_url(sandbox))
    }
}

/// Returns the URL with the socket under the name by which Diesel knows it.
#[cfg(feature = "diesel-mysql")]
pub(super) fn mysql_url(sandbox: &Sandbox<crate::engine::MariaDb>) -> String {
    sandbox.url().replacen("?socket=", "?unix_socket=", 1)
}

//! Diesel.

use diesel::{Connection as _, ConnectionError, PgConnection};

use super::FromSandbox;
use crate::sandbox::Sandbox;

#[diagnostic::do_not_recommend]
impl FromSandbox for PgConnection {
    type Error = ConnectionError;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, ConnectionError> {
        Self::establish(sandbox.url())
    }
}

//! diesel-async.

use std::error::Error;

use diesel_async::{AsyncConnection as _, AsyncPgConnection};

use super::FromSandbox;
use crate::sandbox::Sandbox;

/// Its connection is driven by a task, which ends with it or with the test.
impl FromSandbox for AsyncPgConnection {
    // It is diesel's, which is no dependency without the feature `diesel`.
    type Error = Box<dyn Error + Send + Sync>;

    async fn from_sandbox(sandbox: &Sandbox) -> Result<Self, Self::Error> {
        Ok(Self::establish(sandbox.url()).await?)
    }
}

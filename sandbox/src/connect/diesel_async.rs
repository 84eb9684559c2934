//! diesel-async.

/// Implements the parameter for one version of diesel-async and one database.
macro_rules! parameter {
    ($diesel_async:ident, $engine:ident, $connection:ident) => {
        use std::error::Error;

        use $diesel_async::{AsyncConnection as _, $connection};

        use crate::connect::FromSandbox;
        use crate::engine::$engine;
        use crate::sandbox::Sandbox;

        /// A task drives the connection, and ends with the connection or with the test.
        #[diagnostic::do_not_recommend]
        impl FromSandbox<$engine> for $connection {
            // The exact type is Diesel's, which is a dependency only with the feature `diesel`.
            type Error = Box<dyn Error + Send + Sync>;

            async fn from_sandbox(sandbox: &Sandbox<$engine>) -> Result<Self, Self::Error> {
                Ok(Self::establish(sandbox.url()).await?)
            }
        }
    };
}

#[cfg(feature = "diesel-async-0-7")]
mod postgres_v0_7 {
    parameter!(diesel_async_0_7, Postgres, AsyncPgConnection);
}
#[cfg(feature = "diesel-async-0-8")]
mod postgres_v0_8 {
    parameter!(diesel_async_0_8, Postgres, AsyncPgConnection);
}
#[cfg(feature = "diesel-async")]
mod postgres_v0_9 {
    parameter!(diesel_async, Postgres, AsyncPgConnection);
}
#[cfg(feature = "diesel-async-0-7-mysql")]
mod mariadb_v0_7 {
    parameter!(diesel_async_0_7, MariaDb, AsyncMysqlConnection);
}
#[cfg(feature = "diesel-async-0-8-mysql")]
mod mariadb_v0_8 {
    parameter!(diesel_async_0_8, MariaDb, AsyncMysqlConnection);
}
#[cfg(feature = "diesel-async-mysql")]
mod mariadb_v0_9 {
    parameter!(diesel_async, MariaDb, AsyncMysqlConnection);
}
